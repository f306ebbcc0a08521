use proptest::prelude::*;
use quota::dimension::Protocol;
use quota::units::Tokens;

use super::*;
use crate::adapter;
use crate::operation::Operation;

const EVENTS: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

/// What a chat completion streams, with the chunk that only tells usage in its place.
const CHAT: [&str; 6] = [
    "data: {\"id\":\"c\",\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null,\"obfuscation\":\"aZ3\"}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello, \"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]}}],\"usage\":null}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n",
    "data: [DONE]\n\n",
];

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null,\"error\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello\",\"logprobs\":[]}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{}],\"usage\":{\"input_tokens\":9,\"output_tokens\":12}}}\n\n",
);

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello, \"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"world\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":12}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

fn call(operation: Operation, wants_usage: bool) -> Call {
    Call { stream: true, wants_usage, ..Call::of(operation) }
}

fn protocol(call: &Call) -> Protocol {
    if call.operation == Operation::Messages { Protocol::Anthropic } else { Protocol::OpenAi }
}

fn meter(call: &Call, status: u16, media: &str) -> Meter {
    let headers: Headers<'_> = [("content-type", media)].into_iter().collect();
    let estimate = Estimate { input: Tokens(100), output: Tokens(300) };
    adapter(protocol(call)).meter(call, estimate, ResponseHead { status, headers: &headers })
}

fn run<'a>(
    mut meter: Meter,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    end: End,
) -> (Vec<u8>, Metered) {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(meter.push(Bytes::copy_from_slice(chunk)).flatten());
    }
    if end == End::Complete {
        out.extend(meter.flush().flatten());
    }
    (out, meter.finish(end))
}

fn used(input: u64, output: u64) -> Usage {
    Usage { input_uncached: Tokens(input), output_visible: Tokens(output), ..Usage::request() }
}

/// Runs a whole stream in one piece, in two at every place, and byte by byte.
fn at_every_split(call: &Call, stream: &str, forwarded: &str, usage: Usage) {
    let bytes = stream.as_bytes();
    let check = |chunks: Vec<&[u8]>, what: &str| {
        let (out, metered) = run(meter(call, 200, EVENTS), chunks, End::Complete);
        assert_eq!(String::from_utf8(out).unwrap(), forwarded, "{what}");
        assert_eq!((metered.usage, metered.exact), (usage, true), "{what}");
    };
    check(vec![bytes], "in one piece");
    check(bytes.chunks(1).collect(), "byte by byte");
    for at in 1..bytes.len() {
        check(vec![&bytes[..at], &bytes[at..]], &format!("split at {at}"));
    }
}

fn chat_without_usage() -> String {
    [&CHAT[..4], &CHAT[5..]].concat().concat()
}

#[test]
fn only_the_usage_chunk_that_nobody_asked_for_is_left_out() {
    let call = call(Operation::Chat, false);
    for newline in ["\n", "\r\n", "\r"] {
        let stream = CHAT.concat().replace('\n', newline);
        let without = chat_without_usage().replace('\n', newline);
        at_every_split(&call, &stream, &without, used(9, 12));
    }
}

#[test]
fn what_the_application_asked_for_stays() {
    let stream = CHAT.concat();
    at_every_split(&call(Operation::Chat, true), &stream, &stream, used(9, 12));
    at_every_split(&call(Operation::Responses, false), RESPONSES, RESPONSES, used(9, 12));
    let usage = Usage { cache_read: Tokens(5), ..used(9, 12) };
    at_every_split(&call(Operation::Messages, false), MESSAGES, MESSAGES, usage);
}

#[test]
fn a_byte_order_mark_comments_and_data_of_many_lines_do_not_disturb() {
    let many_lines = "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":9,\n\
                      data:\"completion_tokens\":12}}\n\n";
    let stream = format!("\u{feff}: hi\n\n{}{many_lines}{}", CHAT[2], CHAT[5]);
    let without = stream.replace(many_lines, "");
    at_every_split(&call(Operation::Chat, false), &stream, &without, used(9, 12));
}

#[test]
fn a_chunk_with_a_choice_stays_even_if_it_tells_usage() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n";
    at_every_split(&call(Operation::Chat, false), chunk, chunk, used(9, 1));
    // If it breaks off, the last figure may not be the last word.
    let (_, metered) =
        run(meter(&call(Operation::Chat, false), 200, EVENTS), [chunk.as_bytes()], End::Cut);
    assert_eq!((metered.usage, metered.exact), (used(9, 1), false));
}

#[test]
fn a_last_event_without_its_empty_line_is_read_too() {
    for (last, forwarded) in [(CHAT[4].trim_end(), ""), ("data: [DONE]", "data: [DONE]")] {
        let stream = format!("{}{last}", CHAT[2]);
        let chunks = [stream.as_bytes()];
        let (out, metered) =
            run(meter(&call(Operation::Chat, false), 200, EVENTS), chunks, End::Complete);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{}{forwarded}", CHAT[2]));
        assert_eq!(metered.exact, forwarded.is_empty());
    }
}

