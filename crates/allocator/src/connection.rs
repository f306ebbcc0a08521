//! Connections of sidecars: as many at once as there are places, with TLS or on loopback without.
//!
//! tonic bounds streams within a connection, but not connections, and a slow handshake must not hold up
//! the others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::grpc::SESSIONS_MAX;

/// One connection, and its place among them.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Transport,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One for each session, and some for those that are refused or just being replaced. Further ones wait
/// in the kernel's backlog.
const CONNECTIONS_MAX: usize = SESSIONS_MAX + SESSIONS_MAX / 10;

/// After a failed accept: mostly the process is out of file descriptors, and trying again at once
/// would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For a handshake; a client on a cluster's network is done in milliseconds.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Connections as they come, without TLS.
pub(crate) fn plain(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    Box::pin(stream::unfold((listener, places), |(listener, places)| async move {
        let (stream, place) = accept(&listener, &places).await;
        let connection = Connection { stream: Transport::Plain(stream), _place: place };
        Some((Ok(connection), (listener, places)))
    }))
}

/// Connections as their handshakes end.
pub(crate) fn tls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes: JoinSet<Option<Connection>> = JoinSet::new();
    let state = (listener, places, handshakes, acceptor);
    Box::pin(stream::unfold(state, |(listener, places, mut handshakes, acceptor)| async move {
        loop {
            // Both arms are cancel-safe: a place that is not used is free again, and a handshake that
            // has ended stays in the set until it is taken.
            tokio::select! {
                (stream, place) = accept(&listener, &places) => {
                    handshakes.spawn(handshake(acceptor.clone(), stream, place));
                }
                Some(ended) = handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        let state = (listener, places, handshakes, acceptor);
                        return Some((Ok(connection), state));
                    }
                }
            }
        }
    }))
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
) -> Option<Connection> {
    match timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            Some(Connection { stream: Transport::Tls(Box::new(stream)), _place: place })
        }
        Ok(Err(error)) => {
            debug!(%error, "a handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A credit is a small message that somebody waits for.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%peer, %error, "small messages to this peer may be delayed");
                }
                return (stream, place);
            }
            Err(error) => {
                warn!(%error, "sidecars cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// === impl Connection ===

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.stream {
            Transport::Plain(stream) => stream.connect_info(),
            Transport::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
