//! Writes a changed document in the order in which it was written.
//!
//! The library's own writer leaves texts such as `on` without quotes, which kubectl, a reader of YAML
//! 1.1, takes for truth values; here everything that could be read otherwise is quoted.

use std::fmt::Write as _;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value as Yaml};

/// `after` with the fields in the order of `before`; new ones come last, and `name` first of all that
/// is new.
pub(super) fn follow(before: Option<&Yaml>, after: &Json) -> Yaml {
    match after {
        Json::Object(fields) => {
            let mut mapping = Mapping::new();
            let known = before.and_then(Yaml::as_mapping);
            let known = known
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.as_str()?, value)));
            for (name, value) in known {
                if let Some(after) = fields.get(name) {
                    mapping.insert(name.into(), follow(Some(value), after));
                }
            }
            let mut new: Vec<_> =
                fields.iter().filter(|(name, _)| !mapping.contains_key(name.as_str())).collect();
            new.sort_by_key(|(name, _)| *name != "name");
            for (name, value) in new {
                mapping.insert(name.as_str().into(), follow(None, value));
            }
            Yaml::Mapping(mapping)
        }
        Json::Array(entries) => {
            let known = before.and_then(Yaml::as_sequence).map(Vec::as_slice).unwrap_or_default();
            let entries = entries.iter().enumerate().map(|(at, entry)| {
                let before = match entry.get("name") {
                    Some(name) => known
                        .iter()
                        .find(|it| it.get("name").and_then(Yaml::as_str) == name.as_str()),
                    None => known.get(at),
                };
                follow(before, entry)
            });
            Yaml::Sequence(entries.collect())
        }
        Json::Null => Yaml::Null,
        Json::Bool(value) => (*value).into(),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => serde_yaml::to_value(number).unwrap_or(Yaml::Null),
    }
}

/// The text of a document, an object.
pub(super) fn write(document: &Yaml) -> String {
    let mut text = String::new();
    if let Some(fields) = document.as_mapping() {
        write_mapping(&mut text, fields, 0, false);
    }
    text
}

/// Writes fields. If `is_begun`, the first one stands on the line that has been begun.
fn write_mapping(text: &mut String, fields: &Mapping, indent: usize, is_begun: bool) {
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 || !is_begun {
            pad(text, indent);
        }
        text.push_str(&scalar(name));
        text.push(':');
        match value {
            Yaml::Mapping(fields) if !fields.is_empty() => {
                text.push('\n');
                write_mapping(text, fields, indent + 2, false);
            }
            // As kubectl does, at the height of the field's name.
            Yaml::Sequence(entries) if !entries.is_empty() => {
                text.push('\n');
                write_entries(text, entries, indent, false);
            }
            other => {
                text.push(' ');
                write_leaf(text, other, indent + 2);
            }
        }
    }
}

fn write_entries(text: &mut String, entries: &[Yaml], indent: usize, is_begun: bool) {
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 || !is_begun {
            pad(text, indent);
        }
        text.push_str("- ");
        match entry {
            Yaml::Mapping(fields) if !fields.is_empty() => {
                write_mapping(text, fields, indent + 2, true);
            }
            Yaml::Sequence(entries) if !entries.is_empty() => {
                write_entries(text, entries, indent + 2, true);
            }
            other => write_leaf(text, other, indent + 2),
        }
    }
}

/// Writes a value that has no parts, and ends its line.
fn write_leaf(text: &mut String, value: &Yaml, indent: usize) {
    match value.as_str() {
        Some(lines) if is_block(lines) => write_block(text, lines, indent),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
}

fn write_block(text: &mut String, lines: &str, indent: usize) {
    let end = match (lines.ends_with('\n'), lines.ends_with("\n\n")) {
        (false, _) => "|-",
        (true, false) => "|",
        (true, true) => "|+",
    };
    text.push_str(end);
    text.push('\n');
    for line in lines.strip_suffix('\n').unwrap_or(lines).split('\n') {
        if !line.is_empty() {
            pad(text, indent);
        }
        let _ = writeln!(text, "{line}");
    }
}

/// True for a text of several lines that a block shows as it is.
fn is_block(text: &str) -> bool {
    let is_plain = text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    text.contains('\n') && is_plain && !text.starts_with(char::is_whitespace)
}

fn scalar(value: &Yaml) -> String {
    match value {
        Yaml::Null => "null".into(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::String(text) if is_plain(text) => text.clone(),
        // Text in JSON's quotes is text in YAML's.
        Yaml::String(text) => Json::from(text.as_str()).to_string(),
        Yaml::Sequence(_) => "[]".into(),
        Yaml::Mapping(_) | Yaml::Tagged(_) => "{}".into(),
    }
}

/// True for a text that no version of YAML reads as anything else.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null"];
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:@".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use super::{follow, write};
    use serde_json::json;
    use serde_yaml::Value as Yaml;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let values = json!({
            "plain": ["registry.example/app:1", "/bin/sh", "a-b_c", "sha256:ab@x"],
            "quoted": ["on", "Yes", "n", "0644", "1e3", "1_000", "12:30:45", "~", "null", "", " a", "a ",
                "a: b", "a:", "- a", "#a", "*", "&a", "!a", "{a}", "2001-01-01", "\"", "a\tb", "\u{e9}"],
            "lines": ["a\nb", "a\nb\n", "a\n\n  b\n\n\n", " a\nb", "\na", "a\r\nb", "a\n\tb\n", "a \nb"],
            "numbers": [0, -1, 1.5, 18_446_744_073_709_551_615_u64],
            "others": [true, false, null, [], {}, [[1, [2]], [{"a": {"b": []}}]]],
            "on": {"a b": 1, "": 2, "x:": "3\n4\n"},
        });
        let text = write(&follow(None, &values));
        let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, values, "{text}");
        // What readers of YAML 1.1 would take for something else stands in quotes.
        for quoted in ["\"on\":", "- \"on\"", "- \"Yes\"", "- \"0644\"", "- \"12:30:45\""] {
            assert!(text.contains(quoted), "{quoted} in {text}");
        }
    }

    #[test]
    fn the_order_is_the_one_that_was_written() {
        let before: Yaml =
            serde_yaml::from_str("kind: Pod\nspec:\n  z: 1\n  list:\n  - {name: b, image: x}\n")
                .unwrap();
        let after = json!({
            "kind": "Pod",
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "added": 2,
                "z": 1,
                "list": [{"env": [], "name": "a"}, {"image": "x", "more": 1, "name": "b"}],
            },
        });
        let expected = "\
kind: Pod
spec:
  z: 1
  list:
  - name: a
    env: []
  - name: b
    image: x
    more: 1
  added: 2
metadata:
  labels:
    a: b
";
        assert_eq!(write(&follow(Some(&before), &after)), expected);
    }
}
