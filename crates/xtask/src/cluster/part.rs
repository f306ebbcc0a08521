//! The programs that make up a node and its control plane, with the arguments that matter.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cluster::packages::FOLDERS;
use crate::cluster::state::INSIDE;

/// One of them. In an argument, `{state}` is the cluster's directory and `{port}` the API server's.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    arguments: &'static [&'static str],
}

pub(super) const ETCD: Part = Part {
    name: "etcd",
    arguments: &[
        "--data-dir={state}/etcd",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ],
};

pub(super) const CONTAINERD: Part =
    Part { name: "containerd", arguments: &["--config={state}/conf/containerd.toml"] };

pub(super) const API_SERVER: Part = Part {
    name: "kube-apiserver",
    arguments: &[
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port={port}",
        // Pods reach it here, by way of the Service `kubernetes`.
        "--advertise-address=10.99.0.1",
        "--client-ca-file={state}/pki/ca.crt",
        "--tls-cert-file={state}/pki/apiserver.crt",
        "--tls-private-key-file={state}/pki/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file={state}/pki/service-accounts.pub",
        "--service-account-signing-key-file={state}/pki/service-accounts.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--kubelet-client-certificate={state}/pki/apiserver-kubelet.crt",
        "--kubelet-client-key={state}/pki/apiserver-kubelet.key",
        "--kubelet-certificate-authority={state}/pki/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    ],
};

pub(super) const CONTROLLERS: Part = Part {
    name: "kube-controller-manager",
    arguments: &[
        "--kubeconfig={state}/conf/controllers.kubeconfig",
        "--service-account-private-key-file={state}/pki/service-accounts.key",
        "--root-ca-file={state}/pki/ca.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--allocate-node-cidrs=true",
        "--cluster-cidr=10.244.0.0/16",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--bind-address=127.0.0.1",
    ],
};

pub(super) const SCHEDULER: Part = Part {
    name: "kube-scheduler",
    arguments: &[
        "--kubeconfig={state}/conf/scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ],
};

pub(super) const KUBELET: Part = Part {
    name: "kubelet",
    arguments: &[
        "--config={state}/conf/kubelet.yaml",
        "--kubeconfig={state}/conf/kubelet.kubeconfig",
        "--root-dir={state}/kubelet",
        "--hostname-override=node1",
        "--node-ip=10.99.0.1",
    ],
};

pub(super) const PROXY: Part =
    Part { name: "kube-proxy", arguments: &["--config={state}/conf/kube-proxy.yaml"] };

pub(super) const DNS: Part =
    Part { name: "coredns", arguments: &["-conf={state}/conf/Corefile", "-quiet"] };

const ALL: [&Part; 8] =
    [&ETCD, &CONTAINERD, &API_SERVER, &CONTROLLERS, &SCHEDULER, &KUBELET, &PROXY, &DNS];

/// Folders of the cluster's own programs and of root's, whatever `PATH` was outside.
pub(super) fn path_inside(bin: &Path) -> String {
    let folders = FOLDERS.join(":");
    let outer = std::env::var("PATH").unwrap_or_default();
    format!("{}:{outer}:{folders}", bin.display())
}

// === impl Part ===

impl Part {
    pub(super) fn named(name: &str) -> anyhow::Result<&'static Part> {
        let part = ALL.into_iter().find(|part| part.name == name);
        part.with_context(|| {
            let names = ALL.map(|part| part.name).join(", ");
            format!("there is no part {name:?}; there are {names}")
        })
    }

    /// As it is started inside.
    pub(super) fn command(&self, port: u16) -> Command {
        let bin = Path::new(INSIDE).join("bin");
        let path = path_inside(&bin);
        let mut command = match self.name {
            // Debian's own.
            "containerd" => Command::new("containerd"),
            name => Command::new(bin.join(name)),
        };
        let port = port.to_string();
        let arguments = self.arguments.iter();
        command.args(arguments.map(|it| it.replace("{state}", INSIDE).replace("{port}", &port)));
        command.env("PATH", path);
        command
    }
}
