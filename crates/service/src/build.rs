//! What was built: the version and, where the builder said so, the commit.

use std::sync::LazyLock;

/// The version of all programs; they are released together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, if `WEIR_COMMIT` was set at build time (release builds set it; a build
/// script that asks git would rebuild everything at each commit).
pub const COMMIT: Option<&str> = option_env!("WEIR_COMMIT");

static LONG: LazyLock<String> = LazyLock::new(|| match COMMIT {
    Some(commit) => format!("{VERSION} ({commit})"),
    None => VERSION.to_owned(),
});

/// `0.1.0 (1a2b3c4)`, or the version alone where the commit is not known.
pub fn version() -> &'static str {
    &LONG
}
