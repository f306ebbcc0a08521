//! A provider that fails: an answer comes, nothing hangs, and what was reserved is settled.

use http_body_util::BodyExt;
use quota::dimension::Dimension;

use crate::client::{CHAT_ANSWER, STREAM, chat, post};
use crate::provider::{FakeProvider, chunk, events, text};
use crate::rig::{Rig, budget, units};

/// Waits until nothing is in flight, and returns what the tokens were settled with.
async fn settled_tokens(rig: &Rig) -> u64 {
    let slots = budget(Dimension::ConcurrentRequests);
    let report = rig
        .allocator
        .report(|report| {
            report.items.get(&slots).is_some_and(|item| item.counters.returned == units(1))
        })
        .await;
    assert_eq!(rig.metric("weir_sidecar_in_flight").await, Some(0.0));
    report.items[&budget(Dimension::TokensPerMinute)].counters.settled.units()
}

#[tokio::test]
async fn a_provider_that_is_not_there_costs_nothing() {
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let mut policy = crate::rig::policy(&provider);
    // Nothing listens on the discard port of loopback.
    policy.providers[0].endpoint = "http://127.0.0.1:9".to_owned();
    let rig = Rig::with(provider, Some(policy), &[]).await;
    let answer = rig.client().await.ask(chat()).await;
    assert_eq!(answer.status.as_u16(), 502, "{}", answer.body);
    assert!(answer.body.starts_with("{\"error\":{"), "{}", answer.body);
    assert_eq!(settled_tokens(&rig).await, 0);
}

#[tokio::test]
async fn a_provider_that_answers_garbage_or_closes_is_charged_as_estimated() {
    for bytes in [&b""[..], b"\0\x01garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"] {
        let rig = Rig::start(FakeProvider::raw(bytes, false).await).await;
        let answer = rig.client().await.ask(chat()).await;
        assert_eq!(answer.status.as_u16(), 502, "{}", answer.body);
        assert_eq!(answer.header("x-weir-reason"), Some("upstream_failed"));
        // It may have run: three tokens of prompt, and as many as the cap permits.
        assert_eq!(settled_tokens(&rig).await, 4 + 20);
    }
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up_at_the_clients_deadline() {
    let rig = Rig::start(FakeProvider::raw(b"", true).await).await;
    let mut request = chat();
    request.headers_mut().insert("x-weir-deadline-ms", "300".parse().unwrap());
    let answer = rig.client().await.ask(request).await;
    assert_eq!(answer.status.as_u16(), 504, "{}", answer.body);
    assert_eq!(settled_tokens(&rig).await, 24);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_given_up_in_the_end() {
    let rig = Rig::start(FakeProvider::raw(b"", true).await).await;
    let before = tokio::time::Instant::now();
    let mut client = rig.client().await;
    let crate::client::Client::Http1(sender) = &mut client else { unreachable!() };
    let response = sender.send_request(chat()).await.unwrap();
    assert_eq!(response.status().as_u16(), 504);
    assert!(before.elapsed().as_secs() >= 900);
}

#[tokio::test]
async fn a_body_that_is_cut_short_reaches_the_client_as_cut_short() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"id\":1";
    let rig = Rig::start(FakeProvider::raw(cut, false).await).await;
    let response = rig.client().await.send(chat()).await;
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(settled_tokens(&rig).await, 24);
}

#[tokio::test]
async fn an_error_in_a_stream_passes_and_is_counted() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let rig = Rig::start(provider).await;
    let mut client = rig.client().await;
    let body = client.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    let error = "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":null}}\n\n";
    feed.send(chunk(error)).await.unwrap();
    drop(feed);
    assert_eq!(body.collect().await.unwrap().to_bytes(), error);
    settled_tokens(&rig).await;
    let counted = "weir_sidecar_requests_total{provider=\"openai\",operation=\"chat\",outcome=\"provider_error\"}";
    assert_eq!(rig.metric(counted).await, Some(1.0));
}

#[tokio::test]
async fn a_429_of_the_provider_is_reported_and_forwarded_with_a_wait_that_sdks_take() {
    const LIMITED: &str = r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
    let provider = FakeProvider::start(|_| {
        let mut response = text(429, LIMITED);
        response.headers_mut().insert("retry-after", "300".parse().unwrap());
        response.headers_mut().insert("x-ratelimit-remaining-tokens", "0".parse().unwrap());
        response
    });
    let rig = Rig::start(provider.await).await;
    let answer = rig.client().await.ask(chat()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (429, LIMITED));
    assert_eq!(answer.header("retry-after"), Some("30"));
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("0"));
    let report = rig.allocator.report(|report| report.provider_429 == 1).await;
    assert_eq!(report.refused, 0);
    assert_eq!(settled_tokens(&rig).await, 0);
    let counted =
        "weir_sidecar_provider_failures_total{provider=\"openai\",failure=\"rate_limit\"}";
    assert_eq!(rig.metric(counted).await, Some(1.0));
}

#[tokio::test]
async fn a_kept_connection_that_the_provider_closed_is_replaced_unseen() {
    // Says `keep-alive` and closes nevertheless.
    let answer: &'static [u8] = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{CHAT_ANSWER}",
        CHAT_ANSWER.len()
    )
    .leak()
    .as_bytes();
    let rig = Rig::start(FakeProvider::raw(answer, false).await).await;
    let mut client = rig.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(chat()).await.status.as_u16(), 200);
    }
}
