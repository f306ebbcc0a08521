//! The task that keeps the stream to the allocator: dials, greets, delivers what it says to the
//! [`Gate`], and dials again. It also is the gate's clock.
//!
//! What a grant, a silence or an end of the stream means for requests is decided in `quota::holder`,
//! not here.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::Uri;
use parking_lot::Mutex;
use quota::message::{Epoch, ToPod};
use rand::Rng;
use service::drain;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};
use tracing::{debug, info, warn};
use wire::{AllocatorClient, FromAllocator, FromSidecar, Hello, RefusedReason, ToSidecar};

use crate::config::Config;
use crate::gate::{Gate, Stream, now};
use crate::metrics::Metrics;
use crate::policy::{Snapshot, Standing};

/// The task. Made once, run once.
pub(crate) struct Lease {
    config: Arc<Config>,
    gate: Gate,
    standing: watch::Sender<Standing>,
    metrics: Arc<Metrics>,
    boot_id: u64,
    /// Proves to the next allocator who this is; empty before one has given it.
    ticket: Mutex<Vec<u8>>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("no connection")]
    Dial(#[from] tonic::transport::Error),
    #[error("the stream failed: {}", .0.message())]
    Stream(#[from] Box<tonic::Status>),
    #[error("a message broke the contract")]
    Contract(#[from] wire::Error),
    #[error("the pod's token cannot be read")]
    Token(#[source] io::Error),
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    #[error("it takes no more messages")]
    Stuck,
    #[error("it closed the stream")]
    Closed,
    #[error("it refused the session: {explain}")]
    Refused { reason: RefusedReason, explain: String },
    #[error("another one leads, at {0}")]
    Redirect(Uri),
    #[error("this sidecar ends")]
    Finished,
}

/// A dial on a cluster's network, or to a process that starts, is done or lost by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The allocator answers a greeting at once; a standby redirects.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// An allocator that vanished is noticed within the sum of both, 6 s (`leases.md` 3.7).
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Messages that may wait to be written: one draw and one cancel for each waiting request, of which
/// quotas allow some hundreds. An allocator that lets more pile up is dialled anew.
const STREAM_QUEUE: usize = 4_096;
/// Short at first, because a successor is there within 2 s and held requests wait for it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After a refusal that only a person can change.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);
/// Reasons that one search for an allocator is told by; refusals name pods and times.
const REASONS_MAX: usize = 8;
/// For the last message to be read.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Lease ===

impl Lease {
    pub(crate) fn new(
        config: Arc<Config>,
        gate: Gate,
        standing: watch::Sender<Standing>,
        metrics: Arc<Metrics>,
    ) -> Lease {
        let boot_id = rand::rng().random();
        Lease { config, gate, standing, metrics, boot_id, ticket: Mutex::default() }
    }

    /// Runs until the drain starts; then tells the allocator that what is held goes back.
    pub(crate) async fn run(self, drain: drain::Watch) {
        // The clock never ends and holds nothing; the sessions end with the drain.
        tokio::select! {
            () = self.gate.tick() => {}
            () = self.sessions(drain) => {}
        }
    }

    async fn sessions(&self, mut drain: drain::Watch) {
        let mut address = self.config.allocator.clone();
        let mut backoff = BACKOFF_MIN;
        let mut told: BTreeSet<String> = BTreeSet::new();
        loop {
            let ended = self.session(&address, &mut drain).await;
            let was_welcome = self.gate.status().connected;
            self.gate.disconnected();
            self.metrics.sessions.inc();
            if was_welcome {
                backoff = BACKOFF_MIN;
                told.clear();
            }
            address = match &ended {
                Ended::Finished => return,
                Ended::Redirect(leader) => leader.clone(),
                _ => self.config.allocator.clone(),
            };
            // Each reason once until there is a session: an allocator that is away for an hour fills no
            // log, and a refusal after a failed dial is told all the same.
            if told.len() < REASONS_MAX && told.insert(ended.to_string()) {
                let cause = causes(&ended);
                warn!(allocator = %self.config.allocator, reason = %ended, cause, "no allocator; dialling until one answers");
            }
            let pause = match ended {
                Ended::Refused { reason, .. } if !may_pass(reason) => BACKOFF_REFUSED,
                _ => jittered(backoff),
            };
            // Both arms are cancel-safe.
            tokio::select! {
                () = sleep(pause) => {}
                _ = drain.started() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One stream, from dial to end.
    async fn session(&self, address: &Uri, drain: &mut drain::Watch) -> Ended {
        let (messages, queue) = mpsc::channel(STREAM_QUEUE);
        let stuck = CancellationToken::new();
        // Nothing is held yet that dropping the dial could lose.
        let opened = tokio::select! {
            opened = self.open(address, queue) => opened,
            _ = drain.started() => return Ended::Finished,
        };
        let mut inbound = match opened {
            Ok(inbound) => inbound,
            Err(ended) => return ended,
        };
        self.gate.connected(Stream { messages: messages.clone(), stuck: stuck.clone() });
        loop {
            // `message` keeps a half-read message in the stream; the other arms hold nothing.
            let received = tokio::select! {
                received = inbound.message() => received,
                () = stuck.cancelled() => return Ended::Stuck,
                _ = drain.started() => {
                    let bye = self.gate.bye();
                    self.gate.disconnected();
                    return goodbye(messages, bye, inbound).await;
                }
            };
            let received = match received {
                Ok(Some(message)) => FromAllocator::try_from(message).map_err(Ended::from),
                Ok(None) => Err(Ended::Closed),
                Err(status) => Err(Box::new(status).into()),
            };
            if let Err(ended) = received.and_then(|message| self.take(message)) {
                return ended;
            }
        }
    }

    async fn open(
        &self,
        address: &Uri,
        queue: mpsc::Receiver<quota::message::ToAllocator>,
    ) -> Result<Streaming<ToSidecar>, Ended> {
        let endpoint = match &self.config.trust {
            None => Endpoint::from(address.clone()),
            Some(trust) => Endpoint::from(address.clone()).tls_config(
                ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&trust.ca))
                    .domain_name(&trust.name),
            )?,
        };
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect()
            .await?;
        let mut client =
            AllocatorClient::new(channel).max_decoding_message_size(wire::MAX_MESSAGE_BYTES);
        let hello = FromSidecar::Hello(self.hello(address)).into();
        let rest = ReceiverStream::new(queue).map(|message| FromSidecar::Lease(message).into());
        let outgoing = stream::once(std::future::ready(hello)).chain(rest);
        let mut request = Request::new(outgoing);
        if let Some(trust) = &self.config.trust {
            request.metadata_mut().insert("authorization", bearer(&trust.token_file)?);
        }
        let answer = timeout(ANSWER_TIMEOUT, client.session(request)).await;
        Ok(answer.map_err(|_| Ended::Silent)?.map_err(Box::new)?.into_inner())
    }

    fn hello(&self, address: &Uri) -> Hello {
        Hello {
            protocol_version: wire::PROTOCOL_VERSION,
            pod_uid: self.config.pod_uid.clone(),
            boot_id: self.boot_id,
            namespace: self.config.namespace.clone(),
            pod: self.config.pod.clone(),
            labels: self.config.labels.clone(),
            highest_epoch_seen: self.gate.status().epoch,
            mono: now(),
            pid: is_loopback(address).then(std::process::id),
            resumption_ticket: self.ticket.lock().clone(),
        }
    }

    fn take(&self, message: FromAllocator) -> Result<(), Ended> {
        match message {
            FromAllocator::Lease(message) => {
                if let ToPod::Welcome(Epoch(epoch)) = message {
                    info!(epoch, "welcomed by an allocator");
                }
                self.gate.receive(message);
            }
            FromAllocator::Policy(policy) => {
                info!(generation = policy.generation, quota = policy.quota.key(), "policy");
                self.gate.set_policy(&policy);
                self.standing.send_replace(Standing::Known(Arc::new(Snapshot::new(*policy))));
            }
            FromAllocator::NoQuota { generation, explain } => {
                warn!(generation, explain, "no quota matches this pod");
                self.standing.send_replace(Standing::NoQuota(explain.into()));
            }
            FromAllocator::Ticket(ticket) => *self.ticket.lock() = ticket,
            FromAllocator::Unknown => debug!("the allocator says what this version does not know"),
            // It closes the stream itself; leases run on.
            FromAllocator::Drain => debug!("the allocator ends"),
            FromAllocator::Redirect { address } => {
                return Err(match address.parse() {
                    Ok(leader) => Ended::Redirect(leader),
                    Err(_) => Ended::Contract(wire::Error::Missing { field: "redirect.address" }),
                });
            }
            FromAllocator::Refused { reason, explain } => {
                return Err(Ended::Refused { reason, explain });
            }
        }
        Ok(())
    }
}

/// The pod's token as a header; never shown.
fn bearer(file: &Path) -> Result<AsciiMetadataValue, Ended> {
    // It lies in memory: the kubelet mounts it so.
    let token = std::fs::read_to_string(file).map_err(Ended::Token)?;
    let header = AsciiMetadataValue::try_from(format!("Bearer {}", token.trim()));
    let mut header = header.map_err(|_| Ended::Token(io::ErrorKind::InvalidData.into()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Sends the last message and waits until the allocator has read it, which it shows by closing.
async fn goodbye(
    messages: mpsc::Sender<quota::message::ToAllocator>,
    bye: quota::message::ToAllocator,
    mut inbound: Streaming<ToSidecar>,
) -> Ended {
    let read = async {
        if messages.send(bye).await.is_ok() {
            drop(messages);
            while let Ok(Some(_)) = inbound.message().await {}
        }
    };
    if timeout(GOODBYE_TIMEOUT, read).await.is_err() {
        warn!("the allocator did not take this sidecar's goodbye");
    }
    Ended::Finished
}

/// What is behind an error, down to the first cause: "transport error" alone helps nobody.
fn causes(error: &dyn std::error::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    (!causes.is_empty()).then(|| causes.join(": "))
}

/// True if nobody need do anything for the next session to be taken.
fn may_pass(reason: RefusedReason) -> bool {
    match reason {
        RefusedReason::Duplicate | RefusedReason::Busy => true,
        RefusedReason::ProtocolVersion | RefusedReason::Identity | RefusedReason::BadMessage => {
            false
        }
    }
}

/// Half of it to all of it: sidecars that lost one allocator do not dial its successor together.
fn jittered(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// A process id means something to an allocator on the same machine only.
fn is_loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
