mod properties;
mod rig;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::bucket::Bucket;
use crate::dimension::Dimension;
use crate::policy::Bounds;
use crate::units::Rate;
use rig::{Rig, rpm, tpm, vector};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn weight(weight: u32) -> Terms {
    Terms { weight, ..Terms::default() }
}

fn bounds(budget: BudgetId, guaranteed: u64, ceiling: Option<u64>) -> Terms {
    let per_minute = |units| Rate::per(Amount::from_units(units), MINUTE);
    let bounds = Bounds { guaranteed: per_minute(guaranteed), ceiling: ceiling.map(per_minute) };
    Terms { weight: 1, bounds: [(budget, bounds)].into() }
}

/// Fills a workload's queue with `count` draws of `units` each.
fn backlog(rig: &mut Rig, flow: &str, class: &str, count: usize, (budget, units): (BudgetId, u64)) {
    for i in 0..count {
        rig.push(&format!("{flow}{i}"), class, &[(budget.clone(), units)]).unwrap();
    }
}

fn count(granted: &[String], flow: &str) -> usize {
    granted.iter().filter(|key| key.starts_with(flow)).count()
}

#[test]
fn a_draw_that_fits_is_granted_at_once_and_taken_from_the_level() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    let place = rig.push("one", "a", &[(rpm(), 1)]).unwrap();
    assert_eq!(place, Place { ahead: 0, wait: Duration::ZERO, binding: None });
    assert_eq!(rig.dispatch(), ["one"]);
    assert_eq!(rig.level(&rpm()), 59);
    assert!(rig.queue.is_empty());
}

#[test]
fn a_higher_class_goes_first_whoever_came_first() {
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)]);
    rig.drain();
    rig.push("l1", "low", &[(rpm(), 1)]).unwrap();
    rig.push("h1", "high", &[(rpm(), 1)]).unwrap();
    rig.push("h2", "high", &[(rpm(), 1)]).unwrap();
    rig.wait(2 * SECOND);
    assert_eq!(rig.dispatch(), ["h1", "h2"]);
    rig.wait(SECOND);
    assert_eq!(rig.dispatch(), ["l1"]);
}

#[test]
fn classes_of_the_same_value_share_as_one() {
    let mut rig = Rig::new(&[("one", 5), ("other", 5)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "a", "one", 20, (rpm(), 1));
    backlog(&mut rig, "b", "other", 20, (rpm(), 1));
    let granted = rig.run(10 * SECOND);
    assert_eq!((count(&granted, "a"), count(&granted, "b")), (5, 5));
}

#[test]
fn a_draw_takes_from_all_its_budgets_or_from_none() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60), (tpm(), 6_000)]);
    rig.take(&tpm(), 6_000);
    rig.push("one", "a", &[(rpm(), 1), (tpm(), 100)]).unwrap();
    assert!(rig.dispatch().is_empty());
    assert_eq!((rig.level(&rpm()), rig.level(&tpm())), (60, 0));
    assert_eq!(rig.queue.next_wakeup(rig.now, &rig.levels), Some(rig.now + SECOND));
    rig.wait(SECOND);
    assert_eq!(rig.dispatch(), ["one"]);
}

#[test]
fn a_draw_that_needs_no_budget_waits_for_nobody() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "b", "a", 1, (rpm(), 1));
    rig.push("free", "a", &[]).unwrap();
    assert_eq!(rig.dispatch(), ["free"]);
}

#[test]
fn inside_a_workload_the_earliest_deadline_goes_first_and_then_the_longest_wait() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    let mut push = |key: &str, deadline: u32, waited: u32| {
        let mut draw = rig.draw(key, "a", &[(rpm(), 1)]);
        draw.deadline = rig.now + deadline * SECOND;
        draw.queued_at = rig.now - waited * SECOND;
        rig.queue.push(rig.now, draw, &rig.levels).unwrap();
    };
    push("w1", 90, 0);
    push("w2", 50, 0);
    push("w3", 90, 5);
    push("w4", 20, 0);
    assert_eq!(rig.run(4 * SECOND), ["w4", "w2", "w3", "w1"]);
}

