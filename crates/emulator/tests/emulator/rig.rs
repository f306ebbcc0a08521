//! An emulator on ports of its own, and a small client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use emulator::config::{Latency, LimitConfig, Output};
use emulator::state::State;
use emulator::{Config, serve};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A served emulator; it ends with this.
pub(crate) struct Rig {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// False if the body was cut.
    pub(crate) complete: bool,
}

/// An event of a stream: its name, and its data.
pub(crate) type Event = (Option<String>, Value);

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const RESPONSES: &str = "/v1/responses";
pub(crate) const EMBEDDINGS: &str = "/v1/embeddings";
pub(crate) const MESSAGES: &str = "/v1/messages";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers of five tokens at once, limits that stand still, and no limit but the given one.
pub(crate) fn config(limit: LimitConfig) -> Config {
    Config {
        openai: vec![limit.clone()],
        anthropic: vec![limit],
        latency: Latency { first_token_ms: 0, spread: 0.0, tokens_per_second: 0 },
        output: Output { tokens: 5, spread: 0.0 },
        manual_clock: true,
        ..Config::default()
    }
}

/// A limit over all models, without figures.
pub(crate) fn limit() -> LimitConfig {
    LimitConfig::default()
}

/// A chat request.
pub(crate) fn chat(max_tokens: u64) -> Value {
    json!({
        "model": "gpt-4o",
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Hi!"}],
    })
}

/// A messages request.
pub(crate) fn messages(text: &str) -> Value {
    json!({
        "model": "claude-sonnet-4-6",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
    })
}

/// The same request, as a stream.
pub(crate) fn streamed(mut request: Value) -> Value {
    request["stream"] = true.into();
    request
}

// === impl Rig ===

impl Rig {
    pub(crate) async fn start(config: Config) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let (shutdown, ended) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ended = async { drop(ended.await) };
            serve(config, listener, admin, ended).await.unwrap();
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Rig { listen, admin: admin_address, client, shutdown: Some(shutdown), tasks }
    }

    /// Sends a request with a key, and reads its answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("authorization", "Bearer key")], body.to_string()).await
    }

    /// The same with the given headers.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.begin(method, path, headers, body).await;
        Answer::read(response).await
    }

    /// Sends a request and returns when its headers have come.
    pub(crate) async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.uri(format!("http://{}{path}", self.listen));
        let request = request.body(Full::new(body.into())).unwrap();
        timeout(PATIENCE, self.client.request(request)).await.unwrap().unwrap()
    }

    /// Asks the admin listener.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = Request::builder().method(method);
        let request = request.uri(format!("http://{}{path}", self.admin));
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        Answer::read(timeout(PATIENCE, self.client.request(request)).await.unwrap().unwrap()).await
    }

    /// Arms a fault.
    pub(crate) async fn fault(&self, fault: Value) {
        let answer = self.admin(Method::POST, "/__emu/fault", &fault).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Sets the clock of the limits forward.
    pub(crate) async fn advance(&self, millis: u64) {
        let answer = self.admin(Method::POST, "/__emu/clock", &json!({"advanceMs": millis})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The truth.
    pub(crate) async fn state(&self) -> State {
        let answer = self.admin(Method::GET, "/__emu/state", &Value::Null).await;
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The truth as soon as it is as wanted.
    pub(crate) async fn state_when(&self, wanted: impl Fn(&State) -> bool) -> State {
        let polled = async {
            loop {
                let state = self.state().await;
                if wanted(&state) {
                    return state;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, polled).await.expect("the state becomes as wanted")
    }

    /// Ends it and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.shutdown.take());
        timeout(PATIENCE, self.tasks.join_next()).await.unwrap().unwrap().unwrap();
    }
}

// === impl Answer ===

impl Answer {
    async fn read(response: http::Response<Incoming>) -> Answer {
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut complete) = (Vec::new(), true);
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.unwrap() {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        Answer { status: head.status, headers: head.headers, body: bytes.into(), complete }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The events of a stream; `[DONE]` is a string.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for block in self.text().split("\n\n").filter(|block| !block.is_empty()) {
            let mut name = None;
            let mut data = Value::Null;
            for line in block.lines() {
                match line.split_once(": ").unwrap() {
                    ("event", value) => name = Some(value.to_owned()),
                    ("data", "[DONE]") => data = "[DONE]".into(),
                    ("data", value) => data = serde_json::from_str(value).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            events.push((name, data));
        }
        events
    }
}
