//! What the machine itself must have: Debian's packages, Go, and being root.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

/// Where programs and plugins are looked for beside the path: root's are not always on it.
pub(crate) const FOLDERS: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/lib/cni"];

/// Installs what of `needs` is missing, if this is Debian and we may; an error says what is missing.
pub(crate) fn need(needs: &[Need]) -> anyhow::Result<()> {
    possible(needs)?;
    let mut packages: Vec<&str> =
        needs.iter().filter(|need| !need.is_there()).map(|need| need.package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", packages.join(" "));
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    apt(&arguments)
}

/// Whether [`need`] could do its work; the error says why not, and nothing is changed.
pub(crate) fn possible(needs: &[Need]) -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "a cluster runs on Linux only");
    ensure!(rustix::process::geteuid().is_root(), "a cluster needs root, for its namespaces");
    ensure!(is_on_path("go"), "go is missing (https://go.dev/dl): Kubernetes is built with it");
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() || is_on_path("apt-get") {
        return Ok(());
    }
    let missing: Vec<&str> = missing.iter().map(|need| need.program).collect();
    bail!("missing, and there is no apt-get to install them with: {}", missing.join(", "))
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("--quiet=2").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("apt-get cannot be started")?;
    ensure!(status.success(), "apt-get {} failed: {status}", arguments.join(" "));
    Ok(())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders.any(|folder| folder.join(program).is_file())
        || FOLDERS.iter().any(|folder| Path::new(folder).join(program).is_file())
}

// === impl Need ===

impl Need {
    /// What images are made with.
    pub(crate) const FOR_IMAGES: [Need; 3] = [
        Need::new("buildah", "buildah"),
        Need::new("musl-gcc", "musl-tools"),
        Need::new("debootstrap", "debootstrap"),
    ];

    /// What a cluster runs with.
    pub(crate) const FOR_CLUSTER: [Need; 10] = [
        Need::new("containerd", "containerd"),
        Need::new("ctr", "containerd"),
        Need::new("runc", "runc"),
        Need::new("bridge", "containernetworking-plugins"),
        Need::new("iptables", "iptables"),
        Need::new("conntrack", "conntrack"),
        Need::new("socat", "socat"),
        Need::new("ip", "iproute2"),
        Need::new("mount", "mount"),
        Need::new("nsenter", "util-linux"),
    ];

    const fn new(program: &'static str, package: &'static str) -> Need {
        Need { program, package }
    }

    fn is_there(&self) -> bool {
        is_on_path(self.program)
    }
}
