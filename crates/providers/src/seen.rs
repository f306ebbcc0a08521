//! What was seen of a stream so far. Adapters fill it event by event; the meter draws the sum.

use crate::failure::Failure;
use crate::text::Text;
use crate::usage::Usage;

/// How an adapter reads a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// Reads the data of one event.
    pub(crate) event: fn(&[u8], &mut Seen),
    /// Reads `{"usage":..}`, as it stood in a JSON body.
    pub(crate) usage: fn(&[u8]) -> Option<Usage>,
}

/// How much a usage figure is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The prompt is exact, the output only begun.
    #[default]
    Opening,
    /// All that there is so far: final if the stream ends well.
    Running,
    /// The last word, whatever comes of the stream.
    Final,
}

/// What was seen of a stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The usage that the provider told last.
    pub(crate) usage: Option<Usage>,
    pub(crate) standing: Standing,
    /// Bytes of text that the model produced.
    pub(crate) output_bytes: u64,
    /// Events that held such text.
    pub(crate) deltas: u64,
    /// An error that came after status 200.
    pub(crate) error: Option<Failure>,
    /// True if the event just read tells usage and nothing else.
    pub(crate) is_usage_only: bool,
}

impl Seen {
    /// Notes a piece of output.
    pub(crate) fn delta(&mut self, text: Text) {
        if text.bytes > 0 {
            self.output_bytes = self.output_bytes.saturating_add(text.bytes);
            self.deltas = self.deltas.saturating_add(1);
        }
    }

    /// Notes what the provider says was used.
    pub(crate) fn usage(&mut self, usage: Usage, standing: Standing) {
        self.usage = Some(usage);
        self.standing = standing;
    }
}
