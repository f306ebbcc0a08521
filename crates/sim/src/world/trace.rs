//! What happened, in words. Kept only where somebody will read it: a world that fails is run again.

use std::collections::VecDeque;

use quota::time::Time;

/// What of a world's events is kept, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The last few, before a failure.
    Last(usize),
    /// All of them.
    All,
}

/// The events that are kept.
#[derive(Debug)]
pub(super) struct Trace {
    keep: Keep,
    lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(keep: Keep) -> Trace {
        Trace { keep, lines: VecDeque::new() }
    }

    pub(super) fn note(&mut self, now: Time, words: impl FnOnce() -> String) {
        let most = match self.keep {
            Keep::Nothing => return,
            Keep::Last(most) => most,
            Keep::All => usize::MAX,
        };
        if self.lines.len() >= most {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{now:?} {}", words()));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
