//! The official SDKs, unchanged, through a sidecar.

use emulator::config::{LimitConfig, Provider as Which};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::provider::{Provider, ample, quick};
use tests::sdk::Sdk;
use tests::world::{World, name_of};

#[tokio::test]
async fn sdks_see_the_same_answers_through_weir_as_straight_from_the_provider() {
    for sdk in Sdk::ALL {
        // The emulator says the same to the same calls in the same order.
        let straight = Provider::start(quick(ample())).await;
        let expected = sdk.run("answers", straight.address, false, &[]).await;
        let world = World::start(quick(ample()), 1, |_| {}).await;
        let seen = sdk.run("answers", world.sidecars[0].address, true, &[]).await;
        assert_eq!(seen, expected, "{sdk:?}");

        assert_eq!(seen["chat stream"]["usages"], json!([]), "{sdk:?} did not ask for usage");
        let usages = &seen["chat stream with usage"]["usages"];
        assert_eq!(usages.as_array().map(Vec::len), Some(1), "{sdk:?} asked for it: {usages}");
        for which in Which::ALL {
            let truth = world.provider.tokens(which).await;
            assert_eq!(truth, straight.tokens(which).await, "{sdk:?} {which:?}");
            assert_eq!(world.settled(which).await, truth, "{sdk:?} {which:?}");
            // The application is told all of it, but for the usage of the stream it did not ask for.
            let told = told(which, &seen);
            assert_eq!(told, truth, "{sdk:?} {which:?}");
        }
        assert_eq!(world.provider.refusals().await, 0);
        assert_eq!(world.sidecars[0].refusals().await, 0);
    }
}

/// Input and output tokens of all answers of `which`.
fn told(which: Which, seen: &Value) -> (u64, u64) {
    let names: &[&str] = match which {
        Which::OpenAi => &["chat", "response", "response stream", "embeddings"],
        Which::Anthropic => &["message", "message stream"],
    };
    let figure = |usage: &Value, names: [&str; 2]| {
        names.iter().find_map(|name| usage[name].as_u64()).unwrap_or(0)
    };
    let mut usages: Vec<&Value> = names.iter().map(|name| &seen[name]["usage"]).collect();
    if which == Which::OpenAi {
        // Two streams of the same question: the second one tells for both.
        let usage = &seen["chat stream with usage"]["usages"][0][1];
        usages.extend([usage, usage]);
    }
    usages.iter().fold((0, 0), |(input, output), usage| {
        let output = output + figure(usage, ["completion_tokens", "output_tokens"]);
        (input + figure(usage, ["prompt_tokens", "input_tokens"]), output)
    })
}

#[tokio::test]
async fn sdks_raise_at_once_what_no_retry_can_change() {
    let limit = LimitConfig { tokens_per_minute: Some(1_000), ..ample() };
    let mut world = World::start(quick(limit), 1, |_| {}).await;
    // No quota matches a pod of another namespace.
    let stranger = world.launch_sidecar("stranger", &["--namespace", "nowhere"]);
    stranger.ready().await;
    let [known, stranger] = &world.sidecars[..] else { panic!("two sidecars") };
    for sdk in Sdk::ALL {
        for (sidecar, words, raised) in
            [(known, "5000", "RateLimitError 429"), (stranger, "5", "PermissionDeniedError 403")]
        {
            let before = sidecar.refusals().await;
            let seen = sdk.run("refused", sidecar.address, true, &[words, "1"]).await;
            let expected = json!({"openai": [raised], "anthropic": [raised]});
            assert_eq!(seen, expected, "{sdk:?}");
            let refused = sidecar.refusals().await - before;
            assert_eq!(refused, 2, "{sdk:?} {raised}: one attempt each");
        }
    }
    assert_eq!(world.provider.state().await.requests, 0);
}

#[tokio::test]
async fn sdks_come_back_after_the_wait_that_a_refusal_tells() {
    join_all(Sdk::ALL.map(|sdk| async move {
        // A call every two seconds, and three at once.
        let limit = LimitConfig {
            requests_per_minute: Some(30),
            burst_percent: 10,
            ..LimitConfig::default()
        };
        let world = World::start(quick(limit), 1, |policy| {
            policy.quota()["queue"] = json!({"maxWait": "100ms", "maxRequests": 1});
        })
        .await;
        let seen = sdk.run("refused", world.sidecars[0].address, true, &["5", "5"]).await;
        let answers = ["answer"; 5];
        assert_eq!(seen, json!({"openai": answers, "anthropic": answers}), "{sdk:?}");
        let refused = world.sidecars[0].refusals().await;
        assert!(refused >= 2, "{sdk:?} waits only if it was refused, {refused} times");
        assert_eq!(world.provider.refusals().await, 0);
    }))
    .await;
}

#[tokio::test]
async fn closed_loops_of_sdks_at_three_times_the_budget_see_no_exception() {
    // Ten calls a second of each provider. 2 x 6 loops of 50 ms each ask for more than 30.
    let limit =
        LimitConfig { requests_per_minute: Some(600), burst_percent: 5, ..LimitConfig::default() };
    let world = World::start(quick(limit), 2, |_| {}).await;
    let [python, node] = &world.sidecars[..] else { panic!("two sidecars") };
    let arguments = ["6", "8"];
    let (python, node) = tokio::join!(
        Sdk::Python.run("closed_loop", python.address, true, &arguments),
        Sdk::Node.run("closed_loop", node.address, true, &arguments),
    );
    for which in Which::ALL {
        let name = name_of(which);
        for (sdk, seen) in [(Sdk::Python, &python), (Sdk::Node, &node)] {
            assert_eq!(seen[name]["errors"], json!([]), "{sdk:?} {name}");
            let answers = seen[name]["answers"].as_u64();
            assert!(answers >= Some(20), "{sdk:?} {name} starves: {answers:?}");
        }
        let limit = world.provider.limit(which, "requestsPerMinute").await;
        assert_eq!((limit.refused, limit.peak_over_admission), (0, 0.0), "{name}");
        let used = limit.settled / limit.on_offer;
        assert!(used > 0.5, "{name}: used {used} of what was on offer, starts and ends included");
    }
    assert_eq!(world.provider.refusals().await, 0);
    for sidecar in &world.sidecars {
        assert_eq!(sidecar.refusals().await, 0, "the queue was long enough");
    }
}
