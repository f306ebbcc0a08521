//! The webhooks' listener: TLS around [`crate::admission::router`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use crds::compile::Objects;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::admission::{SidecarArgs, Webhook, router};
use crate::cluster::vault;
use crate::connection::{self, Connection};
use crate::policy::Current;

/// Connections of the API server.
struct Incoming {
    connections: BoxStream<'static, io::Result<Connection>>,
    address: SocketAddr,
}

/// What the webhooks answer from.
pub(crate) struct Knowledge {
    pub(crate) sidecar: SidecarArgs,
    /// Where sidecars find the allocator.
    pub(crate) allocator: String,
    pub(crate) certificates: vault::Current,
    pub(crate) policy: watch::Receiver<Arc<Current>>,
    pub(crate) objects: watch::Receiver<Arc<Objects>>,
}

/// Answers reviews for as long as it is polled.
///
/// # Errors
///
/// The listener's own address cannot be told.
pub(crate) fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    knowledge: Knowledge,
    registry: &mut Registry,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let Knowledge { sidecar, allocator, certificates, policy, objects } = knowledge;
    let settings = move || {
        let ca = certificates.borrow().ca().to_owned();
        sidecar.settings(allocator.clone(), ca).ok().map(Arc::new)
    };
    let objects = move || (policy.borrow().policy.generation > 0).then(|| objects.borrow().clone());
    let router = router(Webhook::new(registry, settings, objects));
    let address = listener.local_addr()?;
    let connections = connection::tls(listener, acceptor).boxed();
    let serving = axum::serve(Incoming { connections, address }, router);
    Ok(async move {
        // It only ends with the process.
        let _ = serving.await;
    })
}

// === impl Incoming ===

impl Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            if let Some(Ok(connection)) = self.connections.next().await {
                return (connection, self.address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