#[test]
fn workloads_of_a_class_share_by_weight() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]).flow("heavy", weight(3));
    rig.drain();
    backlog(&mut rig, "heavy", "a", 100, (rpm(), 1));
    backlog(&mut rig, "light", "a", 100, (rpm(), 1));
    let granted = rig.run(80 * SECOND);
    assert_eq!((count(&granted, "heavy"), count(&granted, "light")), (60, 20));
}

#[test]
fn workloads_share_what_each_needs_most_of() {
    // One needs requests, the other tokens: each gets the same part of what it needs most of.
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 600), (tpm(), 60_000)]);
    rig.drain();
    for i in 0..600 {
        rig.push(&format!("small{i}"), "a", &[(rpm(), 1), (tpm(), 10)]).unwrap();
        rig.push(&format!("large{i}"), "a", &[(rpm(), 1), (tpm(), 1_000)]).unwrap();
    }
    let granted = rig.run(60 * SECOND);
    let of_requests = count(&granted, "small") * 1_000 / 600;
    let of_tokens = count(&granted, "large") * 1_000 / 60;
    assert!(of_requests.abs_diff(of_tokens) < 40, "{of_requests} against {of_tokens} per mille");
    assert!(of_requests > 800, "both together are bound by both budgets: {of_requests}");
}

#[test]
fn who_returns_from_idle_has_saved_nothing_up() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "idle", "a", 1, (rpm(), 1));
    backlog(&mut rig, "busy", "a", 100, (rpm(), 1));
    rig.run(30 * SECOND);
    backlog(&mut rig, "idle", "a", 20, (rpm(), 1));
    let granted = rig.run(20 * SECOND);
    assert_eq!((count(&granted, "idle"), count(&granted, "busy")), (10, 10));
}

#[test]
fn a_fast_limit_does_not_put_workloads_behind_on_a_slow_one() {
    let slow = BudgetId::new("openai", "slow", Dimension::RequestsPerMinute);
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 6_000), (slow.clone(), 60)]);
    rig.drain();
    backlog(&mut rig, "fast", "a", 5_000, (rpm(), 1));
    backlog(&mut rig, "early", "a", 100, (slow.clone(), 1));
    backlog(&mut rig, "third", "a", 100, (slow.clone(), 1));
    rig.run(40 * SECOND);
    backlog(&mut rig, "late", "a", 100, (slow, 1));
    let granted = rig.run(30 * SECOND);
    let shares = ["early", "third", "late"].map(|flow| count(&granted, flow));
    assert!(shares.iter().all(|share| (9..=11).contains(share)), "{shares:?}");
}

#[test]
fn limits_that_a_draw_joins_are_served_as_one_and_nobody_is_put_behind() {
    let other = BudgetId::new("openai", "other", Dimension::RequestsPerMinute);
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 600), (other.clone(), 60)]);
    rig.drain();
    backlog(&mut rig, "fast", "a", 500, (rpm(), 1));
    backlog(&mut rig, "slow", "a", 100, (other.clone(), 1));
    rig.run(20 * SECOND);
    for i in 0..50 {
        rig.push(&format!("both{i}"), "a", &[(rpm(), 1), (other.clone(), 1)]).unwrap();
    }
    let granted = rig.run(20 * SECOND);
    let shares = ["slow", "both"].map(|flow| count(&granted, flow));
    assert!(shares.iter().all(|share| (9..=11).contains(share)), "{shares:?}");
    assert!(count(&granted, "fast") >= 185);
}

