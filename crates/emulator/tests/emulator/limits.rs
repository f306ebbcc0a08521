//! Limits, as headers, error texts and the truth tell of them.

use emulator::config::{AdmissionRule, Headers, LimitConfig, Window};
use emulator::{Config, state::LimitState};
use http::Method;
use serde_json::json;

use super::rig::{Answer, CHAT, MESSAGES, Rig, chat, config, limit, messages};

fn tokens_per_minute(limit_of: u64) -> LimitConfig {
    LimitConfig { tokens_per_minute: Some(limit_of), ..limit() }
}

fn requests_per_minute(limit_of: u64) -> LimitConfig {
    LimitConfig { requests_per_minute: Some(limit_of), ..limit() }
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

async fn figure(rig: &Rig, provider: &str, dimension: &str) -> LimitState {
    let state = rig.state().await;
    let is_it =
        |limit: &LimitState| json!(limit.provider) == provider && limit.dimension == dimension;
    state.limits.into_iter().find(is_it).expect("such a figure")
}

/// `providers.md` 2.2: error texts of OpenAI with a limit on tokens per minute.
#[tokio::test]
async fn openai_tells_the_wait_for_tokens_to_the_millisecond() {
    for (limit, used, requested, wait, retry_after) in [
        (30_000, 14_567, 24_754, "18.642s", "19"),
        (30_000, 18_928, 11_159, "174ms", "1"),
        (30_000, 28_039, 3_906, "3.89s", "4"),
        (30_000, 22_343, 10_955, "6.596s", "7"),
        (30_000, 29_937, 385, "644ms", "1"),
        (200_000, 162_960, 42_288, "1.574s", "2"),
        (10_000, 8_554, 3_082, "9.816s", "10"),
        (200_000, 195_663, 7_592, "976ms", "1"),
        (1_000_000, 976_163, 70_716, "2.812s", "3"),
    ] {
        let rig = Rig::start(Config { settle: false, ..config(tokens_per_minute(limit)) }).await;
        assert_eq!(rig.post(CHAT, &chat(used)).await.status, 200);
        let refused = rig.post(CHAT, &chat(requested)).await;
        assert_eq!(refused.status, 429);
        assert_eq!(
            refused.json(),
            json!({"error": {
                "message": format!(
                    "Rate limit reached for gpt-4o in organization org-default on tokens per min \
                     (TPM): Limit {limit}, Used {used}, Requested {requested}. Please try again \
                     in {wait}. Visit https://platform.openai.com/account/rate-limits to learn \
                     more."
                ),
                "type": "tokens",
                "param": null,
                "code": "rate_limit_exceeded",
            }})
        );
        assert_eq!(refused.header("retry-after"), retry_after);
        assert_eq!(refused.header("x-ratelimit-limit-tokens"), limit.to_string());
        assert_eq!(refused.header("retry-after-ms"), "");
    }
}

/// `providers.md` 2.2: the same for requests, per minute and per day; each waits one full request.
#[tokio::test]
async fn openai_tells_the_wait_for_requests() {
    for (per_minute, per_day, on, wait) in [
        (Some(3), None, "requests per min (RPM): Limit 3, Used 3, Requested 1", "20s"),
        (None, Some(200), "requests per day (RPD): Limit 200, Used 200, Requested 1", "7m12s"),
        (None, Some(50), "requests per day (RPD): Limit 50, Used 50, Requested 1", "28m48s"),
    ] {
        let limit =
            LimitConfig { requests_per_minute: per_minute, requests_per_day: per_day, ..limit() };
        let rig = Rig::start(config(limit)).await;
        for _ in 0..per_minute.or(per_day).unwrap() {
            assert_eq!(rig.post(CHAT, &chat(10)).await.status, 200);
        }
        for _ in 0..2 {
            let refused = rig.post(CHAT, &chat(10)).await;
            let text = message(&refused);
            assert!(text.contains(on) && text.contains(&format!("again in {wait}. ")), "{text}");
            assert_eq!(refused.json()["error"]["type"], "requests");
        }
    }
}

#[tokio::test]
async fn what_can_never_fit_is_told_apart_and_names_no_wait() {
    let rig = Rig::start(config(tokens_per_minute(1_000))).await;
    let refused = rig.post(CHAT, &chat(1_001)).await;
    assert_eq!(refused.status, 429);
    assert!(message(&refused).starts_with(
        "Request too large for gpt-4o in organization org-default on tokens per min (TPM): Limit \
         1000, Requested 1001. The input or output tokens must be reduced"
    ));
    assert_eq!(refused.header("retry-after"), "");
    let limit = figure(&rig, "openai", "tokensPerMinute").await;
    assert_eq!((limit.refused, limit.too_large), (0, 1));
}

/// `providers.md` 2.2: header dumps, each with requests per minute besides.
#[tokio::test]
async fn openai_headers_tell_levels_after_admission() {
    for (limit, remaining, reset) in [
        (10_000, 9_481, "3.114s"),
        (30_000, 29_996, "8ms"),
        (20_000, 15_482, "13.554s"),
        (200_000, 199_978, "6ms"),
    ] {
        let both = LimitConfig {
            requests_per_minute: Some(500),
            requests_per_day: Some(10_000),
            ..tokens_per_minute(limit)
        };
        let rig = Rig::start(config(both)).await;
        let answer = rig.post(CHAT, &chat(limit - remaining)).await;
        for (header, value) in [
            ("x-ratelimit-limit-requests", "500".to_owned()),
            ("x-ratelimit-remaining-requests", "499".to_owned()),
            ("x-ratelimit-reset-requests", "120ms".to_owned()),
            ("x-ratelimit-limit-tokens", limit.to_string()),
            ("x-ratelimit-remaining-tokens", remaining.to_string()),
            ("x-ratelimit-reset-tokens", reset.to_owned()),
            ("openai-organization", "org-default".to_owned()),
            ("openai-project", "proj_default".to_owned()),
            ("openai-version", "2020-10-01".to_owned()),
            ("content-type", "application/json".to_owned()),
        ] {
            assert_eq!(answer.header(header), value, "{header}");
        }
        assert!(answer.header("x-request-id").starts_with("req_"));
        assert!(answer.header("openai-processing-ms").parse::<u64>().is_ok());
    }
}

#[tokio::test]
async fn the_request_limit_that_binds_is_shown() {
    let both = LimitConfig { requests_per_day: Some(100), ..requests_per_minute(500) };
    let rig = Rig::start(config(both)).await;
    let answer = rig.post(CHAT, &chat(1)).await;
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "100");
    assert_eq!(answer.header("x-ratelimit-reset-requests"), "14m24s");
}

