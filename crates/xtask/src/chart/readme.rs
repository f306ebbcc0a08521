//! The table of values in the chart's README, made from the comments in `values.yaml`.
//!
//! A comment that begins with `# --` describes the key below it, and whatever lies below that key.

use anyhow::{Context, ensure};
use serde_yaml::Value;

/// Between these the table stands.
const MARKS: [&str; 2] = ["<!-- values: cargo xtask gen -->\n", "<!-- end of values -->\n"];

/// What a comment marks itself with.
const MARK: &str = "# -- ";

/// One described key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// With dots, as `--set` takes it.
    pub(super) key: String,
    pub(super) default: String,
    pub(super) description: String,
}

/// The README with a table of today.
pub(super) fn with_table(readme: &str, values: &str) -> anyhow::Result<String> {
    let missing = || format!("the README must have a line {} and a line {}", MARKS[0], MARKS[1]);
    let (before, rest) = readme.split_once(MARKS[0]).with_context(missing)?;
    let (_, after) = rest.split_once(MARKS[1]).with_context(missing)?;
    let mut table = "| value | default | what it is |\n| --- | --- | --- |\n".to_owned();
    for Entry { key, default, description } in entries(values)? {
        let description = description.replace('|', "\\|");
        table += &format!("| `{key}` | `{default}` | {description} |\n");
    }
    Ok([before, MARKS[0], &table, MARKS[1], after].concat())
}

/// All described keys, in the order of the file.
pub(super) fn entries(values: &str) -> anyhow::Result<Vec<Entry>> {
    let tree: Value = serde_yaml::from_str(values).context("values.yaml is no YAML")?;
    let mut entries = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut description = None;
    for line in values.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(begin) = text.strip_prefix(MARK) {
            ensure!(description.is_none(), "two descriptions and no key between them: {begin}");
            description = Some(begin.to_owned());
            continue;
        }
        let Some((key, _)) = text.split_once(':') else { continue };
        if text.starts_with(['#', '-']) {
            continue;
        }
        path.retain(|(outer, _)| *outer < depth);
        path.push((depth, key));
        if let Some(description) = description.take() {
            let keys: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
            let default = default_of(&tree, &keys)?;
            entries.push(Entry { key: keys.join("."), default, description });
        }
    }
    Ok(entries)
}

/// A default on one line.
fn default_of(tree: &Value, keys: &[&str]) -> anyhow::Result<String> {
    let value = keys.iter().try_fold(tree, |value, key| value.get(key));
    let value = value.with_context(|| format!("no value {}", keys.join(".")))?;
    serde_json::to_string(value).context("a value is JSON")
}

#[cfg(test)]
mod tests {
    use super::{Entry, entries, with_table};

    const VALUES: &str = "\
# Not a description.
a:
  # -- The first.
  b: x
  # -- The second: or so.
  c: {d: [1, 2]}
# -- The third.
e:
  f: true
g: 1
";

    fn entry(key: &str, default: &str, description: &str) -> Entry {
        let [key, default, description] = [key, default, description].map(str::to_owned);
        Entry { key, default, description }
    }

    #[test]
    fn each_described_key_is_found_with_its_path_and_default() {
        assert_eq!(
            entries(VALUES).expect("they are well formed"),
            [
                entry("a.b", r#""x""#, "The first."),
                entry("a.c", r#"{"d":[1,2]}"#, "The second: or so."),
                entry("e", r#"{"f":true}"#, "The third."),
            ]
        );
    }

    #[test]
    fn the_table_takes_the_place_of_the_old_one() {
        let readme = "# A\n<!-- values: cargo xtask gen -->\nold\n<!-- end of values -->\nB\n";
        let values = "# -- One | two.\na: 1\n";
        let expected = "# A\n<!-- values: cargo xtask gen -->\n| value | default | what it is |\n\
                        | --- | --- | --- |\n| `a` | `1` | One \\| two. |\n\
                        <!-- end of values -->\nB\n";
        assert_eq!(with_table(readme, values).expect("it has marks"), expected);
        assert!(with_table("# A\n", values).is_err());
    }
}
