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
async fn sdks_raise_at_once_what_the_provider_says_for_good_and_retry_what_it_says_for_now() {
    let world = World::start(quick(ample()), 1, |_| {}).await;
    let sidecar = &world.sidecars[0];
    let spent = |provider: &str, kind: &str, code: &str| {
        let status = json!({"status": 429, "errorType": kind, "code": code});
        json!({"provider": provider, "kind": {"status": status}, "count": 2})
    };
    let busy = |provider: &str| json!({"provider": provider, "kind": {"rateLimit": {"waitMs": 300}}, "count": 2});
    for sdk in Sdk::ALL {
        for (faults, ending, requests) in [
            (
                [
                    spent("openai", "insufficient_quota", "insufficient_quota"),
                    spent("anthropic", "rate_limit_error", "enforced_spend_limit_reached"),
                ],
                // Anthropic's for Python has a class of its own for spending.
                "Error 429",
                4,
            ),
            // The third attempt of the first call of each is answered, and so is the second call.
            ([busy("openai"), busy("anthropic")], "answer", 8),
        ] {
            for fault in faults {
                world.provider.arm(fault).await;
            }
            let before = world.provider.state().await.requests;
            let seen = sdk.run("refused", sidecar.address, true, &["5", "2"]).await;
            for which in Which::ALL {
                let outcomes = seen[name_of(which)].as_array().expect("a list");
                let as_expected = |it: &Value| it.as_str().is_some_and(|it| it.ends_with(ending));
                assert!(outcomes.len() == 2 && outcomes.iter().all(as_expected), "{sdk:?} {seen}");
            }
            let sent = world.provider.state().await.requests - before;
            assert_eq!(sent, requests, "{sdk:?} {seen}");
        }
    }
    assert_eq!(sidecar.refusals().await, 0);
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
    closed_loops(LimitConfig {
        requests_per_minute: Some(60 * CALLS_PER_SECOND),
        burst_percent: 5,
        ..LimitConfig::default()
    })
    .await;
}

#[tokio::test]
async fn closed_loops_of_sdks_at_three_times_a_budget_of_tokens_see_no_exception() {
    closed_loops(LimitConfig {
        tokens_per_minute: Some(60 * CALLS_PER_SECOND * CALL_TOKENS),
        burst_percent: 5,
        ..LimitConfig::default()
    })
    .await;
}

/// What each provider admits. 12 loops with calls of 50 ms ask for far more than three times that,
/// however busy the machine is.
const CALLS_PER_SECOND: u64 = 4;

/// What a call takes in the end: seven of prompt, eight of answer.
const CALL_TOKENS: u64 = 15;

const SECONDS: u64 = 8;

/// Two programs, one of each language, at a sidecar each.
async fn closed_loops(limit: LimitConfig) {
    let world = World::start(quick(limit), 2, |_| {}).await;
    let [python, node] = &world.sidecars[..] else { panic!("two sidecars") };
    let seconds = SECONDS.to_string();
    let arguments = ["6", &seconds];
    let (python, node) = tokio::join!(
        Sdk::Python.run("closed_loop", python.address, true, &arguments),
        Sdk::Node.run("closed_loop", node.address, true, &arguments),
    );
    for which in Which::ALL {
        let name = name_of(which);
        let answers = [&python, &node].map(|seen| {
            assert_eq!(seen[name]["errors"], json!([]), "{name}");
            seen[name]["answers"].as_u64().expect("a count")
        });
        let (sum, budget) = (answers.iter().sum::<u64>(), CALLS_PER_SECOND * SECONDS);
        assert!(sum * 10 > budget * 7, "{name}: {answers:?} of {budget} and the burst");
        assert!(answers.iter().all(|each| each * 5 > budget), "{name}: {answers:?} is not fair");
    }
    for limit in world.provider.state().await.limits {
        assert_eq!((limit.refused, limit.peak_over_admission), (0, 0.0), "{limit:?}");
    }
    assert_eq!(world.provider.refusals().await, 0);
    for sidecar in &world.sidecars {
        assert_eq!(sidecar.refusals().await, 0, "the queue was long enough");
    }
}
