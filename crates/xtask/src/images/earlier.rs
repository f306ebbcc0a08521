//! The images and the chart of an earlier commit: a test upgrades from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cluster::programs::execute;
use crate::cluster::{Need, need};
use crate::images::{PROGRAMS, make, triple};
use crate::workspace::Workspace;

/// Where an upgrade begins: the last commit before two versions were held to understand each other.
/// At a release it becomes the release before.
const COMMIT: &str = "081574ef56ef";

/// What its images are tagged with.
const TAG: &str = "earlier";

const PROFILE: &str = "quick";

/// What there is of it.
#[derive(Debug)]
pub(crate) struct Earlier {
    /// All of its files.
    pub(crate) sources: PathBuf,
    /// Its images.
    pub(crate) archives: Vec<PathBuf>,
}

/// Makes what is not there yet.
pub(crate) fn earlier(workspace: &Workspace) -> anyhow::Result<Earlier> {
    need(&Need::FOR_IMAGES)?;
    let folder = workspace.target.join("commits").join(COMMIT);
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| unfinished.display().to_string())?;
        }
        // In this order: see `fetch`.
        copy_libraries(workspace, &unfinished.join("target"))?;
        fetch(workspace, &unfinished.join("sources"))?;
        fs::rename(&unfinished, &folder).with_context(|| folder.display().to_string())?;
    }
    let (sources, target) = (folder.join("sources"), folder.join("target"));
    let there = Workspace { root: sources.clone(), target, packages: Vec::new() };
    let archives = make(&there, &PROGRAMS, TAG, PROFILE)?;
    Ok(Earlier { sources, archives })
}

/// Takes over what is compiled already, because most of it is libraries of others. A copy: cargo names
/// packages of a workspace by their place in it, and would mix up those of two versions.
fn copy_libraries(workspace: &Workspace, target: &Path) -> anyhow::Result<()> {
    for part in [format!("{}/{PROFILE}", triple()), PROFILE.to_owned()] {
        let (from, to) = (workspace.target.join(&part), target.join(&part));
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        if from.exists() {
            execute(Command::new("cp").args(["-a", "-T"]).arg(&from).arg(&to))?;
        }
    }
    Ok(())
}

/// Its files, with the times of now: cargo takes programs that are newer than their sources for theirs,
/// and those of the present are there already.
fn fetch(workspace: &Workspace, sources: &Path) -> anyhow::Result<()> {
    let mut known = Command::new("git");
    known.args(["cat-file", "-e", &format!("{COMMIT}^{{commit}}")]).current_dir(&workspace.root);
    if !known.output().context("git cannot be started")?.status.success() {
        bail!(
            "the test of an upgrade begins at commit {COMMIT}, which is not in this copy of the \
             repository: fetch its history (git fetch --unshallow), or leave the test out (-- --skip \
             upgrade)"
        );
    }
    fs::create_dir_all(sources).with_context(|| sources.display().to_string())?;
    let archive = sources.with_extension("tar");
    let mut pack = Command::new("git");
    pack.args(["archive", "--output"]).arg(&archive).arg(COMMIT).current_dir(&workspace.root);
    execute(&mut pack)?;
    let mut unpack = Command::new("tar");
    execute(unpack.args(["--touch", "-xf"]).arg(&archive).arg("-C").arg(sources))?;
    fs::remove_file(&archive).with_context(|| archive.display().to_string())
}
