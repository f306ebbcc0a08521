//! Each rule with a text that keeps it and one that breaks it.

use super::{MAX_INLINE_TEST_LINES, MAX_LINES, check};
use crate::tidy::Text;

fn problems(path: &str, content: &str) -> Vec<String> {
    let text = Text { path: path.to_owned(), content: content.to_owned() };
    check(&text).iter().map(ToString::to_string).collect()
}

/// Breaks of one line of Rust, behind a proper head.
fn breaks(path: &str, line: &str) -> usize {
    problems(path, &format!("//! A head.\n\n{line}\n")).len()
}

#[test]
fn words_are_banned_where_they_mean_something() {
    for (line, expected) in [
        (concat!("// TO", "DO: later"), 1),
        (concat!("// TO", "DO(#12): later"), 0),
        (concat!("// FIX", "ME"), 1),
        (concat!("#[ign", "ore]"), 1),
        (concat!("#[should_", "panic]"), 1),
        (concat!("    to", "do!()"), 1),
        (concat!("let folder = \"/wo", "rk/main\";"), 1),
        (concat!("let url = \"https://example.com/wo", "rk/main\";"), 0),
        (concat!("let url = \"target/t", "mp/x\";"), 0),
        (concat!("let key = \"sk", "-live-0123456789abcdef0123\";"), 1),
        (concat!("let key = \"sk", "-test\";"), 0),
        (concat!("let task = \"task", "-0123456789abcdef0123456789\";"), 0),
        ("// One thing \u{2014} another.", 1),
        ("// Plain words.", 0),
    ] {
        assert_eq!(breaks("crates/sidecar/src/lib.rs", line), expected, "{line}");
    }
}

#[test]
fn pure_code_names_no_clock_and_no_map_without_order() {
    for (line, expected) in [
        ("use std::collections::HashMap;", 1),
        ("use std::time::Instant;", 1),
        ("let instant = crate::time::Time(3);", 0),
        ("// A HashMap would differ from run to run.", 0),
        ("#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}", 0),
    ] {
        let allowed_elsewhere = breaks("crates/sidecar/src/lib.rs", line);
        assert_eq!((breaks("crates/quota/src/lib.rs", line), allowed_elsewhere), (expected, 0));
    }
}

#[test]
fn a_file_has_a_head_and_an_end() {
    let line = "fn f() {}\n";
    let head = "//! A head.\n";
    let tests = |lines: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(lines));
    for (path, content, expected) in [
        ("a.rs", line.to_owned(), "a.rs:1: open with"),
        ("a/mod.rs", head.to_owned(), "a/mod.rs:1: name the file"),
        ("a.rs", head.to_owned() + &line.repeat(MAX_LINES), "a.rs:600: 601 lines"),
        ("a.rs", head.to_owned() + &tests(MAX_INLINE_TEST_LINES), "a.rs:2: the tests are long"),
    ] {
        let problems = problems(path, &content);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
    let long_tests = head.to_owned() + &line.repeat(2 * MAX_LINES);
    assert_eq!(problems("a/tests.rs", &long_tests), [""; 0]);
}

#[test]
fn what_others_wrote_is_left_alone() {
    let content = concat!("name = \"x\" # TO", "DO\n");
    assert_eq!(problems("Cargo.lock", content), [""; 0]);
    assert_eq!(problems("deny.toml", content).len(), 1);
}
