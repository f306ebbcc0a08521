//! How a request presents a key.

use quota::policy::Secret;

/// Which headers of the application go, and the one that comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Headers to remove, in lower case: every form of credential that the provider takes, and what
    /// belongs to the application's own key.
    pub remove: &'static [&'static str],
    /// The header to add, in lower case.
    pub header: &'static str,
    /// Its value.
    pub value: Secret,
}
