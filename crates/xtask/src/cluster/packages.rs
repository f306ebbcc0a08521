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

/// One controller of the first version stands for all.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup/memory";

/// Installs what of `needs` is missing, if this is Debian and we may; an error says what is missing.
pub(crate) fn need(needs: &[Need]) -> anyhow::Result<()> {
    possible(needs)?;
    install(needs)
}

/// Installs what of `needs` is missing.
pub(crate) fn install(needs: &[Need]) -> anyhow::Result<()> {
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
    ensure!(may_unshare(), "this root may not make namespaces, which a cluster lives in");
    ensure!(
        has_control_groups(),
        "a cluster needs control groups of the first version that can be written to: with the second \
         one this was never tried"
    );
    ensure!(is_on_path("go"), "go is missing (https://go.dev/dl): Kubernetes is built with it");
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() || is_on_path("apt-get") {
        return Ok(());
    }
    let missing: Vec<&str> = missing.iter().map(|need| need.program).collect();
    bail!("missing, and there is no apt-get to install them with: {}", missing.join(", "))
}

/// Root in a container often may not.
fn may_unshare() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]);
    probe.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The kubelet makes groups of its own for pods.
fn has_control_groups() -> bool {
    let probe = Path::new(CONTROL_GROUPS).join(format!("weir-probe-{}", std::process::id()));
    std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok()
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
    /// What looks at the allocator's page.
    pub(crate) const BROWSER: Need = Need::new("chromium", "chromium");

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
