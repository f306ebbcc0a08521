use std::collections::BTreeSet;

use super::*;
use crate::budget::{Budget, Shape};
use crate::dimension::{Dimension, Protocol};
use crate::message::{Counters, Epoch, Held, Nonce, ReportItem};
use crate::policy::{Class, Limit, Mode, OnLoss, Provider, QueueLimits, Use};

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn units(units: u64) -> Amount {
    Amount::from_units(units)
}

fn id(dimension: Dimension) -> BudgetId {
    BudgetId::new("openai", "all", dimension)
}

fn policy(figures: &[(Dimension, u64)]) -> Policy {
    let budget = |(dimension, figure): &(Dimension, u64)| {
        Budget::new(id(*dimension), *dimension, *figure, Shape::default())
    };
    let limit = Limit {
        name: "all".into(),
        models: vec!["*".to_owned()],
        budgets: figures.iter().map(budget).collect(),
    };
    let provider = Provider {
        name: "openai".into(),
        protocol: Protocol::OpenAi,
        endpoint: String::new(),
        keys: Vec::new(),
        limits: vec![limit],
    };
    let class = Class {
        name: "low".into(),
        value: 1,
        min_share_percent: 2,
        holdback_percent: 0,
        global_default: true,
    };
    let quota = Quota {
        namespace: "shop".into(),
        name: "chat".into(),
        selector: BTreeMap::new(),
        class: "low".into(),
        permitted: Vec::new(),
        weight: 1,
        uses: vec![Use {
            provider: "openai".into(),
            limit: None,
            guaranteed: BTreeMap::new(),
            ceiling: BTreeMap::new(),
        }],
        queue: QueueLimits::default(),
        per_request_max_tokens: None,
        on_allocator_loss: OnLoss::Floor,
        mode: Mode::Enforce,
    };
    Policy {
        generation: 1,
        providers: BTreeMap::from([("openai".into(), provider)]),
        classes: BTreeMap::from([("low".into(), class)]),
        quotas: vec![quota],
    }
}

/// A ledger of first use at time 0, and the pods that it has welcomed.
fn ledger(figures: &[(Dimension, u64)], pods: &[&str]) -> Ledger {
    let start = Takeover {
        epoch: Epoch(1),
        quiet_until: at(0),
        roster: BTreeSet::new(),
        floors: BTreeMap::new(),
        floor_ttl: Duration::ZERO,
    };
    let mut ledger = Ledger::new(at(0), Timing::default(), start, true);
    ledger.set_policy(at(0), Arc::new(policy(figures)));
    for pod in pods {
        welcome(&mut ledger, at(0), pod, 1);
    }
    ledger
}

fn welcome(ledger: &mut Ledger, now: Time, pod: &str, boot: u64) {
    let nonce = challenged(ledger, now, pod, boot);
    let holdings = nothing(nonce, now);
    ledger.receive(now, &pod.into(), ToAllocator::Holdings(holdings));
    let _ = ledger.poll(now);
}

/// A pod comes back, and says what it holds of one budget.
fn welcome_with(
    ledger: &mut Ledger,
    now: Time,
    pod: &str,
    (budget, held, counters): (BudgetId, Held, Counters),
) {
    let nonce = challenged(ledger, now, pod, 1);
    let items = BTreeMap::from([(budget.clone(), held)]);
    let counters = BTreeMap::from([(budget, counters)]);
    let holdings = Holdings { items, counters, ..nothing(nonce, now) };
    ledger.receive(now, &pod.into(), ToAllocator::Holdings(holdings));
    let _ = ledger.poll(now);
}

fn challenged(ledger: &mut Ledger, now: Time, pod: &str, boot: u64) -> Nonce {
    let pod: PodId = pod.into();
    ledger.connect(now, &pod, boot, Some("shop/chat".into()));
    let challenge = ledger.poll(now).into_iter().find_map(|(to, message)| match message {
        ToPod::Challenge(_, nonce) if to == pod => Some(nonce),
        _ => None,
    });
    challenge.unwrap()
}

