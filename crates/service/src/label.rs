//! Label values that come from outside, bounded.
//!
//! A model's name is whatever a caller writes; a metric with such a label would grow without end.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

/// What stands for all values beyond the bound.
pub const OTHER: &str = "other";

/// The longest value that is kept; longer ones are no name that a provider would know.
const MAX_BYTES: usize = 128;

/// The first `limit` distinct values that were seen; all others are [`OTHER`].
#[derive(Debug)]
pub struct Bounded {
    limit: usize,
    other: Arc<str>,
    seen: RwLock<BTreeSet<Arc<str>>>,
}

// === impl Bounded ===

impl Bounded {
    /// Keeps at most `limit` values apart.
    pub fn new(limit: usize) -> Bounded {
        Bounded { limit, other: OTHER.into(), seen: RwLock::default() }
    }

    /// The label for `value`: itself while there is room, then [`OTHER`].
    pub fn label(&self, value: &str) -> Arc<str> {
        if let Some(known) = self.seen.read().get(value) {
            return known.clone();
        }
        if value.len() > MAX_BYTES {
            return self.other.clone();
        }
        let mut seen = self.seen.write();
        // Another thread may have added it, or taken the last place, since the look-up above.
        if let Some(known) = seen.get(value) {
            return known.clone();
        }
        if seen.len() >= self.limit {
            return self.other.clone();
        }
        let label: Arc<str> = value.into();
        seen.insert(label.clone());
        label
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounded, MAX_BYTES, OTHER};

    #[test]
    fn values_beyond_the_bound_share_one_label() {
        let models = Bounded::new(2);
        for (value, expected) in [
            ("gpt-4o", "gpt-4o"),
            ("claude", "claude"),
            ("made-up", OTHER),
            ("gpt-4o", "gpt-4o"),
            ("claude", "claude"),
        ] {
            assert_eq!(&*models.label(value), expected);
        }
    }

    #[test]
    fn a_value_too_long_for_a_name_takes_no_place() {
        let models = Bounded::new(1);
        assert_eq!(&*models.label(&"x".repeat(MAX_BYTES + 1)), OTHER);
        assert_eq!(&*models.label("gpt-4o"), "gpt-4o");
    }
}
