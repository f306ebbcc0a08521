//! What works otherwise than a person may think, in a pod that gets a sidecar. A warning of the API
//! server has 256 characters at most.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, EnvVar};
use quota::dimension::Protocol;

use super::base_url::Sdk;
use super::inject;
use super::names::{ANNOTATIONS, DATA_PORT};
use super::pod::View;
use super::settings::Settings;

/// All warnings about a pod as it came.
pub(super) fn of(view: &View, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(unknown_annotations(view));
    for (_, _, container) in view.containers() {
        for protocol in Sdk::PROTOCOLS {
            warnings.extend(own_base_url(container, protocol));
        }
        warnings.extend(hidden_variables(container));
        warnings.extend(proxy(container));
    }
    warnings.extend(resolver(view, settings));
    if view.spec.resources.is_some() {
        warnings.push(SHARED_RESOURCES.into());
    }
    warnings
}

/// The variable of `container` by which it decides itself where the SDKs of `sdk` send requests.
pub(super) fn decides<'a>(container: &'a Container, sdk: &Sdk) -> Option<&'a EnvVar> {
    let mut variables = container.env.iter().flatten();
    variables.find(|variable| sdk.reads(&variable.name) && !is_sidecar(variable))
}

const SHARED_RESOURCES: &str = "spec.resources: the sidecar shares the pod's resources and gets \
     none of its own; annotations such as weir.dev/sidecar-memory-request give it some";

fn unknown_annotations(view: &View) -> Option<String> {
    let ours = view.annotations().keys().filter(|name| name.starts_with("weir.dev/"));
    let unknown: Vec<&str> =
        ours.map(String::as_str).filter(|name| !ANNOTATIONS.contains(name)).collect();
    (!unknown.is_empty()).then(|| {
        format!("metadata.annotations: Weir does not know {}; it has no effect", unknown.join(", "))
    })
}

fn own_base_url(container: &Container, protocol: Protocol) -> Option<String> {
    let sdk = Sdk::of(protocol);
    let variable = decides(container, &sdk)?;
    Some(format!(
        "container {} sets {} itself: it is kept, and what goes there does not go through the \
         sidecar; the sidecar is {}",
        container.name,
        variable.name,
        inject::base_url(protocol)
    ))
}

/// A variable of `env` goes before one of `envFrom`, and what is in a ConfigMap or Secret is not
/// ours to read.
fn hidden_variables(container: &Container) -> Option<String> {
    let added: Vec<&str> = Sdk::PROTOCOLS
        .iter()
        .map(|protocol| Sdk::of(*protocol))
        .filter(|sdk| decides(container, sdk).is_none())
        .flat_map(|sdk| sdk.variables)
        .copied()
        .filter(|name| !container.env.iter().flatten().any(|variable| variable.name == *name))
        .collect();
    let sources = container.env_from.iter().flatten();
    let mut sources = sources.filter(|source| {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        added.iter().any(|name| name.starts_with(prefix))
    });
    let source = sources.next()?;
    let of_map = source.config_map_ref.as_ref().map(|map| format!("ConfigMap {}", map.name));
    let of_secret = source.secret_ref.as_ref().map(|secret| format!("Secret {}", secret.name));
    Some(format!(
        "container {} has envFrom ({}): if that sets {}, the sidecar's value goes before it; write \
         it under env to keep yours",
        container.name,
        of_map.or(of_secret).unwrap_or_default(),
        added.first()?
    ))
}

/// SDKs send plain HTTP through a proxy even on loopback, unless they are told not to.
fn proxy(container: &Container) -> Option<String> {
    let mut variables = container.env.iter().flatten();
    let proxy = variables.find(|variable| {
        let name = variable.name.to_ascii_uppercase();
        (name == "HTTP_PROXY" || name == "ALL_PROXY") && variable.value.as_deref() != Some("")
    })?;
    let mut variables = container.env.iter().flatten();
    let is_excepted = variables.any(|variable| {
        let exceptions = variable.value.as_deref().unwrap_or_default();
        variable.name.eq_ignore_ascii_case("NO_PROXY")
            && (variable.value_from.is_some()
                || exceptions
                    .split(',')
                    .any(|it| ["127.0.0.1", "127.0.0.0/8", "*"].contains(&it.trim())))
    });
    (!is_excepted).then(|| {
        format!(
            "container {} sets {}, and NO_PROXY does not name 127.0.0.1: requests to the sidecar \
             would go to that proxy; add 127.0.0.1 to NO_PROXY",
            container.name, proxy.name
        )
    })
}

/// The sidecar must find the allocator by its name in the cluster.
fn resolver(view: &View, settings: &Settings) -> Option<String> {
    let policy = view.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    if policy == "Default" || policy == "None" {
        return Some(format!(
            "spec.dnsPolicy: {policy} may not know the names of the cluster's Services; the sidecar \
             has to find {}",
            settings.allocator
        ));
    }
    let options = view.spec.dns_config.as_ref()?.options.iter().flatten();
    let mut dots = options.filter(|option| option.name.as_deref() == Some("ndots"));
    let dots: usize = dots.next()?.value.as_deref()?.parse().ok()?;
    let host = host(&settings.allocator);
    // The resolver of static programs (musl) does not search for a name with as many dots.
    let is_searched = host.matches('.').count() < dots;
    (!is_searched && host.ends_with(".svc")).then(|| {
        format!(
            "spec.dnsConfig: with ndots {dots} the name {host} is not looked for in the cluster, \
             and the sidecar does not find the allocator: set ndots to 3 or more"
        )
    })
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split([':', '/']).next().unwrap_or_default()
}

/// True if the value leads to a sidecar, whoever has written it.
fn is_sidecar(variable: &EnvVar) -> bool {
    let value = variable.value.as_deref().unwrap_or_default();
    [&Ipv4Addr::LOCALHOST.to_string(), "localhost", "[::1]"]
        .iter()
        .any(|host| value.starts_with(&format!("http://{host}:{DATA_PORT}/")))
}
