//! The metrics registry of a process, and what every process reports of itself.
//!
//! Names are `weir_<subsystem>_<noun>_<unit>`: the registry has the prefix `weir`, a subsystem
//! registers a struct of metrics under `registry.sub_registry_with_prefix("<subsystem>")`. The encoder
//! adds `_total` to counters. Labels are structs of enums, or [`crate::label::Bounded`] values.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

use crate::build;

/// Where the kernel tells a process about itself; absent outside Linux, then the metric is too.
const STATUS: &str = "/proc/self/status";
const OPEN_FILES: &str = "/proc/self/fd";

/// Reads the process's own figures when they are scraped; between scrapes it costs nothing.
#[derive(Debug)]
struct Process;

/// A registry with the prefix `weir`, the build and the process in it.
pub fn registry(program: &'static str) -> Registry {
    let mut registry = Registry::with_prefix("weir");
    let info = Info::new([
        ("program", program),
        ("version", build::VERSION),
        ("commit", build::COMMIT.unwrap_or("unknown")),
    ]);
    registry.register("build", "What was built", info);
    registry.sub_registry_with_prefix("process").register_collector(Box::new(Process));
    registry
}

/// The metrics in the OpenMetrics text format.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string does not fail");
    text
}

// === impl Process ===

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "seconds of CPU are far below 2^52")]
        let cpu = ConstCounter::new(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
        let seconds = Some(&Unit::Seconds);
        cpu.encode(encoder.encode_descriptor(
            "cpu",
            "User and system time spent",
            seconds,
            cpu.metric_type(),
        )?)?;
        let gauges = [
            ("resident_memory", "Memory in RAM", Some(&Unit::Bytes), resident_bytes()),
            ("open_files", "Open file descriptors", None, open_files()),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let kind = gauge.metric_type();
                gauge.encode(encoder.encode_descriptor(name, help, unit, kind)?)?;
            }
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string(STATUS).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_files() -> Option<u64> {
    u64::try_from(fs::read_dir(OPEN_FILES).ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::{encode, registry};

    #[test]
    fn a_subsystem_registers_under_its_prefix_beside_build_and_process() {
        let mut registry = registry("weir-test");
        let draws = Counter::<u64>::default();
        registry.sub_registry_with_prefix("lease").register("draws", "Draws", draws.clone());
        draws.inc();
        let text = encode(&registry);
        assert!(text.contains("weir_lease_draws_total 1\n"), "{text}");
        assert!(text.contains("weir_build_info{program=\"weir-test\""), "{text}");
        assert!(text.contains("weir_process_cpu_seconds_total "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_reports_memory_and_open_files() {
        assert!(super::resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(super::open_files().is_some_and(|files| files >= 3));
    }
}
