use quota::message::Report;
use quota::units::Amount;

use super::*;

fn vector() -> Vector {
    let amount = Amount::from_units(5);
    [(BudgetId::from_wire("openai/gpt/tokensPerMinute"), amount)].into_iter().collect()
}

fn ask(class: &str) -> Ask {
    Ask {
        vector: vector(),
        class: class.into(),
        deadline: now() + Duration::from_secs(5),
        traceparent: None,
    }
}

/// What the pod would tell about its one budget.
fn counters(gate: &Gate) -> quota::message::Counters {
    let ToAllocator::Bye(Report { items, .. }) = gate.bye() else { unreachable!() };
    items.values().next().expect("one budget was used").counters
}

#[tokio::test]
async fn a_hold_that_is_dropped_before_its_request_was_sent_is_charged_nothing() {
    let gate = Gate::new();
    drop(gate.force(vector()));
    assert_eq!(counters(&gate).settled, Amount::ZERO);
    let mut hold = gate.force(vector());
    hold.sent(Duration::ZERO, vector());
    hold.unsent();
    drop(hold);
    assert_eq!(counters(&gate).settled, Amount::ZERO);
}

#[tokio::test]
async fn a_hold_that_is_dropped_after_its_request_was_sent_is_charged_as_expected() {
    let gate = Gate::new();
    let mut hold = gate.force(vector());
    hold.sent(Duration::ZERO, vector());
    drop(hold);
    assert_eq!(counters(&gate).settled, Amount::from_units(5));
}

#[tokio::test]
async fn a_request_that_is_written_late_is_debited_anew() {
    let gate = Gate::new();
    let mut hold = gate.force(vector());
    let forced = counters(&gate).overdrawn;
    hold.sent(Duration::ZERO, vector());
    assert_eq!(counters(&gate).overdrawn, forced);
    hold.sent(Duration::from_millis(251), vector());
    assert_eq!(counters(&gate).overdrawn, forced + Amount::from_units(5));
}

#[tokio::test]
async fn a_request_that_leaves_the_queue_is_forgotten() {
    let gate = Gate::new();
    tokio::select! {
        biased;
        _ = gate.admit(ask("interactive")) => unreachable!("there is no lease"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(gate.status().waiting, 0);
    assert!(gate.shared.state.lock().waiting.is_empty());
}

#[tokio::test]
async fn a_stream_that_takes_no_more_messages_is_told_to_end() {
    let gate = Gate::new();
    let (messages, _queue) = mpsc::channel(1);
    let stuck = CancellationToken::new();
    gate.connected(Stream { messages, stuck: stuck.clone() });
    gate.receive(ToPod::Welcome(Epoch(1)));
    let waiting: Vec<_> = (0..2).map(|_| gate.admit(ask("interactive"))).collect();
    tokio::select! {
        biased;
        _ = futures_util::future::join_all(waiting) => unreachable!("nobody grants"),
        () = stuck.cancelled() => {}
    }
}
