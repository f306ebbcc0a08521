//! Conditions: one helper that keeps the time of the last transition, so that a condition says since
//! when, and not when it was last looked at.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    /// One word for programs.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Longer messages are cut: the API server takes 32,768 bytes, people read far less.
const MESSAGE_MAX: usize = 1_024;

/// The conditions that say what was found, given those before.
pub(crate) fn conditions(
    found: Vec<Finding>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |finding: Finding| {
        let status = if finding.holds { "True" } else { "False" };
        let same = before.iter().find(|it| it.type_ == finding.kind && it.status == status);
        Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: cut(finding.message),
            observed_generation: generation,
            // A whole second is all that the API server keeps.
            last_transition_time: same
                .map_or_else(|| Time(whole(now)), |it| it.last_transition_time.clone()),
        }
    };
    found.into_iter().map(condition).collect()
}

fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(holds: bool, message: &str) -> Vec<Finding> {
        vec![Finding { kind: "Ready", holds, reason: "R", message: message.to_owned() }]
    }

    #[test]
    fn the_time_is_that_of_the_last_change_of_status() {
        let first = conditions(ready(false, "a"), &[], Some(1), at(10));
        assert_eq!((first[0].status.as_str(), first[0].last_transition_time.0), ("False", at(10)));
        let reworded = conditions(ready(false, "b"), &first, Some(2), at(20));
        assert_eq!(
            (reworded[0].message.as_str(), reworded[0].last_transition_time.0),
            ("b", at(10))
        );
        let changed = conditions(ready(true, "b"), &reworded, Some(2), at(30));
        assert_eq!(
            (changed[0].status.as_str(), changed[0].last_transition_time.0),
            ("True", at(30))
        );
    }

    #[test]
    fn a_message_is_never_longer_than_people_read() {
        let long = conditions(ready(true, &"ü".repeat(2_000)), &[], None, at(0));
        assert!(long[0].message.len() <= MESSAGE_MAX && long[0].message.ends_with("..."));
    }
}