#[tokio::test]
async fn openai_charges_the_larger_of_prompt_and_cap_and_settles_at_the_end() {
    for (admission, charged) in [(AdmissionRule::Max, 100), (AdmissionRule::Sum, 101)] {
        let limits = config(tokens_per_minute(1_000));
        let rig = Rig::start(Config { admission, ..limits }).await;
        let answer = rig.post(CHAT, &chat(100)).await;
        let remaining = (1_000 - charged).to_string();
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), remaining);
        let total = answer.json()["usage"]["total_tokens"].as_f64().unwrap();
        let limit = figure(&rig, "openai", "tokensPerMinute").await;
        assert_eq!((limit.admitted, limit.settled), (f64::from(charged), total));
        assert_eq!(
            limit.remaining,
            1_000 - answer.json()["usage"]["total_tokens"].as_u64().unwrap()
        );
        assert_eq!(limit.in_flight, 0.0);
    }
}

#[tokio::test]
async fn anthropic_headers_are_dated_and_rounded() {
    let limits = LimitConfig {
        requests_per_minute: Some(60),
        input_tokens_per_minute: Some(30_000),
        output_tokens_per_minute: Some(8_000),
        ..limit()
    };
    let rig = Rig::start(config(limits)).await;
    let answer = rig.post(MESSAGES, &messages(&"x".repeat(40_000))).await;
    for (header, value) in [
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "59"),
        ("anthropic-ratelimit-requests-reset", "2026-11-20T10:00:01Z"),
        ("anthropic-ratelimit-input-tokens-limit", "30000"),
        ("anthropic-ratelimit-input-tokens-remaining", "20000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-20T10:00:20Z"),
        ("anthropic-ratelimit-output-tokens-limit", "8000"),
        ("anthropic-ratelimit-output-tokens-remaining", "8000"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-11-20T10:00:00Z"),
        ("anthropic-ratelimit-tokens-limit", "8000"),
        ("anthropic-ratelimit-tokens-remaining", "8000"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    assert!(answer.header("request-id").starts_with("req_"));
    assert_eq!(answer.header("anthropic-organization-id").len(), 36);
}

#[tokio::test]
async fn anthropic_refuses_in_its_own_words() {
    let limits = LimitConfig { input_tokens_per_minute: Some(30_000), ..limit() };
    let rig = Rig::start(Config { settle: false, ..config(limits) }).await;
    assert_eq!(rig.post(MESSAGES, &messages(&"x".repeat(100_000))).await.status, 200);
    let refused = rig.post(MESSAGES, &messages(&"x".repeat(40_000))).await;
    assert_eq!(refused.status, 429);
    let body = refused.json();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("rate_limit_error"))
    );
    assert_eq!(body["request_id"], refused.header("request-id"));
    let text = message(&refused);
    let organisation = refused.header("anthropic-organization-id");
    let expected = format!(
        "This request would exceed your organization's rate limit of 30,000 input tokens per \
         minute (org: {organisation}, model: claude-sonnet-4-6). For details, refer to: "
    );
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(refused.header("retry-after"), "10");
}

