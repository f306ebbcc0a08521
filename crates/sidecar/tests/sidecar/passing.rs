//! What passes through, and how.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use quota::dimension::Dimension;

use crate::client::{CHAT, CHAT_ANSWER, Client, STREAM, chat, post};
use crate::provider::{FakeProvider, chunk, events, text};
use crate::rig::{Rig, budget, policy, units};

const FIRST: &str = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn bytes_pass_unchanged_both_ways() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    let odd = " {\"messages\" : [{\"role\":\"user\",\"content\":\"h\\u00e9llo \u{1F30A}\"}],\n\t\"model\":\"gpt-4o\",\"new_field\":{\"a\":[1.0e5,null]}, \"max_tokens\":20 } ";
    let mut request = post("/openai/v1/chat/completions?beta=a%2Fb", odd);
    let headers = request.headers_mut();
    headers.insert("x-weir-priority", "batch".parse().unwrap());
    headers.insert("x-stainless-lang", "python".parse().unwrap());
    headers.insert("accept-encoding", "gzip, deflate".parse().unwrap());
    let answer = rig.client().await.ask(request).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, CHAT_ANSWER));
    rig.provider.last(|asked| {
        assert_eq!(asked.body, odd);
        assert_eq!(asked.head.uri, "/v1/chat/completions?beta=a%2Fb");
        let header = |name: &str| asked.head.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("authorization"), Some("Bearer the-application's-key"));
        assert_eq!(header("host"), Some(rig.provider.address.to_string().as_str()));
        assert_eq!(header("accept-encoding"), Some("identity"));
        assert_eq!(header("x-stainless-lang"), Some("python"));
        assert_eq!(header("x-weir-priority"), None);
        assert_eq!(header("content-length"), Some(odd.len().to_string().as_str()));
    });
    assert_eq!(&*rig.allocator.draws()[0].class, "batch");
}

#[tokio::test]
async fn http1_and_http2_are_told_apart_on_one_port() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    for mut client in [Client::http1(rig.address).await, Client::http2(rig.address).await] {
        for _ in 0..2 {
            assert_eq!(client.ask(chat()).await.body, CHAT_ANSWER);
        }
    }
    assert_eq!(rig.provider.count(), 4);
}

#[tokio::test]
async fn the_ipv6_loopback_is_served_as_well() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    let address = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, rig.address.port()));
    // A machine without IPv6 has nothing to show.
    if tokio::net::TcpStream::connect(address).await.is_ok() {
        assert_eq!(Client::http1(address).await.ask(chat()).await.body, CHAT_ANSWER);
    }
}

#[tokio::test]
async fn other_paths_pass_as_one_request() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, "{\"data\":[]}")).await).await;
    let request = Request::get("http://weir/openai/v1/models").body(Full::default()).unwrap();
    let answer = rig.client().await.ask(request).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "{\"data\":[]}"));
    assert_eq!(rig.provider.last(|asked| asked.head.method.clone()), "GET");
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_the_usage_that_we_asked_for_is_left_out() {
    let (feed, response) = events();
    let response = parking_lot::Mutex::new(Some(response));
    let provider = FakeProvider::start(move |_| response.lock().take().unwrap()).await;
    let rig = Rig::start(provider).await;
    let mut body =
        rig.client().await.send(post("/openai/v1/chat/completions", STREAM)).await.into_body();
    // The next chunk is sent only when this one has arrived: nothing is held back.
    for _ in 0..3 {
        feed.send(chunk(FIRST)).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), FIRST);
    }
    feed.send(chunk(&format!("{USAGE}{DONE}"))).await.unwrap();
    drop(feed);
    assert_eq!(body.collect().await.unwrap().to_bytes(), DONE);
    rig.provider.last(|asked| {
        let body = std::str::from_utf8(&asked.body).unwrap();
        assert!(body.contains("\"include_usage\":true"), "{body}");
    });
    let tokens = budget(Dimension::TokensPerMinute);
    let report = rig.allocator.report(|report| {
        report.items.get(&tokens).is_some_and(|item| item.counters.settled == units(7))
    });
    assert_eq!(report.await.items[&tokens].counters.overdrawn, units(0));
}

#[tokio::test]
async fn a_usage_chunk_that_the_application_asked_for_stays() {
    let stream = format!("{FIRST}{USAGE}{DONE}");
    let whole: &'static str = stream.leak();
    let provider = FakeProvider::start(move |_| {
        let mut response = text(200, whole);
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    });
    let rig = Rig::start(provider.await).await;
    let body =
        STREAM.replace("{\"model\"", "{\"stream_options\":{\"include_usage\":true},\"model\"");
    let answer = rig.client().await.ask(post("/openai/v1/chat/completions", body.clone())).await;
    assert_eq!(answer.body, whole);
    rig.provider.last(|asked| assert_eq!(asked.body, body));
}

#[tokio::test]
async fn a_provider_with_keys_gets_one_of_them_and_it_is_shown_nowhere() {
    let provider = FakeProvider::start(|_| text(200, CHAT_ANSWER)).await;
    let mut policy = policy(&provider);
    policy.providers[0].keys = vec![quota::policy::Key {
        name: "primary".into(),
        secret: quota::policy::Secret::new("sk-the-providers-key"),
        weight: 1,
        models: Vec::new(),
    }];
    let rig = Rig::with(provider, Some(policy), &[]).await;
    assert_eq!(rig.client().await.ask(chat()).await.status.as_u16(), 200);
    rig.provider.last(|asked| {
        let keys: Vec<_> = asked.head.headers.get_all("authorization").iter().collect();
        assert_eq!(keys, ["Bearer sk-the-providers-key"]);
    });
    for page in ["/config", "/metrics", "/ready"] {
        let shown = rig.admin(page).await.body;
        assert!(!shown.contains("sk-the"), "{shown}");
    }
    let config = rig.admin("/config").await.body;
    assert!(config.contains("\"keys\":[\"primary\"]"), "{config}");
    assert!(config.contains("\"generation\":3"), "{config}");
}

#[tokio::test]
async fn a_large_body_passes_and_its_length_is_kept() {
    let rig = Rig::start(FakeProvider::start(|_| text(200, CHAT_ANSWER)).await).await;
    let body = CHAT.replace("Hello, world?", &"x".repeat(100_000));
    let body = Bytes::from(body);
    let answer = rig.client().await.ask(post("/openai/v1/chat/completions", body.clone())).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    assert_eq!(answer.header("content-length"), Some(CHAT_ANSWER.len().to_string().as_str()));
    rig.provider.last(|asked| assert_eq!(asked.body, body));
}