fn nothing(nonce: Nonce, now: Time) -> Holdings {
    Holdings {
        nonce,
        mono: now,
        ttl_left: Duration::ZERO,
        items: BTreeMap::new(),
        counters: BTreeMap::new(),
        debts: BTreeMap::new(),
    }
}

fn draw(ledger: &mut Ledger, now: Time, pod: &str, draw: u64, vector: &[(Dimension, u64)]) {
    let request = DrawRequest {
        id: DrawId(draw),
        mono: now,
        vector: vector.iter().map(|(dimension, n)| (id(*dimension), units(*n))).collect(),
        class: "low".into(),
        max_wait: Duration::from_secs(10),
        waited: Duration::ZERO,
        traceparent: None,
    };
    ledger.receive(now, &pod.into(), ToAllocator::Draw(request));
}

/// The draws that were answered: with credit, or with a reason.
fn answers(ledger: &mut Ledger, now: Time) -> Vec<(u64, Option<Reason>)> {
    let answer = |(_, message): (PodId, ToPod)| match message {
        ToPod::Credit(credit) => Some((credit.id.0, None)),
        ToPod::Deny(denial) => Some((denial.id.0, Some(denial.reason))),
        ToPod::Challenge(..) | ToPod::Welcome(_) | ToPod::Lease(_) => None,
    };
    ledger.poll(now).into_iter().filter_map(answer).collect()
}

fn report(ledger: &mut Ledger, now: Time, pod: &str, dimension: Dimension, counters: Counters) {
    let item = ReportItem { counters, ..ReportItem::default() };
    let items = BTreeMap::from([(id(dimension), item)]);
    let report = Report { mono: now, items, ..Report::default() };
    ledger.receive(now, &pod.into(), ToAllocator::Report(report));
}

/// Writes marks down as the allocator does, then polls again.
fn write_marks(ledger: &mut Ledger, now: Time) -> Vec<(u64, Option<Reason>)> {
    let marks = ledger.stock_marks_wanted();
    ledger.stock_marks_written(&marks);
    answers(ledger, now)
}

const RPM: Dimension = Dimension::RequestsPerMinute;
const TPD: Dimension = Dimension::TokensPerDay;
const SLOTS: Dimension = Dimension::ConcurrentRequests;

#[test]
fn a_stock_is_granted_from_only_up_to_its_mark_on_record() {
    let mut ledger = ledger(&[(TPD, 1_000)], &["a"]);
    draw(&mut ledger, at(1), "a", 1, &[(TPD, 100)]);
    assert_eq!(answers(&mut ledger, at(1)), []);
    assert_eq!(write_marks(&mut ledger, at(1)), [(1, None)]);
}

#[test]
fn a_stock_that_is_used_up_refuses_at_once() {
    let mut ledger = ledger(&[(TPD, 100)], &["a"]);
    draw(&mut ledger, at(1), "a", 1, &[(TPD, 90)]);
    assert_eq!(write_marks(&mut ledger, at(1)), [(1, None)]);
    draw(&mut ledger, at(2), "a", 2, &[(TPD, 11)]);
    assert_eq!(answers(&mut ledger, at(2)), [(2, Some(Reason::Exhausted))]);
    let counters = Counters { returned: units(50), ..Counters::default() };
    report(&mut ledger, at(3), "a", TPD, counters);
    draw(&mut ledger, at(4), "a", 3, &[(TPD, 11)]);
    assert_eq!(write_marks(&mut ledger, at(4)), [(3, None)]);
}

#[test]
fn a_successor_counts_a_stock_from_its_mark_on_record() {
    let mut ledger = ledger(&[(TPD, 100)], &["a"]);
    ledger.set_stock_marks(&[StockMark { budget: id(TPD), granted: units(80) }]);
    draw(&mut ledger, at(1), "a", 1, &[(TPD, 21)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, Some(Reason::Exhausted))]);
    ledger.new_period();
    draw(&mut ledger, at(2), "a", 2, &[(TPD, 21)]);
    assert_eq!(write_marks(&mut ledger, at(2)), [(2, None)]);
}

