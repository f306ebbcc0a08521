//! Requests that are wrong, and ways to connect.

use bytes::Bytes;
use emulator::Config;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::rig::{CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Rig, chat, config, limit, messages};

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let strict = Config { reject_unknown_models: true, ..config(limit()) };
    let models = |patterns: &[&str]| patterns.iter().map(|&model| model.to_owned()).collect();
    let limited =
        |patterns| vec![emulator::config::LimitConfig { models: models(patterns), ..limit() }];
    let strict = Config {
        openai: limited(&["gpt-*", "text-*"]),
        anthropic: limited(&["claude-*"]),
        ..strict
    };
    let rig = Rig::start(strict).await;
    let inputs: Vec<&str> = vec!["x"; 2_049];
    let many = json!({"model": "text-embedding-3-small", "input": inputs});
    let long = json!({"model": "text-embedding-3-small", "input": "x".repeat(1_200_001)});
    let without_model = json!({"messages": []});
    let without_cap = json!({"model": "claude-sonnet-4-6", "messages": []});
    let unknown = json!({"model": "nonesuch", "messages": [], "max_tokens": 1});
    for (path, body, status, kind, code) in [
        (CHAT, "{\"model\":".to_owned(), 400, "invalid_request_error", ""),
        (CHAT, "[]".to_owned(), 400, "invalid_request_error", ""),
        (CHAT, without_model.to_string(), 400, "invalid_request_error", ""),
        (CHAT, unknown.to_string(), 404, "invalid_request_error", "model_not_found"),
        (RESPONSES, String::new(), 400, "invalid_request_error", ""),
        (EMBEDDINGS, many.to_string(), 400, "invalid_request_error", "array_above_max_length"),
        (EMBEDDINGS, long.to_string(), 400, "max_tokens_per_request", "max_tokens_per_request"),
        ("/v1/nothing", "{}".to_owned(), 404, "invalid_request_error", ""),
        (MESSAGES, "{".to_owned(), 400, "invalid_request_error", ""),
        (MESSAGES, without_model.to_string(), 400, "invalid_request_error", ""),
        (MESSAGES, without_cap.to_string(), 400, "invalid_request_error", ""),
        (MESSAGES, unknown.to_string(), 404, "not_found_error", ""),
    ] {
        let headers = [("authorization", "Bearer key")];
        let answer = rig.send(Method::POST, path, &headers, body.clone()).await;
        let error = &answer.json()["error"];
        let shown = &body[..body.len().min(80)];
        assert_eq!((answer.status.as_u16(), &error["type"]), (status, &json!(kind)), "{shown}");
        assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{shown}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let state = rig.state().await;
    assert!(state.limits.iter().all(|limit| limit.admitted == 0.0), "nothing was charged");
    assert_eq!(state.requests, 12);
}

#[tokio::test]
async fn a_call_without_a_key_is_refused() {
    let rig = Rig::start(config(limit())).await;
    let openai = rig.send(Method::POST, CHAT, &[], chat(1).to_string()).await;
    assert_eq!(openai.status, 401);
    let anthropic = rig.send(Method::POST, MESSAGES, &[], messages("Hi!").to_string()).await;
    assert_eq!(anthropic.json()["error"]["type"], "authentication_error");
    for header in [("x-api-key", "key"), ("authorization", "Bearer key")] {
        let answer = rig.send(Method::POST, MESSAGES, &[header], messages("Hi!").to_string()).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_emulator_serves_on() {
    let rig = Rig::start(config(limit())).await;
    let body = Bytes::from(vec![b' '; 33 * 1024 * 1024]);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{MESSAGES}", rig.listen))
        .header("x-api-key", "key")
        .body(Full::new(body))
        .unwrap();
    // A client that is still writing may see the connection end instead of the answer.
    if let Ok(response) = rig.client.request(request).await {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(rig.post(CHAT, &chat(1)).await.status, 200);
    let state = rig.state_when(|state| state.answers.contains_key(&413)).await;
    assert_eq!(state.answers[&413], 1);
}

#[tokio::test]
async fn http2_is_recognised_by_its_preface() {
    let rig = Rig::start(config(limit())).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for request in [chat(10), super::rig::streamed(chat(10))] {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{CHAT}", rig.listen))
            .header("authorization", "Bearer key")
            .body(Full::new(Bytes::from(request.to_string())))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!body.is_empty());
    }
    assert_eq!(rig.state().await.totals[0].answered, 2);
}

#[tokio::test]
async fn a_prefix_before_the_path_changes_nothing() {
    let rig = Rig::start(config(limit())).await;
    let answer = rig.post("/openai/v1/chat/completions", &chat(1)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer: Value = rig.post("/anthropic/v1/messages", &messages("Hi!")).await.json();
    assert_eq!(answer["type"], "message");
}