#[test]
fn nothing_but_an_incomplete_event_waits() {
    let mut meter = meter(&call(Operation::Chat, false), 200, EVENTS);
    let mut push = |text: String| -> Vec<String> {
        meter.push(Bytes::from(text)).map(|b| String::from_utf8(b.to_vec()).unwrap()).collect()
    };
    let (first, second) = CHAT[2].split_at(20);
    assert_eq!(push(format!("{}{first}", CHAT[1])), [CHAT[1]]);
    assert_eq!(push(second.to_owned()), [first, second]);
    assert_eq!(push(CHAT[4].to_owned()), Vec::<String>::new());
    assert_eq!(push(CHAT[5].to_owned()), [CHAT[5]]);
}

#[test]
fn bytes_are_forwarded_without_a_copy() {
    for call in [call(Operation::Chat, true), call(Operation::Chat, false)] {
        let chunk = Bytes::from(CHAT[2]);
        let out: Vec<_> = meter(&call, 200, EVENTS).push(chunk.clone()).collect();
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), chunk.as_ptr());
    }
}

#[test]
fn an_event_too_large_to_be_read_passes_at_once() {
    let mut meter = meter(&call(Operation::Chat, false), 200, EVENTS);
    let chunk = Bytes::from(vec![b'x'; crate::sse::MAX_EVENT / 2 + 1]);
    assert_eq!(meter.push(chunk.clone()).count(), 0);
    assert_eq!(meter.push(chunk.clone()).count(), 2);
    assert_eq!(meter.push(chunk).count(), 1);
    assert_eq!(meter.push(Bytes::from("\n\n")).count(), 1);
    assert_eq!(meter.push(Bytes::from(CHAT[4])).count(), 0);
    assert_eq!(meter.finish(End::Complete).usage, used(9, 12));
}

#[test]
fn a_cut_stream_is_charged_for_what_was_seen() {
    for (call, stream, usage) in [
        // No usage came: the prompt is as estimated, the output what the deltas held.
        (call(Operation::Chat, false), CHAT[..4].concat(), used(100, 4)),
        (call(Operation::Responses, false), RESPONSES[..250].to_owned(), used(100, 2)),
        (call(Operation::Chat, false), String::new(), used(100, 0)),
        // The prompt is known from the first event, the output is more than was said there.
        (
            call(Operation::Messages, false),
            MESSAGES[..MESSAGES.find("event: message_delta").unwrap()].to_owned(),
            Usage { cache_read: Tokens(5), ..used(9, 3) },
        ),
        (
            call(Operation::Messages, false),
            MESSAGES[..MESSAGES.find("event: ping").unwrap()].to_owned(),
            Usage { cache_read: Tokens(5), ..used(9, 1) },
        ),
    ] {
        for end in [End::Cut, End::Complete] {
            let (_, metered) = run(meter(&call, 200, EVENTS), [stream.as_bytes()], end);
            assert_eq!((metered.usage, metered.exact), (usage, false), "{stream}");
        }
    }
}

#[test]
fn a_client_that_leaves_after_the_last_word_costs_what_was_said() {
    for (call, stream) in [
        (call(Operation::Chat, false), CHAT[..5].concat()),
        (call(Operation::Responses, false), RESPONSES.to_owned()),
        (call(Operation::Messages, false), MESSAGES.replace("event: message_stop", "")),
    ] {
        let (_, metered) = run(meter(&call, 200, EVENTS), [stream.as_bytes()], End::Cut);
        assert!(metered.exact);
        assert_eq!(metered.usage.output(), Tokens(12));
    }
}

#[test]
fn an_error_in_a_stream_is_noted() {
    for (operation, event, failure) in [
        (
            Operation::Chat,
            r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#,
            "rate_limit",
        ),
        (Operation::Chat, r#"{"error":{"message":"m","type":"server_error"}}"#, "server"),
        (
            Operation::Responses,
            r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#,
            "server",
        ),
        (
            Operation::Responses,
            r#"{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}"#,
            "rate_limit",
        ),
        (
            Operation::Messages,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "capacity",
        ),
    ] {
        let event = format!("event: error\ndata: {event}\n\n");
        let call = call(operation, false);
        let (out, metered) = run(meter(&call, 200, EVENTS), [event.as_bytes()], End::Complete);
        assert_eq!(out, event.as_bytes());
        assert_eq!(metered.error.map(|error| error.name()), Some(failure), "{event}");
    }
}

#[test]
fn the_first_token_is_noticed_and_not_the_first_event() {
    for (call, events, first) in [
        (call(Operation::Chat, false), CHAT.concat(), 2),
        (call(Operation::Responses, false), RESPONSES.to_owned(), 1),
        (call(Operation::Messages, false), MESSAGES.to_owned(), 3),
    ] {
        let mut meter = meter(&call, 200, EVENTS);
        for (at, event) in events.split_inclusive("\n\n").enumerate() {
            drop(meter.push(Bytes::copy_from_slice(event.as_bytes())));
            assert_eq!(meter.has_output(), at >= first, "{event}");
        }
    }
}

#[test]
fn usage_is_read_from_a_body_wherever_it_is_split() {
    let body = r#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":1}"}}],
        "usage":{"prompt_tokens":9,"completion_tokens":12}}"#;
    let call = Call::of(Operation::Chat);
    for at in 0..body.len() {
        let (first, second) = body.as_bytes().split_at(at);
        let (out, metered) = run(meter(&call, 200, JSON), [first, second], End::Complete);
        assert_eq!(out, body.as_bytes());
        assert_eq!((metered.usage, metered.exact), (used(9, 12), true));
    }
}

