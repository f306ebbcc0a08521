//! Markdown: links that lead somewhere, and the commands that the README must name.

use std::path::Path;

use super::{Finding, Text};
use crate::workspace::Workspace;

/// What a stranger must find in the README: how to see it work, and how to test it.
const COMMANDS: [&str; 2] = ["cargo run --release --bin weir -- demo", "cargo xtask test"];

pub(super) fn check(workspace: &Workspace, texts: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match texts.iter().find(|text| text.path == "README.md") {
        Some(readme) => {
            for command in COMMANDS.iter().filter(|command| !readme.content.contains(*command)) {
                let problem = format!("the README must name `{command}`");
                findings.push(Finding::new(&readme.path, 1, problem));
            }
        }
        None => findings.push(Finding::new("README.md", 1, "there is no README")),
    }
    for text in texts.iter().filter(|text| text.path.ends_with(".md")) {
        let folder = workspace.root.join(&text.path);
        let folder = folder.parent().unwrap_or_else(|| Path::new(""));
        for (line, link) in links(text) {
            if !folder.join(link).exists() {
                findings.push(Finding::new(&text.path, line, format!("{link} does not exist")));
            }
        }
    }
    findings
}

/// Links to files, without their anchors; code and addresses of the web are left out.
fn links(text: &Text) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for after in line.split("](").skip(1) {
            let target = after.split([')', ' ']).next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains(':') {
                links.push((number, file));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::links;
    use crate::tidy::Text;

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let content = "[a](one.md) and [b](docs/two.md#part \"title\")\n\
                       [web](https://example.com) [here](#part) ![image](three.svg)\n\
                       ```\n[code](four.md)\n```\n[mail](mailto:a@example.com)\n";
        let text = Text { path: "README.md".to_owned(), content: content.to_owned() };
        assert_eq!(links(&text), [(1, "one.md"), (1, "docs/two.md"), (2, "three.svg")]);
    }
}
