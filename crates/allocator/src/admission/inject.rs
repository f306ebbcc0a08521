//! The injector: a pod in, the pod with a sidecar out.
//!
//! Called by the webhook and by `weir inject`. A second pass over an injected pod changes nothing, or
//! brings its sidecar up to newer settings.

use crds::path::Path;
use crds::problem::Violation;
use quota::dimension::Protocol;
use serde_json::{Map, Value, json};

use super::base_url::Sdk;
use super::names::{DATA_PORT, INJECTED, SIDECAR_LABEL};
use super::pod::View;
use super::settings::Settings;
use super::tuning::Wish;
use super::{container, obstacle, tuning, warnings};

/// What the namespace of a pod says to pods that say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// It has the label `weir.dev/inject: enabled`: all of them get a sidecar.
    Injects,
    /// Nothing: they get none.
    IsSilent,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a sidecar.
    Patched {
        /// The pod as it is to be.
        pod: Value,
        /// What works otherwise than its author may think.
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Untouched {
        /// Why, in a few words that are always the same.
        reason: &'static str,
        /// What its author may want to know.
        warnings: Vec<String>,
    },
    /// It asks for something that cannot be.
    Refused(Vec<Violation>),
}

/// Puts a sidecar into `pod`, a pod or a pod template, if it or its namespace asks for one.
///
/// What stands against a sidecar makes a pod that asks for one itself be refused, and is a warning
/// where only the namespace asks: a label must not keep pods from running.
pub fn inject(pod: &Value, namespace: Namespace, settings: &Settings) -> Outcome {
    let view = match View::read(pod) {
        Ok(view) => view,
        Err(error) => {
            let path = Path::root().field(error.part);
            let message = format!("cannot be read: {}", error.source);
            return Outcome::Refused(vec![Violation { path, message }]);
        }
    };
    let wish = match Wish::of(&view, namespace) {
        Ok(Wish::None(reason)) => return Outcome::Untouched { reason, warnings: Vec::new() },
        Ok(wish) => wish,
        Err(violation) => return Outcome::Refused(vec![violation]),
    };
    match obstacle::find(&view) {
        Some(obstacle) if wish == Wish::Pod => return Outcome::Refused(vec![obstacle]),
        Some(Violation { path, message }) => {
            let warning = format!("no sidecar in this pod: {path}: {message}");
            return Outcome::Untouched { reason: "cannot have one", warnings: vec![warning] };
        }
        None => {}
    }
    let resources = match tuning::resources(&view, &settings.resources) {
        Ok(resources) => resources,
        Err(violations) => return Outcome::Refused(violations),
    };
    let mut pod = pod.clone();
    let spec = object(&mut pod, "spec");
    put_base_urls(spec, &view);
    let containers = list_of(spec, "initContainers");
    put(containers, 0, container::sidecar(&view, settings, &resources));
    let volumes = list_of(spec, "volumes");
    put(volumes, volumes.len(), container::token());
    let metadata = object(&mut pod, "metadata");
    entries(metadata, "labels").insert(SIDECAR_LABEL.into(), "true".into());
    entries(metadata, "annotations").insert(INJECTED.into(), settings.version.clone().into());
    Outcome::Patched { pod, warnings: warnings::of(&view, settings) }
}

/// Where the SDKs of `protocol` find the sidecar. The path is an alias, so that it stays the same
/// whatever the policy calls its providers.
pub(super) fn base_url(protocol: Protocol) -> String {
    Sdk::of(protocol).base_url(format_args!("127.0.0.1:{DATA_PORT}"), protocol.alias())
}

/// Gives every container the base URLs that it does not decide about itself. They go last, so that
/// no variable of the container changes its meaning.
fn put_base_urls(spec: &mut Map<String, Value>, view: &View) {
    for (list, at, container) in view.containers() {
        for protocol in Sdk::PROTOCOLS {
            let sdk = Sdk::of(protocol);
            let mut present = container.env.iter().flatten().filter(|it| sdk.reads(&it.name));
            if warnings::decides(container, &sdk).is_some() {
                continue;
            }
            // Another path on the sidecar holds for all frameworks.
            let own = present.next().and_then(|variable| variable.value.clone());
            let value = own.unwrap_or_else(|| base_url(protocol));
            for name in sdk.variables {
                if !container.env.iter().flatten().any(|variable| variable.name == *name) {
                    let container = list_of(spec, list).get_mut(at).and_then(Value::as_object_mut);
                    let container = container.expect("it was read from there");
                    list_of(container, "env").push(json!({"name": name, "value": value}));
                }
            }
        }
    }
}

/// Puts `item` in the place of the one of its name, or else at `new`. What others have put before it
/// since may have a reason to be there.
fn put(list: &mut Vec<Value>, new: usize, item: Value) {
    match list.iter_mut().find(|present| present["name"] == item["name"]) {
        Some(present) => *present = item,
        None => list.insert(new, item),
    }
}

fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    entries(value.as_object_mut().expect("it was just made one"), field)
}

/// An object within an object; made if it is not there, or null.
fn entries<'a>(object: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = object.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

/// A list within an object; made if it is not there, or null.
fn list_of<'a>(object: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = object.entry(field).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was just made one")
}
