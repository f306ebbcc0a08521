//! The page, as a browser gets it.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use wire::Hello;

use crate::harness::{Allocator, PATIENCE, RPM, Site, hello, vector};

/// So many pods that tables must be limited by what a person looks at.
const MANY: usize = 500;

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere_and_may_run_nothing_from_elsewhere() {
    let site = Site::new();
    let allocator = site.start().await;
    let page = allocator.get("/").await;
    let foreign = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!foreign.contains("//cdn") && !foreign.contains("https:"), "{page}");
    assert!(!foreign.contains("http:"), "{page}");
    let head = allocator.head("/").await.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
}

#[tokio::test]
async fn events_tell_what_state_tells_every_second() {
    let site = Site::new();
    let allocator = site.start().await;
    let _sidecar = allocator.join(hello("chat-1", 1)).await;
    allocator.until(|state| state["pods"]["shop/chat-1"]["connected"] == true).await;
    let mut events = Events::open(&allocator).await;
    let first = events.next("view").await;
    let second = events.next("view").await;
    assert_eq!(second["pods"]["shop/chat-1"]["quota"], "shop/chat");
    assert_eq!(second["budgets"][RPM]["rate_per_second"], 10.0);
    let passed = second["at_ms"].as_u64().unwrap() - first["at_ms"].as_u64().unwrap();
    assert!(passed >= 900, "{passed} ms");
}

#[tokio::test]
async fn a_refused_draw_is_explained_with_its_trace() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let denial = sidecar.draw_in(vector(&[(RPM, 700)]), Some(&traceparent)).await.unwrap_err();
    let state = allocator.until(|state| state["refusals"][0].is_object()).await;
    let refusal = &state["refusals"][0];
    assert_eq!(refusal["pod"], "shop/chat-1");
    assert_eq!(refusal["reason"], "too_large");
    assert_eq!(refusal["explain"], *denial.explain);
    assert_eq!(refusal["trace_id"], trace);
}

#[tokio::test]
async fn in_a_browser_the_page_shows_hundreds_of_pods_and_a_refusal_that_links_to_its_trace() {
    let site = Site::new();
    let allocator = site.start_with(&["--jaeger", "http://jaeger.example/"]).await;
    let (first, _) = allocator.join(hello("chat-000", 1)).await;
    let mut sidecars = vec![first];
    for pod in 1..MANY {
        let hello = Hello { pid: None, ..hello(&format!("chat-{pod:03}"), 1) };
        sidecars.push(allocator.connect(hello).await);
    }
    allocator.until(|state| state["pods_in_all"] == MANY).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let draw = sidecars[0].draw_in(vector(&[(RPM, 700)]), Some(&traceparent)).await;
    assert!(draw.is_err());
    let page = in_browser(&allocator).await;
    for shown in [
        "leads as epoch 1",
        "policy generation 1",
        RPM,
        "500 of 500",
        ">shop/chat-000<",
        ">shop/chat-499<",
        "700",
        "at once",
        &format!("href=\"http://jaeger.example/trace/{trace}\""),
        "provider 429: 0",
        "pods connected",
    ] {
        assert!(page.contains(shown), "{shown} is not on the page: {page}");
    }
}

/// The page's document once it has heard of all pods. Chromium prints what is there when the page
/// itself has come, which may be before that: then it is asked again.
async fn in_browser(allocator: &Allocator) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = document(allocator.page()).await;
        if page.contains("500 of 500") || Instant::now() > deadline {
            return page;
        }
    }
}

async fn document(address: String) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium");
    browser.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--timeout=8000"]);
    browser.arg(format!("--user-data-dir={}", home.path().display()));
    browser.arg("--dump-dom").arg(address).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, browser.output()).await.expect("chromium does not end");
    let output = output.expect("chromium cannot be started (on Debian: apt-get install chromium)");
    String::from_utf8(output.stdout).unwrap()
}

/// A stream of server-sent events.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(allocator: &Allocator) -> Events {
        let mut stream = TcpStream::connect(allocator.admin()).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        Events(BufReader::new(stream))
    }

    /// The next event of this name.
    async fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}\n");
        while self.line().await != wanted {}
        let data = self.line().await;
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("no event came").unwrap();
        assert!(!line.is_empty(), "the stream ended");
        line
    }
}
