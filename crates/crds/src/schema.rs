//! Holds a value to an OpenAPI schema, as the API server does: types, bounds, required and unknown
//! fields, duplicates in lists that are sets or maps.
//!
//! The directory source calls it before it reads a document into its struct, so that a person sees
//! everything that is wrong, each with its path, and not serde's first complaint. The schema is the
//! one of the custom resource definition, so that directory and cluster accept the same documents.
//! CEL rules are not evaluated here: [`crate::validate`] says the same.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use crate::path::Path;
use crate::problem::Violation;

/// Adds to `found` what is wrong with `value`, which is at `path`. Fields that are null are taken
/// out: they count as left out.
pub(crate) fn check(
    schema: &JSONSchemaProps,
    value: &mut Value,
    path: &Path,
    found: &mut Vec<Violation>,
) {
    let expected = schema.type_.as_deref().unwrap_or_default();
    if let Some(words) = mismatch(expected, value) {
        found.push(Violation::new(path.clone(), words));
        return;
    }
    match value {
        Value::Object(fields) => check_object(schema, fields, path, found),
        Value::Array(entries) => check_list(schema, entries, path, found),
        Value::String(text) => check_text(schema, text, path, found),
        Value::Number(number) => {
            let (number, bounds) = (number.as_f64(), (schema.minimum, schema.maximum));
            match (number, bounds) {
                (Some(n), (Some(min), _)) if n < min => {
                    found.push(Violation::new(path.clone(), format!("must be {min} or more")));
                }
                (Some(n), (_, Some(max))) if n > max => {
                    found.push(Violation::new(path.clone(), format!("must be {max} or less")));
                }
                _ => {}
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn check_object(
    schema: &JSONSchemaProps,
    fields: &mut Map<String, Value>,
    path: &Path,
    found: &mut Vec<Violation>,
) {
    if let Some(JSONSchemaPropsOrBool::Schema(entry)) = &schema.additional_properties {
        let max = schema.max_properties.and_then(|max| usize::try_from(max).ok());
        if let Some(max) = max.filter(|max| fields.len() > *max) {
            found.push(Violation::new(path.clone(), format!("takes at most {max} entries")));
        }
        for (name, value) in fields.iter_mut() {
            check(entry, value, &path.field(name), found);
        }
        return;
    }
    let known = schema.properties.as_ref();
    fields.retain(|name, value| !value.is_null() || known.is_none_or(|k| !k.contains_key(name)));
    for (name, value) in fields.iter_mut() {
        match known.and_then(|known| known.get(name)) {
            Some(schema) => check(schema, value, &path.field(name), found),
            None => {
                let names: Vec<&str> =
                    known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                found.push(Violation::new(path.field(name), unknown(&names)));
            }
        }
    }
    for name in schema.required.iter().flatten().filter(|name| !fields.contains_key(*name)) {
        found.push(Violation::new(path.field(name), "is missing"));
    }
}

/// What a person is told whose field is not one of `known`.
pub(crate) fn unknown(known: &[&str]) -> String {
    format!("unknown field; the fields here are {}", known.join(", "))
}

fn check_list(
    schema: &JSONSchemaProps,
    entries: &mut [Value],
    path: &Path,
    found: &mut Vec<Violation>,
) {
    let bound = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
    if let Some(min) = bound(schema.min_items).filter(|min| entries.len() < *min) {
        found.push(Violation::new(path.clone(), format!("needs at least {min} {}", entry(min))));
    }
    if let Some(max) = bound(schema.max_items).filter(|max| entries.len() > *max) {
        found.push(Violation::new(path.clone(), format!("takes at most {max} {}", entry(max))));
        return;
    }
    let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items else { return };
    let keys = schema.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let is_set = schema.x_kubernetes_list_type.as_deref() == Some("set");
    let mut seen = BTreeSet::new();
    for (index, value) in entries.iter_mut().enumerate() {
        let path = path.index(index);
        check(item, value, &path, found);
        let key = match (is_set, keys) {
            (true, _) => value.as_str(),
            (false, [key]) => value.get(key).and_then(Value::as_str),
            (false, _) => None,
        };
        if let Some(key) = key.filter(|key| !seen.insert((*key).to_owned())) {
            let path = keys.first().map_or_else(|| path.clone(), |field| path.field(field));
            found.push(Violation::new(path, format!("{key} stands in the list twice")));
        }
    }
}

fn check_text(schema: &JSONSchemaProps, text: &str, path: &Path, found: &mut Vec<Violation>) {
    let options: Option<Vec<&str>> = schema
        .enum_
        .as_ref()
        .map(|options| options.iter().filter_map(|option| option.0.as_str()).collect());
    if let Some(options) = options.filter(|options| !options.contains(&text)) {
        found.push(Violation::new(path.clone(), format!("must be one of {}", options.join(", "))));
    }
    // The API server counts characters.
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if schema.min_length.is_some_and(|min| length < min) {
        found.push(Violation::new(path.clone(), "must not be empty"));
    }
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        found.push(Violation::new(path.clone(), format!("takes at most {max} characters")));
    }
}

/// What a person is told if `value` is not of type `expected`. The value itself is not shown: it
/// may be a key in the wrong place.
fn mismatch(expected: &str, value: &Value) -> Option<String> {
    let (fits, words) = match expected {
        "object" => (value.is_object(), "an object"),
        "array" => (value.is_array(), "a list"),
        "string" => (value.is_string(), "a text"),
        "boolean" => (value.is_boolean(), "true or false"),
        "integer" => (value.is_i64() || value.is_u64(), "a whole number"),
        _ => (true, ""),
    };
    let (actual, hint) = match value {
        Value::Null => ("empty", ""),
        Value::Bool(_) => ("true or false", ": put it in quotes"),
        Value::Number(_) if expected == "integer" => ("a fraction", ""),
        Value::Number(_) => ("a number", ": put it in quotes"),
        Value::String(_) => ("a text", ""),
        Value::Array(_) => ("a list", ""),
        Value::Object(_) => ("an object", ""),
    };
    let hint = if expected == "string" { hint } else { "" };
    (!fits).then(|| format!("must be {words}, not {actual}{hint}"))
}

fn entry(count: usize) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}
