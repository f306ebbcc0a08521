//! The gRPC service: sidecars' streams, checked and passed on to the ledger's task.
//!
//! A session goes `hello -> leadership -> identity -> open -> messages`, each message checked before it
//! counts. Only the leader opens sessions; the others say where it is. The answers come from the ledger's task through the session's own bounded queue; what changes in the
//! policy is pushed from here.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::Map;
use quota::message::{Epoch, PodId};
use quota::policy::Policy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::metadata::MetadataMap;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};
use wire::{
    Allocator, AllocatorServer, FromAllocator, FromSidecar, Hello, MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION, ToAllocator, ToSidecar,
};

use crate::cluster::identity::Identity;
use crate::leader::{Applicant, SessionKey};
use crate::ledger_task::{Ended, Handle};
use crate::metrics::Metrics;
use crate::policy::Current;
use crate::process::Process;
use crate::reach::{self, Pod};
use crate::record::Run;
use crate::refusal::Refusal;

/// What all sessions share.
pub(crate) struct Service {
    leadership: watch::Receiver<Leadership>,
    identity: Option<Identity>,
    policy: watch::Receiver<Arc<Current>>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    /// Holds a token for each session that is open.
    sessions: TaskTracker,
    /// All streams, those included that are not sessions yet.
    streams: TaskTracker,
    /// Greetings so far.
    arrivals: Arc<AtomicU64>,
}

/// Whether this allocator leads, and who does if not.
#[derive(Clone, Debug)]
pub(crate) enum Leadership {
    /// It does.
    Leading(Handle),
    /// Another does, at this address; `None` while nobody does.
    Following(Option<String>),
}

/// What a sidecar reads.
type Outgoing = Map<ReceiverStream<FromAllocator>, fn(FromAllocator) -> Result<ToSidecar, Status>>;

/// One session's task.
struct Session {
    leadership: watch::Receiver<Leadership>,
    identity: Option<Identity>,
    metadata: MetadataMap,
    policy: watch::Receiver<Arc<Current>>,
    /// The policy by which the sidecar was told last.
    told: Arc<Policy>,
    metrics: Arc<Metrics>,
    peer: Option<SocketAddr>,
    out: mpsc::Sender<FromAllocator>,
    close: CancellationToken,
    inbound: Streaming<ToAllocator>,
    sessions: TaskTracker,
    arrivals: Arc<AtomicU64>,
    _place: OwnedSemaphorePermit,
}

/// A session that is open, and whose policy it gets.
struct Opened {
    ledger: Handle,
    key: SessionKey,
    of: Pod,
    /// Whoever waits for the end of all sessions waits for this one.
    _open: TaskTrackerToken,
}

/// Why a session ends before its sidecar ends it.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the allocator ends")]
    Draining,
    #[error("another allocator leads, at {0}")]
    Elsewhere(String),
}

/// Who is there.
struct Caller {
    pod: PodId,
    of: Pod,
    /// Whether this is proven, and by what it can be proven again.
    ticket: Option<Vec<u8>>,
}

/// Sidecars that one allocator is made for (`leases.md` 6, goal 11).
pub(crate) const SESSIONS_MAX: usize = 10_000;
/// Messages that wait for one sidecar to read them: many times a busy second's credits. One that is
/// this far behind has stopped reading.
const OUTGOING_MAX: usize = 1_024;
/// A stream that says nothing must not hold a place.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A successor is there within 2 s of a leader that ends in view; a sidecar that waits here need not dial
/// again.
const LEADER_WITHIN: Duration = Duration::from_secs(2);
/// For the word of a refusal to leave.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);
/// A connection carries one session; the rest is for one that is just being replaced.
const STREAMS_PER_CONNECTION: u32 = 8;
/// A peer that vanished without a word is noticed within twice this time.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// gRPC's own headers take a few hundred bytes.
const HEADERS_MAX: u32 = 16 * 1024;
/// An epoch is a count of starts; a larger one is garbage, and outbidding it would leave no room above.
const EPOCH_MAX: Epoch = Epoch(1 << 48);

