//! A call as it came in: what the protocol's adapter reads of it, and what only a provider needs to
//! know in order to answer.

use http::{Method, Request};
use providers::call::Call;
use providers::operation::Operation;
use serde::Deserialize;

use crate::config::Provider;
use crate::refusal::Refusal;

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// What the adapter says of it.
    pub(crate) call: Call,
    /// The rest.
    pub(crate) extras: Extras,
}

/// What an adapter has no use for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Extras {
    encoding_format: Option<String>,
    /// The length of an embedding.
    dimensions: Option<u32>,
    stream_options: Option<StreamOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct StreamOptions {
    include_obfuscation: Option<bool>,
}

/// `text-embedding-3-small` and its predecessor; the large one has twice as many.
const EMBEDDING_DIMENSIONS: u32 = 1_536;

/// The longest embedding that is made, `text-embedding-3-large`'s own.
const MAX_EMBEDDING_DIMENSIONS: u32 = 3_072;

/// Inputs of one embeddings request (`providers.md` 2.3).
const MAX_EMBEDDING_INPUTS: u64 = 2_048;

/// Tokens of one embeddings request (`providers.md` 2.3).
const MAX_EMBEDDING_TOKENS: u64 = 300_000;

/// Choices of one request, as OpenAI's reference says.
const MAX_CHOICES: u64 = 128;

// === impl Ask ===

impl Ask {
    /// Reads a call from its body, as strictly as the provider does.
    pub(crate) fn read(
        provider: Provider,
        operation: Operation,
        body: &[u8],
    ) -> Result<Ask, Refusal> {
        let adapter = providers::adapter(provider.protocol());
        let call = adapter.read(operation, body).map_err(Refusal::Body)?;
        // The adapter has found an object; a member of the wrong type here is not worth an error.
        let extras = serde_json::from_slice(body).unwrap_or_default();
        let ask = Ask { call, extras };
        ask.check()?;
        Ok(ask)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.call.operation == Operation::Messages && self.call.output_cap.is_none() {
            return Err(Refusal::Missing("max_tokens"));
        }
        if self.call.choices > MAX_CHOICES {
            return Err(Refusal::TooManyChoices { most: MAX_CHOICES });
        }
        if self.call.operation == Operation::Embeddings {
            if self.call.inputs > MAX_EMBEDDING_INPUTS {
                return Err(Refusal::TooManyInputs { most: MAX_EMBEDDING_INPUTS });
            }
            let tokens = self.call.text_bytes.div_ceil(4);
            if tokens > MAX_EMBEDDING_TOKENS {
                return Err(Refusal::InputsTooLong { tokens, most: MAX_EMBEDDING_TOKENS });
            }
        }
        Ok(())
    }

    /// The model; empty where the API does not ask for one.
    pub(crate) fn model(&self) -> &str {
        self.call.model.as_deref().unwrap_or_default()
    }
}

// === impl Extras ===

impl Extras {
    /// Whether chunks of a chat stream are padded against eavesdroppers, as they are by default.
    pub(crate) fn obfuscates(&self) -> bool {
        self.stream_options.as_ref().and_then(|it| it.include_obfuscation).unwrap_or(true)
    }

    /// Whether embeddings are packed, which openai-python asks for by default.
    pub(crate) fn packs_embeddings(&self) -> bool {
        self.encoding_format.as_deref() == Some("base64")
    }

    /// The length of an embedding by `model`.
    pub(crate) fn dimensions(&self, model: &str) -> u32 {
        let own =
            if model.ends_with("-large") { MAX_EMBEDDING_DIMENSIONS } else { EMBEDDING_DIMENSIONS };
        self.dimensions.unwrap_or(own).min(MAX_EMBEDDING_DIMENSIONS)
    }
}

// === impl Provider ===

impl Provider {
    /// Whose API a request speaks. Both serve `/v1/models`; there a header of Anthropic's tells.
    pub(crate) fn of<B>(request: &Request<B>) -> Provider {
        let headers = request.headers();
        let path = request.uri().path().trim_end_matches('/');
        let messages = path.ends_with("/messages") || path.ends_with("/messages/count_tokens");
        let says_so =
            headers.contains_key("anthropic-version") || headers.contains_key("x-api-key");
        if messages || says_so { Provider::Anthropic } else { Provider::OpenAi }
    }

    /// What a request asks for.
    pub(crate) fn operation(self, method: &Method, path: &str) -> Operation {
        providers::adapter(self.protocol()).operation(method.as_str(), path)
    }
}