#[test]
fn a_class_gets_its_minimum_share_and_no_more_while_a_higher_one_takes_the_rest() {
    let classes = [("low", 0), ("high", 9)];
    let mut rig = Rig::new(&classes, &[(rpm(), 600)]).class("low", |low| low.min_share_percent = 5);
    rig.drain();
    backlog(&mut rig, "h", "high", 2_000, (rpm(), 1));
    backlog(&mut rig, "l", "low", 2_000, (rpm(), 1));
    let granted = rig.run(100 * SECOND);
    assert_eq!(granted.len(), 1_000);
    assert!((49..=51).contains(&count(&granted, "l")), "{}", count(&granted, "l"));
    let in_a_row = granted.windows(2).filter(|pair| pair.iter().all(|key| key.starts_with('l')));
    assert_eq!(in_a_row.count(), 0, "a higher class waits for one admission at most");
}

#[test]
fn the_minimum_share_holds_for_large_draws_and_where_nothing_refills() {
    let slots = BudgetId::new("local", "gpu", Dimension::ConcurrentRequests);
    let classes = [("low", 0), ("high", 9)];
    let mut rig =
        Rig::new(&classes, &[(slots.clone(), 1)]).class("low", |low| low.min_share_percent = 10);
    backlog(&mut rig, "h", "high", 200, (slots.clone(), 1));
    backlog(&mut rig, "l", "low", 200, (slots.clone(), 1));
    let mut granted = Vec::new();
    for _ in 0..100 {
        granted.extend(rig.dispatch());
        rig.levels.0.get_mut(&slots).unwrap().add(Amount::from_units(1));
    }
    assert_eq!((count(&granted, "h"), count(&granted, "l")), (90, 10));

    let mut rig =
        Rig::new(&classes, &[(tpm(), 60_000)]).class("low", |low| low.min_share_percent = 10);
    rig.drain();
    backlog(&mut rig, "h", "high", 3_000, (tpm(), 100));
    backlog(&mut rig, "l", "low", 10, (tpm(), 5_000));
    let granted = rig.run(100 * SECOND);
    assert_eq!(count(&granted, "l"), 2, "10 % of 100,000 tokens are two draws of 5,000");
    assert_eq!(count(&granted, "h"), 900);
}

#[test]
fn a_share_that_was_not_asked_for_is_not_saved_up() {
    let classes = [("low", 0), ("high", 9)];
    let mut rig = Rig::new(&classes, &[(rpm(), 60)]).class("low", |low| low.min_share_percent = 10);
    rig.drain();
    backlog(&mut rig, "h", "high", 400, (rpm(), 1));
    backlog(&mut rig, "l", "low", 1, (rpm(), 1));
    assert_eq!(count(&rig.run(200 * SECOND), "l"), 1);
    backlog(&mut rig, "l", "low", 10, (rpm(), 1));
    assert!(count(&rig.run(20 * SECOND), "l") <= 3);
}

#[test]
fn what_is_guaranteed_goes_before_a_higher_class_and_no_further() {
    let mut rig =
        Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)]).flow("own", bounds(rpm(), 15, None));
    rig.drain();
    backlog(&mut rig, "own", "low", 100, (rpm(), 1));
    backlog(&mut rig, "h", "high", 200, (rpm(), 1));
    let granted = rig.run(100 * SECOND);
    assert!((25..=26).contains(&count(&granted, "own")), "{}", count(&granted, "own"));
    assert_eq!(granted.len(), 100);
}

#[test]
fn a_guarantee_counts_towards_the_fair_share() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]).flow("own", bounds(rpm(), 20, None));
    rig.drain();
    backlog(&mut rig, "own", "a", 200, (rpm(), 1));
    backlog(&mut rig, "b", "a", 200, (rpm(), 1));
    let granted = rig.run(120 * SECOND);
    assert!((59..=61).contains(&count(&granted, "own")), "{}", count(&granted, "own"));
}

#[test]
fn an_idle_guarantee_is_lent_and_called_back_within_two_seconds_worth() {
    let mut rig =
        Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)]).flow("own", bounds(rpm(), 30, None));
    rig.drain();
    backlog(&mut rig, "h", "high", 200, (rpm(), 1));
    assert_eq!(rig.run(50 * SECOND).len(), 50);
    backlog(&mut rig, "own", "low", 50, (rpm(), 1));
    let granted = rig.run(20 * SECOND);
    assert!((10..=12).contains(&count(&granted, "own")), "{}", count(&granted, "own"));
}

