//! The signals that end a process.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a process that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// The handlers, installed once by `main`.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// SIGTERM: the kubelet, a supervisor.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

// === impl Signals ===

impl Signals {
    /// Installs the handlers; a signal that comes from now on is not lost. Needs a runtime.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal. Safe to cancel.
    pub async fn recv(&mut self) -> Received {
        // Both arms are cancel-safe: a signal is only taken by the arm that completes.
        tokio::select! {
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.interrupt.recv() => Received::Interrupt,
        }
    }

    /// Runs `ending` (the drain) to its end, unless the person presses Ctrl-C again: then the
    /// process exits at once with 130.
    ///
    /// A SIGTERM here changes nothing: a parent that passes on the Ctrl-C which its whole process
    /// group got already must not cut the drain short.
    pub async fn unless_interrupted<T>(&mut self, ending: impl Future<Output = T>) -> T {
        // `ending` is polled here alone and dropped only with the process; `recv` is cancel-safe.
        tokio::select! {
            done = ending => done,
            _ = self.interrupt.recv() => std::process::exit(INTERRUPTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::{Received, Signals};

    #[tokio::test]
    async fn each_signal_is_told_apart_and_a_second_sigterm_does_not_cut_the_drain() {
        let mut signals = Signals::listen().unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.recv().await, Received::Terminate);
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(signals.recv().await, Received::Interrupt);
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.unless_interrupted(async { "drained" }).await, "drained");
    }
}
