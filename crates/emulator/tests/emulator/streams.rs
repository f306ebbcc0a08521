//! Bodies and streams, and their usage.

use base64::Engine;
use emulator::Config;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::rig::{
    CHAT, EMBEDDINGS, Event, MESSAGES, RESPONSES, Rig, chat, config, limit, messages, streamed,
};

fn types(events: &[Event]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_deref().unwrap_or_default()).collect()
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

#[tokio::test]
async fn a_chat_answer_has_as_many_words_as_its_usage_says() {
    let rig = Rig::start(config(limit())).await;
    for (max_tokens, choices, tokens, reason) in
        [(100, 1, 5, "stop"), (3, 1, 3, "length"), (100, 2, 10, "stop")]
    {
        let mut request = chat(max_tokens);
        request["n"] = choices.into();
        let answer = rig.post(CHAT, &request).await.json();
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["model"], "gpt-4o");
        let chosen = answer["choices"].as_array().unwrap();
        assert_eq!(chosen.len(), choices);
        let text = |choice: &Value| choice["message"]["content"].as_str().unwrap().to_owned();
        assert_eq!(chosen.iter().map(|choice| words(&text(choice))).sum::<u64>(), tokens);
        assert!(chosen.iter().all(|choice| choice["finish_reason"] == reason));
        assert_eq!(answer["usage"]["completion_tokens"], tokens);
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(answer["usage"]["total_tokens"], prompt + tokens);
    }
}

#[tokio::test]
async fn a_chat_stream_carries_usage_only_if_asked() {
    let rig = Rig::start(config(limit())).await;
    for wants_usage in [false, true] {
        let mut request = streamed(chat(100));
        request["stream_options"] = json!({"include_usage": wants_usage});
        let answer = rig.post(CHAT, &request).await;
        assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
        let mut events = answer.events();
        assert_eq!(events.pop(), Some((None, "[DONE]".into())));
        if wants_usage {
            let (_, last) = events.pop().unwrap();
            assert_eq!(last["choices"], json!([]));
            assert_eq!(last["usage"]["completion_tokens"], 5);
        }
        let chunks: Vec<Value> = events.into_iter().map(|(_, data)| data).collect();
        assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_some() == wants_usage));
        assert!(chunks.iter().all(|chunk| chunk["obfuscation"].is_string()));
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!((words(&text), chunks.len()), (5, 7));
    }
}

#[tokio::test]
async fn padding_of_a_chat_stream_can_be_refused() {
    let rig = Rig::start(config(limit())).await;
    let mut request = streamed(chat(100));
    request["stream_options"] = json!({"include_obfuscation": false});
    assert!(!rig.post(CHAT, &request).await.text().contains("obfuscation"));
}

#[tokio::test]
async fn choices_of_a_stream_come_side_by_side() {
    let rig = Rig::start(config(limit())).await;
    let mut request = streamed(chat(2));
    request["n"] = 2.into();
    let events = rig.post(CHAT, &request).await.events();
    let order: Vec<u64> =
        events.iter().filter_map(|(_, data)| data["choices"][0]["index"].as_u64()).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1]);
}

#[tokio::test]
async fn a_response_comes_whole_and_as_numbered_events() {
    let rig = Rig::start(config(limit())).await;
    for (cap, tokens, status, last) in
        [(100, 5, "completed", "response.completed"), (2, 2, "incomplete", "response.incomplete")]
    {
        let request = json!({"model": "gpt-4o", "input": "Hi!", "max_output_tokens": cap});
        let whole = rig.post(RESPONSES, &request).await.json();
        assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!(status)));
        let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
        assert_eq!(words(text), tokens);
        assert_eq!(whole["usage"]["output_tokens"], tokens);

        let events = rig.post(RESPONSES, &streamed(request)).await.events();
        let names = types(&events);
        assert_eq!(
            names[..4],
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
            ]
        );
        let end = names.len() - 4;
        assert!(names[4..end].iter().all(|name| *name == "response.output_text.delta"));
        assert_eq!((end - 4) as u64, tokens);
        assert_eq!(
            names[end..],
            [
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                last,
            ]
        );
        for (number, (name, data)) in events.iter().enumerate() {
            assert_eq!(data["sequence_number"], number);
            assert_eq!(data["type"], name.as_deref().unwrap());
        }
        assert_eq!(events.last().unwrap().1["response"]["usage"]["output_tokens"], tokens);
    }
}