#[test]
fn a_workload_at_its_ceiling_waits_and_nobody_waits_for_it() {
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)])
        .flow("bound", bounds(rpm(), 0, Some(15)));
    rig.drain();
    backlog(&mut rig, "bound", "high", 100, (rpm(), 1));
    backlog(&mut rig, "b", "low", 100, (rpm(), 1));
    let granted = rig.run(80 * SECOND);
    assert_eq!(granted.len(), 80);
    assert!((20..=21).contains(&count(&granted, "bound")), "{}", count(&granted, "bound"));
}

#[test]
fn a_ceiling_of_nothing_is_refused_at_once() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]).flow("none", bounds(rpm(), 0, Some(0)));
    let denied = rig.push("none1", "a", &[(rpm(), 1)]).unwrap_err();
    assert_eq!((denied.reason, denied.retry_after), (Reason::Deadline, None));
    assert!(rig.dispatch().is_empty());
}

#[test]
fn a_lower_class_leaves_what_higher_classes_hold_back() {
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)])
        .class("high", |high| high.holdback_percent = 25);
    backlog(&mut rig, "l", "low", 60, (rpm(), 1));
    assert_eq!(rig.dispatch().len(), 45);
    assert_eq!(rig.level(&rpm()), 15);
    backlog(&mut rig, "h", "high", 20, (rpm(), 1));
    assert_eq!(rig.dispatch().len(), 15);
}

#[test]
fn a_holdback_does_not_keep_a_class_from_its_minimum_share() {
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)])
        .class("high", |high| high.holdback_percent = 50)
        .class("low", |low| low.min_share_percent = 10);
    rig.drain();
    backlog(&mut rig, "h", "high", 200, (rpm(), 1));
    backlog(&mut rig, "l", "low", 200, (rpm(), 1));
    assert!(count(&rig.run(100 * SECOND), "l") >= 9);
}

#[test]
fn a_large_head_is_served_as_soon_as_it_would_be_alone() {
    let mut rig = Rig::new(&[("a", 0)], &[(tpm(), 6_000)]);
    rig.drain();
    rig.push("large", "a", &[(tpm(), 3_000)]).unwrap();
    rig.wait(SECOND);
    backlog(&mut rig, "small", "a", 100, (tpm(), 10));
    let granted = rig.run(29 * SECOND);
    assert_eq!(granted.last().map(String::as_str), Some("large"));
    // What was served before it belongs to the other workload's equal turn, not to the gaps.
    assert_eq!(count(&granted, "small"), 0);
}

#[test]
fn what_cannot_delay_a_large_head_passes_it() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 600), (tpm(), 6_000)]);
    rig.take(&tpm(), 6_000);
    rig.push("large", "a", &[(rpm(), 1), (tpm(), 3_000)]).unwrap();
    for i in 0..300 {
        rig.push(&format!("free{i}"), "a", &[(rpm(), 1)]).unwrap();
    }
    // All of them but for the one request that the head will need.
    assert_eq!(rig.dispatch().len(), 300);
    assert_eq!(rig.queue.len(), 1);
    let mut rig2 = rig.clone();
    rig2.take(&rpm(), 299);
    rig2.push("free300", "a", &[(rpm(), 1)]).unwrap();
    assert_eq!(rig2.level(&rpm()), 1);
    assert!(rig2.dispatch().is_empty(), "the last request is the head's");
    assert_eq!(rig.run(30 * SECOND), ["large"]);
}

