//! How far a long run is, on standard error; and how long it took. The only clock of the binary.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Two lines are at least this far apart; nothing is said of what ends before.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// One long run.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    begun: Instant,
    told: Instant,
    shown: bool,
}

// === impl Progress ===

impl Progress {
    /// Begins a run.
    pub(crate) fn new(what: &str) -> Progress {
        let now = now();
        Progress { what: what.to_owned(), begun: now, told: now, shown: false }
    }

    /// How long it has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        now().duration_since(self.begun)
    }

    /// Tells how far it is, if that was not told just now. `total` of 0 is not known.
    pub(crate) fn tell(&mut self, done: usize, total: usize, unit: &str) {
        if now().duration_since(self.told) < TOLD_EVERY {
            return;
        }
        self.told = now();
        self.shown = true;
        let elapsed = self.elapsed();
        let left = match u32::try_from(total.saturating_sub(done)) {
            Ok(left) if total > 0 && done > 0 => {
                let left = elapsed * left / u32::try_from(done).unwrap_or(u32::MAX);
                format!(" of about {total}, {} s left", left.as_secs() + 1)
            }
            _ => String::new(),
        };
        let line = format!("{}: {done} {unit}{left}, {} s", self.what, elapsed.as_secs());
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the last line away again.
    pub(crate) fn end(&mut self) {
        if self.shown && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a run takes, for the person who waits")]
fn now() -> Instant {
    Instant::now()
}
