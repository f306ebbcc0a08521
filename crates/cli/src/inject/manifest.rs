//! `Manifest`: one document of a file, and the pod templates in it.

use allocator::admission::{Namespace, Outcome, Settings, inject};
use serde_json::Value;
use serde_yaml::Value as Yaml;

use crate::inject::text::Piece;
use crate::inject::{normal, text, yaml};

/// A document, and where it stands.
#[derive(Debug)]
pub(super) struct Manifest<'a> {
    file: &'a str,
    /// From 1.
    document: usize,
    piece: Piece<'a>,
}

/// What became of a document.
#[derive(Debug, Default)]
pub(super) struct Injected {
    pub(super) text: String,
    /// For the person, not for the next program.
    pub(super) notes: Vec<String>,
    /// How many pods and templates in it have got a sidecar.
    pub(super) injected: usize,
}

/// Where pods and pod templates stand: the kind, its API group, and the way into it.
const TEMPLATES: [(&str, &str, &str); 9] = [
    ("Pod", "", ""),
    ("PodTemplate", "", "/template"),
    ("ReplicationController", "", "/spec/template"),
    ("Deployment", "apps", "/spec/template"),
    ("StatefulSet", "apps", "/spec/template"),
    ("DaemonSet", "apps", "/spec/template"),
    ("ReplicaSet", "apps", "/spec/template"),
    ("Job", "batch", "/spec/template"),
    ("CronJob", "batch", "/spec/jobTemplate/spec/template"),
];

// === impl Manifest ===

impl<'a> Manifest<'a> {
    /// The documents of a file's text.
    pub(super) fn split(file: &'a str, text: &'a str) -> Vec<Manifest<'a>> {
        let pieces = text::split(text).into_iter().enumerate();
        pieces.map(|(at, piece)| Manifest { file, document: at + 1, piece }).collect()
    }

    /// The document with sidecars, or as it is written if it gets none.
    ///
    /// # Errors
    ///
    /// What is wrong, each with file, document and object.
    pub(super) fn inject(&self, settings: &Settings) -> Result<Injected, Vec<String>> {
        let (before, mut object) = self.read().map_err(|error| vec![error])?;
        let mut outcome = Injected::default();
        let mut errors = Vec::new();
        self.inject_object(&mut object, settings, &mut outcome, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        if outcome.injected == 0 {
            outcome.text = self.piece.text.to_owned();
        } else {
            let separator = if self.piece.text.starts_with("---") { "---\n" } else { "" };
            outcome.text =
                format!("{separator}{}", yaml::write(&yaml::follow(Some(&before), &object)));
        }
        Ok(outcome)
    }

    fn read(&self) -> Result<(Yaml, Value), String> {
        let mut yaml: Yaml = serde_yaml::from_str(self.piece.text).map_err(|error| {
            let place =
                error.location().map(|it| format!(", line {}", self.piece.line + it.line()));
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            format!("{}{}: is not YAML: {message}", self.place(), place.unwrap_or_default())
        })?;
        yaml.apply_merge().map_err(|error| format!("{}: {error}", self.place()))?;
        let json = serde_json::to_value(&yaml);
        let json =
            json.map_err(|_| format!("{}: the names of fields must be texts", self.place()))?;
        Ok((yaml, json))
    }

    fn inject_object(
        &self,
        object: &mut Value,
        settings: &Settings,
        outcome: &mut Injected,
        errors: &mut Vec<String>,
    ) {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if kind.ends_with("List") && object.get("items").is_some_and(Value::is_array) {
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                self.inject_object(item, settings, outcome, errors);
            }
            return;
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let known = TEMPLATES.iter().find(|(name, of, _)| (*name, *of) == (kind, group));
        let Some((_, _, pointer)) = known else { return };
        let place = format!("{}: {}", self.place(), name(object));
        let way = pointer.trim_start_matches('/').replace('/', ".");
        let field = |path: String| if way.is_empty() { path } else { format!("{way}.{path}") };
        let Some(template) = object.pointer_mut(pointer).filter(|it| it.is_object()) else {
            errors.push(format!("{place}: {way} is missing"));
            return;
        };
        let mut normal = template.clone();
        normal::normalise(&mut normal);
        // Whoever calls this command asks for a sidecar as a namespace does: for all that do not
        // decline.
        match inject(&normal, Namespace::Injects, settings) {
            Outcome::Patched { pod, warnings } => {
                *template = pod;
                outcome.injected += 1;
                outcome.notes.push(format!("{place}: injected"));
                outcome.notes.extend(warnings.iter().map(|it| format!("{place}: warning: {it}")));
            }
            Outcome::Untouched { reason, warnings } => {
                if warnings.is_empty() {
                    outcome.notes.push(format!("{place}: left as it is ({reason})"));
                }
                outcome.notes.extend(warnings.iter().map(|it| format!("{place}: warning: {it}")));
            }
            Outcome::Refused(violations) => errors.extend(
                violations
                    .into_iter()
                    .map(|it| format!("{place}: {}: {}", field(it.path.to_string()), it.message)),
            ),
        }
    }

    fn place(&self) -> String {
        format!("{}: document {}", self.file, self.document)
    }
}

/// As in `Deployment shop/chat`.
fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or_default();
    let name =
        text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