#[test]
fn a_body_that_does_not_tell_is_charged_as_expected() {
    let headers: Headers<'_> =
        [("content-type", JSON), ("content-encoding", "gzip")].into_iter().collect();
    let estimate = Estimate { input: Tokens(100), output: Tokens(300) };
    let chat = Call::of(Operation::Chat);
    let head = ResponseHead { status: 200, headers: &headers };
    let packed = adapter(Protocol::OpenAi).meter(&chat, estimate, head);
    for (meter, body) in [
        (meter(&chat, 200, JSON), r#"{"choices":[]}"#),
        (meter(&chat, 200, JSON), r#"{"usage":{"prompt_tokens":9,"#),
        (meter(&chat, 200, JSON), "garbage"),
        (meter(&chat, 200, "text/html"), "<html>"),
        (packed, r#"{"usage":{"prompt_tokens":9}}"#),
    ] {
        let (out, metered) = run(meter, [body.as_bytes()], End::Complete);
        assert_eq!(out, body.as_bytes());
        assert_eq!((metered.usage, metered.exact), (used(100, 300), false), "{body}");
    }
}

#[test]
fn an_error_and_what_runs_no_model_use_no_tokens() {
    for (call, status) in [
        (Call::of(Operation::Chat), 429),
        (Call::of(Operation::Chat), 500),
        (Call::of(Operation::Models), 200),
        (Call::of(Operation::Other), 200),
    ] {
        let body = br#"{"usage":{"prompt_tokens":9}}"#;
        let (_, metered) = run(meter(&call, status, JSON), [&body[..]], End::Complete);
        assert_eq!((metered.usage, metered.exact), (Usage::request(), true));
    }
}

proptest! {
    #[test]
    fn any_bytes_pass_as_they_came(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        operation in prop::sample::select(&Operation::ALL[..]),
        media in prop::sample::select(&[EVENTS, JSON, "x"][..]),
        wants_usage: bool,
    ) {
        let call = call(operation, wants_usage);
        let slices = chunks.iter().map(Vec::as_slice);
        let (out, _) = run(meter(&call, 200, media), slices, End::Complete);
        prop_assert_eq!(out, chunks.concat());
    }

    #[test]
    fn any_order_and_split_of_events_passes_but_for_usage(
        picks in prop::collection::vec((0..CHAT.len(), prop::sample::select(&["\n", "\r\n", "\r"][..])), 0..12),
        sizes in prop::collection::vec(1_usize..90, 1..40),
    ) {
        let stream = |with_usage: bool| -> String {
            let kept = picks.iter().filter(|(pick, _)| with_usage || *pick != 4);
            kept.map(|(pick, newline)| CHAT[*pick].replace('\n', newline)).collect()
        };
        let all = stream(true);
        let (mut rest, mut chunks) = (all.as_bytes(), Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        let (out, _) = run(meter(&call(Operation::Chat, false), 200, EVENTS), chunks, End::Complete);
        prop_assert_eq!(String::from_utf8(out).unwrap(), stream(false));
    }

    #[test]
    fn any_body_is_read_or_refused(
        body in prop::collection::vec(any::<u8>(), 0..200),
        json in r#"\{("(model|stream|stream_options|max_tokens|n|messages|input|prompt)":(1|-1|1e999|null|true|"a"|\[\]|\{\}|\[1,"b"\]),?){0,4}\}"#,
        operation in prop::sample::select(&Operation::ALL[..]),
    ) {
        for protocol in [Protocol::OpenAi, Protocol::Anthropic] {
            let adapter = adapter(protocol);
            for body in [&body[..], json.as_bytes()] {
                let Ok(call) = adapter.read(operation, body) else { continue };
                let Some(splice) = adapter.edits(&call, body) else { continue };
                let edited = splice.apply(&Bytes::copy_from_slice(body)).concat();
                prop_assert!(adapter.read(operation, &edited).unwrap().wants_usage);
            }
            prop_assert!(!adapter.classify(429, &Headers::default(), &body).name().is_empty());
        }
    }
}
