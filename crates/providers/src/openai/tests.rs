use quota::units::MicroUsd;

use super::*;

fn read(operation: Operation, body: &str) -> Call {
    OpenAi.read(operation, body.as_bytes()).unwrap()
}

fn estimate(input: u64, output: u64) -> Estimate {
    Estimate { input: Tokens(input), output: Tokens(output) }
}

#[test]
fn paths_are_told_apart_with_any_prefix() {
    for (method, path, operation) in [
        ("POST", "/v1/chat/completions", Operation::Chat),
        ("POST", "/chat/completions?api-version=1", Operation::Chat),
        ("POST", "/openai/v1/chat/completions/", Operation::Chat),
        ("GET", "/v1/chat/completions", Operation::Other),
        ("POST", "/v1/completions", Operation::Completions),
        ("POST", "/v1/responses", Operation::Responses),
        ("POST", "/v1/responses/input_tokens", Operation::CountTokens),
        ("POST", "/v1/responses/resp_1/cancel", Operation::Other),
        ("GET", "/v1/responses/resp_1", Operation::Other),
        ("POST", "/v1/embeddings", Operation::Embeddings),
        ("GET", "/v1/models", Operation::Models),
        ("GET", "/v1/models/gpt-4o", Operation::Models),
        ("DELETE", "/v1/models/ft:x", Operation::Other),
        ("POST", "/v1/audio/speech", Operation::Other),
        ("POST", "/v1/files", Operation::Other),
        ("POST", "", Operation::Other),
    ] {
        assert_eq!(OpenAi.operation(method, path), operation, "{method} {path}");
    }
}

#[test]
fn each_body_is_read_by_its_own_names() {
    for (operation, body, expected) in [
        (
            Operation::Chat,
            r#"{"model":"gpt-4o","messages":[{"role":"system","content":"ab"},{"role":"user",
            "content":[{"type":"text","text":"cde"},{"type":"image_url","image_url":
            {"url":"data:image/png;base64,AAAA","detail":"high"}}]}],"max_completion_tokens":9,"n":2,
            "tools":[{"type":"function"}],"temperature":0.5}"#,
            Call {
                output_cap: Some(9),
                choices: 2,
                text_bytes: 26,
                attachments: 1,
                ..Call::default()
            },
        ),
        (
            Operation::Completions,
            r#"{"model":"gpt-4o","prompt":["ab","cd"],"max_tokens":9,"n":2,"best_of":3}"#,
            Call { output_cap: Some(9), choices: 6, text_bytes: 4, inputs: 2, ..Call::default() },
        ),
        (
            Operation::Responses,
            r#"{"model":"gpt-4o","instructions":"ab","input":[{"role":"user","content":
            [{"type":"input_text","text":"cd"}]},{"type":"function_call_output","call_id":"x",
            "output":"ef"},{"type":"reasoning","encrypted_content":"AAAA","summary":[]}],
            "max_output_tokens":9,"stream":true,"previous_response_id":"resp_1"}"#,
            Call {
                stream: true,
                output_cap: Some(9),
                text_bytes: 6,
                stored_context: true,
                choices: 1,
                ..Call::default()
            },
        ),
        (
            Operation::Embeddings,
            r#"{"input":["ab","cd"],"model":"gpt-4o","encoding_format":"base64"}"#,
            Call { text_bytes: 4, inputs: 2, choices: 1, ..Call::default() },
        ),
    ] {
        let expected = Call { operation, model: Some("gpt-4o".to_owned()), ..expected };
        assert_eq!(read(operation, body), expected);
    }
}

#[test]
fn what_runs_no_model_is_not_read() {
    for operation in [Operation::Models, Operation::Other] {
        assert_eq!(OpenAi.read(operation, b"not JSON"), Ok(Call::of(operation)));
    }
}

