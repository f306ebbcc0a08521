//! Connections to providers, kept and shared.
//!
//! A pool of our own, on hyper's connections, for two reasons. The debit of a request must be fresh
//! when its head is written (`upstream`), so there must be a moment between "the connection is ready"
//! and "the head is written"; hyper-util's client has none. And that client keeps one HTTP/2
//! connection per host, on which requests above the provider's `max_concurrent_streams` wait where
//! nobody sees them. Here an HTTP/1.1 connection serves one request at a time, an HTTP/2 connection at
//! most [`STREAMS_PER_CONNECTION`], and the next one is dialled.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::upstream::payload::Payload;

/// What is sent upstream: a body that is in memory.
pub(crate) type Outgoing = Request<Full<Payload>>;

/// All connections; clones share them.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// A connection that is ready for one request. It goes back to the pool when it is dropped, once the
/// answer's body has been read.
pub(crate) struct Connection {
    sender: Option<Sender>,
    reused: bool,
    host: Arc<Host>,
    tasks: TaskTracker,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name does not resolve, nobody listens, or TLS fails.
    #[error("cannot connect to {host}")]
    Connect {
        /// Scheme, host and port.
        host: Uri,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer to the dial.
    #[error("{host} did not accept a connection within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// Scheme, host and port.
        host: Uri,
    },
}

/// Above the round trips of TCP and TLS to any region, below every SDK's own patience (5 s connect,
/// then retry): two lost SYNs fit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What servers announce as `max_concurrent_streams` or more (100 is the least that RFC 9113
/// recommends).
const STREAMS_PER_CONNECTION: usize = 100;
/// Providers and their load balancers close idle connections after 60 s or more; a request that meets
/// the close is sent anew, but late.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle HTTP/1.1 connections kept per host; with TLS state about 30 KiB each.
const IDLE_PER_HOST: usize = 256;
/// An HTTP/2 connection that a middlebox forgot is found within the sum of both.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Twice what a policy may name; hosts of older policies are forgotten beyond it.
const MAX_HOSTS: usize = 128;
/// The kernel finds a dead HTTP/1.1 connection of a long silent stream.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// The head of an answer, and the step in which a body is read.
const READ_BUFFER: usize = 64 * 1024;

struct Shared {
    connector: HttpsConnector<HttpConnector>,
    /// A handful.
    hosts: Mutex<Vec<Arc<Host>>>,
    tasks: TaskTracker,
}

struct Host {
    uri: Uri,
    kept: Mutex<Kept>,
    /// While it is not known that connections cannot be shared, one dial at a time: a burst on a cold
    /// HTTP/2 host makes one connection, not one per request.
    dial: Semaphore,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    idle: Vec<(http1::SendRequest<Full<Payload>>, Instant)>,
    shared: Vec<Multiplexed>,
    /// The last dial ended in HTTP/1.1.
    exclusive: bool,
    /// The shortest dial: one round trip or more.
    trip: Option<Duration>,
}

/// One HTTP/2 connection. The clones of `load` are its requests in flight.
#[derive(Clone)]
struct Multiplexed {
    sender: http2::SendRequest<Full<Payload>>,
    load: Arc<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Payload>>),
    Http2(Multiplexed),
}

// === impl Pool ===

impl Pool {
    /// An empty pool that trusts Mozilla's roots: compiled in, because a pod's image may have none.
    pub(crate) fn new() -> Pool {
        Pool::trusting(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }

    fn trusting(roots: RootCertStore) -> Pool {
        let connector = connector(roots);
        let shared = Shared { connector, hosts: Mutex::default(), tasks: TaskTracker::new() };
        Pool { shared: Arc::new(shared) }
    }

    /// A connection to the scheme, host and port of `uri`: one that is free, or a new one.
    pub(crate) async fn checkout(&self, uri: &Uri) -> Result<Connection, Error> {
        let host = self.shared.host(uri);
        if let Some(sender) = host.take() {
            return Ok(self.connection(host, sender, true));
        }
        let dialled = timeout(CONNECT_TIMEOUT, self.shared.dial(&host)).await;
        match dialled {
            Ok(Ok((sender, reused))) => Ok(self.connection(host, sender, reused)),
            Ok(Err(source)) => Err(Error::Connect { host: host.uri.clone(), source }),
            Err(_) => Err(Error::Timeout { host: host.uri.clone() }),
        }
    }

    /// Forgets what is kept for the host of `uri`: the provider has closed one of its connections,
    /// and mostly does so with all.
    pub(crate) fn distrust(&self, uri: &Uri) {
        *self.shared.host(uri).kept.lock() = Kept::default();
    }

    /// Closes what is idle.
    pub(crate) fn forget_idle(&self) {
        self.shared.hosts.lock().clear();
    }

    fn connection(&self, host: Arc<Host>, sender: Sender, reused: bool) -> Connection {
        Connection { sender: Some(sender), reused, host, tasks: self.shared.tasks.clone() }
    }
}

// === impl Connection ===

impl Connection {
    /// True if it served a request before, so that its peer may have closed it in the meantime.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// How long a request surely takes from here to the provider.
    pub(crate) fn trip(&self) -> Duration {
        self.host.kept.lock().trip.unwrap_or_default()
    }

