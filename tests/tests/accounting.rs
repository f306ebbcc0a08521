//! What the sidecars settle is what the provider charges.

use std::time::Duration;

use emulator::Config;
use emulator::config::{Latency, LimitConfig, Output, Provider as Which};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tests::client::Client;
use tests::provider::{ample, quick};
use tests::wait;
use tests::world::{World, name_of};
use tokio::time::timeout;

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const EMBEDDINGS: &str = "/v1/embeddings";
const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

#[tokio::test]
async fn complete_calls_are_settled_to_the_token() {
    let limit = LimitConfig {
        input_tokens_per_minute: Some(60_000_000),
        output_tokens_per_minute: Some(60_000_000),
        ..ample()
    };
    let output = Output { tokens: 30, spread: 0.7 };
    let mut world = World::start(Config { output, ..quick(limit) }, 2, |_| {}).await;
    let calls = (0..90).map(|number| {
        let (which, path, body) = call(number);
        let client = world.sidecars[number % 2].client(name_of(which));
        async move { client.post(path, &body).await.good() }
    });
    join_all(calls).await;
    world.settle().await;
    let mut settled = Vec::new();
    for which in Which::ALL {
        let truth = world.provider.tokens(which).await;
        assert_eq!(world.settled(which).await, truth, "{which:?}");
        settled.push(truth);
    }
    assert!(settled.iter().all(|(input, output)| *input > 100 && *output > 100), "{settled:?}");
    world.end_sidecars().await;
    for which in Which::ALL {
        for dimension in [
            "requestsPerMinute",
            "tokensPerMinute",
            "inputTokensPerMinute",
            "outputTokensPerMinute",
        ] {
            let truth = world.provider.limit(which, dimension).await.settled;
            assert_eq!(world.used(which, dimension).await, truth, "{which:?} {dimension}");
        }
    }
}

/// One of all kinds of calls, of many sizes.
fn call(number: usize) -> (Which, &'static str, Value) {
    let text = "Why do rivers bend? ".repeat(1 + number % 7);
    let question = json!([{"role": "user", "content": text}]);
    let chat = json!({"model": "gpt-4o", "messages": question});
    let message =
        json!({"model": "claude-sonnet-4-6", "messages": question, "max_tokens": 5 + number});
    let response = json!({"model": "gpt-4o", "input": text});
    match number % 9 {
        0 => (Which::OpenAi, CHAT, chat),
        1 => (Which::OpenAi, CHAT, with(with(chat, "n", 3), "max_tokens", 20)),
        2 => (Which::OpenAi, CHAT, with(chat, "stream", true)),
        3 => (Which::OpenAi, RESPONSES, response),
        4 => (Which::OpenAi, RESPONSES, with(response, "stream", true)),
        5 => {
            let input = vec![text; 1 + number % 3];
            (Which::OpenAi, EMBEDDINGS, json!({"model": "text-embedding-3-small", "input": input}))
        }
        6 => (Which::Anthropic, MESSAGES, message),
        7 => (Which::Anthropic, MESSAGES, with(message, "stream", true)),
        _ => (Which::Anthropic, COUNT, json!({"model": "claude-sonnet-4-6", "messages": question})),
    }
}

fn with(mut body: Value, member: &str, value: impl Into<Value>) -> Value {
    body[member] = value.into();
    body
}

/// How calls are broken, and what is known of them afterwards.
struct Broken {
    name: &'static str,
    /// What the provider does.
    fault: Option<Value>,
    streamed: bool,
    /// What the client does.
    client: Leaves,
    /// How the sidecar counts such a call.
    outcome: &'static str,
    /// Whether the provider's charge can be known exactly.
    exact: bool,
}

#[derive(Clone, Copy)]
enum Leaves {
    AfterTheEnd,
    AfterTheFirstBytes,
    BeforeTheHead,
}

/// Broken calls of each case.
const CALLS: u64 = 5;

/// The cap of each call's output, in tokens.
const CAP: u64 = 60;

/// A call is charged by estimate with no more than this: its cap, and twice its prompt.
const MOST: f64 = 100.0;

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_in_flight() {
    let cases = [
        Broken {
            name: "in mid-stream",
            fault: None,
            streamed: true,
            client: Leaves::AfterTheFirstBytes,
            outcome: "left",
            exact: true,
        },
        Broken {
            name: "from a provider that hangs",
            fault: Some(json!({"kind": "hang"})),
            streamed: false,
            client: Leaves::BeforeTheHead,
            outcome: "left",
            exact: false,
        },
    ];
    join_all(cases.map(check)).await;
}

#[tokio::test]
async fn an_answer_that_breaks_leaves_nothing_in_flight() {
    let after_tokens = json!({"afterTokens": 10});
    let cases = [
        ("a stream is cut", json!({"cut": after_tokens}), true, "cut", false),
        ("a body is cut", json!({"cut": after_tokens}), false, "cut", false),
        ("an error after 200", json!({"streamError": after_tokens}), true, "provider_error", false),
        ("a page of HTML", json!("garbage"), false, "answered", false),
        ("a 500", json!({"status": {"status": 500}}), true, "provider_error", true),
        ("a 529", json!({"status": {"status": 529}}), false, "provider_error", true),
        (
            "a 429 that is not ours",
            json!({"rateLimit": {"waitMs": 200}}),
            true,
            "provider_limited",
            true,
        ),
    ];
    let cases = cases.map(|(name, kind, streamed, outcome, exact)| {
        let client = Leaves::AfterTheEnd;
        let fault = Some(json!({"kind": kind}));
        check(Broken { name, fault, streamed, client, outcome, exact })
    });
    join_all(cases).await;
}

