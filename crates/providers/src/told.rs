//! What the words of a provider's 429 tell about its limit: the best truth there is about the limit
//! and about what others use of it (`providers.md` 10).

use quota::dimension::Dimension;

/// A limit as an error message tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is counted.
    pub dimension: Dimension,
    /// The figure itself.
    pub limit: u64,
    /// What is used of it, by everybody.
    pub used: Option<u64>,
    /// What the call was charged with.
    pub requested: Option<u64>,
}

impl Told {
    /// Reads `... on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. ...`.
    pub(crate) fn by_openai(message: &str) -> Option<Told> {
        let (before, after) = message.split_once("): Limit ")?;
        let (_, name) = before.rsplit_once('(')?;
        let dimension = match name {
            "RPM" => Dimension::RequestsPerMinute,
            "TPM" => Dimension::TokensPerMinute,
            "RPD" => Dimension::RequestsPerDay,
            "TPD" => Dimension::TokensPerDay,
            _ => return None,
        };
        let part = |label| after.split_once(label).and_then(|(_, rest)| number(rest));
        let (used, requested) = (part(", Used "), part(", Requested "));
        Some(Told { dimension, limit: number(after)?, used, requested })
    }

    /// Reads `... rate limit of 30,000 input tokens per minute ...`.
    pub(crate) fn by_anthropic(message: &str) -> Option<Told> {
        let (_, after) = message.split_once("rate limit of ")?;
        let (_, words) = after.split_once(' ')?;
        let dimension = [
            ("input tokens per minute", Dimension::InputTokensPerMinute),
            ("output tokens per minute", Dimension::OutputTokensPerMinute),
            ("tokens per minute", Dimension::TokensPerMinute),
            ("requests per minute", Dimension::RequestsPerMinute),
        ];
        let (_, dimension) = dimension.into_iter().find(|(name, _)| words.starts_with(name))?;
        Some(Told { dimension, limit: number(after)?, used: None, requested: None })
    }
}

/// A whole number at the beginning of `text`; commas may part thousands.
fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(text.len());
    text[..end].replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openais_words_tell_limit_use_and_request() {
        let text = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): \
                    Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s.";
        let told = Told {
            dimension: Dimension::TokensPerMinute,
            limit: 30_000,
            used: Some(14_567),
            requested: Some(24_754),
        };
        assert_eq!(Told::by_openai(text), Some(told));
        let text = "Request too large for gpt-4o (for limit gpt-4o-long) in organization org-x on \
                    tokens per day (TPD): Limit 30000, Requested 40000. The input or output ...";
        let told = Told {
            dimension: Dimension::TokensPerDay,
            used: None,
            requested: Some(40_000),
            ..told
        };
        assert_eq!(Told::by_openai(text), Some(told));
    }

    #[test]
    fn anthropics_words_tell_the_limit() {
        let text = "This request would exceed your organization's rate limit of 30,000 input \
                    tokens per minute (org: x, model: claude-sonnet-4-6).";
        let told = Told::by_anthropic(text).unwrap();
        assert_eq!((told.dimension, told.limit), (Dimension::InputTokensPerMinute, 30_000));
    }

    #[test]
    fn other_words_tell_nothing() {
        for text in ["", "): Limit ", "(TPM): Limit x", "(IPM): Limit 5", "rate limit of 5", "x"] {
            assert_eq!((Told::by_openai(text), Told::by_anthropic(text)), (None, None), "{text}");
        }
    }
}
