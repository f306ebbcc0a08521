//! What a text must not contain, and the shape of a Rust file.

use super::{Finding, Text};

/// A file longer than this, without its tests, is more than one thing.
const MAX_LINES: usize = 600;

/// A test module longer than this hides the code it stands beside.
const MAX_INLINE_TEST_LINES: usize = 100;

/// Marks of unfinished work; one with the number of an issue is a plan and may stay.
const MARKERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// What no Rust file may contain, and what to do instead.
const BANNED_IN_RUST: [(&str, &str); 4] = [
    (concat!("#[ign", "ore"), "a test runs or it goes; there is no third state"),
    (concat!("#[should_", "panic"), "assert the error; a panic does not say which one it was"),
    (concat!("to", "do!("), "write it, or leave it out"),
    (concat!("unimple", "mented!("), "write it, or leave it out"),
];

/// What pure code may not name: clocks, I/O, and orders that differ from run to run.
const BANNED_IN_PURE: [&str; 10] = [
    "std::time::Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "HashMap",
    "HashSet",
    "println!",
];

/// The crates that decide.
const PURE: [&str; 2] = ["crates/quota/", "crates/providers/"];

/// Folders of one person's machine. They mean nothing on another.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/t", "mp/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

/// How secrets begin, and how long a run of key characters after it makes one. Made-up keys in tests
/// are shorter than real ones.
const SECRETS: [(&str, usize); 5] = [
    (concat!("sk", "-"), 24),
    (concat!("AK", "IA"), 16),
    (concat!("gh", "p_"), 30),
    (concat!("github_", "pat_"), 30),
    (concat!("-----BEGIN ", "PRIVATE KEY"), 0),
];

const EM_DASH: char = '\u{2014}';

/// Texts that others wrote, or that are generated.
const FOREIGN: [&str; 3] = ["LICENSE", "Cargo.lock", "package-lock.json"];

pub(super) fn check(text: &Text) -> Vec<Finding> {
    if FOREIGN.iter().any(|name| text.path.ends_with(name)) {
        return Vec::new();
    }
    let mut findings = check_words(text);
    if text.path.ends_with(".rs") {
        findings.extend(check_shape(text));
        findings.extend(check_code(text));
    }
    findings
}

fn check_words(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, problem: String| findings.push(Finding::new(&text.path, line, problem));
    for (number, line) in text.lines() {
        for marker in MARKERS.iter().filter(|marker| line.contains(*marker)) {
            if !names_issue(line) {
                found(number, format!("{marker} without the number of an issue; do it or file it"));
            }
        }
        for path in MACHINE_PATHS.iter().filter(|path| contains_path(line, path)) {
            found(number, format!("{path} exists on one machine only"));
        }
        if SECRETS.iter().any(|secret| contains_secret(line, *secret)) {
            found(number, "this looks like a secret; if it is one, it must be revoked".to_owned());
        }
        if line.contains(EM_DASH) {
            found(number, "a colon, a comma or two sentences read better than a dash".to_owned());
        }
    }
    findings
}

/// The shape of a file: its head, its name, its length.
fn check_shape(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, problem: &str| findings.push(Finding::new(&text.path, line, problem));
    if !is_test(text) && !text.content.starts_with("//! ") {
        found(1, "open with `//!`: what it is, who calls it, what is not in it");
    }
    if text.path.ends_with("/mod.rs") {
        found(1, "name the file after the module, beside its folder");
    }
    let all = text.content.lines().count();
    let start = start_of_tests(text).unwrap_or(all);
    if !is_test(text) && start > MAX_LINES {
        found(MAX_LINES, &format!("{start} lines without tests; split at {MAX_LINES}"));
    }
    if all - start > MAX_INLINE_TEST_LINES {
        found(start + 1, "the tests are long; move them to `tests.rs` in the module's folder");
    }
    findings
}

/// What no code may contain, and what pure code may not.
fn check_code(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line, problem: String| findings.push(Finding::new(&text.path, line, problem));
    let pure = !is_test(text) && PURE.iter().any(|folder| text.path.starts_with(folder));
    let start = start_of_tests(text).unwrap_or(usize::MAX);
    for (number, line) in text.lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for (banned, instead) in BANNED_IN_RUST.iter().filter(|(word, _)| line.contains(word)) {
            found(number, format!("`{banned}`: {instead}"));
        }
        if pure && number <= start {
            for banned in BANNED_IN_PURE.iter().filter(|banned| line.contains(*banned)) {
                found(number, format!("`{banned}` in pure code; take it as an argument"));
            }
        }
    }
    findings
}

fn is_test(text: &Text) -> bool {
    text.path.ends_with("tests.rs") || text.path.contains("tests/")
}

/// How many lines stand before the test module that ends the file, if it has one.
fn start_of_tests(text: &Text) -> Option<usize> {
    let mut lines = text.lines().zip(text.content.lines().skip(1));
    lines.find_map(|((number, line), next)| {
        (line == "#[cfg(test)]" && next == "mod tests {").then_some(number - 1)
    })
}

fn names_issue(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// True if `path` begins a path here; inside a longer one it is only a folder's name.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "/._-}>$*".contains(c))
    })
}

fn contains_secret(line: &str, (prefix, length): (&str, usize)) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let inside_word = line[..at].ends_with(|c: char| c.is_alphanumeric());
        let key = line[at + prefix.len()..].chars();
        let key = key.take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).count();
        !inside_word && key >= length
    })
}

#[cfg(test)]
mod tests;
