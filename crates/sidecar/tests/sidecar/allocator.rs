//! An allocator that follows the contract and decides as a test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use quota::message::{
    Credit, Denial, DrawRequest, Epoch, LeaseSet, Nonce, Reason, Report, ToAllocator, ToPod,
};
use quota::policy::PodPolicy;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::{Allocator, AllocatorServer, FromAllocator, FromSidecar, ToSidecar};

/// What it does with a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Grant,
    Hold,
    Deny(Reason, Option<Duration>),
}

/// The test's handle on it.
#[derive(Clone)]
pub(crate) struct FakeAllocator {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    policy: watch::Sender<Option<PodPolicy>>,
    decision: Mutex<Decision>,
    lease: Mutex<Option<LeaseSet>>,
    heard: Mutex<Vec<FromSidecar>>,
    news: Notify,
    cut: Mutex<CancellationToken>,
}

impl FakeAllocator {
    /// Starts one on a free port of loopback.
    pub(crate) async fn start(policy: Option<PodPolicy>) -> FakeAllocator {
        FakeAllocator::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), policy).await
    }

    /// Starts one on a bound socket.
    pub(crate) async fn start_on(
        listener: TcpListener,
        policy: Option<PodPolicy>,
    ) -> FakeAllocator {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            policy: watch::Sender::new(policy),
            decision: Mutex::new(Decision::Grant),
            lease: Mutex::new(None),
            heard: Mutex::default(),
            news: Notify::new(),
            cut: Mutex::default(),
        });
        let fake = FakeAllocator { address, shared };
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_service(AllocatorServer::new(fake.clone()))
            .serve_with_incoming(incoming);
        tokio_util::task::TaskTracker::new().spawn(server);
        fake
    }

    pub(crate) fn decide(&self, decision: Decision) {
        *self.shared.decision.lock() = decision;
    }

    /// Grants this lease at the next welcome; the anchor is put in.
    pub(crate) fn grant(&self, lease: LeaseSet) {
        *self.shared.lease.lock() = Some(lease);
    }

    pub(crate) fn set_policy(&self, policy: Option<PodPolicy>) {
        self.shared.policy.send_replace(policy);
    }

    /// Ends all streams; the next ones are served again.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock()).cancel();
    }

    /// Waits until something that it heard matches.
    pub(crate) async fn heard<T>(&self, matches: impl Fn(&FromSidecar) -> Option<T>) -> T {
        loop {
            let news = self.shared.news.notified();
            if let Some(found) = self.shared.heard.lock().iter().find_map(&matches) {
                return found;
            }
            news.await;
        }
    }

    /// Waits for a report that matches.
    pub(crate) async fn report(&self, matches: impl Fn(&Report) -> bool) -> Report {
        self.heard(|message| match message {
            FromSidecar::Lease(ToAllocator::Report(report) | ToAllocator::Bye(report)) => {
                matches(report).then(|| report.clone())
            }
            _ => None,
        })
        .await
    }

    /// How many messages so far match.
    pub(crate) fn count(&self, matches: impl Fn(&FromSidecar) -> bool) -> usize {
        self.shared.heard.lock().iter().filter(|message| matches(message)).count()
    }

    /// All draws so far.
    pub(crate) fn draws(&self) -> Vec<DrawRequest> {
        let heard = self.shared.heard.lock();
        let draws = heard.iter().filter_map(|message| match message {
            FromSidecar::Lease(ToAllocator::Draw(draw)) => Some(draw.clone()),
            _ => None,
        });
        draws.collect()
    }

    fn hear(&self, message: FromSidecar) {
        self.shared.heard.lock().push(message);
        self.shared.news.notify_waiters();
    }

    fn answer(&self, message: &FromSidecar, epoch: Epoch) -> Vec<ToPod> {
        match message {
            FromSidecar::Lease(ToAllocator::Holdings(holdings)) => {
                let lease = self.shared.lease.lock().clone();
                let lease = lease.map(|lease| LeaseSet { echo: holdings.mono, epoch, ..lease });
                [ToPod::Welcome(epoch)].into_iter().chain(lease.map(ToPod::Lease)).collect()
            }
            FromSidecar::Lease(ToAllocator::Draw(draw)) => match *self.shared.decision.lock() {
                Decision::Hold => Vec::new(),
                Decision::Grant => vec![ToPod::Credit(Credit {
                    id: draw.id,
                    epoch,
                    echo: draw.mono,
                    spend_by: Duration::from_secs(1),
                })],
                Decision::Deny(reason, retry_after) => vec![ToPod::Deny(Denial {
                    id: draw.id,
                    reason,
                    retry_after,
                    explain: "the test says so".to_owned(),
                })],
            },
            _ => Vec::new(),
        }
    }

    async fn session(
        self,
        mut inbound: Streaming<wire::ToAllocator>,
        out: mpsc::Sender<Result<ToSidecar, Status>>,
    ) {
        let epoch = Epoch(1);
        let mut policy = self.shared.policy.subscribe();
        let send = |message: FromAllocator| {
            let out = out.clone();
            async move { out.send(Ok(message.into())).await.is_ok() }
        };
        let about = |policy: Option<PodPolicy>| match policy {
            Some(policy) => FromAllocator::Policy(Box::new(policy)),
            None => FromAllocator::NoQuota {
                generation: 1,
                explain: "create an LLMQuota that matches pod shop/chat-1".to_owned(),
            },
        };
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Ok(Some(message)) = message else { return };
                    let message = FromSidecar::try_from(message).expect("the sidecar keeps the contract");
                    if matches!(message, FromSidecar::Hello(_)) {
                        // A later version may say more; no test is to notice.
                        send(FromAllocator::Unknown).await;
                        let first = about(policy.borrow_and_update().clone());
                        send(first).await;
                        send(FromAllocator::Lease(ToPod::Challenge(epoch, Nonce(7)))).await;
                    }
                    let answers = self.answer(&message, epoch);
                    self.hear(message);
                    for answer in answers {
                        send(FromAllocator::Lease(answer)).await;
                    }
                }
                _ = policy.changed() => {
                    let changed = about(policy.borrow_and_update().clone());
                    send(changed).await;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Allocator for FakeAllocator {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToSidecar, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::ToAllocator>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, stream) = mpsc::channel(64);
        let cut = self.shared.cut.lock().clone();
        let session = self.clone().session(request.into_inner(), out);
        tokio_util::task::TaskTracker::new().spawn(cut.run_until_cancelled_owned(session));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
