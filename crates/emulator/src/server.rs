//! The listener: HTTP/1.1 and h2c by detection, one task for each connection, drained at the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use service::drain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::config::Config;
use crate::control;
use crate::error::Error;
use crate::exchange::Emulator;
use crate::journal;

/// Runs what hyper needs for HTTP/2 in the tracker of connections.
#[derive(Clone)]
struct Tracked(TaskTracker);

/// Request line and headers. SDKs send about 1 KB; 64 KB is what large fronts accept.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// For a head, and for an idle connection: longer than any client keeps one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 1_000;

/// What open exchanges are left when the emulator ends. It is a test double: streams are cut.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause after a failed accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` as the providers do, and `admin` for those who control it, until `shutdown`.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    admin: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let config = config.validated()?;
    let tasks = TaskTracker::new();
    let journal = match &config.journal {
        Some(path) => {
            let (sender, write) = journal::open(path)?;
            tasks.spawn_blocking(write);
            Some(sender)
        }
        None => None,
    };
    let emulator = Arc::new(Emulator::new(config, journal)?);
    let (trigger, watch) = drain::new();
    tasks.spawn(control::admin(&emulator).serve(admin, watch.clone()));
    tasks.spawn(accept(emulator, listener, watch));
    tasks.close();
    shutdown.await;
    if trigger.drain(DRAIN).await == drain::Outcome::DeadlinePassed {
        debug!("some exchanges were cut");
    }
    let _ = timeout(DRAIN, tasks.wait()).await;
    Ok(())
}

async fn accept(emulator: Arc<Emulator>, listener: TcpListener, mut drain: drain::Watch) {
    let places = Arc::new(Semaphore::new(emulator.config.max_connections));
    let connections = TaskTracker::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        // Both arms are cancel-safe: an accepted connection is always returned.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.started() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let tracked = Tracked(connections.clone());
                let connection = connection(emulator.clone(), stream, tracked, drain.clone());
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%error, "connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    emulator: Arc<Emulator>,
    stream: TcpStream,
    tracked: Tracked,
    mut drain: drain::Watch,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    nodelay(&stream)?;
    let service = service_fn(move |request| {
        let emulator = Arc::clone(&emulator);
        async move { Ok::<_, Infallible>(emulator.handle(request).await) }
    });
    let mut builder = auto::Builder::new(tracked);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // The connection is pinned outside and polled on; the other arm holds no state.
    tokio::select! {
        done = connection.as_mut() => return done,
        _ = drain.started() => connection.as_mut().graceful_shutdown(),
    }
    timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

/// Events are small, and each must leave at once.
fn nodelay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

// === impl Tracked ===

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
