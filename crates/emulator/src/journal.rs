//! The journal: one line of JSON for each call, in a file. Names of accounts, never keys; counts,
//! never text.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use quota::charge::Charge;
use quota::time::Time;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::Provider;
use crate::error::Error;
use crate::truth::{Caller, Outcome};

/// What became of one call.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When it ended or was refused, in milliseconds since the Unix epoch.
    at_ms: u64,
    account: String,
    provider: Provider,
    model: String,
    outcome: &'static str,
    reserved_input: u64,
    reserved_total: u64,
    input: u64,
    output: u64,
    /// What a refused call was told to wait.
    wait_ms: Option<u64>,
}

/// Lines that may wait for the disk; at 10,000 calls a second, a second's worth.
const QUEUE: usize = 10_000;

/// Opens the journal: where lines go, and the work that writes them until all senders are gone.
pub(crate) fn open(path: &Path) -> Result<(mpsc::Sender<Line>, impl FnOnce() + use<>), Error> {
    let opened = File::options().create(true).append(true).open(path);
    let file = opened.map_err(|source| Error::Journal { path: path.to_owned(), source })?;
    let (sender, mut lines) = mpsc::channel::<Line>(QUEUE);
    let write = move || {
        let mut file = BufWriter::new(file);
        while let Some(line) = lines.blocking_recv() {
            let written = serde_json::to_writer(&mut file, &line)
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(b"\n"))
                .and_then(|()| if lines.is_empty() { file.flush() } else { Ok(()) });
            if let Err(error) = written {
                tracing::error!(%error, "the journal cannot be written; it ends here");
                return;
            }
        }
    };
    Ok((sender, write))
}

// === impl Line ===

impl Line {
    /// A call that a limit refused.
    pub(crate) fn refused(
        now: Time,
        caller: &Caller,
        reserved: &Charge,
        wait: Option<Duration>,
    ) -> Line {
        let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        Line { wait_ms, ..Line::new(now, caller, reserved, "refused") }
    }

    /// A call that was admitted and has ended.
    pub(crate) fn ended(
        now: Time,
        caller: &Caller,
        reserved: &Charge,
        actual: &Charge,
        outcome: Outcome,
    ) -> Line {
        let outcome = match outcome {
            Outcome::Answered => "answered",
            Outcome::Failed => "failed",
            Outcome::Cut => "cut",
            Outcome::Left => "left",
        };
        let (input, output) = (actual.input.0, actual.output.0);
        Line { input, output, ..Line::new(now, caller, reserved, outcome) }
    }

    fn new(now: Time, caller: &Caller, reserved: &Charge, outcome: &'static str) -> Line {
        Line {
            at_ms: now.as_nanos() / 1_000_000,
            account: caller.account.to_string(),
            provider: caller.provider,
            model: caller.model.clone(),
            outcome,
            reserved_input: reserved.input.0,
            reserved_total: reserved.total.0,
            input: 0,
            output: 0,
            wait_ms: None,
        }
    }
}
