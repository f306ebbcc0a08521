//! The admin listener over real sockets.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Admin, Ask, MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_HEAD_BYTES, READ_TIMEOUT, json};
use crate::readiness::Readiness;
use crate::{drain, metrics};

/// A served admin listener; its tasks end with it.
struct Served {
    address: std::net::SocketAddr,
    readiness: Readiness,
    trigger: drain::Trigger,
    tasks: JoinSet<()>,
}

async fn serve() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::default();
    let admin = Admin::new(readiness.clone(), Arc::new(metrics::registry("weir-test")))
        .config(|| r#"{"listen":"127.0.0.1:7410"}"#.to_owned())
        .route("/echo", async |ask: Ask| json(StatusCode::CREATED, ask.into_body()));
    let (trigger, watch) = drain::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(admin.serve(listener, watch));
    Served { address, readiness, trigger, tasks }
}

impl Served {
    /// Sends `request` as it is and reads until the listener closes.
    async fn send(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        // A listener that has refused may reset what it did not read; what it said came before.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await
    }
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn readiness_lists_what_is_pending_and_liveness_does_not_care() {
    let served = serve().await;
    let _policy = served.readiness.block("policy");
    let lease = served.readiness.block("lease");
    let answer = served.get("/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("pending: lease, policy\n"), "{answer}");
    assert!(served.get("/live").await.starts_with("HTTP/1.1 200"));
    drop((lease, _policy));
    assert!(served.get("/ready").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn each_path_answers_in_its_own_form() {
    let served = serve().await;
    let cases = [
        (served.get("/metrics").await, "200", "openmetrics-text", "# EOF\n"),
        (served.get("/config").await, "200", "application/json", r#"{"listen":"127.0.0.1:7410"}"#),
        (served.get("/config?pretty").await, "200", "application/json", "}"),
        (served.get("/").await, "404", "text/plain", "/config /live /metrics /ready /echo\n"),
        (served.send(post("/echo", "[1]")).await, "201", "application/json", "[1]"),
        (served.send(post("/config", "{}")).await, "405", "text/plain", "only GET\n"),
    ];
    for (answer, status, content_type, end) in cases {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(content_type), "{answer}");
        assert!(answer.ends_with(end), "{answer}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let served = serve().await;
    let head = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD_BYTES));
    assert!(served.send(head).await.starts_with("HTTP/1.1 431"));
    let body = served.send(post("/echo", &"x".repeat(MAX_BODY_BYTES + 1))).await;
    assert!(body.starts_with("HTTP/1.1 413"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_its_request_is_closed() {
    let served = serve().await;
    let start = Instant::now();
    assert!(!served.send("GET /live HTTP/1.1\r\nhost:").await.starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() <= 2 * READ_TIMEOUT);
    let start = Instant::now();
    let slow =
        "POST /echo HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 9\r\n\r\n";
    assert!(served.send(slow).await.starts_with("HTTP/1.1 408"));
    assert!(start.elapsed() <= 2 * READ_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let served = serve().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(served.address).await.unwrap());
    }
    // The idle ones are closed when their head does not come, and make room.
    let start = Instant::now();
    assert!(served.get("/live").await.starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() >= READ_TIMEOUT);
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_ends() {
    let mut served = serve().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    idle.read_exact(&mut first).await.unwrap();
    let limit = Duration::from_secs(10);
    assert_eq!(served.trigger.drain(limit).await, drain::Outcome::Complete);
    timeout(limit, served.tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
