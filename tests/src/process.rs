//! A program that runs, until it is stopped, killed, or dropped with its test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::Client;
use crate::program::Program;
use crate::wait::{self, PATIENCE};

/// A program that was started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 40;

// === impl Process ===

impl Process {
    /// Starts it; what it says goes to a file in `folder`.
    pub fn start<A: AsRef<OsStr>>(
        program: Program,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(program.path());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("WEIR_") {
                command.env_remove(&variable);
            }
        }
        let child = command
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Process { name: name.to_owned(), child, log }
    }

    /// Waits until `/ready` on its admin listener answers 200.
    pub async fn ready(&mut self, admin: SocketAddr) {
        let client = Client::new(admin, "");
        let what = format!("{} is ready", self.name);
        wait::until(&what, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended at its start: {status}", self.name);
            }
            client.is_up("/ready").await.then_some(())
        })
        .await;
    }

    /// Ends it as a crash would (SIGKILL).
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Asks it to end (SIGTERM), and waits for that.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).expect("a child's end")
    }

    /// Freezes it: it is there, and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.expect("it runs"), signal).expect("a child can be signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        #[expect(clippy::print_stderr, reason = "the test has failed, and its files go with it")]
        {
            eprintln!("--- the log of {} ends with\n{end}", self.name);
        }
    }
}
