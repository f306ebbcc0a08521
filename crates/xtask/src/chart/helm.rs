//! helm: where it is, and what it is asked.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use anyhow::{Context, ensure};

use super::CHART;
use crate::workspace::Workspace;

/// What a person is told who has none.
pub(super) const MISSING: &str = "because there is no helm on the path, nor one that \
                                  `cargo xtask cluster build` has made";

/// A helm that was built from its module alone knows no version of Kubernetes and takes itself for an
/// old one; this is the version that the tests run.
const KUBE_VERSION: [&str; 2] = ["--kube-version", "1.34.4"];

/// As in the README.
const NAMESPACE: [&str; 2] = ["--namespace", "weir-system"];

/// A helm, and the workspace whose chart it reads.
pub(super) struct Helm {
    program: PathBuf,
    root: PathBuf,
}

// === impl Helm ===

impl Helm {
    /// The one on the path, else one that was built for the test cluster.
    pub(super) fn find(workspace: &Workspace) -> Option<Helm> {
        let paths = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&paths).map(|folder| folder.join("helm"));
        let program = on_path.chain(built()).find(|program| program.is_file())?;
        Some(Helm { program, root: workspace.root.clone() })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn lint<S: AsRef<OsStr>>(&self, values: &[S]) -> anyhow::Result<()> {
        let output = self.run("lint", &["--strict", "--quiet", CHART], values)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "helm lint: {text}");
        Ok(())
    }

    pub(super) fn template<S: AsRef<OsStr>>(&self, values: &[S]) -> anyhow::Result<String> {
        let output = self.run("template", &["weir", CHART], values)?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm template: {problem}");
        String::from_utf8(output.stdout).context("helm wrote no text")
    }

    /// What it says against these values.
    pub(super) fn refusal(&self, values: &[&str]) -> anyhow::Result<String> {
        let output = self.run("template", &["weir", CHART], values)?;
        ensure!(!output.status.success(), "helm takes {}", values.join(" "));
        String::from_utf8(output.stderr).context("helm wrote no text")
    }

    fn run<S: AsRef<OsStr>>(
        &self,
        verb: &str,
        words: &[&str],
        values: &[S],
    ) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.root).arg(verb).args(words).args(NAMESPACE).args(KUBE_VERSION);
        command.args(values).output().context("helm cannot be started")
    }
}

/// What is in the user's cache directory, under any key of versions, the last one first.
fn built() -> impl Iterator<Item = PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let folders = cache.and_then(|cache| fs::read_dir(cache.join("weir/cluster")).ok());
    let folders = folders.into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = folders.map(|folder| folder.path().join("helm")).collect();
    programs.sort();
    programs.into_iter().rev()
}