#[tokio::test]
async fn a_message_comes_whole_and_as_events() {
    let rig = Rig::start(config(limit())).await;
    let whole = rig.post(MESSAGES, &messages("Hi!")).await.json();
    assert_eq!((&whole["type"], &whole["stop_reason"]), (&json!("message"), &json!("end_turn")));
    assert_eq!(words(whole["content"][0]["text"].as_str().unwrap()), 5);
    assert_eq!(whole["usage"]["output_tokens"], 5);
    let input = &whole["usage"]["input_tokens"];

    let events = rig.post(MESSAGES, &streamed(messages("Hi!"))).await.events();
    let delta = "content_block_delta";
    assert_eq!(
        types(&events),
        [
            "message_start",
            "content_block_start",
            "ping",
            delta,
            delta,
            delta,
            delta,
            delta,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(&events[0].1["message"]["usage"]["input_tokens"], input);
    assert_eq!(events[9].1["usage"]["output_tokens"], 5);
    assert_eq!(events[9].1["delta"]["stop_reason"], "end_turn");
    let counted = rig.post("/v1/messages/count_tokens", &messages("Hi!")).await.json();
    assert_eq!(&counted["input_tokens"], input);
}

#[tokio::test]
async fn embeddings_are_numbers_or_packed() {
    let rig = Rig::start(config(limit())).await;
    let request = |format: &str| {
        json!({
            "model": "text-embedding-3-small",
            "input": ["one", "two"],
            "encoding_format": format,
            "dimensions": 4,
        })
    };
    let plain = rig.post(EMBEDDINGS, &request("float")).await.json();
    assert_eq!(plain["data"].as_array().unwrap().len(), 2);
    let vector = plain["data"][1]["embedding"].as_array().unwrap();
    assert_eq!(vector.iter().map(|part| part.as_f64().unwrap().powi(2)).sum::<f64>(), 1.0);
    assert_eq!(plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"]);
    let packed = rig.post(EMBEDDINGS, &request("base64")).await.json();
    let packed = packed["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
    let (first, _) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!((bytes.len(), f32::from_le_bytes(*first).abs()), (16, 0.5));
}

#[tokio::test]
async fn models_are_listed_in_each_providers_form() {
    let rig = Rig::start(config(limit())).await;
    let key = ("authorization", "Bearer key");
    let list = rig.send(Method::GET, "/v1/models", &[key], "").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("gpt-4o")));
    let one = rig.send(Method::GET, "/v1/models/gpt-4o", &[key], "").await.json();
    assert_eq!(one["object"], "model");
    let missing = rig.send(Method::GET, "/v1/models/none", &[key], "").await;
    assert_eq!(missing.status, 404);
    let anthropic = [("x-api-key", "key"), ("anthropic-version", "2023-06-01")];
    let list = rig.send(Method::GET, "/v1/models", &anthropic, "").await.json();
    assert_eq!((&list["has_more"], &list["data"][0]["type"]), (&json!(false), &json!("model")));
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_is_settled_at_what_was_produced() {
    for (path, request) in [(CHAT, chat(1_000)), (MESSAGES, messages("Hi!"))] {
        let mut slow = config(limit());
        slow.latency.tokens_per_second = 100;
        slow.output.tokens = 90;
        let rig = Rig::start(slow).await;
        let headers = [("authorization", "Bearer key")];
        let body = streamed(request).to_string();
        let mut response = rig.begin(Method::POST, path, &headers, body).await;
        let mut read = 0;
        while read < 3 {
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
            read += text.matches("\"delta\":{\"content\":\" ").count();
            read += text.matches("text_delta").count();
        }
        drop(response);
        let state = rig.state_when(|state| state.in_flight == 0).await;
        let totals = &state.totals[0];
        assert_eq!((totals.left, totals.answered), (1, 0));
        assert!((3..90).contains(&totals.output_tokens), "{}", totals.output_tokens);
        assert!(totals.input_tokens > 0);
    }
}

#[tokio::test]
async fn an_answer_that_its_client_does_not_wait_for_is_settled_at_what_was_produced() {
    let mut slow = config(limit());
    slow.latency.tokens_per_second = 100;
    slow.output.tokens = 90;
    let rig = Rig::start(slow).await;
    {
        let headers = [("authorization", "Bearer key")];
        let request = rig.begin(Method::POST, CHAT, &headers, chat(1_000).to_string());
        let has_produced = rig.state_when(|state| state.in_flight == 1);
        tokio::select! {
            _ = request => panic!("it takes longer"),
            _ = has_produced => {}
        }
    }
    let state = rig.state_when(|state| state.in_flight == 0).await;
    assert_eq!((state.totals[0].left, state.totals[0].answered), (1, 0));
    assert!(state.totals[0].output_tokens < 90);
}

#[tokio::test]
async fn prepared_answers_are_always_the_same_bytes() {
    let rig = Rig::start(Config { prepared: true, ..Config::default() }).await;
    for (path, request) in [(CHAT, chat(10)), (MESSAGES, messages("Hi!"))] {
        let first = rig.send(Method::POST, path, &[], request.to_string()).await;
        let second = rig.send(Method::POST, path, &[], request.to_string()).await;
        assert_eq!((first.status.as_u16(), &first.body), (200, &second.body));
        assert!(first.json()["usage"].is_object());
        let stream = rig.send(Method::POST, path, &[], streamed(request).to_string()).await;
        assert!(stream.events().len() >= 64);
    }
    let embedding = json!({"model": "text-embedding-3-small", "input": "x", "stream": true});
    let answer = rig.send(Method::POST, EMBEDDINGS, &[], embedding.to_string()).await;
    assert_eq!(answer.json()["object"], "list");
}
