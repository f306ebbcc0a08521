//! The machine, and what else runs on it.

use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// What a reader must know of the machine to compare figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// The load average of the minute before the command, per core.
    pub(super) load_before: f64,
}

/// Ticks of `/proc/stat`: 100 to the second on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

// === impl Machine ===

impl Machine {
    /// Asks the kernel.
    pub(super) fn read() -> anyhow::Result<Machine> {
        let cores = available_parallelism()?.get();
        let cpus = read("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg")?;
        let load: f64 = load.split(' ').next().unwrap_or_default().parse()?;
        Ok(Machine {
            cpu: model.map_or("unknown", |(_, model)| model).trim().to_owned(),
            cores,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: load / cores as f64,
        })
    }
}

/// The time for which the machine's cores were busy, all together, since it started. Time that a
/// hypervisor gave to others counts as busy.
pub(super) fn busy() -> anyhow::Result<Duration> {
    let text = read("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let ticks = line.split_whitespace().skip(1).take(8).map(str::parse);
    let ticks: Vec<u32> = ticks.collect::<Result<_, _>>().context("/proc/stat is unreadable")?;
    let idle: u32 = ticks.iter().skip(3).take(2).sum();
    Ok(TICK * (ticks.iter().sum::<u32>() - idle))
}

fn read(path: &'static str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{path} (only Linux has it)"))
}
