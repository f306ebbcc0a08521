//! The directory source, without the directory: YAML texts in, a policy out.
//!
//! Documents are held to the very schema of the custom resource definitions, so that what works
//! here works in a cluster. Reading and watching files is the caller's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::compile::{Compiled, Objects, compile};
use crate::path::Path;
use crate::problem::{ObjectId, Place, Problem, Reason, Violation};
use crate::{definitions, metadata, schema, secret, yaml};

/// A file's size in bytes: some thousand quotas.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// How many errors, and how many warnings, are named: each costs a walk through its file, and
/// nobody reads more.
pub const MAX_PROBLEMS: usize = 100;

const API_VERSION: &str = "weir.dev/v1alpha1";

/// Reads the policy that stands in `files`: pairs of a name, which problems show, and a text of any
/// number of YAML documents.
///
/// Kinds are those of this crate, core `Secret` (in any namespace, for the one of the allocator) and
/// `List`; others are a warning.
///
/// # Errors
///
/// Everything that is wrong. The caller keeps the policy that it has.
pub fn read(files: &[(&str, &str)]) -> Result<Compiled, Vec<Problem>> {
    let mut reader = Reader::new(files);
    for (file, (_, text)) in files.iter().enumerate() {
        reader.read_file(file, text);
    }
    let (compiled, errors) = compile(&reader.objects);
    for problem in errors {
        reader.errors.add_compiled(problem, &reader.origins);
    }
    if !reader.errors.is_empty() {
        return Err(reader.errors.into_problems());
    }
    let Compiled { policy, warnings } = compiled;
    for problem in warnings {
        reader.warnings.add_compiled(problem, &reader.origins);
    }
    Ok(Compiled { policy, warnings: reader.warnings.into_problems() })
}

/// The custom resources by kind.
static KINDS: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
    let kinds = definitions::all().into_iter().filter_map(|crd| {
        let version = crd.spec.versions.into_iter().next()?;
        let mut fields = version.schema?.open_api_v3_schema?.properties?;
        let kind =
            Kind { spec: fields.remove("spec")?, is_namespaced: crd.spec.scope == "Namespaced" };
        Some((crd.spec.names.kind, kind))
    });
    kinds.collect()
});

struct Reader<'a> {
    objects: Objects,
    origins: BTreeMap<ObjectId, Origin>,
    errors: Log<'a>,
    warnings: Log<'a>,
}

/// What is known of a custom resource.
struct Kind {
    spec: JSONSchemaProps,
    is_namespaced: bool,
}

/// Where an object came from.
#[derive(Clone)]
struct Origin {
    file: usize,
    document: usize,
    /// The way to the object within a `List`.
    prefix: Path,
}

