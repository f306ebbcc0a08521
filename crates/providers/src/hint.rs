//! What an answer tells a client about trying again, in the headers that SDKs act on
//! (`providers.md` 0.7, 0.8 and 13.1).

use std::time::Duration;

/// The longest wait that is told. Newer SDKs sleep for any time that they are told, others take 60 s
/// or 120 s for an error (`providers.md` 12.1).
pub const MAX_TOLD_WAIT: Duration = Duration::from_secs(30);

/// Headers that carry a hint; those of a provider are removed before ours are added.
pub const HINT_HEADERS: [&str; 3] = ["retry-after", "retry-after-ms", "x-should-retry"];

/// Whether a client should try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Yes, after this time; longer ones than [`MAX_TOLD_WAIT`] become it.
    After(Duration),
    /// No.
    Never,
    /// As its own rules say.
    Unsaid,
}

impl Hint {
    /// The headers that say it.
    pub fn headers(self) -> Vec<(&'static str, String)> {
        match self {
            Hint::After(wait) => {
                // Zero means "at once" to some SDKs and "as you like" to others.
                let millis = wait.min(MAX_TOLD_WAIT).as_nanos().div_ceil(1_000_000).max(1);
                vec![
                    ("retry-after-ms", millis.to_string()),
                    ("retry-after", millis.div_ceil(1_000).to_string()),
                    ("x-should-retry", "true".to_owned()),
                ]
            }
            Hint::Never => vec![("x-should-retry", "false".to_owned())],
            Hint::Unsaid => Vec::new(),
        }
    }
}