// === impl Service ===

impl Service {
    /// Sessions for the leader. Without `identity` what sidecars say of themselves is believed, and
    /// only of those on this machine.
    pub(crate) fn new(
        leadership: watch::Receiver<Leadership>,
        identity: Option<Identity>,
        policy: watch::Receiver<Arc<Current>>,
        metrics: Arc<Metrics>,
        sessions: TaskTracker,
    ) -> Service {
        Service {
            leadership,
            identity,
            policy,
            metrics,
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            sessions,
            streams: TaskTracker::new(),
            arrivals: Arc::default(),
        }
    }

    /// The server with this one service.
    pub(crate) fn into_router(self) -> Router {
        let service = AllocatorServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(HEADERS_MAX)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .add_service(service)
    }
}

#[tonic::async_trait]
impl Allocator for Service {
    type SessionStream = Outgoing;

    async fn session(
        &self,
        request: Request<Streaming<ToAllocator>>,
    ) -> Result<Response<Outgoing>, Status> {
        let (out, queue) = mpsc::channel(OUTGOING_MAX);
        match self.places.clone().try_acquire_owned() {
            Ok(place) => {
                let session = Session {
                    leadership: self.leadership.clone(),
                    identity: self.identity.clone(),
                    metadata: request.metadata().clone(),
                    policy: self.policy.clone(),
                    told: Arc::default(),
                    metrics: self.metrics.clone(),
                    peer: request.remote_addr(),
                    out,
                    close: CancellationToken::new(),
                    inbound: request.into_inner(),
                    sessions: self.sessions.clone(),
                    arrivals: self.arrivals.clone(),
                    _place: place,
                };
                self.streams.spawn(session.serve());
            }
            Err(_) => {
                self.metrics.refused(Refusal::Busy.reason());
                let _ = out.try_send(FromAllocator::from(&Refusal::Busy));
            }
        }
        Ok(Response::new(ReceiverStream::new(queue).map(|message| Ok(message.into()))))
    }
}

// === impl Session ===

impl Session {
    /// Serves the session to its end. The response's stream ends with it.
    async fn serve(mut self) {
        let ended = match self.open().await {
            Ok(opened) => {
                let ended = self.converse(&opened).await;
                // Without a leader there is nobody left to tell.
                let _ = opened.ledger.closed(opened.key).await;
                ended
            }
            Err(fault) => Err(fault),
        };
        match ended {
            Ok(()) => {}
            Err(Fault::Draining) => {
                let _ = self.out.try_send(FromAllocator::Drain);
            }
            Err(Fault::Elsewhere(address)) => {
                let _ = self.out.try_send(FromAllocator::Redirect { address });
            }
            Err(Fault::Refused(refusal)) => {
                let reason = refusal.reason();
                warn!(peer = ?self.peer, reason = reason.label(), %refusal, "session refused");
                self.metrics.refused(reason);
                let word = self.out.send(FromAllocator::from(&refusal));
                let _ = timeout(REFUSAL_WITHIN, word).await;
            }
        }
    }

