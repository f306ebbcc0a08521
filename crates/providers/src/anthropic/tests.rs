use super::*;

fn read(operation: Operation, body: &str) -> Call {
    Anthropic.read(operation, body.as_bytes()).unwrap()
}

#[test]
fn paths_are_told_apart() {
    for (method, path, operation) in [
        ("POST", "/v1/messages", Operation::Messages),
        ("POST", "/v1/messages?beta=true", Operation::Messages),
        ("POST", "/v1/messages/count_tokens", Operation::CountTokens),
        ("POST", "/v1/messages/batches", Operation::Other),
        ("GET", "/v1/models", Operation::Models),
        ("GET", "/v1/models/claude-opus-5", Operation::Models),
        ("GET", "/v1/messages", Operation::Other),
        ("POST", "/v1/complete", Operation::Other),
    ] {
        assert_eq!(Anthropic.operation(method, path), operation, "{method} {path}");
    }
}

#[test]
fn a_body_is_read() {
    let body = r#"{"model":"claude-opus-5","max_tokens":9,"stream":true,
        "system":[{"type":"text","text":"ab","cache_control":{"type":"ephemeral"}}],
        "messages":[{"role":"user","content":"cd"},{"role":"assistant","content":[
            {"type":"thinking","thinking":"ef","signature":"AAAA"},
            {"type":"tool_use","id":"toolu_1","name":"g","input":{"q":"hi"}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"jk"},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]}],
        "tools":[{}],"metadata":{"user_id":"u"}}"#;
    let expected = Call {
        model: Some("claude-opus-5".to_owned()),
        stream: true,
        output_cap: Some(9),
        text_bytes: 15,
        attachments: 1,
        ..Call::of(Operation::Messages)
    };
    assert_eq!(read(Operation::Messages, body), expected);
    let counted = Call { operation: Operation::CountTokens, ..expected };
    assert_eq!(read(Operation::CountTokens, body), counted);
    assert_eq!(Anthropic.edits(&counted, body.as_bytes()), None);
    assert_eq!(Anthropic.read(Operation::Other, b"x"), Ok(Call::of(Operation::Other)));
    assert_eq!(Anthropic.read(Operation::Messages, b"{}"), Err(BadBody::NoModel));
}

#[test]
fn output_is_reserved_as_expected_and_not_as_declared() {
    let call = Call { output_cap: Some(128_000), ..Call::of(Operation::Messages) };
    let estimate = Estimate { input: Tokens(100), output: Tokens(300) };
    let charge = Anthropic.reserve(&call, estimate);
    let tokens = (charge.input, charge.output, charge.total);
    assert_eq!(tokens, (Tokens(100), Tokens(300), Tokens(400)));
    assert_eq!((charge.requests, charge.slots), (Requests(1), Slots(1)));
    let count = Anthropic.reserve(&Call::of(Operation::CountTokens), estimate);
    assert_eq!((count.requests, count.total), (Requests(0), Tokens(0)));
}

const USAGE: &str = r#"{"usage":{"input_tokens":10,"cache_creation_input_tokens":30,
    "cache_read_input_tokens":500,"cache_creation":{"ephemeral_5m_input_tokens":20,
    "ephemeral_1h_input_tokens":10},"output_tokens":50,"output_tokens_details":{"thinking_tokens":40},
    "service_tier":"standard"}}"#;

#[test]
fn usage_becomes_disjoint_parts() {
    let expected = Usage {
        input_uncached: Tokens(10),
        cache_read: Tokens(500),
        cache_write_5m: Tokens(20),
        cache_write_1h: Tokens(10),
        output_visible: Tokens(10),
        output_reasoning: Tokens(40),
        ..Usage::request()
    };
    assert_eq!(body_usage(USAGE.as_bytes()), Some(expected));
    assert_eq!((expected.input(), expected.output()), (Tokens(540), Tokens(50)));
    assert_eq!(body_usage(b"{}"), None);
}

#[test]
fn cache_reads_are_free_but_for_one_model() {
    let usage = body_usage(USAGE.as_bytes()).unwrap();
    for (model, input) in [("claude-opus-5", 40), ("claude-3-5-haiku-20241022", 540)] {
        let call = Call { model: Some(model.to_owned()), ..Call::of(Operation::Messages) };
        let charge = Anthropic.settle(&call, &usage);
        let tokens = (charge.input, charge.output, charge.total);
        assert_eq!(tokens, (Tokens(input), Tokens(50), Tokens(input + 50)), "{model}");
        assert_eq!((charge.requests, charge.slots), (Requests(1), Slots(0)));
    }
}

