//! Namespace and name of a document, by the API server's rules.

use serde_json::{Map, Value};

use crate::path::Path;
use crate::problem::{ObjectId, Violation};
use crate::schema;

/// The namespace of namespaced objects that name none, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// What Kubernetes knows; all but the first two are read over, so that the output of
/// `kubectl get -o yaml` is a policy too.
const FIELDS: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Which object a document of `kind` is; `found` gets what is wrong with its metadata.
pub(crate) fn read(
    document: &Map<String, Value>,
    kind: &str,
    is_namespaced: bool,
    found: &mut Vec<Violation>,
) -> ObjectId {
    let path = Path::root().field("metadata");
    let empty = Map::new();
    let fields = document.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        let message = schema::unknown(&FIELDS[..4]);
        found.push(Violation::new(path.field(name), message));
    }
    let mut text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => {
            found.push(Violation::new(path.field(field), "must be a text: put it in quotes"));
            None
        }
    };
    let (name, namespace) = (text("name"), text("namespace"));
    match name {
        None if !fields.contains_key("name") => {
            found.push(Violation::new(path.field("name"), "is missing"));
        }
        Some(name) if !is_dns_name(name, 253) => {
            found.push(Violation::new(path.field("name"), NAME_MESSAGE));
        }
        _ => {}
    }
    match namespace {
        Some(_) if !is_namespaced => {
            let message = format!("remove it: {kind} has no namespace");
            found.push(Violation::new(path.field("namespace"), message));
        }
        Some(name) if name.contains('.') || !is_dns_name(name, 63) => {
            found.push(Violation::new(path.field("namespace"), NAMESPACE_MESSAGE));
        }
        _ => {}
    }
    let namespace = is_namespaced.then(|| namespace.unwrap_or(DEFAULT_NAMESPACE));
    ObjectId::new(kind, namespace, name.unwrap_or_default())
}

const NAME_MESSAGE: &str = "must consist of at most 253 lower-case letters, digits, - and ., and \
     begin and end with a letter or digit";
const NAMESPACE_MESSAGE: &str = "must consist of at most 63 lower-case letters, digits and -, and \
     begin and end with a letter or digit";

/// True for a DNS name (RFC 1123) in lower case.
fn is_dns_name(name: &str, max: usize) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= max
        && name.split('.').all(|label| {
            label.starts_with(edge)
                && label.ends_with(edge)
                && label.chars().all(|c| edge(c) || c == '-')
        })
}
