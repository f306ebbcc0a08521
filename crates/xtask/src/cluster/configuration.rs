//! What the parts of a cluster read when they start: the files of `tests/cluster/node`, and a
//! kubeconfig for each.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::cluster::certificates::{self, ADMIN, Authority, Subject};
use crate::cluster::programs::Programs;
use crate::cluster::state::State;
use crate::workspace::Workspace;

/// Each with the name of its kubeconfig.
const CLIENTS: [(&str, Subject); 5] = [
    (
        "controllers",
        Subject { user: "system:kube-controller-manager", group: "system:kube-controller-manager" },
    ),
    ("scheduler", Subject { user: "system:kube-scheduler", group: "system:kube-scheduler" }),
    ("kubelet", Subject { user: "system:node:node1", group: "system:nodes" }),
    ("kube-proxy", Subject { user: "system:kube-proxy", group: "system:node-proxier" }),
    ("coredns", ADMIN),
];

/// Files of `tests/cluster/node` that parts read.
const FILES: [&str; 5] =
    ["containerd.toml", "cni/10-pods.conflist", "kubelet.yaml", "kube-proxy.yaml", "Corefile"];

/// Resolvers: of the node, and of pods that ask for the node's.
const RESOLVERS: [(&str, &str); 2] = [
    ("node-resolv.conf", "nameserver 10.96.0.10\nsearch svc.cluster.local cluster.local\n"),
    ("pods-resolv.conf", "nameserver 10.96.0.10\n"),
];

/// Writes all of it into the cluster's directory. `port` is the API server's, on both sides.
pub(super) fn write(
    workspace: &Workspace,
    state: &State,
    programs: &Programs,
    port: u16,
) -> anyhow::Result<()> {
    for folder in programs.folders() {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if let Some(name) = path.file_name() {
                symlink(&path, state.path("bin").join(name))?;
            }
        }
    }
    save(&state.path("port"), &port.to_string())?;
    let folder = workspace.root.join("tests/cluster/node");
    for name in FILES {
        let source = folder.join(name);
        let text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        save(&state.path("conf").join(name), &text.replace("{cgroup}", &state.cgroup()))?;
    }
    for (name, text) in RESOLVERS {
        save(&state.path("conf").join(name), text)?;
    }
    let authority = certificates::write(state)?;
    for (name, subject) in CLIENTS {
        let file = state.path("conf").join(format!("{name}.kubeconfig"));
        save(&file, &kubeconfig(&authority, subject, port)?)?;
    }
    save(&state.kubeconfig(), &kubeconfig(&authority, ADMIN, port)?)?;
    fs::set_permissions(state.kubeconfig(), Permissions::from_mode(0o600))?;
    Ok(())
}

/// Everything is in the one file, so that it may be copied.
fn kubeconfig(authority: &Authority, subject: Subject, port: u16) -> anyhow::Result<String> {
    let pair = authority.client(subject)?;
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let user = serde_json::json!({
        "client-certificate-data": encode(&pair.certificate),
        "client-key-data": encode(&pair.key),
    });
    let cluster = serde_json::json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority-data": encode(&authority.pem),
    });
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "weir", "cluster": cluster}],
        "users": [{"name": subject.user, "user": user}],
        "contexts": [{"name": "weir", "context": {"cluster": "weir", "user": subject.user}}],
        "current-context": "weir",
    });
    serde_json::to_string_pretty(&text).context("a kubeconfig")
}

fn save(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(file, text).with_context(|| file.display().to_string())
}
