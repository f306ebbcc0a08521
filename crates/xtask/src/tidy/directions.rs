//! Which crate may use which. The compiler forbids circles; this forbids shortcuts.

use std::fs;

use anyhow::Context;

use super::{Finding, Text};
use crate::workspace::{Package, Workspace, output};

/// Each crate with what it may use of ours. Those which are not here may use everything but each
/// other: the command line, the tests and this.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("quota", &[]),
    ("service", &[]),
    ("providers", &["quota"]),
    ("wire", &["quota"]),
    ("crds", &["quota"]),
    ("sidecar", &["quota", "providers", "wire", "service"]),
    ("allocator", &["quota", "wire", "crds", "service"]),
    ("emulator", &["quota", "providers", "service"]),
    ("sim", &["quota", "providers"]),
    ("fleet", &["quota", "wire", "service"]),
];

/// Nothing may use these.
const ENDS: [&str; 4] = ["weir", "tests", "cluster-tests", "xtask"];

/// Crates with what must not be anywhere below them, and why.
const ABSENT: [(&str, &[&str], &str); 4] = [
    ("quota", RUNTIMES, "decisions are pure"),
    ("providers", RUNTIMES, "decisions are pure"),
    ("sim", RUNTIMES, "the simulator owns time"),
    (
        "sidecar",
        &["kube", "kube-core", "k8s-openapi", "crds", "axum", "reqwest"],
        "it is in every pod and must stay small",
    ),
];

const RUNTIMES: &[&str] = &["tokio", "tonic", "kube", "hyper", "tracing"];

pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let ours: Vec<&str> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &workspace.packages {
        let content = fs::read_to_string(&package.manifest_path)?;
        let path = format!("{}/Cargo.toml", package.folder(workspace));
        let manifest = Text { path, content };
        for used in wrong_directions(package, &ours) {
            let line = manifest.line_of(used);
            let problem = format!("{} must not use {used}; see ARCHITECTURE.md", package.name);
            findings.push(Finding::new(&manifest.path, line, problem));
        }
    }
    for (name, absent, why) in ABSENT {
        let path = format!("crates/{name}/Cargo.toml");
        for found in below(workspace, name)?.iter().filter(|it| absent.contains(&it.as_str())) {
            let problem = format!(
                "{found} must not be below {name}: {why}; `cargo tree -p {name} -i {found}` shows how"
            );
            findings.push(Finding::new(&path, 1, problem));
        }
    }
    Ok(findings)
}

/// What `package` uses of ours and must not. Tests may use what they like: that ships to nobody.
fn wrong_directions<'a>(package: &'a Package, ours: &[&str]) -> Vec<&'a str> {
    let allowed = ALLOWED.iter().find(|(name, _)| *name == package.name).map(|(_, list)| *list);
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .map(|dependency| dependency.name.as_str())
        .filter(|name| ours.contains(name))
        .filter(|name| match allowed {
            Some(allowed) => !allowed.contains(name),
            None => ENDS.contains(name),
        })
        .collect()
}

/// The names of all packages that are built into `package`.
fn below(workspace: &Workspace, package: &str) -> anyhow::Result<Vec<String>> {
    let tree = output(workspace.cargo().args([
        "tree",
        "--package",
        package,
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
        "--quiet",
    ]))
    .with_context(|| format!("the tree below {package}"))?;
    let mut names: Vec<String> = tree
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::wrong_directions;
    use crate::workspace::{Dependency, Package};

    #[test]
    fn only_listed_directions_are_allowed() {
        let ours = ["quota", "providers", "crds", "sidecar", "weir", "tests", "xtask"];
        let ordinary: Option<&str> = None;
        for (package, uses, kind, expected) in [
            ("quota", "providers", ordinary, vec!["providers"]),
            ("quota", "serde", ordinary, vec![]),
            ("providers", "quota", ordinary, vec![]),
            ("sidecar", "crds", ordinary, vec!["crds"]),
            ("sidecar", "crds", Some("build"), vec!["crds"]),
            ("sidecar", "crds", Some("dev"), vec![]),
            ("weir", "sidecar", ordinary, vec![]),
            ("weir", "xtask", ordinary, vec!["xtask"]),
        ] {
            let package = Package {
                name: package.to_owned(),
                manifest_path: "Cargo.toml".into(),
                dependencies: vec![Dependency {
                    name: uses.to_owned(),
                    kind: kind.map(str::to_owned),
                }],
            };
            let name = &package.name;
            assert_eq!(wrong_directions(&package, &ours), expected, "{name} -> {uses} ({kind:?})");
        }
    }
}
