//! `Problem`: what is wrong with a policy, said so that a person can put it right.
//!
//! A problem never holds the text of a Secret, nor of a field that people put keys into by mistake.

use std::fmt;

use crate::path::Path;

/// What is wrong, and where.
///
/// ```text
/// policy/quota.yaml:12: LLMQuota shop/chat: spec.budgets[0].provider: there is no LLMProvider opnai
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The place in a file; `None` for objects of a cluster.
    pub place: Option<Place>,
    /// The object; `None` where the text is not one.
    pub object: Option<ObjectId>,
    /// The field; the root for the object as a whole.
    pub path: Path,
    /// Of which kind it is.
    pub reason: Reason,
    /// What is wrong with it and what to do, without a full stop.
    pub message: String,
}

/// Kinds of problems, as conditions name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object cannot be used.
    Invalid,
    /// What it refers to is not there; that part is left out.
    MissingReference,
    /// Guarantees or minimum shares come to more than there is.
    Overcommitted,
    /// A limit that no quota uses.
    UnusedLimit,
    /// Another quota wins all pods of this one.
    Superseded,
    /// A part of it does nothing.
    NoEffect,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name, as the caller gave it.
    pub file: String,
    /// Which of the file's documents, from 0.
    pub document: usize,
    /// The line, from 1, where the parser knows it.
    pub line: Option<usize>,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: String,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name; empty where the text has none.
    pub name: String,
}

/// What is wrong within one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field; the root for the object as a whole.
    pub path: Path,
    /// What is wrong with it and what to do.
    pub message: String,
}

// === impl Problem ===

impl Problem {
    pub(crate) fn of(
        object: ObjectId,
        path: Path,
        reason: Reason,
        message: impl Into<String>,
    ) -> Problem {
        Problem { place: None, object: Some(object), path, reason, message: message.into() }
    }

    /// What is wrong and in which field, for whoever knows the object.
    pub fn within(&self) -> String {
        if self.path.is_root() {
            return self.message.clone();
        }
        format!("{}: {}", self.path, self.message)
    }
}

// === impl Reason ===

impl Reason {
    /// As conditions and events say it.
    pub const fn label(self) -> &'static str {
        match self {
            Reason::Invalid => "Invalid",
            Reason::MissingReference => "MissingReference",
            Reason::Overcommitted => "Overcommitted",
            Reason::UnusedLimit => "UnusedLimit",
            Reason::Superseded => "Superseded",
            Reason::NoEffect => "NoEffect",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => write!(f, "{}: document {}", self.file, self.document + 1),
        }
    }
}

// === impl ObjectId ===

impl ObjectId {
    pub(crate) fn new(kind: &str, namespace: Option<&str>, name: &str) -> ObjectId {
        ObjectId { kind: kind.into(), namespace: namespace.map(Into::into), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, self.name.as_str()) {
            (_, "") => f.write_str(&self.kind),
            (Some(namespace), name) => write!(f, "{} {namespace}/{name}", self.kind),
            (None, name) => write!(f, "{} {name}", self.kind),
        }
    }
}

// === impl Violation ===

impl Violation {
    pub(crate) fn new(path: Path, message: impl Into<String>) -> Violation {
        Violation { path, message: message.into() }
    }
}
