//! An application: one connection to the sidecar.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Longer than any answer of these tests takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn http1(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        TaskTracker::new().spawn(connection);
        Client::Http1(sender)
    }

    pub(crate) async fn http2(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        TaskTracker::new().spawn(connection);
        Client::Http2(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let sending = async {
            match self {
                Client::Http1(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await.unwrap()
                }
                Client::Http2(sender) => sender.send_request(request).await.unwrap(),
            }
        };
        timeout(PATIENCE, sending).await.expect("the sidecar answers")
    }

    /// Sends and reads everything.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Answer {
        read(self.send(request).await).await
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("the answer ends").unwrap();
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Answer { status: head.status, headers: head.headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://weir{path}"))
        .header("host", "127.0.0.1:7410")
        .header("content-type", "application/json")
        .header("authorization", "Bearer the-application's-key")
        .body(Full::new(body.into()))
        .unwrap()
}

/// A chat completion of `gpt-4o`.
pub(crate) fn chat() -> Request<Full<Bytes>> {
    post("/openai/v1/chat/completions", CHAT)
}

pub(crate) const CHAT: &str =
    r#"{"model":"gpt-4o","max_tokens":20,"messages":[{"role":"user","content":"Hello, world?"}]}"#;

pub(crate) const STREAM: &str = r#"{"model":"gpt-4o","stream":true,"max_tokens":20,"messages":[{"role":"user","content":"Hello?"}]}"#;

pub(crate) const CHAT_ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"Hi."},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}"#;