/// `providers.md` 4.1: `max_tokens` does not count; what is produced does, and refuses the next.
#[tokio::test]
async fn anthropic_charges_output_as_it_is_produced() {
    let limits = LimitConfig { output_tokens_per_minute: Some(8), ..limit() };
    let rig = Rig::start(config(limits)).await;
    assert_eq!(rig.post(MESSAGES, &messages("Hi!")).await.status, 200);
    assert_eq!(rig.post(MESSAGES, &messages("Hi!")).await.status, 200);
    let refused = rig.post(MESSAGES, &messages("Hi!")).await;
    assert!(message(&refused).contains("8 output tokens per minute"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), "15");
    let limit = figure(&rig, "anthropic", "outputTokensPerMinute").await;
    assert_eq!((limit.settled, limit.peak_over_admission), (10.0, 2.0));
    rig.advance(15_000).await;
    assert_eq!(rig.post(MESSAGES, &messages("Hi!")).await.status, 200);
}

#[tokio::test]
async fn refused_requests_are_charged_where_the_provider_does() {
    for (provider, path, body, count_rejected, recovers) in [
        ("openai", CHAT, chat(1), None, false),
        ("openai", CHAT, chat(1), Some(false), true),
        ("anthropic", MESSAGES, messages("Hi!"), None, true),
        ("anthropic", MESSAGES, messages("Hi!"), Some(true), false),
    ] {
        let limits = config(requests_per_minute(2));
        let rig = Rig::start(Config { count_rejected, ..limits }).await;
        for status in [200, 200, 429] {
            assert_eq!(rig.post(path, &body).await.status, status);
        }
        rig.advance(20_000).await;
        assert_eq!(rig.post(path, &body).await.status, 429);
        rig.advance(10_000).await;
        let status = rig.post(path, &body).await.status;
        assert_eq!(status == 200, recovers, "{provider} {count_rejected:?}");
    }
}

