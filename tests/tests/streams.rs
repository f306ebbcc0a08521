//! The bytes of answers: what the application gets is what the provider sent.

use emulator::Config;
use emulator::config::{Latency, Output, Provider as Which};
use serde_json::{Value, json};
use tests::answer::Answer;
use tests::client::Client;
use tests::provider::{Provider, ample, quick};
use tests::world::{World, name_of};

/// Twelve tokens at once; the clock stands still, so that equal calls have equal answers.
fn config() -> Config {
    let latency = Latency { first_token_ms: 0, spread: 0.0, tokens_per_second: 0 };
    let output = Output { tokens: 12, spread: 0.0 };
    Config { latency, output, manual_clock: true, ..quick(ample()) }
}

/// Every form of answer that has usage in it.
fn forms() -> Vec<(Which, &'static str, Value)> {
    let question = json!([{"role": "user", "content": "Why do rivers bend? \u{1f30a}"}]);
    let chat = json!({"model": "gpt-4o", "messages": question});
    let response = json!({"model": "gpt-4o", "input": "Why?"});
    let message = json!({"model": "claude-sonnet-4-6", "messages": question, "max_tokens": 50});
    let embedding = json!({"model": "text-embedding-3-small", "input": "a river", "dimensions": 8});
    let streamed = |body: &Value| {
        let mut body = body.clone();
        body["stream"] = true.into();
        body
    };
    let mut asks_for_usage = streamed(&chat);
    asks_for_usage["stream_options"] = json!({"include_usage": true});
    vec![
        (Which::OpenAi, "/v1/chat/completions", streamed(&chat)),
        (Which::OpenAi, "/v1/chat/completions", asks_for_usage),
        (Which::OpenAi, "/v1/chat/completions", chat),
        (Which::OpenAi, "/v1/responses", streamed(&response)),
        (Which::OpenAi, "/v1/responses", response),
        (Which::OpenAi, "/v1/embeddings", embedding),
        (Which::Anthropic, "/v1/messages", streamed(&message)),
        (Which::Anthropic, "/v1/messages", message),
    ]
}

#[tokio::test]
async fn bytes_are_the_providers_own_whole_dripping_and_broken() {
    let straight = Provider::start(config()).await;
    let world = World::start(config(), 1, |_| {}).await;
    let faults = [
        None,
        Some(json!({"drip": {"bytes": 7, "pauseMs": 0}})),
        Some(json!({"cut": {"afterTokens": 5}})),
        Some(json!({"streamError": {"afterTokens": 5}})),
    ];
    for fault in faults {
        if let Some(kind) = &fault {
            world.provider.arm(json!({"kind": kind})).await;
            // How slowly bytes come changes none of them.
            if kind["drip"].is_null() {
                straight.arm(json!({"kind": kind})).await;
            }
        }
        for (which, path, body) in forms() {
            let case = format!("{fault:?} {path} {body}");
            let expected = Client::new(straight.address, "").post(path, &body).await;
            let client = world.sidecars[0].client(name_of(which));
            let seen = client.post(path, &body).await;
            assert_eq!((seen.status, seen.complete), (200, expected.complete), "{case}");
            let type_of = |answer: &Answer| answer.header("content-type").map(str::to_owned);
            assert_eq!(type_of(&seen), type_of(&expected), "{case}");
            let mut text = seen.text();
            if adds_usage(path, &body) {
                // The provider says so in every chunk once it is asked for usage.
                text = text.replace(",\"usage\":null", "");
            }
            assert_eq!(text, expected.text(), "{case}");
        }
        world.settle().await;
        world.provider.disarm().await;
        straight.disarm().await;
    }
    for which in Which::ALL {
        assert_eq!(world.provider.tokens(which).await, straight.tokens(which).await, "{which:?}");
    }
}

/// True if the sidecar asks for usage where the application did not.
fn adds_usage(path: &str, body: &Value) -> bool {
    path.ends_with("/chat/completions")
        && body["stream"] == true
        && body["stream_options"].is_null()
}
