//! Requests that cannot be served are answered, in the provider's shape, and cost nothing.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, CHAT, CHAT_ANSWER, chat, post};
use crate::provider::{FakeProvider, text};
use crate::rig::{Rig, policy};

const OPENAI: &str = "/openai/v1/chat/completions";
const ANTHROPIC: &str = "/claude/v1/messages";

async fn rig() -> Rig {
    Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await
}

fn has_openai_shape(answer: &Answer) -> bool {
    answer.body.starts_with("{\"error\":{") && answer.body.contains("\"code\":")
}

fn has_anthropic_shape(answer: &Answer) -> bool {
    answer.body.contains("\"type\":\"error\"") && answer.body.contains("\"error\":{")
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_in_the_providers_shape() {
    let rig = rig().await;
    let deep = format!("{{\"model\":\"gpt-4o\",\"messages\":{}", "[".repeat(100_000));
    for (body, words) in [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{\"messages\":[]}", "no `model`"),
        ("{\"model\":7}", "`model`"),
        ("{\"model\":\"a\",\"model\":\"b\"}", "twice"),
        (&deep, "not valid JSON"),
    ] {
        for (path, has_shape) in
            [(OPENAI, has_openai_shape as fn(&Answer) -> bool), (ANTHROPIC, has_anthropic_shape)]
        {
            let answer = rig.client().await.ask(post(path, body.to_owned())).await;
            let body = &body[..body.len().min(60)];
            assert_eq!(answer.status.as_u16(), 400, "{path} {body}: {}", answer.body);
            assert!(has_shape(&answer) && answer.body.contains(words), "{body}: {}", answer.body);
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{body}");
        }
    }
    assert_eq!((rig.provider.count(), rig.allocator.draws().len()), (0, 0));
}

#[tokio::test]
async fn a_path_without_a_provider_says_what_it_should_be() {
    let rig = rig().await;
    for path in ["/", "/v1/chat/completions", "/nobody/v1/chat/completions"] {
        let answer = rig.client().await.ask(post(path, CHAT)).await;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
        assert!(answer.body.contains("name of an LLMProvider"), "{}", answer.body);
        assert_eq!(answer.header("x-weir-reason"), Some("unknown_provider"));
    }
}

#[tokio::test]
async fn a_body_that_is_announced_or_turns_out_too_large_is_refused() {
    let rig = rig().await;
    let huge = Bytes::from(vec![b' '; 33 * 1024 * 1024]);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head =
        format!("POST {OPENAI} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", huge.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"));

    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = format!("POST {OPENAI} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let write = async {
        for piece in huge.chunks(1024 * 1024) {
            let size = format!("{:x}\r\n", piece.len());
            // The sidecar may close before all is written.
            if writing.write_all(size.as_bytes()).await.is_err()
                || writing.write_all(piece).await.is_err()
                || writing.write_all(b"\r\n").await.is_err()
            {
                return;
            }
        }
    };
    let (read, ()) = tokio::join!(reading.read(&mut answer), write);
    assert!(answer[..read.unwrap()].starts_with(b"HTTP/1.1 413"));
}

#[tokio::test]
async fn headers_beyond_all_measure_are_refused() {
    let rig = rig().await;
    for (name, value, count) in
        [("x-large", "v".repeat(100_000), 1), ("x-many", "v".to_owned(), 200)]
    {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let mut head = format!("POST {OPENAI} HTTP/1.1\r\nhost: x\r\n");
        for i in 0..count {
            head.push_str(&format!("{name}-{i}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 431"), "{name}");
    }
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_its_head_is_cut_off() {
    let rig = rig().await;
    // Not even its protocol is known; or an HTTP/1.1 head without end.
    for beginning in ["", "P", "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let before = tokio::time::Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(before.elapsed() < Duration::from_secs(11), "{beginning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_its_body_is_cut_off() {
    let rig = rig().await;
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = format!("POST {OPENAI} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("did not come"), "{answer}");
}

#[tokio::test]
async fn what_the_quota_does_not_permit_is_refused_with_what_to_change() {
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let mut policy = policy(&provider);
    policy.quota.uses[0].limit = Some("gpt-4o".into());
    policy.quota.per_request_max_tokens = Some(1_000);
    let rig = Rig::with(provider, Some(policy), &[]).await;
    let mut client = rig.client().await;

    let answer = client.ask(post(OPENAI, CHAT.replace("gpt-4o", "o3-mini"))).await;
    assert_eq!(answer.status.as_u16(), 403);
    assert!(answer.body.contains("names no limit of openai that covers"), "{}", answer.body);

    // No limit of the provider covers this one: it passes, counted.
    let answer = client.ask(post(OPENAI, CHAT.replace("gpt-4o", "brand-new"))).await;
    assert_eq!(answer.status.as_u16(), 200);

    let answer = client.ask(post(OPENAI, CHAT.replace(":20", ":999"))).await;
    assert_eq!(answer.status.as_u16(), 429);
    assert!(answer.body.contains("perRequest.maxTokens"), "{}", answer.body);
    assert_eq!(answer.header("x-should-retry"), Some("false"));

    let mut request = chat();
    request.headers_mut().insert("x-weir-priority", "royal".parse().unwrap());
    let answer = client.ask(request).await;
    assert_eq!(answer.status.as_u16(), 403);
    assert!(answer.body.contains("class `royal`"), "{}", answer.body);
}

#[tokio::test]
async fn a_websocket_is_refused() {
    let rig = rig().await;
    let request = Request::get("http://weir/openai/v1/realtime")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(Full::default())
        .unwrap();
    let answer = rig.client().await.ask(request).await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(answer.body.contains("WebSocket"), "{}", answer.body);
}