#[test]
fn a_draw_above_what_the_level_can_hold_is_served_when_it_is_full_and_leaves_a_debt() {
    let mut rig = Rig::new(&[("a", 0)], &[(tpm(), 6_000)]);
    // Leases hold most of the burst: the central level is capped at 1,000.
    let mut bucket = Bucket::new(rig.now, rig.levels.rate(&tpm()), Amount::from_units(1_000));
    bucket.add(Amount::from_units(500));
    rig.levels.0.insert(tpm(), bucket);
    rig.push("large", "a", &[(tpm(), 2_500)]).unwrap();
    backlog(&mut rig, "small", "a", 50, (tpm(), 100));
    assert_eq!(rig.run(5 * SECOND).first().map(String::as_str), Some("large"));
    assert_eq!(rig.level(&tpm()), -1_500);
    assert!(rig.run(15 * SECOND).is_empty(), "debt is paid before anybody else is served");
    assert_eq!(rig.run(SECOND).len(), 1);
}

#[test]
fn where_nothing_refills_no_debt_is_made() {
    let stock = BudgetId::new("openai", "gpt", Dimension::TokensPerDay);
    let mut rig = Rig::new(&[("a", 0)], &[(stock.clone(), 10_000)]);
    rig.levels.0.insert(stock.clone(), {
        let mut left = Bucket::new(rig.now, Rate::ZERO, Amount::from_units(100));
        left.add(Amount::from_units(100));
        left
    });
    rig.push("large", "a", &[(stock.clone(), 500)]).unwrap();
    assert!(rig.dispatch().is_empty());
    assert_eq!(rig.level(&stock), 100);
}

#[test]
fn a_draw_larger_than_a_budget_ever_admits_is_refused_at_once() {
    let mut rig = Rig::new(&[("a", 0)], &[(tpm(), 6_000)]);
    let denied = rig.push("huge", "a", &[(tpm(), 3_001)]).unwrap_err();
    assert_eq!((denied.reason, denied.retry_after), (Reason::TooLarge, None));
    assert!(denied.explain.contains("openai/gpt/tokensPerMinute"), "{}", denied.explain);
    let denied = rig.push("other", "a", &[(rpm(), 1)]).unwrap_err();
    assert_eq!(denied.reason, Reason::NotPermitted);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_once_and_says_when_to_come_back() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "a", "a", 10, (rpm(), 1));
    let mut draw = rig.draw("a10", "a", &[(rpm(), 1)]);
    draw.deadline = rig.now + 8 * SECOND;
    let mut late = rig.draw("a11", "a", &[(rpm(), 1)]);
    late.deadline = rig.now + 8 * SECOND;
    // It would be the first of its own workload; those of others count as far as they are ahead.
    assert!(rig.queue.push(rig.now, late, &rig.levels).is_ok());
    draw.class = "unknown".into();
    rig.configure(|config| config.classes.values_mut().for_each(|class| class.value = 5));
    let denied = rig.queue.push(rig.now, draw, &rig.levels).unwrap_err();
    assert_eq!((denied.reason, denied.retry_after), (Reason::Deadline, Some(4 * SECOND)));
    assert_eq!(
        denied.explain,
        "class unknown: 11 ahead, 12000 ms for openai/gpt/requestsPerMinute, deadline in 8000 ms"
    );
}

#[test]
fn a_guarantee_and_a_minimum_share_count_when_a_deadline_is_judged() {
    let soon = |rig: &mut Rig, key: &str, class: &str| {
        let mut draw = rig.draw(key, class, &[(rpm(), 1)]);
        draw.deadline = rig.now + 3 * SECOND;
        rig.queue.push(rig.now, draw, &rig.levels).is_ok()
    };
    let mut rig = Rig::new(&[("low", 0), ("fair", 1), ("high", 9)], &[(rpm(), 60)])
        .class("fair", |fair| fair.min_share_percent = 50)
        .flow("own", bounds(rpm(), 30, None));
    rig.drain();
    backlog(&mut rig, "h", "high", 100, (rpm(), 1));
    assert!(!soon(&mut rig, "l", "low"));
    assert!(soon(&mut rig, "own", "low"));
    assert!(soon(&mut rig, "f", "fair"));
    let granted = rig.run(3 * SECOND);
    assert!(
        granted.contains(&"own".to_owned()) && granted.contains(&"f".to_owned()),
        "{granted:?}"
    );
}

