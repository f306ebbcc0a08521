//! Accepts the application's connections: HTTP/1.1 and HTTP/2 without TLS, told apart by their first
//! bytes. Each connection is a task; nothing here knows what a request means.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use service::drain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Bound sockets, not served yet.
pub(crate) struct Listener {
    sockets: Vec<TcpListener>,
}

/// What answers requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Answers one request, whatever it is.
    fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// One pod's application. Each takes a file descriptor and some 20 KiB while it is busy; what comes
/// above waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4_096;
/// Requests at once on one HTTP/2 connection; what hyper advises, and above what SDKs use.
const MAX_STREAMS: u32 = 256;
/// Request line and headers. hyper answers 431 above it. SDKs send 2 KiB; cookies and trace baggage
/// fit. Also the step in which a body is read.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// SDKs send about 25.
const MAX_HEADERS: usize = 128;
/// A new connection must have sent its first request's head by then (slow loris), whatever the
/// protocol.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The next head of an HTTP/1.1 connection. Above the time for which clients keep idle connections
/// (undici 4 s, httpx 5 s, Go 90 s), lest a request meets the close.
const NEXT_REQUEST: Duration = Duration::from_secs(95);
/// Finds HTTP/2 clients that went away without a word.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause after a failed accept: mostly the process is out of file descriptors, and trying again at
/// once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

// === impl Listener ===

impl Listener {
    /// Binds `address`; 127.0.0.1 is [::1] as well, where the machine has it.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let first = TcpListener::bind(address).await?;
        let port = first.local_addr()?.port();
        let mut sockets = vec![first];
        if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(second) => sockets.push(second),
                Err(error) => debug!(%error, "no [::1] on this machine; serving 127.0.0.1 alone"),
            }
        }
        Ok(Listener { sockets })
    }

    /// The address that was bound first.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets[0].local_addr()
    }

    /// Serves until the drain starts, then lets running requests finish until its deadline.
    pub(crate) async fn serve<S: Service>(self, service: Arc<S>, drain: drain::Watch) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        for socket in self.sockets {
            let accepting =
                accept(socket, service.clone(), places.clone(), connections.clone(), drain.clone());
            connections.spawn(accepting);
        }
        connections.close();
        connections.wait().await;
    }
}

async fn accept<S: Service>(
    socket: TcpListener,
    service: Arc<S>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    mut drain: drain::Watch,
) {
    loop {
        // All arms are cancel-safe: a place or a connection is taken by the arm that completes.
        let accepted = tokio::select! {
            place = places.clone().acquire_owned() => {
                let place = place.expect("the semaphore is never closed");
                tokio::select! {
                    accepted = socket.accept() => accepted.map(|(stream, _)| (stream, place)),
                    _ = drain.started() => return,
                }
            }
            _ = drain.started() => return,
        };
        match accepted {
            Ok((stream, place)) => {
                connections.spawn(connection(stream, place, service.clone(), drain.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S: Service>(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    service: Arc<S>,
    mut drain: drain::Watch,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "the application left before its connection was served");
        return;
    }
    let asked = Arc::new(AtomicBool::new(false));
    let answering = service_fn({
        let asked = asked.clone();
        move |request| {
            asked.store(true, Ordering::Relaxed);
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.serve(request).await) }
        }
    });
    let builder = builder();
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), answering));
    let mut first_request = pin!(sleep(FIRST_REQUEST));
    // `serving` is pinned outside and polled on; the other arms hold no state.
    let done = loop {
        tokio::select! {
            done = serving.as_mut() => break done,
            () = first_request.as_mut(), if !first_request.is_elapsed() => {
                if !asked.load(Ordering::Relaxed) {
                    debug!("a connection without a request is closed");
                    return;
                }
            }
            deadline = drain.started() => {
                serving.as_mut().graceful_shutdown();
                break timeout_at(deadline, serving.as_mut()).await.unwrap_or(Ok(()));
            }
        }
    };
    if let Err(error) = done {
        debug!(error, "the application's connection failed");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("it is small"))
        .keep_alive_interval(PING_INTERVAL);
    builder
}
