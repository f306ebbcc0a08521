//! The process that holds a cluster: it starts the namespaces, and however they end, it removes
//! what they leave. It is no child of a terminal, so that Ctrl-C does not reach it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::state::State;

/// A keeper whose starter has a hold on it: the cluster ends with the starter, unless it says
/// [`KEEP`].
#[derive(Debug)]
pub(super) struct Lifeline(UnixStream);

/// Numbers of the keeper and of what it started, in the cluster's directory.
pub(super) const PROCESSES: &str = "processes";

/// This program, as it runs: a build may have put another one in its place since it started, which
/// `cargo xtask test` does itself.
const OURSELVES: &str = "/proc/self/exe";

/// The copy that the keeper runs, in the cluster's directory.
const PROGRAM: &str = "xtask";

/// From here on the cluster lives until `cluster down`.
const KEEP: &str = "keep\n";

/// Starts the keeper of `state`. `listener` is what the relay accepts from.
pub(super) fn start(state: &State, listener: OwnedFd) -> anyhow::Result<Lifeline> {
    let (ours, theirs) = UnixStream::pair().context("the keeper's lifeline")?;
    let program = state.path(PROGRAM);
    fs::copy(OURSELVES, &program).context("our own program cannot be copied")?;
    let mut keeper = Command::new(program);
    keeper.args(["cluster", "keeper"]).arg(state.folder());
    keeper.stdin(Stdio::from(listener)).stdout(Stdio::from(OwnedFd::from(theirs)));
    keeper.stderr(File::create(state.path("logs/keeper.log"))?);
    keeper.spawn().context("the keeper cannot be started")?;
    Ok(Lifeline(ours))
}

/// What that process does.
pub(super) fn run(state: &State) -> anyhow::Result<()> {
    rustix::process::setsid().context("a session of its own")?;
    // This is the other end of the lifeline; it is no output.
    let lifeline = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (held, theirs) = UnixStream::pair()?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    inside.arg(std::env::current_exe()?).args(["cluster", "inside"]).arg(state.folder());
    inside.stdin(Stdio::inherit()).stdout(Stdio::from(OwnedFd::from(theirs)));
    inside.stderr(File::create(state.path("logs/inside.log"))?);
    let mut inside = inside.spawn().context("unshare cannot be started")?;
    // What was made from a pair is open in the builder too, until here.
    let number = inside.id();
    let processes = format!("{}\n{number}\n", std::process::id());
    fs::write(state.path(PROCESSES), processes).context("the numbers of the processes")?;
    thread::spawn(move || {
        let mut line = String::new();
        let kept = BufReader::new(lifeline).read_line(&mut line).is_ok() && line == KEEP;
        if !kept && let Some(inside) = i32::try_from(number).ok().and_then(Pid::from_raw) {
            // It may have ended by itself; then this was to happen anyway.
            let _gone = kill_process(inside, Signal::KILL);
        }
    });
    let ended = inside.wait();
    drop(held);
    state.clean()?;
    ended.context("the namespaces cannot be waited for")?;
    Ok(())
}

// === impl Lifeline ===

impl Lifeline {
    /// Lets go of the cluster without ending it.
    pub(super) fn keep(mut self) -> anyhow::Result<()> {
        self.0.write_all(KEEP.as_bytes()).context("the keeper is gone")
    }
}
