//! Asks the admin listeners of programs that this one has started.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Why an admin listener gave no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be asked for")]
    Path { path: String, source: http::Error },
    #[error("nobody answers at {address}")]
    Connect { address: SocketAddr, source: hyper_util::client::legacy::Error },
    #[error("{address}{path} took longer than {TIMEOUT:?}")]
    Slow { address: SocketAddr, path: String },
    #[error("{address}{path} was answered with {status}: {text}")]
    Status { address: SocketAddr, path: String, status: StatusCode, text: String },
    #[error("the answer of {address}{path} was cut or is too long")]
    Body { address: SocketAddr, path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the answer of {address}{path} cannot be read")]
    Json { address: SocketAddr, path: String, source: serde_json::Error },
}

/// Such a listener answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The truth of an emulator and the metrics of an allocator are some 10 KB.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// `GET`s a JSON document.
pub(crate) async fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, Error> {
    let body = send(Method::GET, address, path).await?;
    let json = |source| Error::Json { address, path: path.to_owned(), source };
    serde_json::from_slice(&body).map_err(json)
}

/// `POST`s nothing.
pub(crate) async fn post(address: SocketAddr, path: &str) -> Result<(), Error> {
    send(Method::POST, address, path).await.map(drop)
}

/// True once `/ready` answers 200.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    send(Method::GET, address, "/ready").await.is_ok()
}

async fn send(method: Method, address: SocketAddr, path: &str) -> Result<Bytes, Error> {
    let exchange = exchange(method, address, path);
    timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(Error::Slow { address, path: path.to_owned() }))
}

async fn exchange(method: Method, address: SocketAddr, path: &str) -> Result<Bytes, Error> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(Full::<Bytes>::default())
        .map_err(|source| Error::Path { path: path.to_owned(), source })?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response =
        client.request(request).await.map_err(|source| Error::Connect { address, source })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|source| Error::Body { address, path: path.to_owned(), source })?;
    let body = body.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    Err(Error::Status { address, path: path.to_owned(), status, text })
}