#[test]
fn what_passes_its_deadline_comes_back_and_is_not_served() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    let mut draw = rig.draw("a1", "a", &[(rpm(), 1)]);
    draw.deadline = rig.now + 2 * SECOND;
    rig.queue.push(rig.now, draw, &rig.levels).unwrap();
    rig.levels.0.get_mut(&rpm()).unwrap().set_rate(Rate::ZERO);
    assert_eq!(rig.queue.next_wakeup(rig.now, &rig.levels), Some(rig.now + 2 * SECOND));
    rig.wait(2 * SECOND);
    assert_eq!(rig.queue.expire(rig.now).len(), 1);
    assert_eq!(rig.queue.next_wakeup(rig.now, &rig.levels), None);
    assert!(rig.queue.is_empty());
}

#[test]
fn a_cancelled_head_frees_what_it_reserved() {
    let mut rig = Rig::new(&[("a", 0)], &[(tpm(), 6_000)]);
    rig.take(&tpm(), 5_000);
    rig.push("large", "a", &[(tpm(), 3_000)]).unwrap();
    assert!(rig.dispatch().is_empty());
    rig.push("small", "a", &[(tpm(), 500)]).unwrap();
    assert!(rig.dispatch().is_empty());
    assert!(rig.queue.cancel(&"large".to_owned()).is_some());
    assert!(rig.queue.cancel(&"large".to_owned()).is_none());
    assert_eq!(rig.dispatch(), ["small"]);
}

#[test]
fn a_draw_that_is_sent_again_keeps_its_age_and_is_there_once() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    rig.push("a1", "a", &[(rpm(), 1)]).unwrap();
    let since = rig.now;
    rig.wait(SECOND / 2);
    rig.push("a1", "a", &[(rpm(), 1)]).unwrap();
    assert_eq!(rig.queue.len(), 1);
    let waiting = rig.queue.waiting();
    let expected = Waiting { count: 1, cost: Amount::from_units(1), oldest: since };
    assert_eq!(waiting.get(&("a".into(), "a".into(), rpm())), Some(&expected));
}

#[test]
fn what_a_workload_uses_from_leases_puts_it_behind_for_a_while_only() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "leased", "a", 40, (rpm(), 1));
    backlog(&mut rig, "other", "a", 40, (rpm(), 1));
    let one = vector(&[(rpm(), 1)]);
    for _ in 0..100 {
        rig.queue.charge(rig.now, &"a".into(), &"leased".into(), &one);
    }
    // 100 s worth of use is remembered as 2 s worth, in which the other goes first.
    let granted = rig.run(22 * SECOND);
    assert!((11..=13).contains(&count(&granted, "other")), "{}", count(&granted, "other"));
}

#[test]
fn leases_count_against_guarantee_ceiling_and_minimum_share() {
    let one = vector(&[(rpm(), 1)]);
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)])
        .class("low", |low| low.min_share_percent = 10)
        .flow("own", bounds(rpm(), 30, None))
        .flow("bound", bounds(rpm(), 0, Some(30)));
    rig.drain();
    backlog(&mut rig, "h", "high", 100, (rpm(), 1));
    backlog(&mut rig, "own", "high", 1, (rpm(), 1));
    backlog(&mut rig, "bound", "high", 1, (rpm(), 1));
    backlog(&mut rig, "l", "low", 1, (rpm(), 1));
    for _ in 0..10 {
        rig.queue.charge(rig.now, &"high".into(), &"own".into(), &one);
        rig.queue.charge(rig.now, &"high".into(), &"bound".into(), &one);
    }
    // 20 requests from leases make two for the low class due; 10 are 18 s of a guarantee of 30.
    assert_eq!(rig.run(SECOND), ["l0"]);
    let granted = rig.run(15 * SECOND);
    assert_eq!((count(&granted, "own"), count(&granted, "bound")), (1, 0));
    assert_eq!(count(&rig.run(5 * SECOND), "bound"), 1);
}

