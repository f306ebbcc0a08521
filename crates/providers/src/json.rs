//! Reads the members of a request body that are acted on, in one pass and without a tree. Adapters
//! give a table of their names; everything else is skipped.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use crate::call::{BadBody, Call, MAX_MODEL_BYTES};
use crate::operation::Operation;
use crate::text::Text;

/// What a member of a body means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// The model's name.
    Model,
    /// Whether the answer comes as events.
    Stream,
    /// OpenAI's options of a stream.
    StreamOptions,
    /// The most tokens to produce; where several are given, the largest counts.
    OutputCap,
    /// How many answers; where several are given, the largest counts.
    Choices,
    /// Part of the prompt.
    Text,
    /// The prompt as one or several inputs, of text or tokens.
    Inputs,
    /// Part of the prompt as it stands: schemas of tools and answers.
    Schema,
    /// A reference to a prompt that the provider keeps.
    Stored,
}

/// Members by name.
pub(crate) type Members = &'static [(&'static str, Member)];

/// Reads `body` by `members`.
pub(crate) fn read(operation: Operation, members: Members, body: &[u8]) -> Result<Call, BadBody> {
    let mut reading =
        Reading { members, body, call: Call::of(operation), seen: 0, at: "", twice: false };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = deserializer.deserialize_any(&mut reading).and_then(|()| deserializer.end());
    match read {
        Ok(()) => reading.finish(),
        Err(error) => Err(reading.bad_body(&error)),
    }
}

struct Reading<'a> {
    members: Members,
    body: &'a [u8],
    call: Call,
    /// One bit for each of `members` that was read.
    seen: u32,
    /// The member being read; empty before the first.
    at: &'static str,
    /// True if the error is that `at` occurs twice.
    twice: bool,
}

/// Where in the table a name stands; `None` if it does not.
struct Name(Members);

/// A whole number of any spelling; `None` for null.
struct Number(Option<u64>);

/// Text and how many inputs it is.
struct Inputs {
    text: Text,
    count: u64,
}

struct NumberVisitor;

struct InputsVisitor;

#[derive(serde::Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The error of a value that was read on its own: its position would be that in the value.
fn nested<E: Error>(_: serde_json::Error) -> E {
    E::custom("a value of the wrong type")
}

// === impl Reading ===

impl<'a> Reading<'a> {
    fn member<A: MapAccess<'a>>(&mut self, member: Member, map: &mut A) -> Result<(), A::Error> {
        let call = &mut self.call;
        match member {
            Member::Model => call.model = map.next_value()?,
            Member::Stream => call.stream = map.next_value::<Option<bool>>()?.unwrap_or(false),
            Member::StreamOptions => {
                let raw = map.next_value::<&RawValue>()?.get();
                let options: Option<StreamOptions> = serde_json::from_str(raw).map_err(nested)?;
                call.wants_usage = options.and_then(|o| o.include_usage).unwrap_or(false);
                // The value is a slice of the body, so the addresses tell where it stands.
                let start = raw.as_ptr().addr() - self.body.as_ptr().addr();
                call.stream_options = Some(start..start + raw.len());
            }
            Member::OutputCap => {
                call.output_cap = call.output_cap.max(map.next_value::<Number>()?.0);
            }
            Member::Choices => {
                let choices = map.next_value::<Number>()?.0.unwrap_or(1);
                call.choices = call.choices.max(choices);
            }
            Member::Text => {
                let text = map.next_value()?;
                self.add(text);
            }
            Member::Inputs => {
                let inputs: Inputs = map.next_value()?;
                call.inputs = inputs.count;
                self.add(inputs.text);
            }
            Member::Schema => {
                let bytes = match map.next_value::<&RawValue>()?.get() {
                    "null" => 0,
                    schema => schema.len() as u64,
                };
                self.add(Text { bytes, attachments: 0 });
            }
            Member::Stored => {
                call.stored_context |= map.next_value::<Option<IgnoredAny>>()?.is_some();
            }
        }
        Ok(())
    }

    fn add(&mut self, text: Text) {
        self.call.text_bytes = self.call.text_bytes.saturating_add(text.bytes);
        self.call.attachments = self.call.attachments.saturating_add(text.attachments);
    }

    fn finish(self) -> Result<Call, BadBody> {
        // A response may take its model from a stored template.
        let may_lack_model = self.call.operation == Operation::Responses;
        match &self.call.model {
            None if !may_lack_model => Err(BadBody::NoModel),
            Some(model) if model.len() > MAX_MODEL_BYTES => Err(BadBody::LongModel),
            _ => Ok(self.call),
        }
    }

    /// The error in words of our own: those of `serde` may quote the body.
    fn bad_body(&self, error: &serde_json::Error) -> BadBody {
        let (member, line, column) = (self.at, error.line(), error.column());
        if !error.is_data() {
            BadBody::NotJson { what: error.to_string() }
        } else if self.twice {
            BadBody::Twice { member, line, column }
        } else if member.is_empty() {
            BadBody::NotAnObject
        } else {
            BadBody::WrongType { member, line, column }
        }
    }
}

impl<'a> Visitor<'a> for &mut Reading<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Name(self.members))? {
            let Some(position) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (name, member) = self.members[position];
            self.at = name;
            if self.seen & (1 << position) != 0 {
                self.twice = true;
                return Err(A::Error::custom("twice"));
            }
            self.seen |= 1 << position;
            self.member(member, &mut map)?;
        }
        Ok(())
    }
}

// === impl Name ===

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(member, _)| *member == name))
    }
}

// === impl Number ===

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(Some(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number(Some(u64::try_from(number).unwrap_or(0))))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates, which is wanted"
    )]
    fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
        Ok(Number(Some(number.ceil() as u64)))
    }
}

// === impl Inputs ===

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Inputs, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts or tokens")
    }

    fn visit_unit<E>(self) -> Result<Inputs, E> {
        Ok(Inputs { text: Text::default(), count: 0 })
    }

    fn visit_str<E>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs { text: Text::of(text), count: 1 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
        let (mut text, mut count, mut is_tokens) = (Text::default(), 0, false);
        while let Some(element) = seq.next_element::<&RawValue>()? {
            let element = element.get();
            text += serde_json::from_str::<Text>(element).map_err(nested)?;
            is_tokens |= element.starts_with(|c: char| c.is_ascii_digit());
            count += 1;
        }
        // A list of numbers is the tokens of one input.
        Ok(Inputs { text, count: if is_tokens { 1 } else { count } })
    }
}

#[cfg(test)]
mod tests;
