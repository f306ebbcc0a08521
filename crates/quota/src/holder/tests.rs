use std::collections::BTreeMap;

use super::*;
use crate::budget::{Budget, Shape};
use crate::dimension::{Dimension, Protocol, Window};
use crate::message::{Denial, Terms, Version};
use crate::policy::{Limit, Mode, Provider, QueueLimits, Quota};
use crate::units::Rate;

const EPOCH: Epoch = Epoch(1);

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn budget() -> BudgetId {
    BudgetId::from_wire("openai/gpt/tokensPerMinute")
}

fn tokens(units: u64) -> Vector {
    Vector::from([(budget(), Amount::from_units(units))])
}

fn policy(on_allocator_loss: OnLoss) -> PodPolicy {
    PodPolicy {
        generation: 1,
        quota: Quota {
            namespace: "shop".into(),
            name: "chat".into(),
            selector: BTreeMap::new(),
            class: "low".into(),
            permitted: vec!["high".into()],
            weight: 1,
            uses: Vec::new(),
            queue: QueueLimits { max_wait: Duration::from_secs(10), max_requests: 3 },
            per_request_max_tokens: None,
            on_allocator_loss,
            mode: Mode::Enforce,
        },
        providers: Vec::new(),
        classes: BTreeMap::from([("low".into(), 1), ("high".into(), 9)]),
    }
}

fn provider(budgets: Vec<Budget>) -> Provider {
    let limit = Limit { name: "gpt".into(), models: vec!["*".to_owned()], budgets };
    Provider {
        name: "openai".into(),
        protocol: Protocol::OpenAi,
        endpoint: String::new(),
        keys: Vec::new(),
        limits: vec![limit],
    }
}

/// A pod that has a policy and has been welcomed at time 0.
fn welcomed(on_loss: OnLoss) -> Holder {
    let mut holder = Holder::new(at(0));
    holder.set_policy(&policy(on_loss));
    holder.connected(at(0));
    holder.receive(at(0), ToPod::Challenge(EPOCH, Nonce(1)));
    holder.receive(at(0), ToPod::Welcome(EPOCH));
    let _ = holder.poll(at(0));
    holder
}

/// Ten tokens a second, twenty at most, a floor of two.
fn lease(version: u64, echo: Time) -> ToPod {
    let terms = Terms {
        rate: Rate::from_micros(10_000_000),
        cap: Amount::from_units(20),
        floor: Rate::from_micros(2_000_000),
        floor_ttl: Duration::from_secs(600),
        ..Terms::default()
    };
    ToPod::Lease(LeaseSet {
        epoch: EPOCH,
        version: Version(version),
        echo,
        ttl: Duration::from_secs(60),
        items: BTreeMap::from([(budget(), terms)]),
    })
}

fn ask(units: u64, class: &str, deadline: Time) -> Ask {
    Ask { vector: tokens(units), class: class.into(), deadline, traceparent: None }
}

fn waiting(holder: &mut Holder, now: Time, ask: Ask) -> DrawId {
    match holder.admit(now, ask) {
        Admission::Waiting(id) => id,
        other => panic!("{other:?}"),
    }
}

