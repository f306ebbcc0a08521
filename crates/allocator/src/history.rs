//! The last fifteen minutes, for the page: how much was used, what providers refused, what happened.
//! Read off views as they come; it has no clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use crate::view::View;

/// What there was to see lately.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct History {
    points: VecDeque<Point>,
    /// The newest first.
    notes: VecDeque<Note>,
    #[serde(skip)]
    last: Option<Arc<View>>,
    #[serde(skip)]
    provider_429: u64,
}

/// The use of budgets at one instant.
#[derive(Clone, Debug, Serialize)]
struct Point {
    at_ms: u64,
    /// By budget: the part of the last minute's refill that was used.
    used: BTreeMap<Arc<str>, f32>,
    /// Since the point before.
    provider_429: u64,
}

/// Something that a person may want to know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Note {
    at_ms: u64,
    text: String,
}

/// Fifteen minutes in steps of five seconds.
const POINTS_MAX: usize = 180;
const STEP_MS: u64 = 5_000;
const NOTES_MAX: usize = 50;
/// Lines in a chart that a person can still tell apart are fewer.
const BUDGETS_MAX: usize = 32;
/// Names in one note.
const NAMES_MAX: usize = 3;

// === impl History ===

impl History {
    /// Takes note of what has changed since the view before. True if there is something new to show.
    pub(crate) fn observe(&mut self, view: Arc<View>) -> bool {
        let before = self.last.replace(view.clone()).unwrap_or_default();
        let notes = notes(&before, &view);
        let is_noted = !notes.is_empty();
        for text in notes {
            self.notes.push_front(Note { at_ms: view.at_ms, text });
        }
        self.notes.truncate(NOTES_MAX);
        self.provider_429 += more_429s(&before, &view).values().sum::<u64>();
        let last = self.points.back().map_or(0, |point| point.at_ms);
        let is_due = view.epoch > 0 && view.at_ms >= last + STEP_MS;
        if is_due {
            self.add_point(&view);
        }
        is_noted || is_due
    }

    fn add_point(&mut self, view: &View) {
        let budgets = view.budgets.iter().take(BUDGETS_MAX);
        #[expect(clippy::cast_possible_truncation, reason = "a chart has fewer digits")]
        let used = budgets.filter_map(|(budget, of)| {
            Some((Arc::from(budget.as_str()), of.utilisation()? as f32))
        });
        let used = used.collect();
        let provider_429 = std::mem::take(&mut self.provider_429);
        self.points.push_back(Point { at_ms: view.at_ms, used, provider_429 });
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }
}

fn notes(before: &View, now: &View) -> Vec<String> {
    let mut notes = Vec::new();
    match (before.epoch, now.epoch) {
        (was, is) if was == is => {}
        (_, 0) => notes.push("this replica does not lead any more".to_owned()),
        (_, epoch) => notes.push(format!("leads as epoch {epoch}")),
    }
    let generation = now.policy.generation;
    if before.policy.generation != generation && now.epoch > 0 {
        notes.push(format!("policy generation {generation} is in force"));
    }
    let new = |entry: &&String| !before.policy.problems.contains(entry);
    notes.extend(now.policy.problems.iter().filter(new).cloned());
    if now.epoch == before.epoch {
        let (came, went) = (missing(now, before), missing(before, now));
        notes.extend(counted("connected", &came));
        notes.extend(counted("gone", &went));
    }
    for (workload, more) in more_429s(before, now) {
        notes.push(format!("a provider answered {workload} with 429, {more} times"));
    }
    notes
}

/// What each workload got more than before; pods that ended take their counts along.
fn more_429s<'a>(before: &View, now: &'a View) -> BTreeMap<&'a str, u64> {
    let more = now.workloads.iter().map(|(name, workload)| {
        let earlier = before.workloads.get(name).map_or(0, |it| it.provider_429);
        (name.as_str(), workload.provider_429.saturating_sub(earlier))
    });
    more.filter(|(_, more)| *more > 0).collect()
}

/// Pods that `view` has and `other` has not.
fn missing<'a>(view: &'a View, other: &View) -> Vec<&'a str> {
    view.pods.keys().filter(|pod| !other.pods.contains_key(*pod)).map(String::as_str).collect()
}

fn counted(what: &str, pods: &[&str]) -> Option<String> {
    match pods {
        [] => None,
        [pod] => Some(format!("{pod} {what}")),
        _ if pods.len() <= NAMES_MAX => Some(format!("{} {what}", pods.join(", "))),
        _ => Some(format!("{} pods {what}: {}, ...", pods.len(), pods[..NAMES_MAX].join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{BudgetView, PodView, WorkloadView};

    fn view(seconds: u64, pods: &[&str], provider_429: u64) -> Arc<View> {
        let budget =
            BudgetView { rate_per_second: 10.0, used_last_minute: 300.0, ..BudgetView::default() };
        let workload = WorkloadView { provider_429, ..WorkloadView::default() };
        Arc::new(View {
            at_ms: 1_000_000 + seconds * 1_000,
            epoch: 1,
            budgets: [("rpm".to_owned(), budget)].into(),
            workloads: [("shop/chat".to_owned(), workload)].into(),
            pods: pods.iter().map(|pod| ((*pod).to_owned(), PodView::default())).collect(),
            ..View::default()
        })
    }

    fn texts(history: &History) -> Vec<&str> {
        history.notes.iter().map(|note| note.text.as_str()).collect()
    }

    #[test]
    fn a_point_is_kept_every_five_seconds_for_fifteen_minutes() {
        let mut history = History::default();
        for second in 0..2_000 {
            history.observe(view(second, &[], second / 100));
        }
        assert_eq!(history.points.len(), 180);
        let span = history.points.back().unwrap().at_ms - history.points[0].at_ms;
        assert_eq!(span, 179 * 5_000);
        assert!(history.points.iter().all(|point| (point.used["rpm"] - 0.5).abs() < 1e-6));
        let refused: u64 = history.points.iter().map(|point| point.provider_429).sum();
        assert_eq!(refused, 9, "one in each hundred seconds of the last 900");
    }

    #[test]
    fn what_happens_is_told_once_with_names() {
        let mut history = History::default();
        history.observe(view(0, &["a"], 0));
        history.observe(view(1, &["a"], 0));
        history.observe(view(2, &["b", "c", "d", "e"], 2));
        history.observe(Arc::new(View { at_ms: 2_000_000, ..View::default() }));
        assert_eq!(
            texts(&history),
            [
                "this replica does not lead any more",
                "a provider answered shop/chat with 429, 2 times",
                "a gone",
                "4 pods connected: b, c, d, ...",
                "leads as epoch 1",
            ]
        );
        for second in 0..200 {
            history.observe(view(second, if second % 2 == 0 { &["a"] } else { &[] }, 0));
        }
        assert_eq!(history.notes.len(), NOTES_MAX);
    }
}
