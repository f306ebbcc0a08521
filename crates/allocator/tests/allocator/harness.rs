//! An allocator in a child process, a sidecar that speaks the wire by hand, and a process to be the
//! sidecar's.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quota::budget::BudgetId;
use quota::charge::Vector;
use quota::message::{
    Credit, Denial, DrawId, DrawRequest, Epoch, Holdings, LeaseSet, Nonce, Report, ReportItem,
    ToAllocator, ToPod,
};
use quota::policy::PodPolicy;
use quota::time::Time;
use quota::units::Amount;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use wire::{AllocatorClient, FromAllocator, FromSidecar, Hello, PROTOCOL_VERSION, RefusedReason};

/// Far above what anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const REPORT_EVERY: Duration = Duration::from_millis(600);

pub(crate) const RPM: &str = "openai/gpt/requestsPerMinute";
pub(crate) const RPD: &str = "openai/gpt/requestsPerDay";

/// 600 requests a minute, 100 a day; pods `app=chat` of namespace `shop`.
pub(crate) const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  protocol: OpenAI
  endpoint: https://api.openai.com
  keys: [{name: primary, secretRef: {name: openai, key: primary}}]
  limits:
  - {name: gpt, models: ["gpt-*"], requestsPerMinute: 600, requestsPerDay: 100}
---
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: anthropic}
spec:
  protocol: Anthropic
  endpoint: https://api.anthropic.com
  keys: [{name: primary, secretRef: {name: anthropic, key: primary}}]
---
apiVersion: v1
kind: Secret
metadata: {name: openai}
stringData: {primary: sk-openai}
---
apiVersion: v1
kind: Secret
metadata: {name: anthropic}
stringData: {primary: sk-anthropic}
---
apiVersion: weir.dev/v1alpha1
kind: LLMPriorityClass
metadata: {name: default}
spec: {value: 0, globalDefault: true}
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {namespace: shop, name: chat}
spec:
  selector: {matchLabels: {app: chat}}
  budgets: [{provider: openai}]
"#;

/// A policy directory and a state directory.
pub(crate) struct Site {
    directory: TempDir,
}

