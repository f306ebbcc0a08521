//! Every fault, and what it leaves in the books.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::rig::{CHAT, MESSAGES, Rig, chat, config, limit, messages, streamed};
use emulator::config::LimitConfig;

#[tokio::test]
async fn a_storm_of_429s_charges_nothing_and_ends() {
    let rig = Rig::start(config(LimitConfig { requests_per_minute: Some(10), ..limit() })).await;
    rig.fault(json!({"kind": {"rateLimit": {"waitMs": 1500}}, "count": 2})).await;
    let openai = rig.post(CHAT, &chat(5)).await;
    assert_eq!((openai.status.as_u16(), openai.header("retry-after")), (429, "2"));
    assert!(openai.text().contains("Please try again in 1.5s."), "{}", openai.text());
    let anthropic = rig.post(MESSAGES, &messages("Hi!")).await;
    assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
    assert_eq!(rig.post(CHAT, &chat(5)).await.status, 200);
    let state = rig.state().await;
    assert_eq!(state.limits[0].admitted, 1.0);
    assert_eq!(state.answers, [(200, 1), (429, 2)].into());
    assert_eq!(state.limits[0].refused, 0, "the limit refused nobody");
}

#[tokio::test]
async fn any_status_comes_in_the_providers_shape() {
    for (path, request, fault, status, kind, code) in [
        (CHAT, chat(5), json!({"status": 500}), 500, "server_error", Value::Null),
        (
            CHAT,
            chat(5),
            json!({"status": 503, "retryAfter": 7}),
            503,
            "service_unavailable_error",
            json!("server_is_overloaded"),
        ),
        (
            CHAT,
            chat(5),
            json!({"status": 429}),
            429,
            "insufficient_quota",
            json!("insufficient_quota"),
        ),
        (
            CHAT,
            chat(5),
            json!({"status": 429, "errorType": "rate_limit_error", "code": "slow_down"}),
            429,
            "rate_limit_error",
            json!("slow_down"),
        ),
        (MESSAGES, messages("Hi!"), json!({"status": 529}), 529, "overloaded_error", Value::Null),
        (MESSAGES, messages("Hi!"), json!({"status": 402}), 402, "billing_error", Value::Null),
    ] {
        let rig = Rig::start(config(LimitConfig { tokens_per_minute: Some(100), ..limit() })).await;
        rig.fault(json!({"kind": {"status": fault}, "count": 1})).await;
        let answer = rig.post(path, &request).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status, status);
        assert_eq!((&error["type"], &error["code"]), (&json!(kind), &code));
        let retry_after = if status == 503 { "7" } else { "" };
        assert_eq!(answer.header("retry-after"), retry_after);
        let state = rig.state().await;
        assert_eq!((state.totals[0].failed, state.totals[0].input_tokens), (1, 0));
        assert!(state.limits.iter().all(|limit| limit.remaining == 100), "tokens came back");
        assert_eq!(rig.post(path, &request).await.status, 200);
    }
}

