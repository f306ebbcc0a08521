//! The cluster's programs, built from published Go modules at the versions that stand here.
//!
//! Kubernetes and etcd are modules of ours in `tests/cluster/programs`, with their sums committed;
//! CoreDNS and helm install as they are. What is built stays in the user's cache directory, in a
//! folder that is named after everything it was built from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::cluster::wait::now;
use crate::workspace::Workspace;

/// The programs, built.
#[derive(Debug)]
pub(crate) struct Programs {
    folders: Vec<PathBuf>,
}

/// How one of them is built.
struct Recipe {
    name: &'static str,
    version: &'static str,
    source: Source,
    /// What the linker is told: a version, mostly.
    linker: &'static str,
    /// Further names under which it does something else.
    names: &'static [&'static str],
}

enum Source {
    /// A folder below `tests/cluster/programs` with a module of ours.
    Module,
    /// A package that installs as it is.
    Package(&'static str),
}

/// The newest Kubernetes that runs with Debian's containerd, and with the first version of cgroups.
const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "kubernetes",
        version: "1.34.4",
        source: Source::Module,
        linker: "-X k8s.io/component-base/version.gitVersion=v1.34.4 \
                 -X k8s.io/component-base/version.gitMajor=1 \
                 -X k8s.io/component-base/version.gitMinor=34",
        names: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ],
    },
    Recipe { name: "etcd", version: "3.6.15", source: Source::Module, linker: "", names: &[] },
    Recipe {
        name: "coredns",
        version: "1.12.4",
        source: Source::Package("github.com/coredns/coredns"),
        linker: "",
        names: &[],
    },
    Recipe {
        name: "helm",
        version: "3.20.2",
        source: Source::Package("helm.sh/helm/v3/cmd/helm"),
        linker: "-X helm.sh/helm/v3/internal/version.version=v3.20.2",
        names: &[],
    },
];

/// Builds what is not in the cache.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Programs> {
    let mut folders = Vec::new();
    for recipe in &RECIPES {
        let folder = recipe.folder(workspace)?;
        if !folder.join(recipe.name).is_file() {
            let start = now();
            println!("building {} {} (once)", recipe.name, recipe.version);
            recipe.build(workspace, &folder)?;
            println!("{} built in {:.0} s", recipe.name, start.elapsed().as_secs_f64());
        }
        folders.push(folder);
    }
    Ok(Programs { folders })
}

/// The user's cache directory, ours in it.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let folder = folder.context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    Ok(folder.join("weir/cluster"))
}

/// Twelve characters that differ when any of `parts` does.
pub(crate) fn key_of(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Runs `command`; an error if it fails.
pub(crate) fn execute(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{name} cannot be started"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}

// === impl Programs ===

impl Programs {
    /// Folders for `PATH`.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

// === impl Recipe ===

impl Recipe {
    fn folder(&self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        let mut parts = vec![self.version.as_bytes().to_vec(), self.linker.as_bytes().to_vec()];
        if matches!(self.source, Source::Module) {
            for file in ["go.mod", "go.sum", "main.go"] {
                let file = self.sources(workspace).join(file);
                parts.push(fs::read(&file).with_context(|| file.display().to_string())?);
            }
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(cache()?.join(format!("{}-{}-{}", self.name, self.version, key_of(&parts))))
    }

    fn sources(&self, workspace: &Workspace) -> PathBuf {
        workspace.root.join("tests/cluster/programs").join(self.name)
    }

    fn build(&self, workspace: &Workspace, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let unfinished = folder.join("unfinished");
        fs::create_dir_all(&unfinished).with_context(|| unfinished.display().to_string())?;
        let mut go = Command::new("go");
        go.env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOBIN", &unfinished);
        let linker = format!("-s -w {}", self.linker);
        match self.source {
            Source::Module => {
                go.args(["build", "-trimpath", "-ldflags", &linker, "-o"]);
                go.arg(unfinished.join(self.name)).arg(".").current_dir(self.sources(workspace));
            }
            Source::Package(package) => {
                go.args(["install", "-trimpath", "-ldflags", &linker]);
                go.arg(format!("{package}@v{}", self.version)).current_dir(folder);
            }
        }
        execute(&mut go).with_context(|| format!("{} cannot be built", self.name))?;
        for name in self.names {
            let link = folder.join(name);
            if !link.is_symlink() {
                symlink(self.name, &link).with_context(|| link.display().to_string())?;
            }
        }
        // The last step: what is there under its name is whole.
        fs::rename(unfinished.join(self.name), folder.join(self.name))?;
        fs::remove_dir_all(&unfinished)?;
        Ok(())
    }
}