#[test]
fn a_slot_is_held_until_its_request_ends_or_its_pod_does() {
    let mut ledger = ledger(&[(SLOTS, 2)], &["a", "b"]);
    for n in 1..=4 {
        draw(&mut ledger, at(n), if n < 3 { "a" } else { "b" }, n, &[(SLOTS, 1)]);
    }
    assert_eq!(answers(&mut ledger, at(5)), [(1, None), (2, None)]);
    let counters = Counters { credited: units(2), returned: units(1), ..Counters::default() };
    report(&mut ledger, at(6), "a", SLOTS, counters);
    assert_eq!(answers(&mut ledger, at(6)), [(3, None)]);
    ledger.gone(at(7), &"a".into());
    assert_eq!(answers(&mut ledger, at(7)), [(4, None)]);
}

#[test]
fn a_pod_whose_stream_was_away_has_the_slots_in_use_that_it_says() {
    let mut ledger = ledger(&[(SLOTS, 2)], &["a"]);
    for n in 1..=2 {
        draw(&mut ledger, at(n), "a", n, &[(SLOTS, 1)]);
    }
    assert_eq!(answers(&mut ledger, at(2)), [(1, None), (2, None)]);
    ledger.disconnect(&"a".into());
    // One request ended meanwhile; the holdings say so, and the next report must not say it again.
    let counters = Counters { credited: units(2), returned: units(1), ..Counters::default() };
    let held = Held { in_use: units(1), ..Held::default() };
    welcome_with(&mut ledger, at(3), "a", (id(SLOTS), held, counters));
    report(&mut ledger, at(4), "a", SLOTS, counters);
    for n in 3..=4 {
        draw(&mut ledger, at(5), "a", n, &[(SLOTS, 1)]);
    }
    assert_eq!(answers(&mut ledger, at(5)), [(3, None)]);
}

#[test]
fn a_pod_whose_stream_is_away_keeps_its_slots_without_a_lease() {
    let mut ledger = ledger(&[(SLOTS, 1)], &["a", "b"]);
    draw(&mut ledger, at(1), "a", 1, &[(SLOTS, 1)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, None)]);
    ledger.disconnect(&"a".into());
    draw(&mut ledger, at(2), "b", 2, &[(SLOTS, 1)]);
    assert_eq!(answers(&mut ledger, at(5_000)), []);
    ledger.gone(at(5_001), &"a".into());
    assert_eq!(answers(&mut ledger, at(5_001)), [(2, None)]);
}

#[test]
fn a_draw_takes_from_every_budget_or_from_none() {
    let mut ledger = ledger(&[(RPM, 1_000), (SLOTS, 1)], &["a"]);
    let level = |ledger: &mut Ledger| ledger.status(at(1)).budgets[&id(RPM)].level;
    let full = level(&mut ledger);
    for n in 1..=2 {
        draw(&mut ledger, at(1), "a", n, &[(RPM, 1), (SLOTS, 1)]);
    }
    assert_eq!(answers(&mut ledger, at(1)), [(1, None)]);
    assert_eq!(level(&mut ledger), full - 1_000_000);
}

#[test]
fn a_draw_that_is_larger_than_what_fits_at_once_is_refused_at_once() {
    let mut ledger = ledger(&[(RPM, 100)], &["a"]);
    draw(&mut ledger, at(1), "a", 1, &[(RPM, 60)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, Some(Reason::TooLarge))]);
}

#[test]
fn a_draw_that_waits_is_refused_when_a_limit_is_cut_below_it() {
    let mut ledger = ledger(&[(RPM, 100)], &["a"]);
    for n in 1..=3 {
        draw(&mut ledger, at(1), "a", n, &[(RPM, 35)]);
    }
    assert_eq!(answers(&mut ledger, at(1)), [(1, None), (2, None)]);
    ledger.set_policy(at(2), Arc::new(policy(&[(RPM, 60)])));
    assert_eq!(answers(&mut ledger, at(2)), [(3, Some(Reason::TooLarge))]);
}

#[test]
fn credit_that_is_asked_for_again_is_granted_once() {
    let mut ledger = ledger(&[(RPM, 100)], &["a"]);
    let level = |ledger: &mut Ledger| ledger.status(at(1)).budgets[&id(RPM)].level;
    let full = level(&mut ledger);
    draw(&mut ledger, at(1), "a", 1, &[(RPM, 5)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, None)]);
    draw(&mut ledger, at(1), "a", 1, &[(RPM, 5)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, None)]);
    let status = ledger.status(at(1)).budgets[&id(RPM)];
    assert_eq!(status.credited, units(5));
    assert_eq!(level(&mut ledger), full - 5_000_000);
}

