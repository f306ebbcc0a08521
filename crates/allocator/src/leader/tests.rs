use std::path::Path;

use quota::budget::{Budget, Shape};
use quota::dimension::{Dimension, Protocol};
use quota::message::ToPod;
use quota::policy::{Limit, Mode, OnLoss, Provider, QueueLimits, Quota, Use};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// 600 requests a minute for pods of namespace `shop`.
fn policy() -> Arc<Policy> {
    let dimension = Dimension::RequestsPerMinute;
    let id = BudgetId::new("openai", "gpt", dimension);
    let budgets = vec![Budget::new(id, dimension, 600, Shape::default())];
    let provider = Provider {
        name: "openai".into(),
        protocol: Protocol::OpenAi,
        endpoint: "https://api.openai.com".to_owned(),
        keys: Vec::new(),
        limits: vec![Limit { name: "gpt".into(), models: vec!["*".to_owned()], budgets }],
    };
    let uses = vec![Use {
        provider: "openai".into(),
        limit: None,
        guaranteed: BTreeMap::new(),
        ceiling: BTreeMap::new(),
    }];
    let quota = Quota {
        namespace: "shop".into(),
        name: "chat".into(),
        selector: BTreeMap::new(),
        class: "default".into(),
        permitted: Vec::new(),
        weight: 1,
        uses,
        queue: QueueLimits::default(),
        per_request_max_tokens: None,
        on_allocator_loss: OnLoss::Floor,
        mode: Mode::Enforce,
    };
    Arc::new(Policy {
        generation: 1,
        providers: BTreeMap::from([(provider.name.clone(), provider)]),
        classes: BTreeMap::new(),
        quotas: vec![quota],
    })
}

async fn leader(state: &Path, now: Time) -> Leader {
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let state = State::open(state, || now).await.unwrap();
    Leader::new(now, state, policy(), Arc::new(metrics))
}

/// A pod whose process nobody knows, and its end of the stream.
fn applicant(pod: &str, boot: u64) -> (Applicant, mpsc::Receiver<FromAllocator>) {
    let (out, stream) = mpsc::channel(2);
    let applicant = Applicant {
        pod: pod.into(),
        run: Run { boot, process: None },
        is_proven: false,
        of: Pod { namespace: "shop".to_owned(), ..Pod::default() },
        highest_epoch_seen: Epoch(0),
        arrival: 1,
        greeting: FromAllocator::Drain,
        out,
        close: CancellationToken::new(),
    };
    (applicant, stream)
}

#[tokio::test]
async fn a_session_that_does_not_read_is_closed_and_its_pod_keeps_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let (applicant, mut stream) = applicant("shop/chat", 1);
    let close = applicant.close.clone();
    leader.open(at(0), applicant).unwrap();
    // Greeting and challenge fill the queue of two; the challenge is repeated every second.
    for second in 1..=2 {
        leader.poll(at(1_000 * second));
    }
    assert!(close.is_cancelled());
    let read = std::iter::from_fn(|| stream.try_recv().ok()).count();
    assert_eq!(read, 2);
    assert!(leader.state.record().run(&"shop/chat".into()).is_some());
}

#[tokio::test]
async fn a_late_message_of_a_replaced_stream_counts_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let (first, _old) = applicant("shop/chat", 1);
    let (second, _new) = applicant("shop/chat", 1);
    let is_old_closed = first.close.clone();
    let old = leader.open(at(0), first).unwrap();
    leader.open(at(0), second).unwrap();
    assert!(is_old_closed.is_cancelled());
    leader.receive(at(1), &old, ToAllocator::Bye(quota::message::Report::default()));
    leader.closed(at(1), &old);
    assert_eq!(leader.sessions.len(), 1);
}

#[tokio::test]
async fn a_run_without_a_known_process_is_the_only_one_while_its_stream_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let (first, _stream) = applicant("shop/chat", 1);
    let key = leader.open(at(0), first).unwrap();
    let (second, _) = applicant("shop/chat", 2);
    let refused = leader.open(at(0), second).unwrap_err();
    assert_eq!(refused, Refusal::Duplicate { pod: "shop/chat".into(), pid: None });
    leader.closed(at(1), &key);
    let (second, _) = applicant("shop/chat", 2);
    assert!(leader.open(at(2), second).is_ok());
}

