//! A program that this one has started, by executing itself again with a hidden subcommand.
//!
//! A child has its own process group, so that Ctrl-C reaches `weir` alone, which then ends its
//! children in order. It is killed when its `Child` is dropped; if `weir` itself is killed, its stdin
//! closes, and it ends by `crate::parent`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{self, Command};
use tokio::time::{sleep, timeout};

use crate::admin;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
    /// Its end is the child's sign to end. Kept apart, because waiting for a process closes the stdin
    /// that it still has.
    stdin: Option<process::ChildStdin>,
    log: PathBuf,
}

/// Why a program did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{name} cannot be started")]
    Start { name: String, source: io::Error },
    #[error("{name} ended early ({status}){}", said(.log))]
    Ended { name: String, status: ExitStatus, log: String },
    #[error("{name} was not ready after {READY_TIMEOUT:?}{}", said(.log))]
    NotReady { name: String, log: String },
}

/// A program is ready within 20 ms on an idle machine; a loaded one may need a hundred times that.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

const READY_INTERVAL: Duration = Duration::from_millis(10);

/// What a child may take to end once it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Lines of a log that an error shows.
const LOG_LINES: usize = 20;

/// Variables that would change what a child does behind the back of the command that starts it.
const FOREIGN_PREFIXES: [&str; 3] = ["WEIR_SIDECAR_", "WEIR_ALLOCATOR_", "WEIR_EMULATOR_"];

// === impl Child ===

impl Child {
    /// Starts `weir <arguments>`; what it logs is appended to `log`.
    pub(crate) fn start<A: Into<OsString>>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Child, Error> {
        let failed = |source| Error::Start { name: name.to_owned(), source };
        let file = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("--exit-with-stdin").args(arguments.into_iter().map(Into::into));
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if FOREIGN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = process.stdin.take();
        Ok(Child { name: name.to_owned(), process, stdin, log: log.to_owned() })
    }

    /// Waits until the admin listener at `admin` says that the program is ready.
    pub(crate) async fn ready(&mut self, admin: SocketAddr) -> Result<(), Error> {
        let ready = async {
            while !admin::is_ready(admin).await {
                sleep(READY_INTERVAL).await;
            }
        };
        // `wait` is cancel-safe; a poll of readiness that is dropped loses nothing.
        tokio::select! {
            done = timeout(READY_TIMEOUT, ready) => done.map_err(|_| Error::NotReady {
                name: self.name.clone(),
                log: tail(&self.log),
            }),
            ended = self.process.wait() => Err(self.ended(ended)),
        }
    }

    /// Waits for an end that was not asked for. Safe to cancel.
    pub(crate) async fn failed(&mut self) -> Error {
        let ended = self.process.wait().await;
        self.ended(ended)
    }

    /// Ends it as a crash would (SIGKILL), and waits for its end.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(Ok(status))),
            Err(error) => Err(self.ended(Err(error))),
        }
    }

    /// Asks it to end, at once; the future waits for that, and kills what does not end in time.
    pub(crate) fn stop(mut self) -> impl Future<Output = ()> {
        drop(self.stdin.take());
        async move {
            // Dropped after that, it is killed.
            let _ = timeout(STOP_TIMEOUT, self.process.wait()).await;
        }
    }

    fn ended(&self, ended: io::Result<ExitStatus>) -> Error {
        let name = self.name.clone();
        match ended {
            Ok(status) => Error::Ended { name, status, log: tail(&self.log) },
            Err(source) => Error::Start { name, source },
        }
    }
}

/// The last lines of a log; empty if there is none.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; its log ends with\n{log}") }
}