#[test]
fn a_busy_pod_is_leased_and_what_it_held_is_free_when_it_ends() {
    let mut ledger = ledger(&[(RPM, 6_000)], &["a", "b"]);
    for n in 1..=8 {
        let offered = Counters { offered: units(n * 30), ..Counters::default() };
        report(&mut ledger, at(n * 600), "a", RPM, offered);
        let _ = ledger.poll(at(n * 600));
    }
    let leased = |ledger: &mut Ledger| ledger.status(at(5_000)).budgets[&id(RPM)].leased;
    assert!(leased(&mut ledger) >= Rate::from_micros(20_000_000), "{:?}", leased(&mut ledger));
    ledger.gone(at(5_000), &"a".into());
    assert_eq!(leased(&mut ledger), Rate::ZERO);
}

#[test]
fn a_pod_without_a_quota_gets_nothing() {
    let mut ledger = ledger(&[(RPM, 100)], &["a"]);
    ledger.set_quota(&"a".into(), None);
    draw(&mut ledger, at(1), "a", 1, &[(RPM, 1)]);
    assert_eq!(answers(&mut ledger, at(1)), [(1, Some(Reason::NotPermitted))]);
}

#[test]
fn a_successor_starts_empty_and_a_first_leader_full() {
    let mut first = ledger(&[(RPM, 6_000)], &[]);
    assert!(first.status(at(0)).budgets[&id(RPM)].level > 0);
    let start = Takeover {
        epoch: Epoch(2),
        quiet_until: at(0),
        roster: BTreeSet::new(),
        floors: BTreeMap::new(),
        floor_ttl: Duration::ZERO,
    };
    let mut second = Ledger::new(at(0), Timing::default(), start, false);
    second.set_policy(at(0), Arc::new(policy(&[(RPM, 6_000)])));
    assert_eq!(second.status(at(0)).budgets[&id(RPM)].level, 0);
}

#[test]
fn a_successor_takes_the_providers_word_on_what_is_left() {
    let start = Takeover {
        epoch: Epoch(2),
        quiet_until: at(0),
        roster: BTreeSet::new(),
        floors: BTreeMap::new(),
        floor_ttl: Duration::ZERO,
    };
    let mut ledger = Ledger::new(at(0), Timing::default(), start, false);
    ledger.set_policy(at(0), Arc::new(policy(&[(RPM, 600)])));
    welcome(&mut ledger, at(0), "a", 1);
    let level = |ledger: &mut Ledger, now: Time| ledger.status(now).budgets[&id(RPM)].level;
    let say = |ledger: &mut Ledger, now: Time, since: Time, remaining: u64| {
        let reset = now + Duration::from_secs(1);
        let seen = crate::message::Seen {
            at: since,
            reset_lo: reset,
            reset_hi: reset,
            limit: units(600),
            remaining: units(remaining),
        };
        let item = ReportItem { seen: Some(seen), ..ReportItem::default() };
        let items = BTreeMap::from([(id(RPM), item)]);
        let report = Report { mono: now, items, ..Report::default() };
        ledger.receive(now, &"a".into(), ToAllocator::Report(report));
    };
    // What the leader before granted may still be on its way: nothing is proven yet.
    say(&mut ledger, at(1_000), at(900), 500);
    assert!(level(&mut ledger, at(1_000)) <= 10_000_000);
    draw(&mut ledger, at(2_000), "a", 1, &[(RPM, 7)]);
    assert_eq!(answers(&mut ledger, at(2_000)), [(1, None)]);
    say(&mut ledger, at(3_000), at(2_900), 500);
    assert_eq!(level(&mut ledger, at(3_000)), 493_000_000, "what was granted since counts");
    say(&mut ledger, at(9_000), at(8_900), 590);
    assert!(level(&mut ledger, at(9_000)) < 570_000_000, "once, not for ever");
}