/// Breaks calls of both providers: nothing stays in flight, every slot comes back, and the books are
/// never below the provider's.
async fn check(case: Broken) {
    let name = case.name;
    // A slot that is not given back keeps the third call waiting for ever.
    let limit = LimitConfig { concurrent_requests: Some(2), ..ample() };
    let latency = Latency { first_token_ms: 20, spread: 0.0, tokens_per_second: 200 };
    let output = Output { tokens: 40, spread: 0.0 };
    let config = Config { latency, output, ..quick(limit) };
    let mut world = World::start(config, 1, |_| {}).await;
    for which in Which::ALL {
        let client = world.sidecars[0].client(name_of(which));
        good(&client, which).await;
        if let Some(fault) = &case.fault {
            world.provider.arm(fault.clone()).await;
        }
        for _ in 0..CALLS {
            leave(&client, which, &case).await;
        }
        world.settle().await;
        world.provider.disarm().await;
        tokio::join!(good(&client, which), good(&client, which));
    }
    world.settle().await;
    assert_eq!(world.sidecars[0].requests(case.outcome).await, expected(&case), "{name}");
    world.end_sidecars().await;
    for which in Which::ALL {
        let truth = world.provider.limit(which, "tokensPerMinute").await.settled;
        let used = world.used(which, "tokensPerMinute").await;
        let most = if case.exact { truth } else { truth + MOST * CALLS as f64 };
        assert!(truth <= used && used <= most, "{name} {which:?}: {used}, in truth {truth}");
    }
}

/// The number of requests that end like the broken ones: where they look like good ones, with those.
fn expected(case: &Broken) -> u64 {
    let good = if case.outcome == "answered" { 3 } else { 0 };
    2 * (CALLS + good)
}

async fn good(client: &Client, which: Which) {
    let (path, body) = request(which, false);
    client.post(path, &body).await.good();
}

/// Makes a call that breaks.
async fn leave(client: &Client, which: Which, case: &Broken) {
    let (path, body) = request(which, case.streamed);
    match case.client {
        Leaves::AfterTheEnd => drop(client.post(path, &body).await),
        Leaves::AfterTheFirstBytes => {
            let mut response = client.begin(path, &body).await;
            response.frame().await.expect("a first event").expect("that is not broken");
        }
        Leaves::BeforeTheHead => {
            let patience = Duration::from_millis(200);
            let answer = timeout(patience, client.post(path, &body)).await;
            assert!(answer.is_err(), "{}: {answer:?}", case.name);
        }
    }
}

fn request(which: Which, streamed: bool) -> (&'static str, Value) {
    let (path, model) = match which {
        Which::OpenAi => (CHAT, "gpt-4o"),
        Which::Anthropic => (MESSAGES, "claude-sonnet-4-6"),
    };
    let question = [json!({"role": "user", "content": "Why do rivers bend?"})];
    let body = json!({"model": model, "max_tokens": CAP, "stream": streamed, "messages": question});
    (path, body)
}

#[tokio::test]
async fn a_long_answer_that_nobody_reads_is_cut_off_and_charged_by_what_came() {
    // 12 s of output, of which the sidecar reads 5 s when its client has gone.
    let latency = Latency { first_token_ms: 20, spread: 0.0, tokens_per_second: 5 };
    let output = Output { tokens: 60, spread: 0.0 };
    let mut world = World::start(Config { latency, output, ..quick(ample()) }, 1, |_| {}).await;
    for which in Which::ALL {
        let client = world.sidecars[0].client(name_of(which));
        let (path, body) = request(which, true);
        let mut response = client.begin(path, &body).await;
        response.frame().await.expect("a first event").expect("that is not broken");
    }
    world.settle().await;
    world.end_sidecars().await;
    for which in Which::ALL {
        let (_, produced) = world.provider.tokens(which).await;
        assert!((10..50).contains(&produced), "{which:?}: cut after {produced} tokens");
        let truth = world.provider.limit(which, "tokensPerMinute").await.settled;
        let used = world.used(which, "tokensPerMinute").await;
        assert!((used - truth).abs() <= 20.0, "{which:?}: {used}, in truth {truth}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_leaves_its_place() {
    let limit = LimitConfig { concurrent_requests: Some(1), ..ample() };
    let world = World::start(quick(limit), 1, |_| {}).await;
    let client = world.sidecars[0].client("openai");
    let (path, body) = request(Which::OpenAi, false);
    world.provider.arm(json!({"kind": "hang", "count": 1})).await;
    {
        let hanging = client.post(path, &body);
        let waiting = async {
            wait::until("the only slot is taken", async || {
                (world.provider.state().await.in_flight == 1).then_some(())
            })
            .await;
            let waiting = join_all((0..5).map(|_| client.post(path, &body)));
            assert!(timeout(Duration::from_millis(300), waiting).await.is_err());
        };
        tokio::select! {
            answer = hanging => panic!("an answer: {answer:?}"),
            () = waiting => {}
        }
    }
    good(&client, Which::OpenAi).await;
    world.settle().await;
    let requests = world.provider.state().await.requests;
    assert_eq!(requests, 2, "those that left the queue were never sent");
    assert_eq!(world.sidecars[0].requests("left").await, 6);
}
