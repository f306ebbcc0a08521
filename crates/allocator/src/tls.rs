//! TLS on what the allocator serves: the certificate may change at any time, and no stream breaks.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// The certificate that new connections are shown; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<ArcSwapOption<CertifiedKey>>);

// === impl Shown ===

impl Shown {
    /// New connections see this one; those that are open go on.
    pub(crate) fn set(&self, key: Arc<CertifiedKey>) {
        self.0.store(Some(key));
    }

    /// Accepts TLS with it, and one of these protocols.
    ///
    /// # Errors
    ///
    /// The TLS library refuses its own defaults, which tests rule out.
    pub(crate) fn acceptor(&self, protocols: &[&str]) -> Result<TlsAcceptor, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(..)")
    }
}
