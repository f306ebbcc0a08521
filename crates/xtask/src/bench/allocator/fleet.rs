//! The simulated sidecars: a process that is told what to do, line by line, and answers in JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::bench::process;

/// The process; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn start(mut command: Command) -> anyhow::Result<Fleet> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the sidecars cannot be started")?;
        let orders = child.stdin.take().context("it has no input")?;
        let answers = BufReader::new(child.stdout.take().context("it has no output")?);
        Ok(Fleet { child, orders, answers })
    }

    /// Gives an order, and waits for its answer.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, order: &str) -> anyhow::Result<T> {
        writeln!(self.orders, "{order}").context("the sidecars have ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the sidecars have ended");
        serde_json::from_str(&answer).with_context(|| format!("{order}: {answer}"))
    }

    /// Gives an order that has no answer to speak of.
    pub(super) fn tell(&mut self, order: &str) -> anyhow::Result<()> {
        self.ask::<serde_json::Value>(order).map(|_| ())
    }

    /// The CPU time that it has used.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(&self.child.id().to_string())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
