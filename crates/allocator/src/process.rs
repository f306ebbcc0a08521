//! Processes of this machine: whether one is alive, and the moment of its end.
//!
//! Where there is no kubelet, the end of a sidecar's process is what confirms that it holds nothing any
//! more (`leases.md` 3.6). Ids are reused, so a process is known by its id and its start. Sidecars in
//! another pid namespace must not give an id: it would name a stranger here.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process, told apart from a later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the machine did (`proc_pid_stat(5)`, field 22).
    start_ticks: u64,
}

/// How often a process is looked for where the kernel gives no descriptor of it.
const POLL: Duration = Duration::from_millis(500);

/// Fields of `/proc/<pid>/stat` after the name, counted from 0.
const STATE_FIELD: usize = 0;
const START_FIELD: usize = 19;

// === impl Process ===

impl Process {
    /// The living process of this id, if there is one.
    pub(crate) fn find(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse(&stat).map(|start_ticks| Process { pid, start_ticks })
    }

    /// True as long as it has not ended.
    pub(crate) fn is_alive(self) -> bool {
        Process::find(self.pid) == Some(self)
    }

    /// Waits for its end. Safe to cancel.
    pub(crate) async fn ended(self) {
        // Without a descriptor (too many open files, an old kernel) the question is asked again and
        // again; the answer is the same.
        while self.is_alive() {
            if descriptor::ended(self.pid, || self.is_alive()).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// When the process of a stat line started; `None` for one that has ended and only waits for its
/// parent to notice.
fn parse(stat: &str) -> Option<u64> {
    // The name may hold anything, brackets and spaces too: the fields begin after its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    if matches!(*fields.get(STATE_FIELD)?, "Z" | "X" | "x") {
        return None;
    }
    fields.get(START_FIELD)?.parse().ok()
}

#[cfg(target_os = "linux")]
mod descriptor {
    use std::io;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Waits for the end of a process, unless `is_same` says that the id is another's by now.
    pub(super) async fn ended(pid: u32, is_same: impl Fn() -> bool) -> io::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that others may close; this one is owned"
        )]
        let process = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        // Asked after the descriptor was opened: from here on it cannot become another's.
        if is_same() {
            let _ended = process.readable().await?;
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod descriptor {
    use std::io;

    pub(super) async fn ended(_pid: u32, _is_same: impl Fn() -> bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        let rest = "1 1 0 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 1 1";
        for (name, state, expected) in [
            ("(weir-sidecar)", "S", Some(987)),
            ("(a) b (c))", "R", Some(987)),
            ("(gone)", "Z", None),
        ] {
            assert_eq!(parse(&format!("42 {name} {state} {rest}")), expected, "{name}");
        }
        assert_eq!(parse("42 (cut) S 1 1"), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_end_of_a_process_is_seen_even_before_its_parent_reaps_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.is_alive());
        let ended = tokio::time::timeout(Duration::from_millis(20), process.ended());
        assert!(ended.await.is_err());
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(10), process.ended()).await.unwrap();
        assert!(!process.is_alive());
        child.wait().unwrap();
        process.ended().await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn another_process_of_the_same_id_is_not_the_same() {
        let me = Process::find(std::process::id()).unwrap();
        let before = Process { start_ticks: me.start_ticks - 1, ..me };
        assert!(me.is_alive() && !before.is_alive());
        before.ended().await;
    }
}
