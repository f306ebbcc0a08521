//! Counts the text in any JSON value without keeping it: messages, content parts, deltas.
//!
//! What is not text to a model is left out by the names that the two APIs give it: ids, roles, base64
//! data. A part whose `type` says picture, sound or file counts as an attachment.

use std::fmt;
use std::ops::AddAssign;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How much text there is in a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    /// Bytes of text. A number stands for a token and counts as [`NUMBER_BYTES`].
    pub(crate) bytes: u64,
    /// Pictures, sound and files.
    pub(crate) attachments: u64,
}

/// A token is taken for four bytes, as everywhere.
const NUMBER_BYTES: u64 = 4;

/// A data URL names its encoding within so many bytes.
const DATA_URL_HEAD: usize = 128;

/// What the name of a member says about its value.
enum Key {
    /// The type of the part that it belongs to.
    Type,
    /// Text if the part is a text document, else base64.
    Data,
    /// No text.
    Skip,
    /// Text, or something that may contain text.
    Text,
}

struct TextVisitor;

struct KeyVisitor;

// === impl Text ===

impl Text {
    /// The text of one string.
    pub(crate) fn of(text: &str) -> Text {
        let head = &text.as_bytes()[..text.len().min(DATA_URL_HEAD)];
        let is_data =
            head.starts_with(b"data:") && memchr::memmem::find(head, b";base64,").is_some();
        Text { bytes: if is_data { 0 } else { text.len() as u64 }, attachments: 0 }
    }
}

impl AddAssign for Text {
    fn add_assign(&mut self, rhs: Text) {
        self.bytes = self.bytes.saturating_add(rhs.bytes);
        self.attachments = self.attachments.saturating_add(rhs.attachments);
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text::of(text))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text { bytes: NUMBER_BYTES, attachments: 0 })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text { bytes: NUMBER_BYTES, attachments: 0 })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text { bytes: NUMBER_BYTES, attachments: 0 })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut sum = Text::default();
        while let Some(text) = seq.next_element::<Text>()? {
            sum += text;
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let (mut sum, mut data, mut is_document) = (Text::default(), Text::default(), false);
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                // Raw, because a schema or an argument of a tool may have a `type` of any shape.
                Key::Type => match map.next_value::<&RawValue>()?.get().trim_matches('"') {
                    "text" => is_document = true,
                    kind if is_attachment(kind) => sum.attachments += 1,
                    _ => {}
                },
                Key::Data => data += map.next_value::<Text>()?,
                Key::Skip => drop(map.next_value::<IgnoredAny>()?),
                Key::Text => sum += map.next_value::<Text>()?,
            }
        }
        if is_document {
            sum += data;
        }
        Ok(sum)
    }
}

// === impl Key ===

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(match name {
            "type" => Key::Type,
            "data" | "result" => Key::Data,
            "id" | "index" | "role" | "status" | "detail" | "media_type" | "cache_control" => {
                Key::Skip
            }
            "call_id" | "tool_call_id" | "tool_use_id" | "item_id" | "file_id" => Key::Skip,
            "file_data" | "signature" | "encrypted_content" => Key::Skip,
            _ => Key::Text,
        })
    }
}

fn is_attachment(kind: &str) -> bool {
    matches!(
        kind,
        "image_url"
            | "input_image"
            | "image"
            | "input_audio"
            | "file"
            | "input_file"
            | "document"
            | "image_generation_call"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_and_the_rest_does_not() {
        for (value, bytes, attachments) in [
            (r#""hello""#, 5, 0),
            (r#""h\u00e9\n""#, 4, 0),
            (r#"[{"role":"user","content":"hello"},{"role":"assistant","content":null}]"#, 5, 0),
            (r#"[{"type":"text","text":"abc"},{"type":"text","text":"de"}]"#, 5, 0),
            (r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]"#, 0, 1),
            (r#"[{"type":"image_url","image_url":{"url":"http://a/b"}}]"#, 10, 1),
            (r#""data: is what I ask about""#, 25, 0),
            (r#"{"type":"image","source":{"type":"base64","media_type":"x","data":"AAAA"}}"#, 0, 1),
            (
                r#"{"type":"document","source":{"type":"text","media_type":"x","data":"abcd"}}"#,
                4,
                1,
            ),
            (
                r#"{"type":"document","source":{"data":"abcd","media_type":"x","type":"text"}}"#,
                4,
                1,
            ),
            (r#"{"type":"tool_use","id":"x","name":"f","input":{"type":["a"],"q":"abc"}}"#, 4, 0),
            (r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#, 3, 1),
            (r#"{"type":"thinking","thinking":"abc","signature":"AAAA"}"#, 3, 0),
            (r#"[1,2,-3,0.5]"#, 16, 0),
            (r#"[true,null,{}]"#, 0, 0),
        ] {
            let text: Text = serde_json::from_str(value).unwrap();
            assert_eq!(text, Text { bytes, attachments }, "{value}");
        }
    }
}
