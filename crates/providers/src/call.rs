//! A request as far as we act on it: what its body says, counted and not kept.

use std::ops::Range;

use crate::operation::Operation;

/// The longest model name that is read; the longest that providers use have about 100 bytes. It
/// becomes a key of tables and a label.
pub const MAX_MODEL_BYTES: usize = 256;

/// What a request's body says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The model; `None` where the API does not ask for one.
    pub model: Option<String>,
    /// True if the answer is to come as events.
    pub stream: bool,
    /// True if the application asked for usage in the stream.
    pub wants_usage: bool,
    /// The most tokens that it lets the model produce, for one choice.
    pub output_cap: Option<u64>,
    /// How many answers it asks for; 1 where it does not say.
    pub choices: u64,
    /// Bytes of prompt text: messages, system, instructions, inputs and the schemas of tools; a
    /// number that stands for a token counts as 4. Base64 data are not text.
    pub text_bytes: u64,
    /// Pictures, sound and files in the prompt.
    pub attachments: u64,
    /// Separate inputs of an embeddings request.
    pub inputs: u64,
    /// True if the provider adds a prompt that it keeps: an earlier response, a conversation, a
    /// template.
    pub stored_context: bool,
    /// Where the value of `stream_options` stands in the body.
    pub stream_options: Option<Range<usize>>,
}

/// A body that cannot be understood. Its words show nothing of the body but names of members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// Not JSON.
    #[error("the body is not valid JSON: {what}")]
    NotJson {
        /// What is wrong, with line and column.
        what: String,
    },
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A member of the wrong type.
    #[error("`{member}` has a value of the wrong type (line {line}, column {column})")]
    WrongType {
        /// Its name.
        member: &'static str,
        /// Where its value ends, from 1.
        line: usize,
        /// Where its value ends, from 1.
        column: usize,
    },
    /// A member that is acted on occurs twice: which one the provider takes is not known.
    #[error("`{member}` stands twice in the body (line {line}, column {column})")]
    Twice {
        /// Its name.
        member: &'static str,
        /// Where the second one stands, from 1.
        line: usize,
        /// Where the second one stands, from 1.
        column: usize,
    },
    /// No model, where the API asks for one.
    #[error("the body has no `model`")]
    NoModel,
    /// A model name beyond [`MAX_MODEL_BYTES`].
    #[error("`model` is longer than {MAX_MODEL_BYTES} bytes")]
    LongModel,
}

impl Call {
    /// A call of which nothing is known yet but what it asks for.
    pub fn of(operation: Operation) -> Call {
        Call { operation, choices: 1, ..Call::default() }
    }
}
