use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A provider over TLS that speaks `alpn`.
struct Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(alpn: &'static [u8]) -> Server {
        let names = vec!["localhost".to_owned()];
        let generated = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = generated.cert.der().clone();
        let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        TaskTracker::new().spawn(async move {
            let tasks = TaskTracker::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let service = service_fn(|request: Request<Incoming>| async move {
                    let host = request.uri().host().map(str::to_owned);
                    let header = request.headers().get(header::HOST).cloned();
                    let host = host.or_else(|| Some(header?.to_str().ok()?.to_owned()));
                    let body = Bytes::from(host.unwrap_or_default());
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                });
                tasks.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Server { address, certificate, connections }
    }

    fn uri(&self) -> Uri {
        format!("https://localhost:{}/v1/models", self.address.port()).parse().unwrap()
    }

    fn trusted(&self) -> Pool {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Pool::trusting(roots)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn get(uri: &Uri) -> Outgoing {
    Request::get(uri.clone()).body(Full::default()).unwrap()
}

async fn ask(pool: &Pool, uri: &Uri) -> String {
    let mut connection = pool.checkout(uri).await.unwrap();
    let response = connection.send(get(uri)).await.map_err(|e| e.into_error()).unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_burst_on_a_cold_http2_host_makes_one_connection_and_100_streams_fill_it() {
    let server = Server::start(b"h2").await;
    let (pool, uri) = (server.trusted(), server.uri());
    let dials = (0..STREAMS_PER_CONNECTION).map(|_| pool.checkout(&uri));
    let held = futures_util::future::join_all(dials).await;
    assert!(held.iter().all(Result::is_ok));
    // The 101st does not wait in the connection, where nobody would see it.
    assert_eq!(ask(&pool, &uri).await, "localhost");
    assert_eq!(server.connections(), 2);
    drop(held);
    assert_eq!(ask(&pool, &uri).await, "localhost");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_http1_connection_serves_one_request_at_a_time_and_is_kept() {
    let server = Server::start(b"http/1.1").await;
    let (pool, uri) = (server.trusted(), server.uri());
    for _ in 0..3 {
        let expected = format!("localhost:{}", server.address.port());
        assert_eq!(ask(&pool, &uri).await, expected);
        // The connection's task must see the end of the body.
        tokio::task::yield_now().await;
    }
    assert_eq!(server.connections(), 1);
    let held = pool.checkout(&uri).await.unwrap();
    assert!(held.is_reused());
    ask(&pool, &uri).await;
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_not_spoken_to() {
    let server = Server::start(b"h2").await;
    let error = Pool::new().checkout(&server.uri()).await.err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("certificate"), "{source}");
    assert_eq!(server.connections(), 0);
}
