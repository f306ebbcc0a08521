//! Cargo.toml and Cargo.lock: the shared lints, what is used, where it comes from.

use super::{Finding, Text};
use crate::workspace::{Package, Workspace};

/// Packages that must not be built at all: one TLS library is enough, and it is ring (see
/// `docs/decisions/0002-ring-not-aws-lc.md`).
const BANNED: [&str; 4] = ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"];

/// The one place that packages come from; a mirror is a matter of a person's own configuration.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(workspace: &Workspace, texts: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let folder = package.folder(workspace);
        let path = format!("{folder}/Cargo.toml");
        let Some(manifest) = texts.iter().find(|text| text.path == path) else { continue };
        if !manifest.content.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(&path, 1, "add `[lints] workspace = true`"));
        }
        let sources = texts.iter().filter(|text| {
            text.path.ends_with(".rs") && text.path.starts_with(&format!("{folder}/"))
        });
        let sources: Vec<&Text> = sources.collect();
        for unused in unused(package, &sources) {
            let line = manifest.line_of(unused);
            if !is_explained(manifest, line) {
                let problem =
                    format!("no source names {unused}; remove it or say above why it is there");
                findings.push(Finding::new(&path, line, problem));
            }
        }
    }
    findings.extend(texts.iter().filter(|text| text.path == "Cargo.lock").flat_map(check_lock));
    findings
}

/// What a manifest lists and no source of the package names. Only text is read, so a name in a
/// comment counts as used; what is really unused is found all the same, mostly.
fn unused<'a>(package: &'a Package, sources: &[&Text]) -> Vec<&'a str> {
    let names = package.dependencies.iter().map(|dependency| dependency.name.as_str());
    names
        .filter(|name| {
            let identifier = name.replace('-', "_");
            !sources.iter().any(|source| contains_word(&source.content, &identifier))
        })
        .collect()
}

/// True if a comment stands on the line, or directly above it: only generated code may name what is
/// listed there, or it may be there for a feature.
fn is_explained(manifest: &Text, line: usize) -> bool {
    manifest.lines().any(|(number, text)| {
        (number == line && text.contains('#')) || (number + 1 == line && text.starts_with('#'))
    })
}

fn contains_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
    })
}

fn check_lock(lock: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in lock.lines() {
        let value = |key: &str| text.strip_prefix(key)?.trim_matches(['=', ' ', '"']).into();
        let name: Option<&str> = value("name");
        let source: Option<&str> = value("source");
        if let Some(name) = name.filter(|name| BANNED.contains(name)) {
            let problem = format!("{name} is banned; `cargo tree -i {name}` shows who asks for it");
            findings.push(Finding::new(&lock.path, line, problem));
        }
        if source.is_some_and(|source| source != SOURCE) {
            findings.push(Finding::new(&lock.path, line, "packages come from crates.io only"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{check_lock, contains_word, is_explained, unused};
    use crate::tidy::Text;
    use crate::workspace::{Dependency, Package};

    fn text(path: &str, content: &str) -> Text {
        Text { path: path.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn a_dependency_that_no_source_names_is_found() {
        let dependency = |name: &str| Dependency { name: name.to_owned(), kind: None };
        let package = Package {
            name: "wire".to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: ["http-body-util", "bytes"].map(dependency).into(),
        };
        let source = text("src/lib.rs", "use http_body_util::Full;\nlet bytes_read = 3;");
        assert_eq!(unused(&package, &[&source]), ["bytes"]);
    }

    #[test]
    fn a_dependency_may_be_explained() {
        let manifest = "prost = 1\n# For its feature.\ntonic = 1\nbytes = 1 # generated code\n";
        let manifest = text("Cargo.toml", manifest);
        let explained = [1, 3, 4].map(|line| is_explained(&manifest, line));
        assert_eq!(explained, [false, true, true]);
    }

    #[test]
    fn a_word_is_whole() {
        assert!(contains_word("use http::Request;", "http"));
        assert!(!contains_word("use http_body::Body; // https", "http"));
    }

    #[test]
    fn a_banned_package_and_a_foreign_source_are_found() {
        let lock = "name = \"native-tls\"\nsource = \"git+https://example.com/x\"\n";
        let lines: Vec<usize> =
            check_lock(&text("Cargo.lock", lock)).into_iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
        let lock = format!("name = \"ring\"\nsource = \"{}\"\n", super::SOURCE);
        assert_eq!(check_lock(&text("Cargo.lock", &lock)), []);
    }
}
