//! Connections of sidecars: as many at once as there are places.
//!
//! tonic bounds streams within a connection, but not connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::grpc::SESSIONS_MAX;

/// One connection, and its place among them.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

/// One for each session, and some for those that are refused or just being replaced. Further ones wait
/// in the kernel's backlog.
const CONNECTIONS_MAX: usize = SESSIONS_MAX + SESSIONS_MAX / 10;

/// After a failed accept: mostly the process is out of file descriptors, and trying again at once
/// would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections as they come.
pub(crate) fn incoming(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    Box::pin(stream::unfold((listener, places), |(listener, places)| async move {
        let connection = accept(&listener, &places).await;
        Some((Ok(connection), (listener, places)))
    }))
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Connection {
    let place = places.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A credit is a small message that somebody waits for.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%peer, %error, "small messages to this peer may be delayed");
                }
                return Connection { stream, _place: place };
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
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