    /// Who is there, and may it have a session.
    async fn open(&mut self) -> Result<Opened, Fault> {
        let first = timeout(HELLO_WITHIN, next(&mut self.inbound)).await;
        let first = first.map_err(|_| Refusal::Silent)??;
        let Some(FromSidecar::Hello(hello)) = first else { return Err(Refusal::Hello.into()) };
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Refusal::Version(hello.protocol_version).into());
        }
        if hello.highest_epoch_seen > EPOCH_MAX {
            return Err(Refusal::Epoch(hello.highest_epoch_seen).into());
        }
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
        let ledger = self.leader().await?;
        let Caller { pod, of, ticket } = self.identify(&hello).await?;
        let policy = self.policy.borrow_and_update().policy.clone();
        self.told = policy.clone();
        // A process id means something on one machine only.
        let pid = hello.pid.filter(|_| ticket.is_none());
        let process = pid.and_then(Process::find);
        let applicant = Applicant {
            pod,
            run: Run { boot: hello.boot_id, process },
            is_proven: ticket.is_some(),
            highest_epoch_seen: hello.highest_epoch_seen,
            arrival,
            greeting: reach::for_pod(&policy, &of),
            of: of.clone(),
            out: self.out.clone(),
            close: self.close.clone(),
        };
        let open = self.sessions.token();
        let key = ledger.open(applicant).await??;
        if let Some(ticket) = ticket {
            // Without it the next session asks the API server: no harm.
            let _ = self.out.try_send(FromAllocator::Ticket(ticket));
        }
        Ok(Opened { ledger, key, of, _open: open })
    }

    /// The way to the ledger, if it is here.
    async fn leader(&mut self) -> Result<Handle, Fault> {
        let is_known = |leadership: &Leadership| !matches!(leadership, Leadership::Following(None));
        let known = timeout(LEADER_WITHIN, self.leadership.wait_for(is_known)).await;
        let known = known.map_err(|_| Refusal::NoLeader)?.map_err(|_| Fault::Draining)?;
        match &*known {
            Leadership::Leading(ledger) => Ok(ledger.clone()),
            Leadership::Following(Some(address)) => Err(Fault::Elsewhere(address.clone())),
            Leadership::Following(None) => Err(Refusal::NoLeader.into()),
        }
    }

    /// Who is there.
    async fn identify(&self, hello: &Hello) -> Result<Caller, Refusal> {
        if let Some(identity) = &self.identity {
            let checked = identity.check(hello, &self.metadata).await;
            if let Err(refusal) = &checked {
                identity.tell(hello, refusal).await;
            }
            let (facts, ticket) = checked?;
            return Ok(Caller { pod: facts.id(), of: facts.decides(), ticket: Some(ticket) });
        }
        if !self.peer.is_some_and(|peer| peer.ip().is_loopback()) {
            return Err(Refusal::NotLocal);
        }
        let pod = format!("{}/{}", hello.namespace, hello.pod).into();
        let (namespace, labels) = (hello.namespace.clone(), hello.labels.clone());
        Ok(Caller { pod, of: Pod { namespace, labels, class: None }, ticket: None })
    }

    /// Passes on messages and policies until either side ends.
    async fn converse(&mut self, opened: &Opened) -> Result<(), Fault> {
        loop {
            // All arms are cancel-safe: a message that is half read stays in the stream.
            tokio::select! {
                message = next(&mut self.inbound) => match message? {
                    Some(FromSidecar::Lease(message)) => {
                        opened.ledger.message(&opened.key, message).await?;
                    }
                    Some(FromSidecar::Unknown) => debug!("a sidecar says what this version does not know"),
                    Some(FromSidecar::Hello(_)) => return Err(Refusal::Hello.into()),
                    None => return Ok(()),
                },
                Ok(()) = self.policy.changed() => {
                    let policy = self.policy.borrow_and_update().policy.clone();
                    let before = std::mem::replace(&mut self.told, policy.clone());
                    let news = reach::news(&before, &policy, &opened.of);
                    if news.is_some_and(|message| self.out.try_send(message).is_err()) {
                        return Ok(());
                    }
                }
                () = self.close.cancelled() => return Ok(()),
            }
        }
    }
}

/// The next message; `None` at the end of the stream, orderly or not. Safe to cancel.
async fn next(inbound: &mut Streaming<ToAllocator>) -> Result<Option<FromSidecar>, Refusal> {
    match inbound.message().await {
        Ok(Some(message)) => Ok(Some(FromSidecar::try_from(message)?)),
        Ok(None) => Ok(None),
        // What has a source is the connection's end; the rest is bytes that are no message.
        Err(status) if status.source().is_some() => {
            debug!(error = %status, "the stream broke");
            Ok(None)
        }
        Err(status) => Err(Refusal::Broken(status.message().to_owned())),
    }
}

// === impl Fault ===

impl From<Ended> for Fault {
    fn from(_: Ended) -> Fault {
        Fault::Draining
    }
}
