//! What a person sees on stderr while a command works: lines that stay, and on a terminal a block
//! that is drawn again. A terminal that has gone away is no error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::output::may_colour;

/// Tells how far a command is.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    is_coloured: bool,
    /// Lines of the block that is on the screen.
    drawn: usize,
    last_line: Option<Instant>,
}

/// Without a terminal there is a line this often: enough to see life in a log, and not to fill it.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

const CLEAR_BELOW: &str = "\x1b[J";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

// === impl Progress ===

impl Progress {
    pub(crate) fn new() -> Progress {
        let stderr = io::stderr();
        Progress {
            is_terminal: stderr.is_terminal(),
            is_coloured: may_colour(&stderr),
            drawn: 0,
            last_line: None,
        }
    }

    /// True if text may be coloured.
    pub(crate) fn is_coloured(&self) -> bool {
        self.is_coloured
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        let (before, after) = if self.is_coloured { (DIM, RESET) } else { ("", "") };
        self.write(&format!("{before}{line}{after}\n"));
    }

    /// The block as it is now; on a terminal it replaces the last one, elsewhere `plain` is written
    /// as a line every few seconds.
    pub(crate) fn show(&mut self, now: Instant, block: &str, plain: impl FnOnce() -> String) {
        if self.is_terminal {
            self.write(&format!("{block}\n"));
            self.drawn = block.lines().count();
        } else if self.last_line.is_none_or(|last| now - last >= PLAIN_INTERVAL) {
            self.last_line = Some(now);
            self.write(&format!("{}\n", plain()));
        }
    }

    /// Takes the block off the screen.
    pub(crate) fn clear(&mut self) {
        self.write("");
    }

    fn write(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        let erase = match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r{CLEAR_BELOW}"),
        };
        // Nobody to tell: whatever is wrong with stderr cannot be said on it.
        let _ = stderr.write_all(format!("{erase}{text}").as_bytes());
        let _ = stderr.flush();
    }
}
