//! Whose key reaches the provider, and where it must never be seen.

use std::collections::BTreeMap;
use std::fs;

use emulator::Config;
use emulator::config::Provider as Which;
use serde_json::{Value, json};
use tests::client::Client;
use tests::provider::{ample, quick};
use tests::world::{World, name_of};

/// What the harness's clients send.
const OWN: &str = "key";

/// What only the allocator is told.
const SECRET: &str = "made-up-secret-of-the-account";

fn config() -> Config {
    let account = |key: &str, account: &str| (key.to_owned(), account.to_owned());
    let keys = BTreeMap::from([account(OWN, "own"), account(SECRET, "company")]);
    Config { keys, ..quick(ample()) }
}

fn request(which: Which) -> (&'static str, Value) {
    let question = json!([{"role": "user", "content": "a private question"}]);
    match which {
        Which::OpenAi => ("/v1/chat/completions", json!({"model": "gpt-4o", "messages": question})),
        Which::Anthropic => {
            let model = "claude-sonnet-4-6";
            ("/v1/messages", json!({"model": model, "messages": question, "max_tokens": 20}))
        }
    }
}

/// The accounts that calls of both providers were charged to.
async fn charged(world: &World) -> Vec<String> {
    for which in Which::ALL {
        let (path, body) = request(which);
        let mut client = world.sidecars[0].client(name_of(which));
        if which == Which::Anthropic {
            // Older SDKs send this one, newer ones the other.
            client = client.with("x-api-key", OWN);
        }
        client.post(path, &body).await.good();
    }
    let totals = world.provider.state().await.totals;
    totals.into_iter().filter(|total| total.answered > 0).map(|total| total.account).collect()
}

#[tokio::test]
async fn an_application_without_a_key_of_the_company_uses_its_own() {
    let world = World::start(config(), 1, |_| {}).await;
    assert_eq!(charged(&world).await, ["own", "own"]);
}

#[tokio::test]
async fn the_key_of_a_secret_takes_the_place_of_the_applications_and_is_seen_nowhere() {
    let mut world = World::start(config(), 1, |policy| {
        let key = json!({"name": "primary", "secretRef": {"name": "account", "key": "primary"}});
        for provider in &mut policy.providers {
            provider["spec"]["keys"] = json!([key]);
        }
        policy.providers.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "account"},
            "stringData": {"primary": SECRET},
        }));
    })
    .await;
    assert_eq!(charged(&world).await, ["company", "company"]);

    let sidecar = &world.sidecars[0];
    let config = sidecar.page("/config").await;
    assert!(config.contains("primary"), "an alias may be shown: {config}");
    let mut shown = vec![config, sidecar.page("/metrics").await, sidecar.log()];
    for page in ["/config", "/metrics", "/state"] {
        shown.push(world.allocator.page(page).await);
    }
    shown.push(world.allocator.log());
    shown.push(fs::read_to_string(world.folder.path().join("state/state.json")).expect("state"));
    for text in shown {
        assert!(!text.is_empty());
        for private in [SECRET, "a private question"] {
            assert!(!text.contains(private), "{private} is shown:\n{text}");
        }
    }
}

#[tokio::test]
async fn a_pod_without_a_quota_is_told_what_to_create_and_sends_nothing() {
    let mut world = World::start(config(), 0, |_| {}).await;
    let stranger = world.launch_sidecar("stranger", &["--namespace", "nowhere"]);
    stranger.ready().await;
    let (path, body) = request(Which::OpenAi);
    let client: Client = stranger.client("openai");
    let refused = client.post(path, &body).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("LLMQuota") && message.contains("nowhere"), "{message}");
    assert_eq!(world.provider.state().await.requests, 0);
}
