//! A program that runs while something is measured, and what the kernel knows of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::bench::client::now;

/// A program that was started; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What of a process is in memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    /// All of it, with the pages of its executable (`VmRSS`).
    pub(super) resident_bytes: u64,
    /// What is its own: heap and stacks (`RssAnon`).
    pub(super) anonymous_bytes: u64,
}

/// Programs are ready within some 20 ms; a loaded machine may need a thousand times that.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks. A start is measured with it, so it is far below a millisecond.
const INTERVAL: Duration = Duration::from_micros(100);

/// Variables that would change what a program does behind the back of this one.
const FOREIGN_PREFIXES: [&str; 3] = ["WEIR_", "OTEL_", "RUST_"];

/// Lines of a log that an error shows.
const LOG_LINES: usize = 20;

// === impl Process ===

impl Process {
    /// Starts `command`; what it says goes to a file in `folder`.
    pub(super) fn start(
        name: &str,
        mut command: Command,
        folder: &Path,
    ) -> anyhow::Result<Process> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if FOREIGN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Asks `probe` until it answers; an error if the program ends before, or takes too long.
    pub(super) fn until<T>(&mut self, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let deadline = now() + READY_TIMEOUT;
        loop {
            if let Some(answer) = probe() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}); its log ends with\n{}", self.name, self.log_end());
            }
            if now() > deadline {
                bail!("{} is not ready; its log ends with\n{}", self.name, self.log_end());
            }
            pause(INTERVAL);
        }
    }

    /// The CPU time that it has used.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// What of it is in memory.
    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib * 1_024).with_context(|| format!("/proc tells no {name}"))
        };
        Ok(Memory { resident_bytes: bytes("VmRSS:")?, anonymous_bytes: bytes("RssAnon:")? })
    }

    /// Ends it, without a word to it.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is no error, and there is nobody to tell another one to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of a process and its threads, `self` for this one. From the scheduler, in
/// nanoseconds: `/proc/PID/stat` counts in ticks of 10 ms, which is longer than a turn's.
pub(super) fn cpu(pid: &str) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has just ended has no file any more.
        let figures = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let nanos = figures.split(' ').next().and_then(|nanos| nanos.parse().ok());
        sum += Duration::from_nanos(nanos.unwrap_or(0));
    }
    Ok(sum)
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "no runtime is here that it could block")]
pub(super) fn pause(time: Duration) {
    thread::sleep(time);
}
