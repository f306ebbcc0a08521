//! The truth ledger and the admin listener.

use emulator::config::LimitConfig;
use emulator::{Config, Error, serve};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::rig::{CHAT, MESSAGES, Rig, chat, config, limit, messages, streamed};

/// What a client counted itself.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    answered: u64,
    refused: u64,
    input: u64,
    output: u64,
}

#[tokio::test]
async fn the_truth_is_what_a_client_counted() {
    let limits =
        LimitConfig { requests_per_minute: Some(40), tokens_per_minute: Some(2_000), ..limit() };
    let mut varied = config(limits);
    varied.output.spread = 0.5;
    let rig = Rig::start(varied).await;
    let mut counted = Counted::default();
    for call in 0..60_usize {
        let mut request = chat(20);
        request["messages"][0]["content"] = "x".repeat(call * 7).into();
        request["stream_options"] = json!({"include_usage": true});
        let request = if call % 2 == 0 { streamed(request) } else { request };
        let answer = rig.post(CHAT, &request).await;
        if answer.status == 429 {
            counted.refused += 1;
            continue;
        }
        let usage = match call % 2 {
            0 => answer.events().iter().rev().nth(1).unwrap().1["usage"].clone(),
            _ => answer.json()["usage"].clone(),
        };
        counted.answered += 1;
        counted.input += usage["prompt_tokens"].as_u64().unwrap();
        counted.output += usage["completion_tokens"].as_u64().unwrap();
    }
    assert!(counted.answered > 20 && counted.refused > 10, "{counted:?}");
    let state = rig.state().await;
    let totals = &state.totals[0];
    let booked = Counted {
        answered: totals.answered,
        refused: totals.refused,
        input: totals.input_tokens,
        output: totals.output_tokens,
    };
    assert_eq!(booked, counted);
    assert_eq!((state.requests, state.in_flight), (60, 0));
    let of = |dimension: &str| {
        let mut limits = state.limits.iter();
        limits.find(|limit| limit.dimension == dimension).unwrap()
    };
    let (requests, tokens) = (of("requestsPerMinute"), of("tokensPerMinute"));
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let as_f64 = |count: u64| count as f64;
    assert_eq!(requests.settled, as_f64(counted.answered));
    assert_eq!(tokens.settled, as_f64(counted.input + counted.output));
    assert_eq!(requests.refused + tokens.refused, counted.refused);
    assert_eq!(tokens.on_offer, 2_000.0);
    assert_eq!(tokens.utilisation, tokens.settled / 2_000.0);
}

#[tokio::test]
async fn a_reset_begins_a_new_span_and_keeps_levels() {
    let rig = Rig::start(config(LimitConfig { requests_per_minute: Some(60), ..limit() })).await;
    for _ in 0..50 {
        rig.post(CHAT, &chat(1)).await;
    }
    rig.admin(Method::POST, "/__emu/reset", &Value::Null).await;
    rig.advance(30_000).await;
    rig.post(CHAT, &chat(1)).await;
    let state = rig.state().await;
    let requests = &state.limits[0];
    assert_eq!((requests.settled, requests.on_offer, requests.remaining), (1.0, 40.0, 39));
    assert_eq!((state.requests, state.span_seconds), (1, 30.0));
    assert_eq!(state.totals[0].answered, 1);
}

#[tokio::test]
async fn limits_and_answers_change_while_it_runs() {
    let rig = Rig::start(config(LimitConfig { requests_per_minute: Some(60), ..limit() })).await;
    let change = json!({
        "limits": [{"limit": "default", "dimension": "requestsPerMinute", "value": 30}],
        "externalLoadPercent": 50,
        "headers": "noLimits",
        "output": {"tokens": 9, "spread": 0.0},
    });
    let answer = rig.admin(Method::POST, "/__emu/config", &change).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = rig.post(CHAT, &chat(100)).await;
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "");
    assert_eq!(answer.json()["usage"]["completion_tokens"], 9);
    rig.advance(2_000).await;
    let state = rig.state().await;
    // Half a request a second of which somebody else uses half, after the 60 there were.
    assert_eq!((state.limits[0].value, state.limits[0].on_offer), (30, 60.5));
    for bad in [
        json!({"limits": [{"limit": "none", "dimension": "requestsPerMinute", "value": 1}]}),
        json!({"limits": [{"limit": "default", "dimension": "tokensPerDay", "value": 1}]}),
        json!({"limit": []}),
    ] {
        let answer = rig.admin(Method::POST, "/__emu/config", &bad).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_admin_listener_shows_no_key() {
    let keys = [("very-secret".to_owned(), "shop".to_owned())].into();
    let rig = Rig::start(Config { keys, ..config(limit()) }).await;
    let shown = rig.admin(Method::GET, "/config", &Value::Null).await;
    assert!(!shown.text().contains("very-secret"), "{}", shown.text());
    assert_eq!(shown.json()["keys"], json!(["shop"]));
    for (method, path) in [
        (Method::POST, "/__emu/state"),
        (Method::GET, "/__emu/reset"),
        (Method::GET, "/__emu/fault"),
    ] {
        assert_eq!(rig.admin(method, path, &Value::Null).await.status, 405);
    }
}

#[tokio::test]
async fn the_journal_has_a_line_for_each_call() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let limits = LimitConfig { requests_per_minute: Some(2), ..limit() };
    let rig = Rig::start(Config { journal: Some(path.clone()), ..config(limits) }).await;
    for _ in 0..3 {
        rig.post(CHAT, &chat(10)).await;
    }
    rig.post(MESSAGES, &messages("Hi!")).await;
    rig.stop().await;
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&str> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["answered", "answered", "refused", "answered"]);
    assert_eq!((&lines[0]["reserved_total"], &lines[0]["output"]), (&json!(10), &json!(5)));
    assert_eq!(lines[2]["wait_ms"], 30_000);
    assert_eq!(lines[3]["provider"], "anthropic");
    assert!(!text.contains("Hi!") && !text.contains("key"), "neither prompts nor keys");
}

#[tokio::test]
async fn a_config_that_cannot_be_served_says_why() {
    let with = |limit: LimitConfig| config(limit);
    for (bad, word) in [
        (with(LimitConfig { window_seconds: 0, ..limit() }), "windowSeconds"),
        (with(LimitConfig { burst_percent: 0, ..limit() }), "burstPercent"),
        (Config { max_connections: 0, ..Config::default() }, "maxConnections"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = serve(bad, listener, admin, std::future::pending()).await.unwrap_err();
        assert!(matches!(&error, Error::Config(what) if what.contains(word)), "{error}");
    }
}

#[test]
fn flags_replace_what_a_config_file_says() {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: emulator::Args,
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("emulator.json");
    std::fs::write(&file, r#"{"openai": [{"name": "a", "requestsPerMinute": 5}], "seed": 7}"#)
        .unwrap();
    let parse = |flags: &[&str]| {
        let file = ["emulator", "--config", file.to_str().unwrap()];
        Cli::parse_from(file.iter().chain(flags)).args.config()
    };
    let config = parse(&["--hide-reset"]).unwrap();
    assert_eq!((config.seed, config.openai[0].requests_per_minute), (7, Some(5)));
    assert_eq!(config.openai[0].window, emulator::config::Window::FixedWindow);
    let config =
        parse(&["--rpm", "9", "--limiter", "token-bucket", "--burst-percent", "2"]).unwrap();
    assert_eq!(config.openai[0].requests_per_minute, Some(9));
    assert_eq!(config.anthropic[0].burst_percent, 2);
    assert!(parse(&["--burst-percent", "0"]).is_err());
}