    /// Writes the request and waits for the head of the answer. The error holds the request if none
    /// of it was written; its URI may have become its path alone.
    pub(crate) async fn send(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        match self.sender.as_mut().expect("it is taken only by drop") {
            Sender::Http1(sender) => sender.try_send_request(to_origin_form(request)).await,
            Sender::Http2(shared) => shared.sender.try_send_request(request).await,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(Sender::Http1(mut sender)) = self.sender.take() else { return };
        let host = self.host.clone();
        if sender.is_ready() {
            host.put(sender);
            return;
        }
        // The connection's own task has yet to see that the body ended; if it was cut, it closes.
        self.tasks.spawn(async move {
            if sender.ready().await.is_ok() {
                host.put(sender);
            }
        });
    }
}

// === impl Shared ===

impl Shared {
    fn host(&self, uri: &Uri) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.iter().find(|host| host.is_of(uri)) {
            return host.clone();
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        let origin = format!("{}://{}", scheme(uri), authority(uri));
        let uri = origin.parse().expect("scheme and authority of a URI are a URI");
        let host = Arc::new(Host { uri, kept: Mutex::default(), dial: Semaphore::new(1) });
        hosts.push(host.clone());
        host
    }

    async fn dial(&self, host: &Host) -> Result<(Sender, bool), BoxError> {
        // `http` never negotiates HTTP/2.
        let may_share = host.uri.scheme_str() == Some("https") && !host.kept.lock().exclusive;
        let turn = if may_share { Some(host.dial.acquire().await?) } else { None };
        if turn.is_some()
            && let Some(sender) = host.take()
        {
            return Ok((sender, true));
        }
        let before = Instant::now();
        let stream = self.connector.clone().call(host.uri.clone()).await?;
        let negotiated_h2 = stream.connected().is_negotiated_h2();
        host.dialled(negotiated_h2, before.elapsed());
        let sender = if negotiated_h2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(stream)
                .await?;
            self.tasks.spawn(connection);
            let shared = Multiplexed { sender, load: Arc::new(()) };
            host.kept.lock().shared.push(shared.clone());
            Sender::Http2(shared)
        } else {
            let (mut sender, connection) =
                http1::Builder::new().max_buf_size(READ_BUFFER).handshake(stream).await?;
            self.tasks.spawn(connection);
            sender.ready().await?;
            Sender::Http1(sender)
        };
        Ok((sender, false))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl Host ===

impl Host {
    fn is_of(&self, uri: &Uri) -> bool {
        authority(&self.uri) == authority(uri) && scheme(&self.uri) == scheme(uri)
    }

    /// The connection that was used last (the others may then grow old and close), or the busiest
    /// shared one that has room.
    fn take(&self) -> Option<Sender> {
        let mut kept = self.kept.lock();
        while let Some((sender, since)) = kept.idle.pop() {
            if sender.is_ready() && since.elapsed() < IDLE_TIMEOUT {
                return Some(Sender::Http1(sender));
            }
        }
        kept.shared.retain(|shared| shared.sender.is_ready());
        let free = kept.shared.iter().filter(|shared| shared.in_flight() < STREAMS_PER_CONNECTION);
        free.max_by_key(|shared| shared.in_flight()).cloned().map(Sender::Http2)
    }

    fn dialled(&self, negotiated_h2: bool, took: Duration) {
        let mut kept = self.kept.lock();
        kept.exclusive = !negotiated_h2;
        kept.trip = Some(kept.trip.map_or(took, |shortest| shortest.min(took)));
    }

    fn put(&self, sender: http1::SendRequest<Full<Payload>>) {
        let mut kept = self.kept.lock();
        kept.idle.push((sender, Instant::now()));
        let stale = kept.idle.iter().position(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
        let surplus = kept.idle.len().saturating_sub(IDLE_PER_HOST);
        kept.idle.drain(..stale.unwrap_or_default().max(surplus));
    }
}

// === impl Multiplexed ===

impl Multiplexed {
    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.load) - 1
    }
}

/// The one place that names the provider of cryptography.
fn connector(roots: RootCertStore) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    let tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has safe default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp)
}

/// What HTTP/1.1 writes: the path in the request line, the host in its header.
fn to_origin_form(mut request: Outgoing) -> Outgoing {
    if let Ok(host) = HeaderValue::from_str(authority(request.uri())) {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request
}

fn scheme(uri: &Uri) -> &str {
    uri.scheme_str().unwrap_or("http")
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", http::uri::Authority::as_str)
}

#[cfg(test)]
mod tests;