fn granted(holder: &mut Holder, now: Time, ask: Ask) -> Reservation {
    match holder.admit(now, ask) {
        Admission::Granted(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

fn credit(id: DrawId, echo: Time) -> ToPod {
    ToPod::Credit(Credit { id, epoch: EPOCH, echo, spend_by: Duration::from_secs(1) })
}

fn sent(events: &[Event]) -> Vec<&ToAllocator> {
    let sent = events.iter().filter_map(|event| match event {
        Event::Send(message) => Some(message),
        Event::Admit(..) | Event::Refuse(..) => None,
    });
    sent.collect()
}

fn admitted(events: Vec<Event>) -> Vec<(DrawId, Reservation)> {
    let admitted = events.into_iter().filter_map(|event| match event {
        Event::Admit(id, reservation) => Some((id, reservation)),
        Event::Send(_) | Event::Refuse(..) => None,
    });
    admitted.collect()
}

fn refused(events: &[Event]) -> Vec<(DrawId, Reason)> {
    let refused = events.iter().filter_map(|event| match event {
        Event::Refuse(id, refused) => Some((*id, refused.reason)),
        Event::Send(_) | Event::Admit(..) => None,
    });
    refused.collect()
}

#[test]
fn a_request_that_fits_the_lease_asks_nobody() {
    let mut holder = welcomed(OnLoss::Floor);
    holder.receive(at(0), lease(1, at(0)));
    let _ = holder.poll(at(0));
    let reservation = granted(&mut holder, at(1_000), ask(8, "low", at(2_000)));
    assert_eq!(reservation.source, Source::Lease);
    assert_eq!(holder.level(&budget()), Amount::from_units(2));
    assert!(sent(&holder.poll(at(1_000))).iter().all(|m| !matches!(m, ToAllocator::Draw(_))));
    holder.settle(at(1_000), reservation, &tokens(8));
}

#[test]
fn a_request_that_does_not_fit_is_drawn_and_goes_when_its_credit_arrives() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(10), ask(8, "low", at(5_000)));
    let events = holder.poll(at(10));
    let is_draw = |message: &&&ToAllocator| matches!(message, ToAllocator::Draw(_));
    assert_eq!(sent(&events).iter().filter(is_draw).count(), 1);
    holder.receive(at(20), credit(id, at(10)));
    let admitted = admitted(holder.poll(at(20)));
    assert_eq!(admitted.len(), 1);
    for (_, reservation) in admitted {
        assert_eq!(reservation.source, Source::Draw);
        holder.settle(at(20), reservation, &tokens(8));
    }
}

#[test]
fn what_the_lease_accrues_serves_a_waiting_request_and_cancels_its_draw() {
    let mut holder = welcomed(OnLoss::Floor);
    holder.receive(at(0), lease(1, at(0)));
    let id = waiting(&mut holder, at(0), ask(5, "low", at(5_000)));
    assert_eq!(holder.next_wakeup(at(0)), Some(at(0)));
    let _ = holder.poll(at(0));
    let events = holder.poll(at(500));
    assert!(sent(&events).contains(&&ToAllocator::Cancel(id)));
    for (_, reservation) in admitted(events) {
        assert_eq!(reservation.source, Source::Lease);
        holder.settle(at(500), reservation, &tokens(5));
    }
}

#[test]
fn credit_for_a_request_that_has_gone_is_given_back() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(0), ask(5, "low", at(5_000)));
    holder.cancel(id);
    holder.receive(at(10), credit(id, at(0)));
    let events = holder.poll(at(100));
    let Some(ToAllocator::Report(report)) =
        sent(&events).into_iter().find(|message| matches!(message, ToAllocator::Report(_)))
    else {
        panic!("no report in {events:?}")
    };
    let counters = report.items[&budget()].counters;
    assert_eq!(counters.credited, Amount::from_units(5));
    assert_eq!(counters.returned, Amount::from_units(5));
}

#[test]
fn a_request_that_is_written_later_than_the_allocator_knows_of_is_debited_anew() {
    let mut holder = welcomed(OnLoss::Floor);
    let mut now = 0;
    let mut overdrawn = |holder: &mut Holder, late: u64| {
        now += 1_000;
        let before = holder.books.counters().get(&budget()).copied().unwrap_or_default();
        let mut reservation = holder.force(at(now), tokens(5));
        holder.sent(at(now + late), &mut reservation, Duration::ZERO);
        holder.settle(at(now + late), reservation, &tokens(5));
        let since = holder.books.counters()[&budget()].since(&before);
        // The forced debit itself is told in the same way.
        since.overdrawn.units() - 5
    };
    assert_eq!(overdrawn(&mut holder, 250), 0, "as late as everybody expects at first");
    assert_eq!(overdrawn(&mut holder, 251), 5);
    let _ = holder.poll(at(40_000));
    assert_eq!(overdrawn(&mut holder, 300), 0, "the report has told of 251 ms");
    assert_eq!(overdrawn(&mut holder, 320), 5, "but not of this");
}

#[test]
fn credit_that_arrives_too_late_is_void_and_is_asked_for_again() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(0), ask(5, "low", at(5_000)));
    let _ = holder.poll(at(0));
    holder.receive(at(1_000), credit(id, at(0)));
    let events = holder.poll(at(1_000));
    let again =
        |message: &&ToAllocator| matches!(message, ToAllocator::Draw(draw) if draw.id == id);
    assert!(sent(&events).iter().any(again));
    assert_eq!(holder.waiting(), 1);
}

#[test]
fn a_slot_of_credit_that_is_void_goes_back_and_its_tokens_end_by_themselves() {
    let slots = BudgetId::from_wire("openai/gpt/concurrentRequests");
    let budgets = vec![
        Budget::new(budget(), Dimension::TokensPerMinute, 600, Shape::default()),
        Budget::new(slots.clone(), Dimension::ConcurrentRequests, 4, Shape::default()),
    ];
    let mut holder = welcomed(OnLoss::Floor);
    holder.set_policy(&PodPolicy { providers: vec![provider(budgets)], ..policy(OnLoss::Floor) });
    let mut ask = ask(5, "low", at(5_000));
    ask.vector.insert(slots.clone(), Amount::from_units(1));
    let id = waiting(&mut holder, at(0), ask);
    let _ = holder.poll(at(0));
    holder.receive(at(1_000), credit(id, at(0)));
    let ToAllocator::Bye(report) = holder.bye(at(1_100)) else { panic!("not a farewell") };
    let returned = |budget: &BudgetId| report.items[budget].counters.returned;
    assert_eq!(returned(&slots), Amount::from_units(1));
    assert_eq!(returned(&budget()), Amount::ZERO);
}