/// A running allocator. Dropped, it is killed.
pub(crate) struct Allocator {
    child: Child,
    /// Lines as they come: a program whose log nobody reads stands still at some point.
    log: mpsc::UnboundedReceiver<String>,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

/// A sidecar's stream, spoken by hand.
pub(crate) struct Sidecar {
    hello: Hello,
    out: mpsc::Sender<wire::ToAllocator>,
    inbound: Streaming<wire::ToSidecar>,
    last_draw: u64,
}

/// A process that lives until it is killed.
pub(crate) struct Process(Child);

// === impl Site ===

impl Site {
    pub(crate) fn new() -> Site {
        let site = Site { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(site.policy()).unwrap();
        site.write(POLICY);
        site
    }

    pub(crate) fn policy(&self) -> PathBuf {
        self.directory.path().join("policy")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn write(&self, policy: &str) {
        fs::write(self.policy().join("policy.yaml"), policy).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-allocator"));
        command.arg("--policy").arg(self.policy()).arg("--state").arg(self.state());
        command.args(["--admin", "127.0.0.1:0", "--log-format", "json"]);
        command.env("RUST_BACKTRACE", "0").env_remove("RUST_LOG").env_remove("WEIR_LOG");
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts an allocator and waits until it serves.
    pub(crate) async fn start(&self) -> Allocator {
        self.launch().serving().await
    }

    /// The same with more arguments.
    pub(crate) async fn start_with(&self, arguments: &[&str]) -> Allocator {
        self.launch_with(arguments).serving().await
    }

    /// Starts an allocator that does not serve yet.
    pub(crate) fn launch(&self) -> Allocator {
        self.launch_with(&[])
    }

    fn launch_with(&self, arguments: &[&str]) -> Allocator {
        let mut command = self.command();
        command.args(["--insecure-plaintext", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.spawn().unwrap();
        let log = read_on(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Allocator { child, log, address: nowhere, admin: nowhere }
    }

    /// Starts an allocator that must not start, and returns what it says.
    pub(crate) async fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output();
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        said
    }

    pub(crate) fn record(&self) -> Value {
        let text = fs::read(self.state().join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

// === impl Allocator ===

impl Allocator {
    pub(crate) async fn serving(mut self) -> Allocator {
        let line = self.logged("serving").await;
        self.address = line["listen"].as_str().unwrap().parse().unwrap();
        self.admin = line["admin"].as_str().unwrap().parse().unwrap();
        self
    }

    /// The next log line that contains `text` anywhere.
    pub(crate) async fn logged(&mut self, text: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut before = String::new();
        while let Ok(Some(line)) = tokio::time::timeout_at(deadline, self.log.recv()).await {
            if line.contains(text) {
                return serde_json::from_str(&line).unwrap();
            }
            before += &(line + "\n");
        }
        panic!("no log line has {text:?}:\n{before}");
    }

    /// True if it ends or says something within `time`.
    pub(crate) async fn stirs_within(&mut self, time: Duration) -> bool {
        timeout(time, self.log.recv()).await.is_ok()
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and the exit status.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self) -> Value {
        serde_json::from_str(&self.get("/state").await).unwrap()
    }

    /// Waits until `/state` is as it should be.
    pub(crate) async fn until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state().await;
            if holds(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "{state:#}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn page(&self) -> String {
        format!("http://{}/", self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(path).await.1
    }

    /// The head of the answer.
    pub(crate) async fn head(&self, path: &str) -> String {
        self.ask(path).await.0
    }

    async fn ask(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Opens a stream and says hello.
    pub(crate) async fn connect(&self, hello: Hello) -> Sidecar {
        Sidecar::open(self.channel().await, hello).await
    }

    /// Opens a stream, learns the policy, and answers the challenge with `holdings`.
    pub(crate) async fn join(&self, hello: Hello) -> (Sidecar, PodPolicy) {
        let mut sidecar = self.connect(hello).await;
        let policy = sidecar.policy().await;
        sidecar.welcome(None).await;
        (sidecar, policy)
    }
}

fn read_on(stderr: ChildStderr) -> mpsc::UnboundedReceiver<String> {
    let (lines, log) = mpsc::unbounded_channel();
    let mut reader = BufReader::new(stderr).lines();
    TaskTracker::new().spawn(async move {
        while let Ok(Some(line)) = reader.next_line().await {
            let _ = lines.send(line);
        }
    });
    log
}

// === impl Sidecar ===

/// A hello of pod `shop/<pod>`, by this test's own process.
pub(crate) fn hello(pod: &str, boot_id: u64) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        pod_uid: String::new(),
        boot_id,
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "chat".to_owned())]),
        highest_epoch_seen: Epoch(0),
        mono: mono(),
        pid: Some(std::process::id()),
        resumption_ticket: Vec::new(),
    }
}

pub(crate) fn mono() -> Time {
    Time::from_nanos(service::clock::boottime_nanos())
}

pub(crate) fn vector(amounts: &[(&str, u64)]) -> Vector {
    let amount =
        |(budget, units): &(&str, u64)| (BudgetId::from_wire(budget), Amount::from_units(*units));
    amounts.iter().map(amount).collect()
}

impl Sidecar {
    /// Opens a stream of a connection, and says hello.
    pub(crate) async fn open(channel: Channel, hello: Hello) -> Sidecar {
        let (out, messages) = mpsc::channel(64);
        out.send(FromSidecar::Hello(hello.clone()).into()).await.unwrap();
        let mut client = AllocatorClient::new(channel);
        let inbound = client.session(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Sidecar { hello, out, inbound, last_draw: 0 }
    }

    pub(crate) async fn send(&self, message: ToAllocator) {
        self.out.send(FromSidecar::Lease(message).into()).await.unwrap();
    }

    pub(crate) async fn send_raw(&self, message: wire::ToAllocator) {
        self.out.send(message).await.unwrap();
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<FromAllocator> {
        let message = timeout(PATIENCE, self.inbound.message()).await.expect("no message came");
        message.ok().flatten().map(|message| message.try_into().unwrap())
    }

    /// The next message of which `pick` makes something; others are passed over.
    pub(crate) async fn find<T>(&mut self, pick: impl Fn(FromAllocator) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the stream ended");
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }

    pub(crate) async fn policy(&mut self) -> PodPolicy {
        let is_policy = |message| match message {
            FromAllocator::Policy(policy) => Some(*policy),
            _ => None,
        };
        self.find(is_policy).await
    }

    pub(crate) async fn refused(&mut self) -> (RefusedReason, String) {
        let is_refused = |message| match message {
            FromAllocator::Refused { reason, explain } => Some((reason, explain)),
            _ => None,
        };
        let refused = self.find(is_refused).await;
        assert_eq!(self.next().await, None, "a refused stream ends");
        refused
    }

    pub(crate) async fn challenge(&mut self) -> (Epoch, Nonce) {
        let is_challenge = |message| match message {
            FromAllocator::Lease(ToPod::Challenge(epoch, nonce)) => Some((epoch, nonce)),
            _ => None,
        };
        self.find(is_challenge).await
    }

    /// Answers the challenge with a lease that is still held, or with nothing, and is welcome.
    pub(crate) async fn welcome(&mut self, held: Option<&LeaseSet>) -> Epoch {
        let (epoch, nonce) = self.challenge().await;
        self.send(ToAllocator::Holdings(holdings(nonce, held))).await;
        let is_welcome = |message| match message {
            FromAllocator::Lease(ToPod::Welcome(epoch)) => Some(epoch),
            _ => None,
        };
        assert_eq!(self.find(is_welcome).await, epoch);
        epoch
    }

    /// Reports demand until it gets a lease for it, which it acknowledges.
    pub(crate) async fn lease(&mut self) -> LeaseSet {
        let deadline = Instant::now() + PATIENCE;
        let mut offered = 0;
        while Instant::now() < deadline {
            offered += 6;
            let mut item = ReportItem { large: Amount::from_units(1), ..ReportItem::default() };
            item.counters.offered = Amount::from_units(offered);
            let items = BTreeMap::from([(BudgetId::from_wire(RPM), item)]);
            let report = Report { mono: mono(), items, ..Report::default() };
            self.send(ToAllocator::Report(report)).await;
            let is_lease = |message| match message {
                FromAllocator::Lease(ToPod::Lease(lease)) if !lease.items.is_empty() => Some(lease),
                _ => None,
            };
            // Demand is a rate: it shows after some time only.
            if let Ok(lease) = timeout(REPORT_EVERY, self.find(is_lease)).await {
                self.send(ToAllocator::Ack(lease.epoch, lease.version)).await;
                return lease;
            }
        }
        panic!("no lease came");
    }

    pub(crate) async fn draw(&mut self, vector: Vector) -> Result<Credit, Denial> {
        self.draw_in(vector, None).await
    }

    /// The same in a trace.
    pub(crate) async fn draw_in(
        &mut self,
        vector: Vector,
        traceparent: Option<&str>,
    ) -> Result<Credit, Denial> {
        self.last_draw += 1;
        let id = DrawId(self.last_draw);
        self.send(ToAllocator::Draw(DrawRequest {
            id,
            mono: mono(),
            vector,
            class: "default".into(),
            max_wait: PATIENCE,
            waited: Duration::ZERO,
            traceparent: traceparent.map(Into::into),
        }))
        .await;
        let is_answer = |message| match message {
            FromAllocator::Lease(ToPod::Credit(credit)) if credit.id == id => Some(Ok(credit)),
            FromAllocator::Lease(ToPod::Deny(denial)) if denial.id == id => Some(Err(denial)),
            _ => None,
        };
        self.find(is_answer).await
    }

    /// The hello of the same run, after it has seen `epoch`.
    pub(crate) fn again(&self, epoch: Epoch) -> Hello {
        Hello { highest_epoch_seen: epoch, mono: mono(), ..self.hello.clone() }
    }
}

fn holdings(nonce: Nonce, held: Option<&LeaseSet>) -> Holdings {
    let mono = mono();
    let items = held.into_iter().flat_map(|lease| &lease.items).map(|(budget, terms)| {
        let held = quota::message::Held {
            rate: terms.rate,
            cap: terms.cap,
            floor: terms.floor,
            floor_left: terms.floor_ttl,
            in_use: Amount::ZERO,
        };
        (budget.clone(), held)
    });
    Holdings {
        nonce,
        mono,
        ttl_left: held.map_or(Duration::ZERO, |lease| (lease.echo + lease.ttl).since(mono)),
        items: items.collect(),
        counters: BTreeMap::new(),
        debts: Vector::new(),
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn start() -> Process {
        let mut command = Command::new("cat");
        Process(command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id().unwrap()
    }

    pub(crate) async fn kill(&mut self) {
        self.0.kill().await.unwrap();
    }
}

/// Replaces a file as editors do: whole, by a rename.
pub(crate) fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}
