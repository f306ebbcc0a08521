use quota::dimension::Protocol;
use serde_json::Value;

use super::*;
use crate::adapter;

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Busy { wait: Duration::from_millis(1_234) },
        Refusal::Busy { wait: Duration::from_secs(31) },
        Refusal::Exhausted { what: "openai/gpt/tokensPerDay".into() },
        Refusal::TooLarge { what: "gpt/tokensPerMinute".into(), requested: 40, largest: 30 },
        Refusal::NotPermitted { what: "create an LLMQuota".into() },
        Refusal::UnknownProvider { name: "opnai".into() },
        Refusal::BadRequest { message: "the body has no `model`".into() },
        Refusal::BodyTooLarge { limit: 32 },
        Refusal::Unavailable { reason: "no allocator has answered".into() },
        Refusal::UpstreamFailed { reason: "connection refused".into() },
        Refusal::UpstreamTimeout { after: Duration::from_secs(600) },
    ]
}

/// The answers of all providers to all refusals, and the neutral one.
fn answers() -> Vec<(Refusal, Answer)> {
    refusals()
        .into_iter()
        .flat_map(|refusal| {
            [
                adapter(Protocol::OpenAi).refuse(&refusal),
                adapter(Protocol::Anthropic).refuse(&refusal),
                refusal.neutral(),
            ]
            .map(|answer| (refusal.clone(), answer))
        })
        .collect()
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_short_wait_is_told_in_every_form_that_an_sdk_reads() {
    for (wait, millis, seconds, words) in [
        (Duration::ZERO, "1", "1", "Please try again in 0.1s."),
        (Duration::from_nanos(1_000_001), "2", "1", "Please try again in 0.1s."),
        (Duration::from_millis(1_234), "1234", "2", "Please try again in 1.3s."),
        (Duration::from_secs(30), "30000", "30", "Please try again in 30.0s."),
    ] {
        let answer = adapter(Protocol::OpenAi).refuse(&Refusal::Busy { wait });
        assert_eq!(answer.status, 429);
        assert_eq!(header(&answer, "retry-after-ms"), Some(millis));
        assert_eq!(header(&answer, "retry-after"), Some(seconds));
        assert_eq!(header(&answer, "x-should-retry"), Some("true"));
        assert!(answer.body.contains(words), "{}", answer.body);
    }
}

#[test]
fn a_hard_stop_has_no_wait_in_it() {
    for (refusal, answer) in answers() {
        if refusal.hint() == Hint::Never {
            assert_eq!(header(&answer, "x-should-retry"), Some("false"), "{refusal:?}");
            assert_eq!(header(&answer, "retry-after"), None);
            assert_eq!(header(&answer, "retry-after-ms"), None);
            assert!(!answer.body.contains("again in") && !answer.body.contains("retry after"));
        }
    }
    let stops = refusals().iter().filter(|refusal| refusal.hint() == Hint::Never).count();
    assert_eq!(stops, 7);
}

#[test]
fn what_may_be_retried_has_no_word_at_which_a_client_gives_up() {
    for (refusal, answer) in answers() {
        if refusal.hint() != Hint::Never {
            let body = answer.body.to_lowercase();
            for word in ["billing", "credit balance", "quota", "will reset at", "insufficient"] {
                assert!(!body.contains(word), "{refusal:?} says `{word}`: {body}");
            }
        }
    }
}

#[test]
fn every_answer_is_json_and_says_that_it_is_ours() {
    for (refusal, answer) in answers() {
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        assert_eq!(header(&answer, "x-weir-decision"), Some("denied"));
        assert_eq!(header(&answer, "x-weir-reason"), Some(refusal.name()));
        assert_eq!(answer.status, refusal.status());
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"]["message"], Value::String(refusal.message()));
        assert!(body["error"]["type"].is_string());
    }
}

#[test]
fn each_provider_gives_its_own_shape() {
    for (protocol, refusal, body) in [
        (
            Protocol::OpenAi,
            Refusal::Exhausted { what: "w".into() },
            r#"{"error":{"message":"Weir: quota exhausted: w.","type":"insufficient_quota","param":null,"code":"project_spend_limit_exceeded"}}"#,
        ),
        (
            Protocol::Anthropic,
            Refusal::Exhausted { what: "w".into() },
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"Weir: quota exhausted: w.","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
        ),
        (
            Protocol::OpenAiCompatible,
            Refusal::BadRequest { message: "no".into() },
            r#"{"error":{"message":"Weir: no.","type":"invalid_request_error","param":null,"code":null}}"#,
        ),
        (
            Protocol::Anthropic,
            Refusal::Unavailable { reason: "r".into() },
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Weir: cannot decide now: r. Please try again in 1s."}}"#,
        ),
    ] {
        assert_eq!(adapter(protocol).refuse(&refusal).body, body);
    }
}
