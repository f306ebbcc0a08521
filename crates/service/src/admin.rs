//! The admin listener: `/live`, `/ready`, `/metrics`, `/config`, and what the program adds.
//!
//! Every program serves one, apart from its data path: plain HTTP/1.1, few connections, small
//! requests. It is for probes, scrapes and people; it carries no key, prompt or completion, and the
//! owner's `/config` must not either.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Method, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::readiness::Readiness;
use crate::{drain, metrics};

/// What a route is asked: its body is complete.
pub type Ask = Request<Bytes>;

/// What a route answers.
pub type Answer = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What the listener serves.
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    config: Box<dyn Fn() -> String + Send + Sync>,
    routes: BTreeMap<&'static str, Route>,
}

type Route = Box<dyn Fn(Ask) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// A kubelet, two Prometheus and some people at once; the next one waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 32;

/// Request line and headers: hyper's smallest buffer, and still far more than a scrape sends.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Bodies are commands for a test double or for a person's debugging.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a client may take over its request's head, and over its body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The age at which a connection is asked to end, so that clients which never read cannot keep all
/// places; a scraper connects again.
const MAX_AGE: Duration = Duration::from_secs(60);

/// What a connection is left to finish when it is asked to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept: mostly the process is out of file descriptors, and trying again at
/// once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// OpenMetrics text, which Prometheus has understood since 2.5.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

// === impl Admin ===

impl Admin {
    /// Serves readiness and metrics; `/config` is an empty object until [`Admin::config`] is called.
    pub fn new(readiness: Readiness, registry: Arc<Registry>) -> Admin {
        let config = Box::new(|| "{}".to_owned());
        Admin { readiness, registry, config, routes: BTreeMap::new() }
    }

    /// Serves what `config` answers, a JSON text without secrets, as `/config`.
    #[must_use]
    pub fn config(mut self, config: impl Fn() -> String + Send + Sync + 'static) -> Admin {
        self.config = Box::new(config);
        self
    }

    /// Serves `path`, all methods of it, with `handler`. One of the fixed paths stays as it is.
    #[must_use]
    pub fn route<F, A>(mut self, path: &'static str, handler: F) -> Admin
    where
        F: Fn(Ask) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        self.routes.insert(path, Box::new(move |ask| Box::pin(handler(ask))));
        self
    }

    /// Serves `listener` until `drain` starts, then lets open connections finish.
    ///
    /// Probes must be answered while the rest of the program drains: give it a drain of its own, to
    /// be started after the others.
    pub async fn serve(self, listener: TcpListener, mut drain: drain::Watch) {
        let admin = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            // Both arms are cancel-safe: an accepted connection is always returned.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = drain.started() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = admin.clone().connection(stream, peer, drain.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => pause_after(&error).await,
            }
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, drain: drain::Watch) {
        let service = service_fn(|request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut drain = drain;
        // The connection is pinned outside and polled on; the other arms hold no state.
        let done = tokio::select! {
            done = connection.as_mut() => Some(done),
            _ = drain.started() => None,
            () = sleep(MAX_AGE) => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                connection.as_mut().graceful_shutdown();
                timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = done {
            debug!(%peer, %error, "admin connection failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let fixed: Option<fn(&Admin) -> Answer> = match path.as_str() {
            "/live" => Some(Admin::live),
            "/ready" => Some(Admin::ready),
            "/metrics" => Some(Admin::metrics),
            "/config" => Some(Admin::show_config),
            _ => None,
        };
        match (fixed, self.routes.get(path.as_str())) {
            (Some(page), _) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                page(self)
            }
            (Some(_), _) => answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n"),
            (None, Some(route)) => match complete(request).await {
                Ok(ask) => route(ask).await,
                Err(refusal) => refusal,
            },
            (None, None) => answer(StatusCode::NOT_FOUND, TEXT, self.paths()),
        }
    }

    /// Liveness says that the process turns; nothing outside it may have a say, or an outage of
    /// another program would restart this one.
    fn live(&self) -> Answer {
        answer(StatusCode::OK, TEXT, "live\n")
    }

    /// Readiness says that the process can serve, or what it still waits for.
    fn ready(&self) -> Answer {
        let pending = self.readiness.pending();
        if pending.is_empty() {
            return answer(StatusCode::OK, TEXT, "ready\n");
        }
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("pending: {}\n", pending.join(", ")))
    }

    fn metrics(&self) -> Answer {
        answer(StatusCode::OK, OPENMETRICS, metrics::encode(&self.registry))
    }

    fn show_config(&self) -> Answer {
        answer(StatusCode::OK, JSON, (self.config)())
    }

    /// What a person who mistyped a path wants to see.
    fn paths(&self) -> String {
        let fixed = ["/config", "/live", "/metrics", "/ready"];
        let paths: Vec<&str> = fixed.into_iter().chain(self.routes.keys().copied()).collect();
        format!("no such path; there are {}\n", paths.join(" "))
    }
}

/// A short answer of a known kind; routes may use it too.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    http::Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(Full::new(body.into()).boxed_unsync())
        .expect("a status and a static header make a response")
}

/// Server-sent events as they come, until the connection has reached its age; browsers connect again.
pub fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let body = StreamBody::new(events.map(|event| Ok(Frame::data(event))));
    http::Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body.boxed_unsync())
        .expect("static headers make a response")
}

/// An answer in JSON.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, JSON, body)
}

/// The request with its whole body, or the answer to one that is too large or too slow.
async fn complete(request: Request<Incoming>) -> Result<Ask, Answer> {
    let (head, body) = request.into_parts();
    match timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, body.to_bytes())),
        Ok(Err(_)) => {
            let problem = format!("the body is over {MAX_BODY_BYTES} bytes or was cut off\n");
            Err(answer(StatusCode::PAYLOAD_TOO_LARGE, TEXT, problem))
        }
        Err(_) => Err(answer(StatusCode::REQUEST_TIMEOUT, TEXT, "the body took too long\n")),
    }
}

async fn pause_after(error: &io::Error) {
    warn!(%error, "admin listener cannot accept");
    sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests;
