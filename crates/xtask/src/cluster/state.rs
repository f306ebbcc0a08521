//! The one directory of a cluster: what it is made of, writes and leaves behind is in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::cluster::programs::key_of;
use crate::cluster::wait;
use crate::workspace::Workspace;

/// Where a cluster's directory, its sockets and its logs are.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

/// The same directory as processes inside see it: short, because the path of a socket has a limit of
/// 108 bytes.
pub(crate) const INSIDE: &str = "/run/weir";

/// Lines of a log that an error shows.
const LOG_LINES: usize = 25;

/// Of a log, no more than this is read for its last lines.
const LOG_BYTES: usize = 64 * 1024;

/// A killed process is out of its cgroup within milliseconds; a busy machine may need longer.
const CGROUPS_GONE: Duration = Duration::from_secs(20);

/// The longest name: it is part of a path.
const NAME_BYTES: usize = 40;

// === impl State ===

impl State {
    /// The cluster `name` of this workspace, whether it is there or not.
    pub(crate) fn of(workspace: &Workspace, name: &str) -> anyhow::Result<State> {
        let fits = (1..=NAME_BYTES).contains(&name.len());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        ensure!(fits && plain, "a cluster's name has a-z, 0-9 and -, {NAME_BYTES} of them at most");
        Ok(State { folder: workspace.target.join("cluster").join(name) })
    }

    /// The one in `folder`.
    pub(crate) fn at(folder: PathBuf) -> State {
        State { folder }
    }

    /// Makes the empty directory; an error if it is there already.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        let parent = self.folder.parent().context("it lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::create_dir(&self.folder).with_context(|| self.folder.display().to_string())?;
        for folder in ["bin", "pki", "conf", "logs", "var/upper", "var/work", "kubelet"] {
            let folder = self.path(folder);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        for hierarchy in hierarchies()? {
            let group = hierarchy.join(self.cgroup());
            fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        }
        Ok(())
    }

    /// Removes the directory and the cgroups. The processes are gone already, or about to be.
    pub(crate) fn clean(&self) -> anyhow::Result<()> {
        let groups: Vec<PathBuf> =
            hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(self.cgroup())).collect();
        let gone = wait::within(CGROUPS_GONE, "the cgroups of the cluster are empty", || {
            groups.iter().for_each(|group| remove_groups(group));
            Ok(groups.iter().all(|group| !group.exists()).then_some(()))
        });
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| self.folder.display().to_string())
            }
            _ => gone,
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.folder.exists()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// For people and tests, on both sides.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The parent of all the cgroups of its pods. Its name is that of the directory, not of the
    /// cluster: another workspace may have a cluster of the same name.
    pub(crate) fn cgroup(&self) -> String {
        format!("weir-{}", key_of(&[self.folder.as_os_str().as_encoded_bytes()]))
    }

    /// What a person needs of a part's log when it failed.
    pub(crate) fn end_of_log(&self, part: &str) -> String {
        let log = fs::read(self.path("logs").join(format!("{part}.log"))).unwrap_or_default();
        let log = &log[log.len().saturating_sub(LOG_BYTES)..];
        let log = String::from_utf8_lossy(log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("the end of the log of {part}:\n{}", last.join("\n"))
    }
}

/// Where hierarchies of cgroups are mounted, of both versions.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let of_cgroups = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (folder, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(folder))
    });
    Ok(of_cgroups.collect())
}

/// Removes a tree of cgroups, leaves first. What is not empty yet stays.
fn remove_groups(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
        remove_groups(&entry.path());
    }
    // The caller looks whether it is gone.
    let _not_empty = fs::remove_dir(group);
}
