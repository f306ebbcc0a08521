//! Keys out of Secrets. Nothing here says what a Secret holds, neither in errors nor in `Debug`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use quota::policy::Secret;
use serde_json::{Map, Value};

use crate::path::Path;
use crate::problem::Violation;
use crate::schema;

const FIELDS: [&str; 7] =
    ["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"];

/// The entry of a Secret as a key: without white space at its ends (which `echo` adds), and empty
/// if it is none, because no HTTP header could carry it.
pub fn key(entry: &[u8]) -> Secret {
    let entry = entry.trim_ascii();
    match std::str::from_utf8(entry) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Secret::new(text),
        _ => Secret::new(""),
    }
}

/// The entries of a `kind: Secret` document, and what is wrong with it. As in the API server,
/// `stringData` goes before `data`.
pub(crate) fn entries(
    document: &Map<String, Value>,
    found: &mut Vec<Violation>,
) -> BTreeMap<String, Secret> {
    for name in document.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        let message = schema::unknown(&FIELDS);
        found.push(Violation::new(Path::root().field(name), message));
    }
    let mut entries = BTreeMap::new();
    for field in ["data", "stringData"] {
        let path = Path::root().field(field);
        let values = match document.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(values)) => values,
            Some(_) => {
                found.push(Violation::new(path, "must be an object"));
                continue;
            }
        };
        for (name, value) in values {
            match decode(field, value) {
                Ok(entry) => {
                    entries.insert(name.clone(), key(&entry));
                }
                Err(message) => found.push(Violation::new(path.field(name), message)),
            }
        }
    }
    entries
}

fn decode(field: &str, value: &Value) -> Result<Vec<u8>, &'static str> {
    let Some(text) = value.as_str() else { return Err("must be a text: put it in quotes") };
    if field == "stringData" {
        return Ok(text.into());
    }
    let text: String = text.split_ascii_whitespace().collect();
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| "is not base64: encode it, or write it as it is under stringData")
}
