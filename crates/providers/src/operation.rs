//! What a request asks a provider to do.

/// The operations that are told apart; everything else passes as one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Operation {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI's old text completions, which many compatible servers still serve.
    Completions,
    /// OpenAI responses.
    Responses,
    /// OpenAI embeddings.
    Embeddings,
    /// Anthropic messages.
    Messages,
    /// Counting the tokens of a prompt: free, with limits of its own.
    CountTokens,
    /// Listing or showing models.
    Models,
    /// Anything else.
    #[default]
    Other,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 8] = [
        Operation::Chat,
        Operation::Completions,
        Operation::Responses,
        Operation::Embeddings,
        Operation::Messages,
        Operation::CountTokens,
        Operation::Models,
        Operation::Other,
    ];

    /// `gen_ai.operation.name` of the GenAI semantic conventions where they have one, else a word of
    /// the same kind.
    pub const fn genai_name(self) -> &'static str {
        match self {
            Operation::Chat | Operation::Responses | Operation::Messages => "chat",
            Operation::Completions => "text_completion",
            Operation::Embeddings => "embeddings",
            Operation::CountTokens => "count_tokens",
            Operation::Models => "models",
            Operation::Other => "other",
        }
    }

    /// True if the provider runs a model for it and charges tokens.
    pub const fn runs_a_model(self) -> bool {
        match self {
            Operation::Chat
            | Operation::Completions
            | Operation::Responses
            | Operation::Embeddings
            | Operation::Messages => true,
            Operation::CountTokens | Operation::Models | Operation::Other => false,
        }
    }

    /// True if it produces tokens.
    pub const fn has_output(self) -> bool {
        self.runs_a_model() && !matches!(self, Operation::Embeddings)
    }
}

/// The last segments of a path that matter, without query and trailing slashes, so that a base URL
/// with a prefix of its own (`/openai/v1`, `/api/v1`) means the same.
pub(crate) fn plain_path(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}