#[test]
fn a_stream_is_asked_for_usage_unless_the_application_did() {
    let included = r#""stream_options":{"include_usage":true}"#;
    for (before, after) in [
        (r#"{"model":"m","stream":true}"#, format!(r#"{{{included},"model":"m","stream":true}}"#)),
        (
            r#" { "stream":true,"model":"m"}"#,
            format!(r#" {{{included}, "stream":true,"model":"m"}}"#),
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":null,"x":1}"#,
            format!(r#"{{"model":"m","stream":true,{included},"x":1}}"#),
        ),
        (
            r#"{"model":"m","stream_options":{ },"stream":true}"#,
            format!(r#"{{"model":"m",{included},"stream":true}}"#),
        ),
        (
            r#"{"model":"m","stream_options":{"include_usage": false},"stream":true}"#,
            format!(r#"{{"model":"m",{included},"stream":true}}"#),
        ),
        (
            r#"{"model":"m","stream_options": {"include_obfuscation":false} ,"stream":true}"#,
            r#"{"model":"m","stream_options": {"include_obfuscation":false,"include_usage":true} ,"stream":true}"#.to_owned(),
        ),
    ] {
        for operation in [Operation::Chat, Operation::Completions] {
            let splice = OpenAi.edits(&read(operation, before), before.as_bytes()).unwrap();
            assert_eq!(splice.new_len(before.len()), after.len());
            let changed = splice.apply(&before.to_owned().into()).concat();
            assert_eq!(String::from_utf8(changed).unwrap(), after);
            assert!(read(operation, &after).wants_usage);
        }
    }
}

#[test]
fn other_bodies_go_upstream_as_they_came() {
    for (operation, body) in [
        (Operation::Chat, r#"{"model":"m"}"#),
        (Operation::Chat, r#"{"model":"m","stream":false,"stream_options":{}}"#),
        (Operation::Chat, r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
        (Operation::Responses, r#"{"model":"m","stream":true}"#),
    ] {
        assert_eq!(OpenAi.edits(&read(operation, body), body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_reservation_is_never_below_what_openai_charges() {
    for (cap, choices, total) in [
        (None, 1, 1_300),
        (Some(50), 1, 1_050),
        (Some(4_000), 1, 5_000),
        (Some(4_000), 2, 10_000),
        (Some(10), 4, 4_040),
    ] {
        let call = Call { output_cap: cap, choices, ..Call::of(Operation::Chat) };
        let charge = OpenAi.reserve(&call, estimate(1_000, 300));
        assert_eq!(charge.total, Tokens(total), "{cap:?} x {choices}");
        let documented = 1_000.max(cap.unwrap_or(0)) * choices;
        let sum = (1_000 + cap.unwrap_or(0)) * choices;
        assert!(total >= documented && total >= sum);
        assert_eq!(
            (charge.requests, charge.slots, charge.input),
            (Requests(1), Slots(1), Tokens(1_000))
        );
    }
}

#[test]
fn what_runs_no_model_takes_no_tokens() {
    for (operation, requests) in
        [(Operation::Other, 1), (Operation::Models, 1), (Operation::CountTokens, 0)]
    {
        let charge = OpenAi.reserve(&Call::of(operation), estimate(9, 9));
        let expected =
            Charge { requests: Requests(requests), slots: Slots(1), ..Charge::default() };
        assert_eq!(charge, expected);
        let settled = OpenAi.settle(&Call::of(operation), &Usage::request());
        assert_eq!(settled, Charge { slots: Slots(0), ..expected });
    }
    let embeddings = Call { output_cap: Some(9), ..Call::of(Operation::Embeddings) };
    let charge = OpenAi.reserve(&embeddings, estimate(9, 0));
    assert_eq!((charge.input, charge.output, charge.total), (Tokens(9), Tokens(0), Tokens(9)));
}

#[test]
fn cached_tokens_count_in_full_at_the_end() {
    let usage = body_usage(CHAT_USAGE.as_bytes()).unwrap();
    let expected = Charge {
        requests: Requests(1),
        input: Tokens(100),
        output: Tokens(50),
        total: Tokens(150),
        slots: Slots(0),
        cost: MicroUsd(0),
    };
    assert_eq!(OpenAi.settle(&Call::of(Operation::Chat), &usage), expected);
    let released = OpenAi.settle(&Call::of(Operation::Chat), &Usage::default());
    assert_eq!(released, Charge::default());
}

const CHAT_USAGE: &str = r#"{"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
    "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0,"cache_write_tokens":16},
    "completion_tokens_details":{"reasoning_tokens":30}}}"#;

#[test]
fn every_form_of_usage_becomes_the_same_record() {
    let full = Usage {
        input_uncached: Tokens(20),
        cache_read: Tokens(64),
        cache_write_5m: Tokens(16),
        output_visible: Tokens(20),
        output_reasoning: Tokens(30),
        ..Usage::request()
    };
    let plain = Usage { input_uncached: Tokens(9), ..Usage::request() };
    for (body, expected) in [
        (CHAT_USAGE, Some(full)),
        (
            r#"{"usage":{"input_tokens":100,"output_tokens":50,"total_tokens":150,
            "input_tokens_details":{"cached_tokens":64,"cache_write_tokens":16},
            "output_tokens_details":{"reasoning_tokens":30}}}"#,
            Some(full),
        ),
        (r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#, Some(plain)),
        (
            r#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":null,"completion_tokens":null}}"#,
            Some(plain),
        ),
        // More cached than there were is not believed.
        (
            r#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":10}}}"#,
            Some(Usage { cache_read: Tokens(9), ..Usage::request() }),
        ),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":{}}"#, None),
        (r#"{"usage":[]}"#, None),
        ("{}", None),
        ("", None),
    ] {
        assert_eq!(body_usage(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn rate_limit_headers_tell_figure_rest_and_window() {
    use Dimension::{RequestsPerDay, RequestsPerMinute, TokensPerMinute};
    for (kind, limit, remaining, reset, dimension, millis) in [
        ("requests", "500", "499", "120ms", RequestsPerMinute, 120),
        ("requests", "10000", "9999", "8.64s", RequestsPerDay, 8_640),
        ("requests", "10000", "9481", "3.114s", RequestsPerMinute, 3_114),
        ("requests", "500", "500", "0s", RequestsPerMinute, 0),
        ("tokens", "30000", "29996", "8ms", TokensPerMinute, 8),
        ("tokens", "20000", "15482", "13.554s", TokensPerMinute, 13_554),
        ("tokens", "150000", "0", "6m0s", TokensPerMinute, 360_000),
        ("project-tokens", "200000", "199978", "6ms", TokensPerMinute, 6),
        // Azure and others write plain seconds.
        ("tokens", "1000", "0", "60", TokensPerMinute, 60_000),
    ] {
        let names =
            ["limit", "remaining", "reset"].map(|part| format!("X-RateLimit-{part}-{kind}"));
        let headers: Headers<'_> =
            names.iter().map(String::as_str).zip([limit, remaining, reset]).collect();
        let expected = LimitSeen {
            dimension,
            limit: limit.parse().unwrap(),
            remaining: remaining.parse().unwrap(),
            reset: Some(Duration::from_millis(millis)),
            reset_grain: Duration::ZERO,
        };
        assert_eq!(OpenAi.limits_seen(&headers), [expected], "{kind} {reset}");
    }
    let junk = [("x-ratelimit-limit-tokens", "many"), ("x-ratelimit-remaining-tokens", "-1")];
    assert_eq!(OpenAi.limits_seen(&junk.into_iter().collect()), []);
}

fn error(kind: &str, code: &str, message: &str) -> String {
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        .to_string()
}

fn classified(status: u16, retry_after: Option<&'static str>, body: &str) -> Failure {
    let headers: Headers<'_> =
        retry_after.map(|value| ("retry-after", value)).into_iter().collect();
    OpenAi.classify(status, &headers, body.as_bytes())
}

#[test]
fn a_limit_that_comes_back_may_be_retried() {
    let seconds = |s: f64| Some(Duration::from_secs_f64(s));
    let tokens = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit \
        30000, Used 14567, Requested 24754. Please try again in 18.642s. Visit https://x.";
    let Failure::Retry { after, ramp: false, told: Some(told) } =
        classified(429, Some("1"), &error("tokens", "rate_limit_exceeded", tokens))
    else {
        panic!("a limit per minute may be retried")
    };
    assert_eq!(after, seconds(18.642));
    assert_eq!((told.limit, told.used, told.requested), (30_000, Some(14_567), Some(24_754)));

    let retry = |after, ramp| Failure::Retry { after, ramp, told: None };
    for (retry_after, body, expected) in [
        (Some("7"), error("rate_limit_error", "slow_down", "Slow down"), retry(seconds(7.0), true)),
        (
            Some("2"),
            r#"{"message":"API rate limit exceeded"}"#.to_owned(),
            retry(seconds(2.0), false),
        ),
        (None, String::new(), retry(None, false)),
        (None, "<html>Too many requests".to_owned(), retry(None, false)),
        (None, error("", "429", "Try again in 2 seconds."), retry(seconds(2.0), false)),
    ] {
        assert_eq!(classified(429, retry_after, &body), expected, "{body}");
    }
}

#[test]
fn what_does_not_come_back_is_not_retried() {
    for code in EXHAUSTED {
        for (kind, code) in [("insufficient_quota", code), (code, "")] {
            let failure = classified(429, Some("1"), &error(kind, code, "You exceeded your quota"));
            assert_eq!(failure, Failure::BudgetExhausted { until: None }, "{kind} {code}");
        }
    }
    let daily = "Rate limit reached for gpt-4o in organization org-x on requests per day (RPD): Limit \
        200, Used 200, Requested 1. Please try again in 7m12s.";
    let until = Some(Duration::from_secs(432));
    let failure = classified(429, None, &error("requests", "rate_limit_exceeded", daily));
    assert_eq!(failure, Failure::BudgetExhausted { until });

    let large = "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit \
        30000, Requested 40000. The input or output tokens must be reduced.";
    let failure = classified(429, None, &error("tokens", "rate_limit_exceeded", large));
    assert!(matches!(failure, Failure::TooLarge { told: Some(told) } if told.limit == 30_000));
}

#[test]
fn every_other_status_has_its_class() {
    let capacity = Failure::Capacity { after: None };
    let exhausted = Failure::BudgetExhausted { until: None };
    for (status, body, expected) in [
        (429, error("", "resource_unavailable", "Resource Unavailable"), capacity),
        (429, error("", "429", "System is experiencing high demand"), capacity),
        (503, error("service_unavailable_error", "server_is_overloaded", ""), capacity),
        (498, String::new(), capacity),
        (500, error("server_error", "", ""), Failure::Server),
        (502, "<html>".to_owned(), Failure::Server),
        (408, String::new(), Failure::Server),
        (401, error("invalid_request_error", "invalid_api_key", ""), Failure::Auth),
        (403, String::new(), Failure::Auth),
        (402, String::new(), exhausted),
        (413, String::new(), Failure::TooLarge { told: None }),
        (
            400,
            error("invalid_request_error", "context_length_exceeded", ""),
            Failure::TooLarge { told: None },
        ),
        (
            400,
            error("invalid_request_error", "max_tokens_per_request", ""),
            Failure::TooLarge { told: None },
        ),
        (
            400,
            r#"{"error":{"message":"x","type":"BadRequestError","code":400}}"#.to_owned(),
            Failure::BadRequest,
        ),
        (404, error("invalid_request_error", "model_not_found", ""), Failure::BadRequest),
        (302, String::new(), Failure::Unknown),
    ] {
        assert_eq!(classified(status, None, &body), expected, "{status} {body}");
    }
}

#[test]
fn one_credential_replaces_all_of_the_applications() {
    let auth = OpenAi.auth(&Secret::new("sk-1"));
    assert_eq!((auth.header, auth.value.expose()), ("authorization", "Bearer sk-1"));
    assert!(auth.remove.contains(&"authorization") && auth.remove.contains(&"api-key"));
    assert!(!format!("{auth:?}").contains("sk-1"));
}
