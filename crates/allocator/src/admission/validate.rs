//! The validating webhook: what the schema of a custom resource and its CEL rules cannot say.
//!
//! Errors are about the object itself, in the words of [`crds::validate`]. What it refers to and is
//! not there, and guarantees that overcommit a limit, are warnings: files are applied in any order.

use std::collections::BTreeSet;

use crds::compile::{Compiled, Objects, compile};
use crds::path::{Path, Step};
use crds::priority_class::{self, LLMPriorityClass};
use crds::problem::{ObjectId, Problem, Reason, Violation};
use crds::provider::LLMProvider;
use crds::quota::LLMQuota;
use kube::{Resource, ResourceExt};

/// A custom resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// An account.
    Provider(LLMProvider),
    /// A priority class.
    Class(LLMPriorityClass),
    /// A quota.
    Quota(LLMQuota),
}

/// What is about to happen to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is made, or becomes another.
    Applied {
        /// As it is to be.
        object: Object,
        /// As it is; `None` if it is made.
        before: Option<Box<Object>>,
    },
    /// It goes.
    Deleted(Object),
}

/// What is said to a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it cannot be; empty if it can.
    pub errors: Vec<Violation>,
    /// What does not do what its author may think.
    pub warnings: Vec<String>,
}

/// Reviews a change against the objects that are there. Where they are not known yet, only the object
/// itself is looked at.
pub fn validate(change: &Change, objects: Option<&Objects>) -> Verdict {
    match change {
        Change::Deleted(object) => Verdict {
            errors: Vec::new(),
            warnings: objects.and_then(|objects| in_use(object, objects)).into_iter().collect(),
        },
        // Finalizers must come off, and labels change, whatever a newer version thinks of the rest.
        Change::Applied { object, before: Some(before) } if object.has_spec_of(before) => {
            Verdict::default()
        }
        Change::Applied { object, .. } => applied(object, objects),
    }
}

/// How many users of an object are named.
const NAMED: usize = 3;

// === impl Object ===

impl Object {
    /// Which object it is.
    pub fn id(&self) -> ObjectId {
        match self {
            Object::Provider(provider) => id(provider),
            Object::Class(class) => id(class),
            Object::Quota(quota) => id(quota),
        }
    }

    fn has_spec_of(&self, other: &Object) -> bool {
        match (self, other) {
            (Object::Provider(left), Object::Provider(right)) => left.spec == right.spec,
            (Object::Class(left), Object::Class(right)) => left.spec == right.spec,
            (Object::Quota(left), Object::Quota(right)) => left.spec == right.spec,
            _ => false,
        }
    }

    /// `objects` with this one in the place of the one of its name.
    fn put_into(&self, objects: &Objects) -> Objects {
        let mut objects = objects.clone();
        match self {
            Object::Provider(provider) => put(&mut objects.providers, provider),
            Object::Class(class) => put(&mut objects.classes, class),
            Object::Quota(quota) => put(&mut objects.quotas, quota),
        }
        objects
    }
}

fn applied(object: &Object, objects: Option<&Objects>) -> Verdict {
    let reviewed = object.id();
    let none = Objects::default();
    let after = object.put_into(objects.unwrap_or(&none));
    let (Compiled { warnings, .. }, errors) = compile(&after);
    let own = errors.into_iter().filter(|problem| problem.object.as_ref() == Some(&reviewed));
    let mut errors: Vec<Violation> =
        own.map(|Problem { path, message, .. }| Violation { path, message }).collect();
    if let Object::Class(class) = object {
        let second = second_default(class, objects.unwrap_or(&none));
        errors.extend(second.filter(|violation| !errors.contains(violation)));
    }
    let Some(objects) = objects.filter(|_| errors.is_empty()) else {
        return Verdict { errors, warnings: Vec::new() };
    };
    let warnings: Vec<Problem> =
        warnings.into_iter().filter(|it| !is_premature(object, objects, it)).collect();
    let (own, others): (Vec<Problem>, Vec<Problem>) =
        warnings.into_iter().partition(|it| it.object.as_ref() == Some(&reviewed));
    let own = own.iter().map(Problem::within);
    let others = brought_about(others, objects);
    Verdict { errors, warnings: own.chain(others).collect() }
}

