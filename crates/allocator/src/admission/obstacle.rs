//! What stands against a sidecar in a pod. The pod would not work with one, or not as it is meant to.

use crds::path::Path;
use crds::problem::Violation;
use k8s_openapi::api::core::v1::ContainerPort;

use super::names::{ADMIN_PORT, CONTAINER, DATA_PORT, VOLUME};
use super::pod::View;

/// The first thing that stands against it; `None` if nothing does.
pub(super) fn find(view: &View) -> Option<Violation> {
    host_network(view)
        .or_else(|| windows(view))
        .or_else(|| taken_port(view))
        .or_else(|| foreign_container(view))
        .or_else(|| foreign_volume(view))
}

const HOST_NETWORK: &str = "on the host's network every process of the node could use the sidecar \
     and the keys in it: remove hostNetwork, or ask for no sidecar";

const WINDOWS: &str = "there is no sidecar for Windows: ask for none";

const CONTAINER_MESSAGE: &str = "the name weir-sidecar is taken by a container that Weir has not \
     made: rename it";

const VOLUME_MESSAGE: &str = "the name weir-token is taken by a volume that Weir has not made: \
     rename it";

fn host_network(view: &View) -> Option<Violation> {
    let is_on = view.spec.host_network == Some(true);
    is_on.then(|| violation(Path::spec().field("hostNetwork"), HOST_NETWORK))
}

fn windows(view: &View) -> Option<Violation> {
    const LABEL: &str = "kubernetes.io/os";
    let spec = &view.spec;
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Some(violation(Path::spec().field("os").field("name"), WINDOWS));
    }
    let chosen = spec.node_selector.as_ref().and_then(|labels| labels.get(LABEL));
    let is_windows = chosen.is_some_and(|os| os == "windows");
    is_windows.then(|| violation(Path::spec().field("nodeSelector").field(LABEL), WINDOWS))
}

/// All containers of a pod share its ports; a `hostPort` is the node's and takes none of them.
fn taken_port(view: &View) -> Option<Violation> {
    let is_taken = |port: &ContainerPort| {
        let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        is_tcp && [DATA_PORT, ADMIN_PORT].contains(&port.container_port)
    };
    view.containers().find_map(|(list, at, container)| {
        let ports = container.ports.iter().flatten().enumerate();
        let (port_at, port) = ports.into_iter().find(|(_, port)| is_taken(port))?;
        let path = Path::spec().field(list).index(at).field("ports").index(port_at);
        let message = format!(
            "container {} listens on port {}, and the sidecar needs {DATA_PORT} and {ADMIN_PORT}: \
             choose another port, or ask for no sidecar",
            container.name, port.container_port
        );
        Some(violation(path.field("containerPort"), &message))
    })
}

fn foreign_container(view: &View) -> Option<Violation> {
    let (list, at, _) = view.containers().find(|(_, _, container)| container.name == CONTAINER)?;
    let path = Path::spec().field(list).index(at).field("name");
    Some(violation(path, CONTAINER_MESSAGE))
}

fn foreign_volume(view: &View) -> Option<Violation> {
    let mut volumes = view.spec.volumes.iter().flatten();
    let at = volumes.position(|volume| volume.name == VOLUME && !View::is_token(volume))?;
    Some(violation(Path::spec().field("volumes").index(at).field("name"), VOLUME_MESSAGE))
}

fn violation(path: Path, message: &str) -> Violation {
    Violation { path, message: message.into() }
}
