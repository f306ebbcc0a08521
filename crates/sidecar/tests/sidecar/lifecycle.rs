//! Start, loss of the allocator, change of policy, drain.

use http_body_util::BodyExt;
use quota::message::ToAllocator;
use tokio::net::TcpListener;
use wire::FromSidecar;

use crate::allocator::Decision;
use crate::client::{CHAT_ANSWER, Client, STREAM, chat, post};
use crate::provider::{FakeProvider, chunk, events, text};
use crate::rig::{Rig, admin, policy, sidecar};

const DELTA: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";

#[tokio::test]
async fn a_sidecar_says_who_it_is() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    let hello = rig
        .allocator
        .heard(|message| match message {
            FromSidecar::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
        .await;
    assert_eq!((hello.namespace.as_str(), hello.pod.as_str()), ("shop", "chat-1"));
    assert_eq!(hello.labels.get("app").map(String::as_str), Some("chat"));
    assert_eq!(hello.pid, Some(std::process::id()));
}

#[tokio::test]
async fn what_only_a_later_allocator_says_does_not_end_the_session() {
    // The fake says such a thing right after the greeting.
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    let hellos = rig.allocator.count(|message| matches!(message, FromSidecar::Hello(_)));
    assert_eq!(hellos, 1);
}

#[tokio::test]
async fn a_pod_without_a_quota_is_told_what_to_create_until_there_is_one() {
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let allowed = policy(&provider);
    let rig = Rig::with(provider, None, &[]).await;
    let answer = rig.client().await.ask(chat()).await;
    assert_eq!(answer.status.as_u16(), 403);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert!(answer.body.contains("create an LLMQuota"), "{}", answer.body);
    assert!(answer.body.starts_with("{\"error\":{"), "{}", answer.body);
    rig.allocator.set_policy(Some(allowed));
    loop {
        let answer = rig.client().await.ask(chat()).await;
        if answer.status.as_u16() == 200 {
            break;
        }
        assert_eq!(answer.status.as_u16(), 403);
    }
}

#[tokio::test]
async fn without_an_allocator_requests_wait_for_the_start_and_then_get_a_503_to_retry() {
    // Bound and never served.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, pages, _shutdown, _) =
        sidecar(nobody.local_addr().unwrap(), &["--start-wait", "300ms"]).await;
    let ready = admin(pages, "/ready").await;
    assert_eq!((ready.status.as_u16(), ready.body.as_str()), (503, "pending: policy\n"));
    assert_eq!(admin(pages, "/live").await.status.as_u16(), 200);
    let before = std::time::Duration::from_nanos(service::clock::boottime_nanos());
    let answer = Client::http1(address).await.ask(chat()).await;
    let waited = std::time::Duration::from_nanos(service::clock::boottime_nanos()) - before;
    assert!(waited.as_millis() >= 150, "{waited:?}");
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.body);
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(admin(pages, "/ready").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_request_that_waits_for_the_first_policy_goes_as_soon_as_it_comes() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, ..) = sidecar(place.local_addr().unwrap(), &[]).await;
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let policy = policy(&provider);
    let mut client = Client::http1(address).await;
    let asking = client.ask(chat());
    let starting = crate::allocator::FakeAllocator::start_on(place, Some(policy));
    let (answer, _allocator) = tokio::join!(asking, starting);
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
}

#[tokio::test]
async fn a_draw_that_waits_goes_to_the_next_allocator_under_the_same_name() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    rig.allocator.decide(Decision::Hold);
    let mut client = rig.client().await;
    let takeover = async {
        rig.allocator
            .heard(|m| matches!(m, FromSidecar::Lease(ToAllocator::Draw(_))).then_some(()))
            .await;
        rig.allocator.decide(Decision::Grant);
        rig.allocator.cut();
    };
    let (answer, ()) = tokio::join!(client.ask(chat()), takeover);
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    let draws = rig.allocator.draws();
    assert_eq!(draws.len(), 2);
    assert_eq!(draws[0].id, draws[1].id);
    assert!(draws[0].waited < draws[1].waited);
}

#[tokio::test]
async fn a_drain_lets_streams_finish_refuses_new_ones_and_returns_what_is_held() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let rig = Rig::start(provider).await;
    let mut client = rig.client().await;
    let mut body = client.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    feed.send(chunk(DELTA)).await.unwrap();
    body.frame().await.unwrap().unwrap();
    rig.stop();
    while rig.admin("/ready").await.status.as_u16() == 200 {}
    assert_eq!(rig.admin("/ready").await.body, "pending: draining\n");
    assert_eq!(rig.admin("/live").await.status.as_u16(), 200);
    while tokio::net::TcpStream::connect(rig.address).await.is_ok() {}
    feed.send(chunk(DELTA)).await.unwrap();
    drop(feed);
    assert_eq!(body.collect().await.unwrap().to_bytes(), DELTA);
    let allocator = rig.allocator.clone();
    rig.stopped().await;
    let bye = allocator.heard(|message| match message {
        FromSidecar::Lease(ToAllocator::Bye(report)) => Some(report.clone()),
        _ => None,
    });
    let bye = bye.await;
    for (budget, item) in bye.items {
        let counters = item.counters;
        let out = counters.leased + counters.credited;
        assert_eq!(out, counters.returned + counters.settled, "{budget}");
    }
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_cut_and_settled() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let policy = policy(&provider);
    let rig = Rig::with(provider, Some(policy), &["--drain", "100ms"]).await;
    let mut client = rig.client().await;
    let mut body = client.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    feed.send(chunk(DELTA)).await.unwrap();
    body.frame().await.unwrap().unwrap();
    rig.stop();
    drop(client);
    let allocator = rig.allocator.clone();
    rig.stopped().await;
    let bye = allocator.heard(|message| match message {
        FromSidecar::Lease(ToAllocator::Bye(report)) => Some(report.clone()),
        _ => None,
    });
    assert!(bye.await.items.values().any(|item| !item.counters.settled.is_zero()));
}