/// Problems, the first [`MAX_PROBLEMS`] of them with their places.
struct Log<'a> {
    files: &'a [(&'a str, &'a str)],
    problems: Vec<Problem>,
    left_out: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(files: &'a [(&'a str, &'a str)]) -> Reader<'a> {
        Reader {
            objects: Objects::default(),
            origins: BTreeMap::new(),
            errors: Log::new(files),
            warnings: Log::new(files),
        }
    }

    fn read_file(&mut self, file: usize, text: &str) {
        let origin = |document| Origin { file, document, prefix: Path::root() };
        if text.len() > MAX_FILE_BYTES {
            let message = format!("holds more than {MAX_FILE_BYTES} bytes: split it");
            self.errors.add_at(Some(1), &origin(0), &message);
            return;
        }
        for (document, value) in yaml::documents(text).into_iter().enumerate() {
            match value {
                Ok(Value::Null) => {}
                Ok(value) => self.read_document(&origin(document), value),
                Err(fault) => self.errors.add_at(fault.line, &origin(document), &fault.message),
            }
        }
    }

    fn read_document(&mut self, origin: &Origin, document: Value) {
        let Value::Object(mut fields) = document else {
            let violation = Violation::new(Path::root(), "must be an object with a kind");
            return self.errors.add(origin, None, violation);
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let message = "apiVersion or kind is missing, or no text";
            return self.errors.add(origin, None, Violation::new(Path::root(), message));
        };
        match (version.as_str(), kind.as_str()) {
            ("v1", "Secret") => self.read_secret(origin, &fields),
            ("v1", "List") => {
                let Some(Value::Array(items)) = fields.remove("items") else { return };
                for (index, item) in items.into_iter().enumerate() {
                    let prefix = origin.prefix.field("items").index(index);
                    self.read_document(&Origin { prefix, ..origin.clone() }, item);
                }
            }
            (API_VERSION, kind) if KINDS.contains_key(kind) => {
                self.read_resource(origin, kind, fields);
            }
            (version, kind) => {
                let ours = KINDS.contains_key(kind);
                let log = if ours { &mut self.errors } else { &mut self.warnings };
                let (path, message) = if ours {
                    (Path::root().field("apiVersion"), format!("must be {API_VERSION}"))
                } else {
                    let kinds: Vec<&str> = KINDS.keys().map(String::as_str).collect();
                    let message = format!(
                        "kind {kind} of {version} is not read here; {} and Secret are",
                        kinds.join(", ")
                    );
                    (Path::root().field("kind"), message)
                };
                log.add(origin, None, Violation::new(path, message));
            }
        }
    }

    fn read_resource(&mut self, origin: &Origin, kind: &str, mut fields: Map<String, Value>) {
        const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        let Some(known) = KINDS.get(kind) else { return };
        let mut found = Vec::new();
        let id = metadata::read(&fields, kind, known.is_namespaced, &mut found);
        for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
            found.push(Violation::new(Path::root().field(name), schema::unknown(&FIELDS[..4])));
        }
        match fields.get_mut("spec") {
            Some(spec) => schema::check(&known.spec, spec, &Path::spec(), &mut found),
            None => found.push(Violation::new(Path::spec(), "is missing")),
        }
        if found.is_empty() {
            let object = json!({
                "apiVersion": API_VERSION,
                "kind": kind,
                "metadata": {"name": id.name, "namespace": id.namespace},
                "spec": fields.remove("spec"),
            });
            let objects = &mut self.objects;
            let pushed = match kind {
                "LLMProvider" => push(&mut objects.providers, object),
                "LLMPriorityClass" => push(&mut objects.classes, object),
                _ => push(&mut objects.quotas, object),
            };
            found.extend(pushed.err());
        }
        self.register(origin, id, found);
    }

    fn read_secret(&mut self, origin: &Origin, fields: &Map<String, Value>) {
        let mut found = Vec::new();
        let mut id = metadata::read(fields, "Secret", true, &mut found);
        id.namespace = None;
        let entries = secret::entries(fields, &mut found);
        self.objects.secrets.insert(id.name.clone(), entries);
        self.register(origin, id, found);
    }

    /// Logs what was found wrong with an object, and that another has its name.
    fn register(&mut self, origin: &Origin, id: ObjectId, found: Vec<Violation>) {
        for violation in found {
            self.errors.add(origin, Some(&id), violation);
        }
        if id.name.is_empty() {
            return;
        }
        let name = Path::root().field("metadata").field("name");
        if let Some(first) = self.origins.get(&id) {
            let message = format!("stands also in {}: remove one", self.errors.place(first, &name));
            self.errors.add(origin, Some(&id), Violation::new(name, message));
            return;
        }
        self.origins.insert(id, origin.clone());
    }
}

// === impl Log ===

impl<'a> Log<'a> {
    fn new(files: &'a [(&'a str, &'a str)]) -> Log<'a> {
        Log { files, problems: Vec::new(), left_out: 0 }
    }

    fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, origin: &Origin, object: Option<&ObjectId>, violation: Violation) {
        let Violation { path, message } = violation;
        self.push(|log| {
            let place = Some(log.place(origin, &path));
            Problem { place, object: object.cloned(), path, reason: Reason::Invalid, message }
        });
    }

    /// Adds a problem of a document that is no object, whose line the parser knows.
    fn add_at(&mut self, line: Option<usize>, origin: &Origin, message: &str) {
        self.push(|log| {
            let (file, document) = (log.files[origin.file].0.to_owned(), origin.document);
            let place = Some(Place { file, document, line });
            Problem {
                place,
                object: None,
                path: Path::root(),
                reason: Reason::Invalid,
                message: message.into(),
            }
        });
    }

    /// Adds a problem that knows its object but not its place.
    fn add_compiled(&mut self, problem: Problem, origins: &BTreeMap<ObjectId, Origin>) {
        self.push(|log| {
            let origin = problem.object.as_ref().and_then(|object| origins.get(object));
            let place = origin.map(|origin| log.place(origin, &problem.path));
            Problem { place, ..problem }
        });
    }

    fn push(&mut self, problem: impl FnOnce(&Log<'_>) -> Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = problem(self);
            self.problems.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    fn place(&self, origin: &Origin, path: &Path) -> Place {
        let (file, text) = self.files[origin.file];
        let line = yaml::line(text, origin.document, &origin.prefix.join(path));
        Place { file: file.into(), document: origin.document, line }
    }

    /// In the order of the files' names and lines.
    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        if self.left_out > 0 {
            let message = format!("{} more problems are not named", self.left_out);
            self.problems.push(Problem {
                place: None,
                object: None,
                path: Path::root(),
                reason: Reason::Invalid,
                message,
            });
        }
        self.problems
    }
}

/// Reads an object that its schema holds for sound.
fn push<K: DeserializeOwned>(list: &mut Vec<K>, object: Value) -> Result<(), Violation> {
    let object = serde_json::from_value(object)
        .map_err(|error| Violation::new(Path::root(), format!("does not fit its kind: {error}")))?;
    list.push(object);
    Ok(())
}

#[cfg(test)]
mod tests;
