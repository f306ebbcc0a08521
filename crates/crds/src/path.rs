//! `Path`: where in an object a field is, as in `spec.budgets[0].provider`.

use std::fmt;

/// The way from an object's root to one of its fields; empty for the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a field of an object.
    Field(String),
    /// Into an entry of a list.
    Index(usize),
}

impl Path {
    /// The object itself.
    pub fn root() -> Path {
        Path::default()
    }

    /// The field `spec`.
    pub fn spec() -> Path {
        Path::root().field("spec")
    }

    /// A field of what this path leads to.
    #[must_use]
    pub fn field(&self, name: &str) -> Path {
        self.then(Step::Field(name.into()))
    }

    /// An entry of the list that this path leads to.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        self.then(Step::Index(index))
    }

    /// Its steps, from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// True for the object itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// `rest`, seen from the root of this path.
    #[must_use]
    pub(crate) fn join(&self, rest: &Path) -> Path {
        Path(self.0.iter().chain(&rest.0).cloned().collect())
    }

    fn then(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

impl fmt::Display for Path {
    /// As Kubernetes writes paths: names with a dot or a slash stand in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Field(name) if name.contains(['.', '/']) => write!(f, "[{name}]")?,
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}