#[tokio::test]
async fn a_silent_pod_is_forgotten_when_its_floor_has_surely_ended_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let (applicant, stream) = applicant("shop/chat", 1);
    let key = leader.open(at(0), applicant).unwrap();
    drop(stream);
    leader.closed(at(0), &key);
    // An hour of floor, 0.1 % of drift, 100 ms of margin.
    for (millis, known) in [(3_603_699, 1), (3_603_700, 0)] {
        leader.prepare(at(millis)).await.unwrap();
        assert_eq!(leader.state.record().pods().count(), known, "{millis}");
    }
}

#[tokio::test]
async fn a_pod_that_vanishes_gets_nothing_more_and_keeps_what_it_held_until_its_floor_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let (applicant, _stream) = applicant("shop/chat", 1);
    let close = applicant.close.clone();
    let key = leader.open(at(0), applicant).unwrap();
    leader.pod_vanished(at(0), &"shop/chat".into());
    // It has time to say goodbye.
    for (millis, is_closed) in [(29_999, false), (30_000, true)] {
        leader.prepare(at(millis)).await.unwrap();
        assert_eq!(close.is_cancelled(), is_closed, "{millis}");
    }
    leader.closed(at(30_000), &key);
    for (millis, known) in [(3_633_699, 1), (3_633_700, 0)] {
        leader.prepare(at(millis)).await.unwrap();
        assert_eq!(leader.state.record().pods().count(), known, "{millis}");
    }
}

#[tokio::test]
async fn a_sidecar_that_has_seen_more_than_the_record_raises_the_epoch_above_it_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = leader(directory.path(), at(0)).await;
    let (known, mut stream) = applicant("shop/known", 1);
    first.open(at(0), known).unwrap();
    let (stranger, _stream) = applicant("shop/stranger", 2);
    first.open(at(10), Applicant { highest_epoch_seen: Epoch(7), ..stranger }).unwrap();
    first.prepare(at(10)).await.unwrap();
    while stream.try_recv().is_ok() {}

    // T1 with drift and margin: 60.16 s.
    first.poll(at(60_169));
    assert!(stream.try_recv().is_err());
    first.poll(at(60_170));
    let Ok(FromAllocator::Lease(ToPod::Challenge(epoch, _))) = stream.try_recv() else {
        panic!("no challenge came");
    };
    assert_eq!(epoch, Epoch(8));
    drop(first);
    let second = leader(directory.path(), at(70_000)).await;
    assert_eq!(second.state.record().epoch(), Epoch(9));
    assert!(second.state.record().has_unknown());
}

#[tokio::test]
async fn a_greeting_that_was_overtaken_by_another_run_frees_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let proven = |boot, arrival| {
        let (applicant, stream) = applicant("shop/chat", boot);
        (Applicant { is_proven: true, arrival, ..applicant }, stream)
    };
    // The first run greets, its token is being checked, it dies; the second one is quicker.
    let ((first, _first), (second, _second)) = (proven(1, 1), proven(2, 2));
    let key = leader.open(at(1), second).unwrap();
    assert_eq!(leader.open(at(2), first), Err(Refusal::Stale));
    assert!(leader.session(&key).is_some());
    // A third one is the end of the second.
    let (third, _third) = proven(3, 3);
    assert!(leader.open(at(3), third).is_ok());
}

#[tokio::test]
async fn a_proven_pod_that_was_forgotten_may_come_back_with_our_own_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let mut leader = leader(directory.path(), at(0)).await;
    let epoch = leader.state.record().epoch();
    let (back, _stream) = applicant("shop/chat", 1);
    let back = Applicant { is_proven: true, highest_epoch_seen: epoch, ..back };
    leader.open(at(1), back).unwrap();
    assert_eq!(leader.state.record().epoch(), epoch);
    // What no leader can have led is refused, and not outbid.
    let (garbage, _stream) = applicant("shop/other", 1);
    let far = Epoch(epoch.0 + 100_000);
    let garbage = Applicant { is_proven: true, highest_epoch_seen: far, ..garbage };
    assert_eq!(leader.open(at(2), garbage), Err(Refusal::Epoch(far)));
    assert_eq!(leader.state.record().epoch(), epoch);
}
