//! `tidy`: the house rules that no lint checks.
//!
//! Each finding names file and line and says what to do. Rules about text read text, so that they
//! take no time; what needs the compiler is clippy's.

use std::fmt;
use std::fs;

use anyhow::Context;

use crate::workspace::Workspace;

mod directions;
mod documents;
mod manifests;
mod sources;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    problem: String,
}

/// A committed text, its path relative to the root.
struct Text {
    path: String,
    content: String,
}

/// Checks everything and prints what it finds; true if that is nothing.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let texts = texts(workspace)?;
    let mut findings = directions::check(workspace)?;
    findings.extend(manifests::check(workspace, &texts));
    findings.extend(documents::check(workspace, &texts));
    findings.extend(texts.iter().flat_map(sources::check));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", texts.len(), findings.len());
    Ok(findings.is_empty())
}

/// All committed files that are text; binary ones have nothing that these rules could read.
fn texts(workspace: &Workspace) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in workspace.files()? {
        let bytes = fs::read(workspace.root.join(&path)).with_context(|| path.clone())?;
        if let Ok(content) = String::from_utf8(bytes) {
            texts.push(Text { path, content });
        }
    }
    Ok(texts)
}

// === impl Finding ===

impl Finding {
    fn new(file: &str, line: usize, problem: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

// === impl Text ===

impl Text {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.content.lines())
    }

    /// The first line that contains `part`; the first line of all if none does.
    fn line_of(&self, part: &str) -> usize {
        self.lines().find(|(_, line)| line.contains(part)).map_or(1, |(number, _)| number)
    }
}
