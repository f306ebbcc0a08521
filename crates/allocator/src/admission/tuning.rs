//! What a pod's annotations say: whether it wants a sidecar, and what the sidecar may use.

use crds::path::Path;
use crds::problem::Violation;

use super::inject::Namespace;
use super::names;
use super::pod::View;
use super::quantity::Quantity;
use super::settings::Resources;

/// Whether a pod is to have a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The pod says so itself.
    Pod,
    /// The pod says nothing, and its namespace asks for all.
    Namespace,
    /// No, and why.
    None(&'static str),
}

/// Less is a slip: the suffix was forgotten, or is the m of milli.
const LEAST_MEMORY: u128 = Quantity::units(1 << 20);

// === impl Wish ===

impl Wish {
    pub(super) fn of(view: &View, namespace: Namespace) -> Result<Wish, Violation> {
        match view.annotation(names::INJECT) {
            // Its container is the kubelet's already; nothing that is written here reaches it.
            _ if view.annotation(names::MIRROR).is_some() => Ok(Wish::None("static pod")),
            Some("true") => Ok(Wish::Pod),
            Some("false") => Ok(Wish::None("opted out")),
            Some(other) => {
                let message = format!(
                    "is {other:?}: write \"true\" to get a sidecar or \"false\" to get none"
                );
                Err(Violation { path: annotation(names::INJECT), message })
            }
            None if namespace == Namespace::Injects => Ok(Wish::Namespace),
            None => Ok(Wish::None("not asked for")),
        }
    }
}

/// The resources of the sidecar: what the annotations say, and what `defaults` say where they do not.
pub(super) fn resources(view: &View, defaults: &Resources) -> Result<Resources, Vec<Violation>> {
    let mut found = Vec::new();
    let mut read = |name: &'static str, example: &str, least: u128| {
        let text = view.annotation(name)?;
        let message = match text.parse::<Quantity>() {
            Ok(quantity) if quantity.nanos() >= least => return Some(quantity),
            Ok(_) => format!("is {text:?}, too little to run in: write for example {example:?}"),
            Err(_) => format!("is {text:?}, which is no quantity: write for example {example:?}"),
        };
        found.push(Violation { path: annotation(name), message });
        None
    };
    let own = Resources {
        cpu_request: read(names::CPU_REQUEST, "50m", 0),
        cpu_limit: read(names::CPU_LIMIT, "500m", 1),
        memory_request: read(names::MEMORY_REQUEST, "32Mi", LEAST_MEMORY),
        memory_limit: read(names::MEMORY_LIMIT, "256Mi", LEAST_MEMORY),
    };
    // Containers of a pod that has resources of its own share them, and a sum of requests above the
    // pod's would be refused.
    let none = Resources::default();
    let defaults = if view.spec.resources.is_some() { &none } else { defaults };
    let merged = Resources {
        cpu_request: own.cpu_request.clone().or_else(|| defaults.cpu_request.clone()),
        cpu_limit: own.cpu_limit.clone().or_else(|| defaults.cpu_limit.clone()),
        memory_request: own.memory_request.clone().or_else(|| defaults.memory_request.clone()),
        memory_limit: own.memory_limit.clone().or_else(|| defaults.memory_limit.clone()),
    };
    let cpu = (&own.cpu_request, names::CPU_REQUEST, names::CPU_LIMIT);
    let memory = (&own.memory_request, names::MEMORY_REQUEST, names::MEMORY_LIMIT);
    for ((own_request, request_name, limit_name), request, limit) in [
        (cpu, &merged.cpu_request, &merged.cpu_limit),
        (memory, &merged.memory_request, &merged.memory_limit),
    ] {
        let Some((request, limit)) = request.as_ref().zip(limit.as_ref()) else { continue };
        if request <= limit {
            continue;
        }
        let (path, message) = if own_request.is_some() {
            let message = format!("is {request}, above the limit {limit}: raise {limit_name} too");
            (request_name, message)
        } else {
            let message =
                format!("is {limit}, below the request {request}: lower {request_name} too");
            (limit_name, message)
        };
        found.push(Violation { path: annotation(path), message });
    }
    if found.is_empty() { Ok(merged) } else { Err(found) }
}

fn annotation(name: &str) -> Path {
    Path::root().field("metadata").field("annotations").field(name)
}