#[test]
fn what_was_reserved_too_much_goes_back_and_what_was_too_little_is_a_debt() {
    let mut holder = welcomed(OnLoss::Floor);
    for (charged, returned, overdrawn) in [(3, 5, 0), (10, 0, 2)] {
        let before = holder.books.counters().get(&budget()).copied().unwrap_or_default();
        let id = waiting(&mut holder, at(0), ask(8, "low", at(5_000)));
        holder.receive(at(1), credit(id, at(0)));
        for (_, reservation) in admitted(holder.poll(at(1))) {
            holder.settle(at(2), reservation, &tokens(charged));
        }
        let since = holder.books.counters()[&budget()].since(&before);
        assert_eq!(since.returned, Amount::from_units(returned));
        assert_eq!(since.overdrawn, Amount::from_units(overdrawn));
        assert_eq!(since.settled, Amount::from_units(charged));
    }
}

#[test]
fn a_debt_that_no_leader_has_confirmed_is_told_to_the_next() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(0), ask(8, "low", at(5_000)));
    holder.receive(at(1), credit(id, at(0)));
    for (_, reservation) in admitted(holder.poll(at(1))) {
        holder.settle(at(2), reservation, &tokens(11));
    }
    holder.disconnected(at(3));
    holder.connected(at(4));
    holder.receive(at(5), ToPod::Challenge(Epoch(2), Nonce(7)));
    let events = holder.poll(at(5));
    let Some(ToAllocator::Holdings(holdings)) = sent(&events).first().copied() else {
        panic!("no holdings in {events:?}")
    };
    assert_eq!(holdings.debts, tokens(3));
}

#[test]
fn waiting_requests_are_asked_for_again_at_the_next_leader_with_their_age() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(0), ask(8, "low", at(5_000)));
    holder.disconnected(at(100));
    holder.connected(at(200));
    holder.receive(at(300), ToPod::Challenge(Epoch(2), Nonce(7)));
    holder.receive(at(300), ToPod::Welcome(Epoch(2)));
    let events = holder.poll(at(300));
    let again = sent(&events).into_iter().find_map(|message| match message {
        ToAllocator::Draw(draw) if draw.id == id => Some(draw),
        _ => None,
    });
    assert_eq!(again.map(|draw| draw.waited), Some(Duration::from_millis(300)));
    holder.receive(at(310), credit(id, at(300)));
    assert!(admitted(holder.poll(at(310))).is_empty(), "credit of the old epoch must not be spent");
}

#[test]
fn the_queue_is_bounded_and_deadlines_are_kept() {
    let mut holder = welcomed(OnLoss::Floor);
    for _ in 0..3 {
        waiting(&mut holder, at(0), ask(8, "low", at(400)));
    }
    let Admission::Refused(full) = holder.admit(at(0), ask(8, "low", at(400))) else {
        panic!("the fourth must be refused")
    };
    assert_eq!(full.reason, Reason::QueueFull);
    let Admission::Refused(late) = holder.admit(at(0), ask(8, "low", at(0))) else {
        panic!("a request that may not wait must be refused")
    };
    assert_eq!(late.reason, Reason::Deadline);
    let events = holder.poll(at(400));
    assert!(refused(&events).iter().all(|(_, reason)| *reason == Reason::Deadline));
    assert_eq!((refused(&events).len(), holder.waiting()), (3, 0));
}

#[test]
fn a_denied_draw_is_refused_with_the_reason() {
    let mut holder = welcomed(OnLoss::Floor);
    let id = waiting(&mut holder, at(0), ask(8, "low", at(400)));
    holder.receive(
        at(1),
        ToPod::Deny(Denial {
            id,
            reason: Reason::TooLarge,
            retry_after: None,
            explain: String::new(),
        }),
    );
    assert_eq!(refused(&holder.poll(at(1))), [(id, Reason::TooLarge)]);
}

#[test]
fn a_higher_class_goes_first_when_the_level_serves_one() {
    let mut holder = welcomed(OnLoss::Floor);
    holder.receive(at(0), lease(1, at(0)));
    let low = waiting(&mut holder, at(0), ask(10, "low", at(5_000)));
    let high = waiting(&mut holder, at(1), ask(10, "high", at(5_000)));
    let first = admitted(holder.poll(at(1_000)));
    assert_eq!(first.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [high]);
    let second = admitted(holder.poll(at(2_000)));
    assert_eq!(second.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [low]);
    for (_, reservation) in first.into_iter().chain(second) {
        holder.settle(at(2_000), reservation, &tokens(10));
    }
}

