//! Who waits when there is not enough for all.

use std::time::Duration;

use emulator::config::{LimitConfig, Provider as Which};
use serde_json::{Value, json};
use tests::client::Client;
use tests::load::Load;
use tests::provider::quick;
use tests::wait;
use tests::world::World;
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    let question = json!([{"role": "user", "content": "Why do rivers bend?"}]);
    json!({"model": "gpt-4o", "max_tokens": 20, "messages": question})
}

/// How long each of so many calls takes, one after another.
async fn times(client: &Client, calls: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..calls {
        let start = Instant::now();
        client.post(CHAT, &chat()).await.good();
        times.push(start.elapsed());
    }
    times.sort();
    times
}

#[tokio::test]
async fn a_call_of_a_high_class_overtakes_those_of_a_low_one_from_any_pod() {
    // Ten calls a second; 24 loops keep more than a second's worth waiting.
    let limit =
        LimitConfig { requests_per_minute: Some(600), burst_percent: 5, ..LimitConfig::default() };
    let world = World::start(quick(limit), 3, |_| {}).await;
    let low = world.sidecars[..2].iter().map(|sidecar| sidecar.client("openai"));
    let load = Load::start(low, 12, CHAT, &chat());
    wait::until("the burst is spent", async || (load.answers() > 60).then_some(())).await;
    let idle = world.sidecars[2].client("openai");
    let busy = world.sidecars[0].client("openai");
    let high = |client: &Client| client.clone().with("x-weir-priority", "high");
    let (from_idle, from_busy, low) =
        (times(&high(&idle), 7).await, times(&high(&busy), 7).await, times(&idle, 3).await);
    for high in [from_idle, from_busy] {
        assert!(high[3] * 3 < low[1], "high {high:?}, low {low:?}");
    }
    assert_eq!(load.end().await, [""; 0]);
    assert_eq!(world.provider.limit(Which::OpenAi, "requestsPerMinute").await.refused, 0);
}

#[tokio::test]
async fn a_class_that_the_quota_does_not_permit_is_refused_and_says_so() {
    let world = World::start(quick(tests::provider::ample()), 1, |_| {}).await;
    let client = world.sidecars[0].client("openai").with("x-weir-priority", "highest");
    let refused = client.post(CHAT, &chat()).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("permittedClasses"), "{}", refused.text());
}
