//! The bounds of the contract, and the checks that every conversion is made of.
//!
//! Each bound is generous against what people write and small against memory: the largest message that
//! passes all of them is limited by `MAX_MESSAGE_BYTES` anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quota::budget::BudgetId;

use crate::error::Error;

/// Names, labels, patterns: Kubernetes allows 253 bytes in a name and 63 in a label's value.
pub(crate) const STRING_MAX: usize = 256;
/// A budget's name holds three names.
pub(crate) const BUDGET_ID_MAX: usize = 3 * STRING_MAX;
/// URLs and addresses.
pub(crate) const URL_MAX: usize = 2_048;
/// Keys of providers; some are tokens that carry claims.
pub(crate) const SECRET_MAX: usize = 8_192;
/// Sentences for people.
pub(crate) const EXPLAIN_MAX: usize = 1_024;
/// A resumption ticket: a uid, an expiry and a MAC.
const TICKET_MAX: usize = 512;
/// Labels of a pod, and of a selector.
pub(crate) const LABELS_MAX: usize = 64;
/// Budgets that one request counts against.
pub(crate) const VECTOR_MAX: usize = 32;
/// Budgets that one pod deals with.
pub(crate) const BUDGETS_MAX: usize = 512;
/// Providers, classes, and keys of a provider.
pub(crate) const NAMES_MAX: usize = 64;
/// Limits of a provider, permissions of a quota, patterns of models.
pub(crate) const ENTRIES_MAX: usize = 256;
/// Figures of a limit: there are seven dimensions.
pub(crate) const FIGURES_MAX: usize = 16;

/// The content of a message field, which protobuf lets be absent.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Missing { field })
}

/// A text of at most `max` bytes.
pub(crate) fn text(field: &'static str, value: String, max: usize) -> Result<String, Error> {
    match value.len() {
        bytes if bytes > max => Err(Error::TooLong { field, bytes, max }),
        _ => Ok(value),
    }
}

/// A text of at most `max` bytes that is not empty.
pub(crate) fn filled(field: &'static str, value: String, max: usize) -> Result<String, Error> {
    if value.is_empty() {
        return Err(Error::Missing { field });
    }
    text(field, value, max)
}

/// A resumption ticket; empty for none.
pub(crate) fn ticket(field: &'static str, ticket: Vec<u8>) -> Result<Vec<u8>, Error> {
    match ticket.len() {
        bytes if bytes > TICKET_MAX => Err(Error::TooLong { field, bytes, max: TICKET_MAX }),
        _ => Ok(ticket),
    }
}

/// A name.
pub(crate) fn name(field: &'static str, value: String) -> Result<Arc<str>, Error> {
    filled(field, value, STRING_MAX).map(Arc::from)
}

/// A budget's name.
pub(crate) fn budget(field: &'static str, value: String) -> Result<BudgetId, Error> {
    filled(field, value, BUDGET_ID_MAX).map(|id| BudgetId::from_wire(&id))
}

/// A number of entries that is within `max`.
pub(crate) fn count(field: &'static str, entries: usize, max: usize) -> Result<(), Error> {
    if entries > max { Err(Error::TooMany { field, entries, max }) } else { Ok(()) }
}

/// A list of at most `max` entries.
pub(crate) fn list<W, T>(
    field: &'static str,
    entries: Vec<W>,
    max: usize,
    convert: impl Fn(W) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    count(field, entries.len(), max)?;
    entries.into_iter().map(convert).collect()
}

/// A list of at most `max` entries whose keys differ.
pub(crate) fn map<W, K: Ord, V>(
    field: &'static str,
    entries: Vec<W>,
    max: usize,
    convert: impl Fn(W) -> Result<(K, V), Error>,
) -> Result<BTreeMap<K, V>, Error> {
    count(field, entries.len(), max)?;
    let mut map = BTreeMap::new();
    for entry in entries {
        let (key, value) = convert(entry)?;
        if map.insert(key, value).is_some() {
            return Err(Error::Twice { field });
        }
    }
    Ok(map)
}

/// Labels of a pod or a selector.
pub(crate) fn labels(
    field: &'static str,
    labels: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    count(field, labels.len(), LABELS_MAX)?;
    for (key, value) in &labels {
        let bytes = key.len().max(value.len());
        if bytes > STRING_MAX {
            return Err(Error::TooLong { field, bytes, max: STRING_MAX });
        }
    }
    Ok(labels)
}

/// A value of a generated enum; zero stands for a field that was not set.
pub(crate) fn known<E: TryFrom<i32> + Default + PartialEq>(
    field: &'static str,
    value: i32,
) -> Result<E, Error> {
    match E::try_from(value) {
        Ok(known) if known == E::default() => Err(Error::Missing { field }),
        Ok(known) => Ok(known),
        Err(_) => Err(Error::Unknown { field, value }),
    }
}

/// A duration in nanoseconds; more than 584 years become that.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A sentence for people, cut to its bound.
pub(crate) fn explain(mut sentence: String) -> String {
    sentence.truncate(sentence.floor_char_boundary(EXPLAIN_MAX));
    sentence
}