#[test]
fn what_was_reserved_and_not_used_is_given_back_in_the_order_of_service() {
    let mut rig = Rig::new(&[("a", 0)], &[(tpm(), 6_000)]);
    rig.drain();
    backlog(&mut rig, "over", "a", 200, (tpm(), 100));
    backlog(&mut rig, "true", "a", 200, (tpm(), 100));
    let (reserved, actual) = (vector(&[(tpm(), 100)]), vector(&[(tpm(), 50)]));
    let mut granted = Vec::new();
    for _ in 0..90 {
        for key in rig.run(SECOND) {
            if key.starts_with("over") {
                rig.queue.settle(rig.now, &"a".into(), &"over".into(), &reserved, &actual);
            }
            granted.push(key);
        }
    }
    assert_eq!((count(&granted, "over"), count(&granted, "true")), (60, 30));
}

#[test]
fn a_changed_policy_keeps_what_waits_and_returns_what_lost_its_budget() {
    let mut rig = Rig::new(&[("a", 0), ("b", 1)], &[(rpm(), 60), (tpm(), 6_000)]);
    rig.drain();
    rig.push("kept", "a", &[(rpm(), 1)]).unwrap();
    rig.push("lost", "a", &[(rpm(), 1), (tpm(), 1)]).unwrap();
    rig.push("b", "b", &[(rpm(), 1)]).unwrap();
    let mut config = rig.config.clone();
    config.budgets.remove(&tpm());
    config.classes.get_mut("a").unwrap().value = 2;
    let lost = rig.queue.configure(config);
    assert_eq!(lost.iter().map(|draw| &draw.key).collect::<Vec<_>>(), ["lost"]);
    assert_eq!(rig.run(2 * SECOND), ["kept", "b"]);
}

#[test]
fn a_class_that_moves_up_takes_its_workloads_along() {
    let mut rig = Rig::new(&[("a", 0), ("b", 1)], &[(rpm(), 60)]);
    rig.drain();
    backlog(&mut rig, "old", "a", 100, (rpm(), 1));
    rig.run(50 * SECOND);
    // The virtual time of the other class has not moved yet.
    rig = rig.class("a", |a| a.value = 1);
    backlog(&mut rig, "new", "b", 100, (rpm(), 1));
    let granted = rig.run(20 * SECOND);
    assert!((9..=11).contains(&count(&granted, "old")), "{}", count(&granted, "old"));
}

#[test]
fn a_full_queue_refuses() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.drain();
    for i in 0..WAITING_MAX {
        let mut draw = rig.draw(&format!("a{i}"), "a", &[(rpm(), 1)]);
        draw.deadline = Time::NEVER;
        rig.queue.push(rig.now, draw, &rig.levels).unwrap();
    }
    let denied = rig.push("one", "a", &[(rpm(), 1)]).unwrap_err();
    assert_eq!((denied.reason, denied.retry_after), (Reason::QueueFull, Some(SECOND)));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let stock = BudgetId::new("openai", "gpt", Dimension::TokensPerDay);
    let mut rig = Rig::new(&[("a", 0)], &[(stock.clone(), u64::MAX), (tpm(), u64::MAX)]);
    rig.configure(|config| {
        config.flows.insert("a".into(), Arc::new(bounds(tpm(), u64::MAX, Some(u64::MAX))));
    });
    rig.drain();
    for i in 0..4 {
        let mut draw = rig.draw(&format!("a{i}"), "a", &[(stock.clone(), u64::MAX)]);
        draw.vector.insert(tpm(), Amount::from_micros(u64::MAX / 2));
        draw.deadline = Time::NEVER;
        rig.queue.push(rig.now, draw, &rig.levels).unwrap();
    }
    rig.queue.charge(rig.now, &"a".into(), &"a".into(), &vector(&[(stock, u64::MAX)]));
    assert!(rig.run(MINUTE).is_empty());
}
