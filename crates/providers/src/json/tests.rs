use super::*;

const MEMBERS: Members = &[
    ("model", Member::Model),
    ("stream", Member::Stream),
    ("stream_options", Member::StreamOptions),
    ("max_tokens", Member::OutputCap),
    ("max_completion_tokens", Member::OutputCap),
    ("n", Member::Choices),
    ("messages", Member::Text),
    ("input", Member::Inputs),
    ("tools", Member::Schema),
    ("conversation", Member::Stored),
];

fn chat(body: &str) -> Result<Call, BadBody> {
    read(Operation::Chat, MEMBERS, body.as_bytes())
}

fn call(model: &str) -> Call {
    Call { model: Some(model.to_owned()), ..Call::of(Operation::Chat) }
}

#[test]
fn what_is_acted_on_is_read_and_the_rest_is_skipped() {
    let body = r#" {"n": 2, "user": {"stream": true}, "max_tokens": 10, "max_completion_tokens": 20,
        "messages": [{"role": "user", "content": "hello"}], "tools": [{"a": 1}], "stream": true,
        "stream_options": {"include_usage": true}, "conversation": "c", "model": "gpt-4o"} "#;
    let read = chat(body).unwrap();
    let at = read.stream_options.clone().unwrap();
    assert_eq!(&body[at.clone()], r#"{"include_usage": true}"#);
    let expected = Call {
        stream: true,
        wants_usage: true,
        output_cap: Some(20),
        choices: 2,
        text_bytes: 15,
        stored_context: true,
        stream_options: Some(at),
        ..call("gpt-4o")
    };
    assert_eq!(read, expected);
}

#[test]
fn null_is_the_same_as_absent() {
    let body = r#"{"model":"m","stream":null,"max_tokens":null,"n":null,"messages":null,"input":null,
        "tools":null,"conversation":null}"#;
    assert_eq!(chat(body), Ok(call("m")));
}

#[test]
fn numbers_are_read_in_any_spelling() {
    for (number, cap) in [("7", 7), ("7.0", 7), ("6.5", 7), ("-1", 0), ("1e30", u64::MAX)] {
        let read = chat(&format!(r#"{{"model":"m","max_tokens":{number}}}"#)).unwrap();
        assert_eq!(read.output_cap, Some(cap), "{number}");
    }
}

#[test]
fn inputs_are_counted_whether_text_or_tokens() {
    for (input, count, bytes) in [
        (r#""abc""#, 1, 3),
        (r#"["abc","de"]"#, 2, 5),
        ("[1,2,3]", 1, 12),
        ("[[1,2,3],[4]]", 2, 16),
        ("[]", 0, 0),
        ("null", 0, 0),
    ] {
        let read = chat(&format!(r#"{{"model":"m","input":{input}}}"#)).unwrap();
        assert_eq!((read.inputs, read.text_bytes), (count, bytes), "{input}");
    }
}

#[test]
fn a_bad_body_is_told_what_is_wrong_and_where_without_its_text() {
    let deep = format!(r#"{{"model":"m","messages":{}"#, "[".repeat(200));
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    for (body, words) in [
        ("", "the body is not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("{\"model\":\n x}", "the body is not valid JSON: expected value at line 2 column 2"),
        (
            r#"{"model":"m"} x"#,
            "the body is not valid JSON: trailing characters at line 1 column 15",
        ),
        (
            deep.as_str(),
            "the body is not valid JSON: recursion limit exceeded at line 1 column 151",
        ),
        (r#""secret""#, "the body is not a JSON object"),
        ("[]", "the body is not a JSON object"),
        ("{}", "the body has no `model`"),
        (r#"{"model":null}"#, "the body has no `model`"),
        (r#"{"model":["secret"]}"#, "`model` has a value of the wrong type (line 1, column 9)"),
        (
            r#"{"model":"m","max_tokens":"secret"}"#,
            "`max_tokens` has a value of the wrong type (line 1, column 34)",
        ),
        (r#"{"stream":"secret"}"#, "`stream` has a value of the wrong type (line 1, column 18)"),
        (
            r#"{"stream_options":["secret"]}"#,
            "`stream_options` has a value of the wrong type (line 1, column 29)",
        ),
        (
            r#"{"model":"m","model":"secret"}"#,
            "`model` stands twice in the body (line 1, column 20)",
        ),
        (long.as_str(), "`model` is longer than 256 bytes"),
    ] {
        let message = chat(body).unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(message, words);
    }
}

#[test]
fn depth_in_what_is_skipped_is_no_error() {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"metadata":{open}{close},"model":"m"}}"#);
    assert_eq!(chat(&body), Ok(call("m")));
}

#[test]
fn a_response_needs_no_model() {
    assert_eq!(read(Operation::Responses, MEMBERS, b"{}").map(|call| call.model), Ok(None));
}