/// Of what is said about other objects, what was not so before.
fn brought_about(warnings: Vec<Problem>, objects: &Objects) -> Vec<String> {
    if warnings.is_empty() {
        return Vec::new();
    }
    let (Compiled { warnings: before, .. }, _) = compile(objects);
    let before: BTreeSet<Problem> = before.into_iter().collect();
    let new = warnings.iter().filter(|warning| !before.contains(warning));
    new.map(ToString::to_string).collect()
}

/// A class that would be the global default beside another. Compiling blames the later name of the
/// two, which need not be the one that is being applied.
fn second_default(class: &LLMPriorityClass, objects: &Objects) -> Option<Violation> {
    let name = class.name_any();
    let mut others = objects.classes.iter().filter(|other| other.name_any() != name);
    let first = others.find(|other| other.spec.global_default && class.spec.global_default)?;
    let path = Path::spec().field("globalDefault");
    Some(Violation { path, message: priority_class::second_default(&first.name_any()) })
}

/// True for what cannot be otherwise yet: quotas come after their provider, and Secrets are watched
/// only when a provider refers to them.
fn is_premature(object: &Object, objects: &Objects, warning: &Problem) -> bool {
    let Object::Provider(provider) = object else { return false };
    if warning.object.as_ref() != Some(&object.id()) {
        return false;
    }
    match warning.reason {
        Reason::UnusedLimit => {
            let name = provider.name_any();
            let budgets = objects.quotas.iter().flat_map(|quota| &quota.spec.budgets);
            !budgets.into_iter().any(|budget| budget.provider == name)
        }
        // A provider refers to nothing but Secrets, by its keys.
        Reason::MissingReference => {
            let index = warning.path.steps().iter().find_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Field(_) => None,
            });
            let key = index.and_then(|index| provider.spec.keys.get(index));
            let known = objects.providers.iter().flat_map(|provider| &provider.spec.keys);
            let mut names = known.map(|key| &key.secret_ref.name);
            key.is_some_and(|key| !names.any(|name| *name == key.secret_ref.name))
        }
        _ => false,
    }
}

/// Says who uses an object that is about to go.
fn in_use(object: &Object, objects: &Objects) -> Option<String> {
    let name = match object {
        Object::Provider(provider) => provider.name_any(),
        Object::Class(class) => class.name_any(),
        Object::Quota(_) => return None,
    };
    let users = objects.quotas.iter().filter(|quota| match object {
        Object::Provider(_) => quota.spec.budgets.iter().any(|budget| budget.provider == name),
        _ => {
            quota.spec.priority_class_name.as_deref() == Some(name.as_str())
                || quota.spec.permitted_classes.contains(&name)
        }
    });
    let users: Vec<String> = users.map(|quota| id(quota).to_string()).collect();
    if users.is_empty() {
        return None;
    }
    let mut named = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if users.len() > NAMED {
        named = format!("{named} and {} more", users.len() - NAMED);
    }
    let effect = match object {
        Object::Provider(_) => "their pods get no answers from it until there is one of this name",
        _ => "their requests have the default class until there is one of this name",
    };
    Some(format!("in use by {named}: {effect}"))
}

fn id<K: Resource<DynamicType = ()>>(object: &K) -> ObjectId {
    ObjectId {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace(),
        name: object.name_any(),
    }
}

fn put<K: Resource<DynamicType = ()> + Clone>(list: &mut Vec<K>, object: &K) {
    let reviewed = id(object);
    list.retain(|other| id(other) != reviewed);
    list.push(object.clone());
}