#[tokio::test]
async fn a_fixed_window_lets_everything_in_again_at_its_edge() {
    let limits = LimitConfig {
        window: Window::FixedWindow,
        window_seconds: 10,
        window_phase_ms: 2_000,
        ..requests_per_minute(12)
    };
    let rig = Rig::start(config(limits)).await;
    for edge_in in ["2s", "10s", "10s"] {
        let first = rig.post(CHAT, &chat(1)).await;
        assert_eq!(first.header("x-ratelimit-limit-requests"), "2", "scaled to the window");
        assert_eq!(first.header("x-ratelimit-reset-requests"), edge_in);
        assert_eq!(rig.post(CHAT, &chat(1)).await.status, 200);
        let refused = rig.post(CHAT, &chat(1)).await;
        assert!(message(&refused).contains(&format!("again in {edge_in}.")));
        let millis = if edge_in == "2s" { 2_000 } else { 10_000 };
        rig.advance(millis - 1).await;
        assert_eq!(rig.post(CHAT, &chat(1)).await.status, 429);
        rig.advance(1).await;
    }
    let limit = figure(&rig, "openai", "requestsPerMinute").await;
    assert_eq!((limit.settled, limit.on_offer, limit.refused), (6.0, 4.4, 6));
}

#[tokio::test]
async fn calls_in_flight_are_limited_until_they_end() {
    let limits = LimitConfig { concurrent_requests: Some(2), ..limit() };
    let mut slow = config(limits);
    slow.latency.tokens_per_second = 1;
    let rig = Rig::start(slow).await;
    let mut streaming = chat(5);
    streaming["stream"] = true.into();
    let headers = [("authorization", "Bearer key")];
    let first = rig.begin(Method::POST, CHAT, &headers, streaming.to_string()).await;
    let _second = rig.begin(Method::POST, CHAT, &headers, streaming.to_string()).await;
    let refused = rig.post(CHAT, &chat(5)).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    assert!(message(&refused).contains("on concurrent requests: Limit 2, Used 2, Requested 1"));
    drop(first);
    let state = rig.state_when(|state| state.in_flight == 1).await;
    assert_eq!((state.peak_in_flight, state.totals[0].left), (2, 1));
    let third = rig.begin(Method::POST, CHAT, &headers, streaming.to_string()).await;
    assert_eq!(third.status(), 200);
}

#[tokio::test]
async fn headers_can_be_withheld() {
    for (headers, limits, retry_after) in
        [(Headers::Full, "1", "30"), (Headers::NoLimits, "", "30"), (Headers::Missing, "", "")]
    {
        let rig = Rig::start(Config { headers, ..config(requests_per_minute(1)) }).await;
        for _ in 0..2 {
            let answer = rig.post(CHAT, &chat(1)).await;
            assert_eq!(answer.header("x-ratelimit-limit-requests"), limits);
        }
        rig.advance(30_000).await;
        let refused = rig.post(CHAT, &chat(1)).await;
        // The refusal before was charged, so half a request is missing again.
        assert_eq!(refused.header("retry-after"), retry_after, "{headers:?}");
    }
}

#[tokio::test]
async fn retry_hints_are_sent_when_asked_for() {
    let limits = config(requests_per_minute(40));
    let rig = Rig::start(Config { retry_hints: true, ..limits }).await;
    for _ in 0..40 {
        rig.post(CHAT, &chat(1)).await;
    }
    let refused = rig.post(CHAT, &chat(1)).await;
    assert_eq!(refused.header("retry-after-ms"), "1500");
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(refused.header("x-should-retry"), "true");
}

#[tokio::test]
async fn keys_of_one_account_share_its_limits_and_others_do_not() {
    let keys = [("a1", "a"), ("a2", "a"), ("b1", "b")];
    let keys = keys.map(|(key, account)| (key.to_owned(), account.to_owned())).into();
    let rig = Rig::start(Config { keys, ..config(requests_per_minute(1)) }).await;
    for (key, status, organisation) in
        [("a1", 200, "org-a"), ("a2", 429, "org-a"), ("b1", 200, "org-b"), ("c1", 401, "")]
    {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let answer = rig.send(Method::POST, CHAT, &headers, chat(1).to_string()).await;
        assert_eq!(answer.status, status, "{key}");
        assert_eq!(answer.header("openai-organization"), organisation);
    }
}
