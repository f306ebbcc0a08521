//! An application that speaks plain HTTP, for what SDKs hide: headers, aborts, broken bodies.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::answer::Answer;
use crate::wait::PATIENCE;

/// A client of one address, with connections of its own; clones share them.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    headers: Vec<(&'static str, String)>,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

// === impl Client ===

impl Client {
    /// Of `http://<address><prefix>`; what it sends carries a key.
    pub fn new(address: SocketAddr, prefix: &str) -> Client {
        Client {
            base: format!("http://{address}{prefix}"),
            headers: vec![("authorization", "Bearer key".to_owned())],
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Client {
        self.headers.push((name, value.into()));
        self
    }

    /// `GET`s a page.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// `POST`s JSON, and reads the whole answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    /// The same, if there is a sidecar that gives one.
    pub async fn attempt(&self, path: &str, body: &Value) -> Option<Answer> {
        let asking = async {
            let sent = self.send(Method::POST, path, body.to_string().into()).await;
            Some(read(sent.ok()?).await)
        };
        timeout(PATIENCE, asking).await.expect("an answer, whatever it is")
    }

    /// Sends any body.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let asking = async {
            match self.send(method, path, body).await {
                Ok(response) => read(response).await,
                Err(error) => panic!("{}{path}: {error:?}", self.base),
            }
        };
        timeout(PATIENCE, asking).await.expect("an answer, whatever it is")
    }

    /// `POST`s JSON, and returns as soon as the head has come. Dropping the answer closes the
    /// connection.
    pub async fn begin(&self, path: &str, body: &Value) -> Response<Incoming> {
        let sending = self.send(Method::POST, path, body.to_string().into());
        timeout(PATIENCE, sending).await.expect("the head of an answer").expect("a connection")
    }

    /// True if the page answers 200 now.
    pub async fn is_up(&self, path: &str) -> bool {
        let sent = timeout(PATIENCE, self.send(Method::GET, path, Bytes::new())).await;
        sent.is_ok_and(|sent| sent.is_ok_and(|response| response.status() == 200))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.header("content-type", "application/json").body(Full::new(body));
        self.http.request(request.expect("paths and headers of tests are sound")).await
    }
}

/// Reads a body to its end, good or bad.
async fn read(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut complete) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => complete = false,
        }
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body: bytes.into(), complete }
}