#[tokio::test]
async fn a_cut_ends_the_connection_without_an_end() {
    let rig = Rig::start(config(limit())).await;
    for (path, request) in [(CHAT, chat(100)), (MESSAGES, messages("Hi!"))] {
        rig.fault(json!({"kind": {"cut": {"afterTokens": 2}}, "count": 2})).await;
        let stream = rig.post(path, &streamed(request.clone())).await;
        assert!(!stream.complete);
        assert!(!stream.text().contains("[DONE]") && !stream.text().contains("message_stop"));
        let whole = rig.post(path, &request).await;
        assert!(!whole.complete && serde_json::from_slice::<Value>(&whole.body).is_err());
    }
    let state = rig.state_when(|state| state.in_flight == 0).await;
    for totals in &state.totals {
        // Two tokens of the stream, and all five of the answer that was cut on its way.
        assert_eq!((totals.cut, totals.output_tokens), (2, 7), "{}", totals.model);
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_comes_after_a_200() {
    let rig = Rig::start(config(limit())).await;
    rig.fault(json!({"kind": {"streamError": {"afterTokens": 2}}, "count": 2})).await;
    let openai = rig.post(CHAT, &streamed(chat(100))).await;
    assert_eq!((openai.status.as_u16(), openai.complete), (200, true));
    assert_eq!(openai.events().last().unwrap().1["error"]["type"], "server_error");
    let anthropic = rig.post(MESSAGES, &streamed(messages("Hi!"))).await;
    let (name, data) = anthropic.events().pop().unwrap();
    assert_eq!(
        (name.as_deref(), &data["error"]["type"]),
        (Some("error"), &json!("overloaded_error"))
    );
}

#[tokio::test]
async fn a_hanging_call_says_nothing_until_its_client_leaves() {
    let rig = Rig::start(config(limit())).await;
    rig.fault(json!({"kind": "hang", "count": 1})).await;
    let headers = [("authorization", "Bearer key")];
    let call = rig.begin(Method::POST, CHAT, &headers, chat(5).to_string());
    timeout(Duration::from_millis(100), call).await.expect_err("nothing comes");
    let state = rig.state_when(|state| state.in_flight == 0 && !state.totals.is_empty()).await;
    assert_eq!((state.totals[0].left, state.totals[0].output_tokens), (1, 0));
}

#[tokio::test]
async fn a_drip_changes_the_pace_and_no_byte() {
    let rig = Rig::start(config(limit())).await;
    for request in [chat(100), streamed(chat(100))] {
        rig.fault(json!({"kind": {"drip": {"bytes": 100, "pauseMs": 2}}, "count": 1})).await;
        let started = Instant::now();
        let dripped = rig.post(CHAT, &request).await;
        let pauses = u32::try_from(dripped.body.len() / 100).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(2) * pauses.saturating_sub(1));
        assert!(dripped.complete);
        if request["stream"] == true {
            assert_eq!(dripped.events().last().unwrap().1, "[DONE]");
        } else {
            assert_eq!(dripped.json()["usage"]["completion_tokens"], 5);
        }
    }
    assert_eq!(rig.state().await.totals[0].answered, 2);
}

#[tokio::test]
async fn garbage_claims_to_be_json() {
    let rig = Rig::start(config(limit())).await;
    rig.fault(json!({"kind": "garbage", "count": 1})).await;
    let answer = rig.post(CHAT, &chat(5)).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
}

#[tokio::test]
async fn a_limit_changes_silently_when_its_time_comes() {
    let rig = Rig::start(config(LimitConfig { requests_per_minute: Some(100), ..limit() })).await;
    let change = json!({"limit": "default", "dimension": "requestsPerMinute", "value": 2});
    rig.fault(json!({"kind": {"limit": change}, "afterMs": 5000})).await;
    for (advance, limit) in [(0, "100"), (4_999, "100"), (1, "2")] {
        rig.advance(advance).await;
        let answer = rig.post(CHAT, &chat(1)).await;
        assert_eq!(answer.header("x-ratelimit-limit-requests"), limit);
    }
    rig.post(CHAT, &chat(1)).await;
    assert_eq!(rig.post(CHAT, &chat(1)).await.status, 429);
}

#[tokio::test]
async fn faults_can_be_disarmed_and_bad_ones_are_refused() {
    let rig = Rig::start(config(limit())).await;
    rig.fault(json!({"kind": {"status": {"status": 500}}})).await;
    assert_eq!(rig.post(CHAT, &chat(5)).await.status, 500);
    rig.admin(Method::DELETE, "/__emu/fault", &Value::Null).await;
    assert_eq!(rig.post(CHAT, &chat(5)).await.status, 200);
    for bad in [json!({"kind": "nothing"}), json!({"kind": "hang", "cuont": 3}), json!([])] {
        let answer = rig.admin(Method::POST, "/__emu/fault", &bad).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.json()["error"].is_string());
    }
}
