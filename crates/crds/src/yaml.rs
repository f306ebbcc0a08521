//! YAML texts as JSON values, and the lines that fields stand on.
//!
//! The only module that knows the YAML library. The library keeps no positions in its values, but
//! puts one on every error: [`line`] walks to a field and fails there on purpose.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

use crate::path::{Path, Step};

/// Why a document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The line, from 1.
    pub(crate) line: Option<usize>,
    /// What is wrong.
    pub(crate) message: String,
}

/// The documents of a text, in order; empty ones are null. A fault ends them: the library goes on in
/// the middle of a document, or for ever.
pub(crate) fn documents(text: &str) -> Vec<Result<Value, Fault>> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let document = read(document);
        let is_fault = document.is_err();
        documents.push(document);
        if is_fault {
            break;
        }
    }
    documents
}

fn read(document: serde_yaml::Deserializer<'_>) -> Result<Value, Fault> {
    let value = serde_yaml::Value::deserialize(document).map_err(|error| {
        let message = error.to_string();
        // The library ends its messages with positions, which stand elsewhere here.
        let message = message.split(" at line ").next().unwrap_or_default();
        let line = error.location().map(|location| location.line());
        Fault { line, message: format!("is not YAML that can be read: {message}") }
    })?;
    serde_json::to_value(value)
        .map_err(|_| Fault { line: None, message: "the names of fields must be texts".into() })
}

/// The line, from 1, on which the field at `path` stands in a document of `text`, or on which the
/// nearest thing around it begins if it is not there.
pub(crate) fn line(text: &str, document: usize, path: &Path) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).nth(document)?;
    let error = Find { steps: path.steps() }.deserialize(document).err()?;
    error.location().map(|location| location.line())
}

/// Walks along `steps` and fails at their end.
struct Find<'a> {
    steps: &'a [Step],
}

/// Reads the name of a field and fails if it is the last step.
struct FindName<'a> {
    steps: &'a [Step],
}

// === impl Find ===

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_next) = map.next_key_seed(FindName { steps: self.steps })? {
            if is_next {
                map.next_value_seed(Find { steps: self.steps.get(1..).unwrap_or_default() })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if let Some((Step::Index(index), rest)) = self.steps.split_first() {
            for _ in 0..*index {
                entries.next_element::<IgnoredAny>()?;
            }
            entries.next_element_seed(Find { steps: rest })?;
        }
        Err(A::Error::custom("here"))
    }
}

// === impl FindName ===

impl<'de> DeserializeSeed<'de> for FindName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FindName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        match self.steps {
            [Step::Field(field)] if field == name => Err(E::custom("here")),
            [Step::Field(field), ..] => Ok(field == name),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A comment.
kind: A
---
kind: B
spec:
  budgets:
  - provider: openai
    guaranteed: {requestsPerMinute: 1}
  - provider: other
    limit:
      x
";

    #[test]
    fn a_field_stands_on_the_line_of_its_name() {
        let budgets = Path::spec().field("budgets");
        for (document, path, expected) in [
            (0, Path::root(), Some(2)),
            (0, Path::root().field("kind"), Some(2)),
            (1, Path::root().field("kind"), Some(4)),
            (1, Path::spec(), Some(5)),
            (1, budgets.clone(), Some(6)),
            (1, budgets.index(0), Some(7)),
            (1, budgets.index(0).field("guaranteed").field("requestsPerMinute"), Some(8)),
            (1, budgets.index(1), Some(9)),
            (1, budgets.index(1).field("limit"), Some(10)),
            // What is not there: where the thing around it begins.
            (1, budgets.index(1).field("weight"), Some(9)),
            (1, budgets.index(7), Some(7)),
            (1, Path::root().field("metadata"), Some(4)),
            (2, Path::root(), None),
        ] {
            assert_eq!(line(TEXT, document, &path), expected, "{document} {path}");
        }
    }

    #[test]
    fn a_text_that_is_not_yaml_says_where() {
        for (text, line, message) in [
            ("a: [1", Some(2), "is not YAML that can be read: did not find expected ',' or ']'"),
            (
                "a: 1\nb: 2\na: 3\n",
                Some(1),
                "is not YAML that can be read: duplicate entry with key \"a\"",
            ),
            ("[1]: a", None, "the names of fields must be texts"),
        ] {
            let fault = Fault { line, message: message.into() };
            assert_eq!(documents(text), [Err(fault)], "{text}");
        }
    }

    #[test]
    fn empty_documents_are_null() {
        assert_eq!(documents("---\n# Nothing.\n---\n"), [Ok(Value::Null), Ok(Value::Null)]);
    }
}
