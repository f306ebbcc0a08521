//! The words of an error body, whichever of the known shapes it has. Adapters classify by them.

use std::time::Duration;

use serde_json::Value;

use crate::duration;

/// What is looked at in an error body. Absent parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorText {
    /// `error.code`, or Anthropic's `error.details.error_code`. Some servers put a number there.
    pub(crate) code: String,
    /// `error.type`.
    pub(crate) kind: String,
    /// `error.message`; all of the text of a body that is no JSON, or was cut.
    pub(crate) message: String,
}

impl ErrorText {
    /// Reads `{"error":{..}}`, `{"error":"..."}` or the flat form of older servers.
    pub(crate) fn read(body: &[u8]) -> ErrorText {
        match serde_json::from_slice::<Value>(body) {
            Ok(body @ Value::Object(_)) => ErrorText::of(body.get("error").unwrap_or(&body)),
            _ => ErrorText {
                message: String::from_utf8_lossy(body).into_owned(),
                ..ErrorText::default()
            },
        }
    }

    /// Reads the value of `error`.
    pub(crate) fn of(error: &Value) -> ErrorText {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let detail = text(&error["details"]["error_code"]);
        ErrorText {
            code: if detail.is_empty() { text(&error["code"]) } else { detail },
            kind: text(&error["type"]),
            message: if error.is_object() { text(&error["message"]) } else { text(error) },
        }
    }

    /// The wait that the message names: `try again in 6m0s`, `retry after 45 seconds`.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let message = self.message.to_ascii_lowercase();
        let (_, after) = ["try again in ", "retry after ", "retry in "]
            .into_iter()
            .find_map(|words| message.split_once(words))?;
        let mut words = after.split_whitespace().map(|word| word.trim_end_matches(['.', ',']));
        let (first, second) = (words.next()?, words.next().unwrap_or_default());
        match second {
            "second" | "seconds" => duration::go(&format!("{first}s")),
            "minute" | "minutes" => duration::go(&format!("{first}m")),
            _ => duration::go(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_is_read() {
        for (body, code, kind, message) in [
            (r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#, "c", "t", "m"),
            (
                r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#,
                "400",
                "BadRequestError",
                "m",
            ),
            (r#"{"object":"error","message":"m","type":"t","code":400}"#, "400", "t", "m"),
            (
                r#"{"type":"error","error":{"type":"t","message":"m","details":{"error_code":"d"}}}"#,
                "d",
                "t",
                "m",
            ),
            (r#"{"error":"m"}"#, "", "", "m"),
            (r#"{"error":null}"#, "", "", ""),
            (r#"["x"]"#, "", "", r#"["x"]"#),
            ("Bad gateway", "", "", "Bad gateway"),
            (
                r#"{"error":{"message":"Request too la"#,
                "",
                "",
                r#"{"error":{"message":"Request too la"#,
            ),
        ] {
            let text = ErrorText { code: code.into(), kind: kind.into(), message: message.into() };
            assert_eq!(ErrorText::read(body.as_bytes()), text, "{body}");
        }
    }

    #[test]
    fn waits_are_read_from_words() {
        for (message, millis) in [
            ("Please try again in 18.642s. Visit", Some(18_642)),
            ("Please try again in 6m0s.", Some(360_000)),
            ("Please try again in 174ms", Some(174)),
            ("Please retry after 6 seconds. Please go", Some(6_000)),
            ("Rate limit is exceeded. Try again in 2 seconds.", Some(2_000)),
            ("Please retry in 26.211922938s.", Some(26_211)),
            ("Please try again in a while.", None),
            ("try again in ", None),
            ("Please try again later.", None),
        ] {
            let text = ErrorText { message: message.into(), ..ErrorText::default() };
            let wait = text.wait().map(|wait| u64::try_from(wait.as_millis()).unwrap());
            assert_eq!(wait, millis, "{message}");
        }
    }
}
