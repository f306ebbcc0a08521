//! What the schema cannot say with types and bounds: the CEL rules, in Rust.
//!
//! The admission webhook and the directory source call it; a test holds it to the CEL rules of the
//! custom resource definitions, message by message. What an object refers to is not looked at here:
//! a missing reference is a warning ([`crate::compile`]), because files are applied in any order.

use std::collections::BTreeSet;

use quota::units::Amount;

use crate::duration;
use crate::endpoint;
use crate::path::Path;
use crate::problem::Violation;
use crate::provider::{self, LLMProvider, LimitSpec};
use crate::quota::{self as quotas, BudgetSpec, LLMQuota, PerMinute};

/// What is wrong with a provider; empty if nothing is.
pub fn provider(object: &LLMProvider) -> Vec<Violation> {
    let mut found = Vec::new();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if name == "v1" || name.len() > 63 {
        found.push(Violation::new(Path::root(), provider::RESERVED_MESSAGE));
    }
    let spec = Path::spec();
    if let Err(message) = endpoint::parse(&object.spec.endpoint) {
        found.push(Violation::new(spec.field("endpoint"), message));
    }
    for (index, key) in object.spec.keys.iter().enumerate() {
        check_name(&key.name, &spec.field("keys").index(index), &mut found);
    }
    for (index, limit) in object.spec.limits.iter().enumerate() {
        check_limit(limit, &spec.field("limits").index(index), &mut found);
        for budget in limit.budgets(object) {
            // The core's own bound on a request, so that a limit which could never admit one is
            // refused here and not discovered by a hanging application.
            if budget.largest_request() < Amount::from_units(1) {
                let path = spec.field("limits").index(index).field(budget.dimension.name());
                found.push(Violation::new(path, TOO_SMALL_MESSAGE));
            }
        }
    }
    found
}

/// What is wrong with a quota; empty if nothing is.
pub fn quota(object: &LLMQuota) -> Vec<Violation> {
    let mut found = Vec::new();
    let spec = Path::spec();
    let budgets = spec.field("budgets");
    let mut seen = BTreeSet::new();
    let targets = object.spec.budgets.iter().map(|b| (&b.provider, b.limit.as_deref()));
    if !targets.into_iter().all(|target| seen.insert(target)) {
        found.push(Violation::new(budgets.clone(), quotas::BUDGETS_MESSAGE));
    }
    for (index, budget) in object.spec.budgets.iter().enumerate() {
        let mut others = object.spec.budgets.iter();
        let general = others.find(|b| b.limit.is_none() && b.provider == budget.provider);
        if exceeds_ceiling(budget, general) {
            found.push(Violation::new(budgets.index(index), quotas::CEILING_MESSAGE));
        }
    }
    let wait = spec.field("queue").field("maxWait");
    match duration::parse(&object.spec.queue.max_wait) {
        None => found.push(Violation::new(wait, duration::MESSAGE)),
        Some(time) if time > quotas::WAIT_MAX => {
            found.push(Violation::new(wait, quotas::WAIT_MESSAGE));
        }
        Some(_) => {}
    }
    found
}

/// Not a CEL rule: it follows from the core's bound on a single request.
pub(crate) const TOO_SMALL_MESSAGE: &str = "is too small: a request may take at most half of what \
     the limit holds at once, and that is less than 1; raise the figure or burstPercent";

fn check_limit(limit: &LimitSpec, path: &Path, found: &mut Vec<Violation>) {
    check_name(&limit.name, path, found);
    if limit.figures().next().is_none() {
        found.push(Violation::new(path.clone(), provider::FIGURES_MESSAGE));
    }
    if limit.burst_percent.is_some() && limit.window == Some(provider::Window::FixedWindow) {
        found.push(Violation::new(path.clone(), provider::BURST_MESSAGE));
    }
    let path = path.field("floorDuration");
    match duration::parse(&limit.floor_duration) {
        None => found.push(Violation::new(path, duration::MESSAGE)),
        Some(time) if time > provider::FLOOR_MAX => {
            found.push(Violation::new(path, provider::FLOOR_MESSAGE));
        }
        Some(_) => {}
    }
}

fn check_name(name: &str, path: &Path, found: &mut Vec<Violation>) {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_sound = name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-' || c == '.');
    if !is_sound {
        found.push(Violation::new(path.field("name"), provider::NAME_MESSAGE));
    }
}

/// True if a guarantee of `budget` is above its ceiling, where `general`, the entry for all limits
/// of the same provider, fills in what `budget` leaves out.
fn exceeds_ceiling(budget: &BudgetSpec, general: Option<&BudgetSpec>) -> bool {
    PerMinute::DIMENSIONS.into_iter().any(|dimension| {
        let figure = |side: fn(&BudgetSpec) -> Option<&PerMinute>| {
            let of = |entry| side(entry).and_then(|figures| figures.get(dimension));
            of(budget).or_else(|| general.and_then(of))
        };
        let guaranteed = figure(|entry| entry.guaranteed.as_ref());
        let ceiling = figure(|entry| entry.ceiling.as_ref());
        guaranteed.zip(ceiling).is_some_and(|(guaranteed, ceiling)| guaranteed > ceiling)
    })
}