#[test]
fn resets_are_taken_relative_to_the_providers_own_time() {
    let mut headers = vec![
        ("Anthropic-Ratelimit-Requests-Limit", "1000"),
        ("anthropic-ratelimit-requests-remaining", "999"),
        ("anthropic-ratelimit-requests-reset", "2026-11-20T10:00:01Z"),
        ("anthropic-ratelimit-input-tokens-limit", "30000"),
        ("anthropic-ratelimit-input-tokens-remaining", "27000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-20T10:00:06Z"),
        ("anthropic-ratelimit-output-tokens-limit", "8000"),
        ("anthropic-ratelimit-output-tokens-remaining", "8000"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-11-20T09:59:59Z"),
        ("anthropic-ratelimit-tokens-limit", "38000"),
        ("anthropic-ratelimit-tokens-remaining", "35000"),
        ("anthropic-ratelimit-unified-status", "allowed"),
    ];
    let seen = |headers: &[(&'static str, &'static str)]| {
        Anthropic.limits_seen(&headers.iter().copied().collect())
    };
    let limit = |dimension, limit, remaining, reset: Option<u64>| {
        let reset_grain = Duration::from_secs(u64::from(reset.is_some()));
        let reset = reset.map(Duration::from_secs);
        LimitSeen { dimension, limit, remaining, reset, reset_grain }
    };
    let without_date = seen(&headers);
    assert!(without_date.len() == 4 && without_date.iter().all(|seen| seen.reset.is_none()));
    headers.push(("date", "Fri, 20 Nov 2026 10:00:00 GMT"));
    let expected = [
        limit(Dimension::RequestsPerMinute, 1_000, 999, Some(1)),
        limit(Dimension::InputTokensPerMinute, 30_000, 27_000, Some(6)),
        limit(Dimension::OutputTokensPerMinute, 8_000, 8_000, Some(0)),
        limit(Dimension::TokensPerMinute, 38_000, 35_000, None),
    ];
    assert_eq!(seen(&headers), expected);
}

fn error(kind: &str, message: &str, code: Option<&str>) -> String {
    let details = serde_json::json!({ "error_code": code });
    serde_json::json!({"type": "error", "error": {"type": kind, "message": message,
        "details": details}, "request_id": "req_1"})
    .to_string()
}

#[test]
fn errors_have_their_classes() {
    let after = Some(Duration::from_secs(7));
    let retry = Failure::Retry { after, ramp: false, told: None };
    let exhausted = Failure::BudgetExhausted { until: None };
    let too_large = Failure::TooLarge { told: None };
    for (status, retry_after, body, expected) in [
        (429, Some("7"), error("rate_limit_error", "Number of request tokens", None), retry),
        (
            429,
            Some("7"),
            error("rate_limit_error", "", Some("ramp_limit_exceeded")),
            Failure::Retry { after, ramp: true, told: None },
        ),
        (429, None, error("rate_limit_error", "", None), exhausted),
        (
            429,
            Some("7"),
            error("rate_limit_error", "", Some("enforced_spend_limit_reached")),
            exhausted,
        ),
        (402, None, error("billing_error", "", None), exhausted),
        (
            400,
            None,
            error("invalid_request_error", "Your credit balance is too low", None),
            exhausted,
        ),
        (413, None, error("request_too_large", "", None), too_large),
        (
            400,
            None,
            error(
                "invalid_request_error",
                "prompt is too long: 213462 tokens > 200000 maximum",
                None,
            ),
            too_large,
        ),
        (
            529,
            None,
            error("overloaded_error", "Overloaded", None),
            Failure::Capacity { after: None },
        ),
        (503, None, String::new(), Failure::Capacity { after: None }),
        (401, None, error("authentication_error", "", None), Failure::Auth),
        (403, None, error("permission_error", "", None), Failure::Auth),
        (
            400,
            None,
            error("invalid_request_error", "messages: required", None),
            Failure::BadRequest,
        ),
        (404, None, error("not_found_error", "", None), Failure::BadRequest),
        (500, None, error("api_error", "", None), Failure::Server),
        (504, None, error("timeout_error", "", None), Failure::Server),
        (302, None, String::new(), Failure::Unknown),
    ] {
        let headers: Headers<'_> = retry_after.map(|s| ("retry-after", s)).into_iter().collect();
        let failure = Anthropic.classify(status, &headers, body.as_bytes());
        assert_eq!(failure, expected, "{status} {body}");
    }
}

#[test]
fn a_spending_cap_tells_the_day_on_which_it_ends() {
    let message = "You have reached your specified API usage limits. You will regain access on \
        2026-12-01 at 00:00 UTC.";
    let body = error("invalid_request_error", message, None);
    let dated: Headers<'_> = [("date", "Mon, 30 Nov 2026 22:00:00 GMT")].into_iter().collect();
    for (headers, until) in [(dated, Some(Duration::from_secs(7_200))), (Headers::default(), None)]
    {
        let failure = Anthropic.classify(400, &headers, body.as_bytes());
        assert_eq!(failure, Failure::BudgetExhausted { until });
    }
}

#[test]
fn a_limits_own_words_are_kept() {
    let message = "This request would exceed your organization's rate limit of 30,000 input tokens \
        per minute (org: x, model: claude-sonnet-4-6).";
    let headers: Headers<'_> = [("retry-after", "3")].into_iter().collect();
    let failure =
        Anthropic.classify(429, &headers, error("rate_limit_error", message, None).as_bytes());
    assert!(matches!(failure, Failure::Retry { told: Some(told), .. } if told.limit == 30_000));
}

#[test]
fn a_key_goes_where_its_kind_belongs() {
    for (key, header, value) in [
        ("sk-ant-api03-x", "x-api-key", "sk-ant-api03-x"),
        ("sk-ant-oat01-x", "authorization", "Bearer sk-ant-oat01-x"),
    ] {
        let auth = Anthropic.auth(&Secret::new(key));
        assert_eq!((auth.header, auth.value.expose()), (header, value));
        assert_eq!(auth.remove, ["authorization", "x-api-key"]);
    }
}
