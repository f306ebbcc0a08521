//! Waiting, refusal, and what is settled.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::BodyExt;
use quota::dimension::Dimension;
use quota::message::{Epoch, LeaseSet, Reason, Terms, ToAllocator, Version};
use quota::policy::Mode;
use quota::time::Time;
use quota::units::Rate;
use wire::FromSidecar;

use crate::allocator::Decision;
use crate::client::{CHAT_ANSWER, STREAM, chat, post};
use crate::provider::{FakeProvider, chunk, events, text};
use crate::rig::{Rig, budget, policy, units};

async fn rig() -> Rig {
    Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await
}

#[tokio::test]
async fn a_request_that_does_not_fit_a_lease_draws_what_the_provider_will_charge() {
    let rig = rig().await;
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    let draw = rig.allocator.draws().remove(0);
    let drawn = [
        (Dimension::RequestsPerMinute, 1),
        // Four of prompt by its bytes, and as many of output as the cap permits.
        (Dimension::TokensPerMinute, 24),
        (Dimension::ConcurrentRequests, 1),
    ];
    assert_eq!(draw.vector, drawn.map(|(d, n)| (budget(d), units(n))).into_iter().collect());
    assert_eq!(&*draw.class, "interactive");
    let tokens = budget(Dimension::TokensPerMinute);
    let report = rig
        .allocator
        .report(|report| report.items.get(&tokens).is_some_and(|i| i.counters.settled == units(7)))
        .await;
    let counters = report.items[&tokens].counters;
    assert_eq!((counters.credited, counters.returned), (units(24), units(17)));
    let slots = report.items[&budget(Dimension::ConcurrentRequests)].counters;
    assert_eq!((slots.settled, slots.returned), (units(0), units(1)));
    assert_eq!(rig.metric("weir_sidecar_admissions_total{source=\"draw\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_request_that_fits_its_lease_asks_nobody() {
    let rig = rig().await;
    let terms = Terms {
        rate: Rate::per(units(1_000_000), Duration::from_secs(1)),
        cap: units(1_000),
        floor: Rate::ZERO,
        floor_ttl: Duration::from_secs(60),
        ..Terms::default()
    };
    let dimensions =
        [Dimension::RequestsPerMinute, Dimension::TokensPerMinute, Dimension::ConcurrentRequests];
    rig.allocator.grant(LeaseSet {
        epoch: Epoch(1),
        version: Version(1),
        echo: Time::ZERO,
        ttl: Duration::from_secs(60),
        items: dimensions.into_iter().map(|d| (budget(d), terms)).collect(),
    });
    rig.allocator.cut();
    rig.allocator
        .heard(|message| matches!(message, FromSidecar::Lease(ToAllocator::Ack(..))).then_some(()))
        .await;
    for _ in 0..5 {
        assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    }
    assert_eq!(rig.allocator.draws().len(), 0);
    assert_eq!(rig.metric("weir_sidecar_admissions_total{source=\"lease\"}").await, Some(5.0));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_leaves_the_queue() {
    let rig = rig().await;
    rig.allocator.decide(Decision::Hold);
    let mut client = rig.client().await;
    tokio::select! {
        _ = client.send(chat()) => unreachable!("it is held"),
        () = rig.allocator.heard(|m| matches!(m, FromSidecar::Lease(ToAllocator::Draw(_))).then_some(())) => {}
    }
    let draw = rig.allocator.draws()[0].id;
    drop(client);
    let cancelled = rig.allocator.heard(|message| match message {
        FromSidecar::Lease(ToAllocator::Cancel(id)) => Some(*id),
        _ => None,
    });
    assert_eq!(cancelled.await, draw);
    assert_eq!(rig.metric("weir_lease_waiting").await, Some(0.0));
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_is_settled_with_what_the_provider_says() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let rig = Rig::start(provider).await;
    let mut client = rig.client().await;
    let mut body = client.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    let delta = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    feed.send(chunk(delta)).await.unwrap();
    body.frame().await.unwrap().unwrap();
    drop((client, body));
    feed.send(chunk(delta)).await.unwrap();
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
    feed.send(chunk(usage)).await.unwrap();
    drop(feed);
    let tokens = budget(Dimension::TokensPerMinute);
    let settled = rig
        .allocator
        .report(|report| report.items.get(&tokens).is_some_and(|i| !i.counters.settled.is_zero()))
        .await;
    assert_eq!(settled.items[&tokens].counters.settled, units(7));
    let left =
        "weir_sidecar_requests_total{provider=\"openai\",operation=\"chat\",outcome=\"left\"}";
    assert_eq!(rig.metric(left).await, Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_goes_on_and_on_after_the_client_left_is_cut_and_estimated() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let rig = Rig::start(provider).await;
    let mut client = rig.client().await;
    let mut body = client.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    let delta = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four\"}}]}\n\n";
    feed.send(chunk(delta)).await.unwrap();
    body.frame().await.unwrap().unwrap();
    drop((client, body));
    // The sidecar gives up after some seconds of silence.
    feed.closed().await;
    let tokens = budget(Dimension::TokensPerMinute);
    let settled = rig
        .allocator
        .report(|report| report.items.get(&tokens).is_some_and(|i| !i.counters.settled.is_zero()))
        .await;
    // The prompt's estimate and the one token that was seen.
    assert_eq!(settled.items[&tokens].counters.settled, units(3));
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let mut policy = policy(&provider);
    policy.quota.queue.max_requests = 1;
    let rig = Rig::with(provider, Some(policy), &[]).await;
    rig.allocator.decide(Decision::Hold);
    let mut waiting = rig.client().await;
    let mut second = rig.client().await;
    let refused = async {
        rig.allocator
            .heard(|m| matches!(m, FromSidecar::Lease(ToAllocator::Draw(_))).then_some(()))
            .await;
        second.ask(chat()).await
    };
    let answer = tokio::select! {
        _ = waiting.send(chat()) => unreachable!("it is held"),
        answer = refused => answer,
    };
    assert_eq!(answer.status.as_u16(), 429);
    assert_eq!(answer.header("x-weir-reason"), Some("queue_full"));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    let wait: u64 = answer.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1_000..=1_200).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_deadline_bounds_the_wait() {
    let rig = rig().await;
    rig.allocator.decide(Decision::Hold);
    for (header, value) in [
        ("x-weir-deadline-ms", "0"),
        ("x-weir-deadline-ms", "100"),
        ("x-stainless-read-timeout", "0.2"),
    ] {
        let mut request = chat();
        request.headers_mut().insert(header, value.parse().unwrap());
        let answer = rig.client().await.ask(request).await;
        assert_eq!(answer.status.as_u16(), 429, "{header}: {value}");
        assert_eq!(answer.header("x-weir-reason"), Some("deadline"), "{header}: {value}");
    }
    assert_eq!(rig.provider.count(), 0);
}

#[tokio::test]
async fn a_denial_becomes_an_answer_that_sdks_obey() {
    let rig = rig().await;
    let mut client = rig.client().await;
    for (reason, retry_after, status, should_retry) in [
        (Reason::Deadline, Some(2), 429, "true"),
        (Reason::Deadline, Some(120), 429, "false"),
        (Reason::Exhausted, None, 429, "false"),
        (Reason::TooLarge, None, 429, "false"),
        (Reason::NotPermitted, None, 403, "false"),
        (Reason::AllocatorLost, Some(1), 503, "true"),
    ] {
        rig.allocator.decide(Decision::Deny(reason, retry_after.map(Duration::from_secs)));
        let answer = client.ask(chat()).await;
        assert_eq!(answer.status.as_u16(), status, "{reason:?}");
        assert_eq!(answer.header("x-should-retry"), Some(should_retry), "{reason:?}");
        assert_eq!(answer.header("x-weir-reason"), Some(reason.label()), "{reason:?}");
        assert_eq!(answer.header("retry-after").is_some(), should_retry == "true", "{reason:?}");
    }
}

#[tokio::test]
async fn modes_off_and_shadow_let_everything_pass() {
    for (mode, overdrawn) in [(Mode::Off, None), (Mode::Shadow, Some(units(1)))] {
        let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
        let mut policy = policy(&provider);
        policy.quota.mode = mode;
        let rig = Rig::with(provider, Some(policy), &[]).await;
        rig.allocator.decide(Decision::Hold);
        assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200, "{mode:?}");
        rig.stop();
        let bye = rig
            .allocator
            .heard(|message| match message {
                FromSidecar::Lease(ToAllocator::Bye(report)) => Some(report.clone()),
                _ => None,
            })
            .await;
        let requests = bye.items.get(&budget(Dimension::RequestsPerMinute));
        assert_eq!(requests.map(|item| item.counters.overdrawn), overdrawn, "{mode:?}");
    }
}

#[tokio::test]
async fn what_the_providers_headers_say_is_reported() {
    let provider = FakeProvider::start(|_| {
        let mut response = text(200, CHAT_ANSWER);
        let headers: BTreeMap<&'static str, &'static str> = BTreeMap::from([
            ("x-ratelimit-limit-tokens", "60000"),
            ("x-ratelimit-remaining-tokens", "59000"),
            ("x-ratelimit-reset-tokens", "1s"),
        ]);
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    let rig = Rig::start(provider.await).await;
    let before = service::clock::boottime_nanos();
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    let after = service::clock::boottime_nanos();
    let tokens = budget(Dimension::TokensPerMinute);
    let report =
        rig.allocator.report(|report| report.items.get(&tokens).is_some_and(|i| i.seen.is_some()));
    let seen = report.await.items[&tokens].seen.unwrap();
    assert_eq!((seen.limit, seen.remaining), (units(60_000), units(59_000)));
    let second = 1_000_000_000;
    assert!(before + second <= seen.reset_lo.as_nanos() && seen.reset_lo < seen.reset_hi);
    assert!(seen.reset_hi.as_nanos() <= after + second);
}