#[test]
fn without_an_allocator_the_lease_runs_on_then_the_floor_then_nothing() {
    let mut holder = welcomed(OnLoss::Floor);
    holder.receive(at(0), lease(1, at(0)));
    holder.disconnected(at(0));
    for (now, units) in [(2_000, 20), (62_000, 20), (72_000, 20)] {
        let reservation = granted(&mut holder, at(now), ask(units, "low", at(now + 1)));
        holder.settle(at(now), reservation, &tokens(units));
    }
    // Two tokens a second since then.
    waiting(&mut holder, at(73_000), ask(3, "low", at(75_000)));
    assert_eq!(
        admitted(holder.poll(at(73_500)))
            .into_iter()
            .map(|(_, r)| {
                holder.settle(at(73_500), r, &tokens(3));
            })
            .count(),
        1
    );
    let Admission::Refused(lost) = holder.admit(at(601_000), ask(1, "low", at(605_000))) else {
        panic!("after T2 nothing is left")
    };
    assert_eq!(lost.reason, Reason::AllocatorLost);
}

#[test]
fn what_happens_without_an_allocator_and_a_lease_is_the_quotas_choice() {
    for (on_loss, patience_ms, is_refused) in [
        (OnLoss::Floor, 60_000, true),
        (OnLoss::Closed, 60_000, true),
        (OnLoss::Open, 5_000, false),
    ] {
        let mut holder = welcomed(on_loss);
        holder.disconnected(at(0));
        waiting(&mut holder, at(1_000), ask(8, "low", at(90_000)));
        assert!(holder.poll(at(patience_ms - 1)).is_empty(), "a takeover is waited out");
        assert_eq!(holder.next_wakeup(at(patience_ms - 1)), Some(at(patience_ms)));
        let events = holder.poll(at(patience_ms));
        assert_eq!(refused(&events).len(), usize::from(is_refused), "{on_loss:?}");
        for (_, reservation) in admitted(events) {
            assert_eq!(reservation.source, Source::Free);
            holder.settle(at(patience_ms), reservation, &tokens(8));
        }
        let next = holder.admit(at(patience_ms), ask(8, "low", at(90_000)));
        assert_eq!(matches!(next, Admission::Refused(_)), is_refused, "nor does the next one wait");
    }
}

#[test]
fn a_pod_that_ends_gives_back_what_is_left() {
    let mut holder = welcomed(OnLoss::Floor);
    holder.receive(at(0), lease(1, at(0)));
    let ToAllocator::Bye(report) = holder.bye(at(1_000)) else { panic!("not a farewell") };
    assert_eq!(report.items[&budget()].counters.returned, Amount::from_units(10));
}

#[test]
fn what_a_window_that_is_over_was_charged_does_not_come_back() {
    let shape = Shape { window: Window::FixedWindow, ..Shape::default() };
    let dimension = Dimension::TokensPerMinute;
    let provider = provider(vec![Budget::new(budget(), dimension, 600, shape)]);
    // Where the edge is not known, there may have been one. It is at 70 s, and a minute later.
    let seen =
        |millis| Some(Seen { reset_lo: at(millis), reset_hi: at(millis), ..Seen::default() });
    for (seen, debit, end, is_back) in [
        (None, 1_000, 2_000, false),
        (seen(70_000), 1_000, 2_000, true),
        (seen(70_000), 69_000, 71_000, false),
        (seen(70_000), 71_000, 72_000, true),
        (seen(130_000), 69_000, 71_000, false),
    ] {
        let mut holder = welcomed(OnLoss::Floor);
        let providers = vec![provider.clone()];
        holder.set_policy(&PodPolicy { providers, ..policy(OnLoss::Floor) });
        let id = waiting(&mut holder, at(debit), ask(8, "low", at(debit + 5_000)));
        holder.receive(at(debit), credit(id, at(debit)));
        let (_, reservation) = admitted(holder.poll(at(debit))).remove(0);
        if let Some(seen) = seen {
            holder.seen(&budget(), seen);
        }
        holder.settle(at(end), reservation, &tokens(3));
        let ToAllocator::Bye(report) = holder.bye(at(end)) else { panic!("not a farewell") };
        let back = if is_back { Amount::from_units(5) } else { Amount::ZERO };
        assert_eq!(report.items[&budget()].counters.returned, back, "{seen:?} {debit} {end}");
    }
}
