//! Processes of pods, as the node sees them: an image without a shell can be killed and frozen too.

use std::fs;
use std::process::Command;

/// The process of a container, by a variable of its environment.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

// === impl Process ===

impl Process {
    /// The one whose environment holds this variable, as `NAME=VALUE`; the cluster must be ours.
    pub fn with(variable: &str) -> Process {
        let entries = fs::read_dir("/proc").expect("there is a proc file system").flatten();
        let pids = entries.filter_map(|it| it.file_name().to_string_lossy().parse::<u32>().ok());
        let has = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
        };
        let found = pids.into_iter().find(has);
        Process(found.unwrap_or_else(|| panic!("no process has {variable}")))
    }

    /// Sends a signal, for example `-KILL`, `-STOP`, `-CONT`.
    pub fn signal(self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.0.to_string()]).status();
        assert!(done.is_ok_and(|it| it.success()), "{} cannot be signalled", self.0);
    }
}
