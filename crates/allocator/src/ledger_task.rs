//! The one task that owns the ledger: it takes what has arrived, all of it at once, brings on disk what
//! must be there, lets the leader act, and sleeps until the next moment that the ledger itself names.

use std::sync::Arc;
use std::time::Duration;

use quota::message::ToAllocator;
use quota::time::Time;
use service::clock::boottime_nanos;
use service::drain;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::cluster::pods::{Life, PodChange, Pods};
use crate::cluster::term::Authority;
use crate::leader::{Applicant, Leader, SessionKey};
use crate::policy::Current;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::state::{self, State};

/// The task.
pub(crate) struct LedgerTask {
    leader: Leader,
    inputs: mpsc::Receiver<Input>,
    policy: watch::Receiver<Arc<Current>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    authority: Authority,
    pods: Option<PodWord>,
}

/// What the API server says about pods; only in a cluster.
pub(crate) struct PodWord {
    pub(crate) pods: Pods,
    pub(crate) changes: broadcast::Receiver<PodChange>,
}

/// How sessions reach it; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
}

/// The task has ended: this allocator leads no longer.
#[derive(Debug)]
pub(crate) struct Ended;

#[derive(Debug)]
enum Input {
    Open(Box<Applicant>, oneshot::Sender<Result<SessionKey, Refusal>>),
    Message(SessionKey, Box<ToAllocator>),
    Closed(SessionKey, oneshot::Sender<()>),
}

/// Messages that wait for the task: some milliseconds of work. Beyond it streams are read more slowly.
const INPUTS_MAX: usize = 4_096;
/// Messages taken at once; the ledger acts once for all of them.
const BATCH: usize = 512;
/// How old the shown figures may be.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// This instant, for the ledger.
pub(crate) fn now() -> Time {
    Time::from_nanos(boottime_nanos())
}

// === impl LedgerTask ===

impl LedgerTask {
    /// The task for `leader`, to be run, and the way to it. It acts only while `authority` lasts.
    pub(crate) fn new(
        leader: Leader,
        policy: watch::Receiver<Arc<Current>>,
        snapshot: watch::Sender<Arc<Snapshot>>,
        authority: Authority,
        pods: Option<PodWord>,
    ) -> (LedgerTask, Handle) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let task = LedgerTask { leader, inputs, policy, snapshot, authority, pods };
        (task, Handle { inputs: sender })
    }

    /// Leads until the drain starts or the authority ends, and returns the lock, to be held until all
    /// streams are closed.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written: whoever cannot remember must not lead.
    pub(crate) async fn run(mut self, mut drain: drain::Watch) -> Result<State, state::Error> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut snapshot_at = Instant::now();
        loop {
            // What is left undone by a preparation that is cut off, a successor does.
            tokio::select! {
                prepared = self.leader.prepare(now()) => match prepared {
                    Err(state::Error::LeaseLost) => return Ok(self.leader.resign()),
                    prepared => prepared?,
                },
                () = self.authority.over() => {}
            }
            // Asked right before anything is sent: the process may have slept.
            if !self.authority.is_valid(now()) {
                return Ok(self.leader.resign());
            }
            self.leader.poll(now());
            if Instant::now() >= snapshot_at {
                snapshot_at = Instant::now() + SNAPSHOT_EVERY;
                self.show();
            }
            let wakeup = wakeup(self.leader.next_wakeup(now())).min(snapshot_at);
            // All arms are cancel-safe: what an arm that does not complete would take stays where it is.
            tokio::select! {
                _ = self.inputs.recv_many(&mut batch, BATCH) => {
                    batch.drain(..).for_each(|input| self.take(input));
                }
                Ok(()) = self.policy.changed() => {
                    let policy = self.policy.borrow_and_update().policy.clone();
                    self.leader.set_policy(now(), policy);
                }
                change = next_change(&mut self.pods) => self.take_change(change),
                (pod, run) = self.leader.process_ended() => self.leader.ended(now(), &pod, run),
                () = sleep_until(wakeup) => {}
                _ = drain.started() => return Ok(self.leader.resign()),
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Open(applicant, reply) => {
                let opened = self.leader.open(now(), *applicant);
                if let Err(Ok(key)) = reply.send(opened) {
                    self.leader.closed(now(), &key);
                }
            }
            Input::Message(key, message) => self.leader.receive(now(), &key, *message),
            Input::Closed(key, done) => {
                self.leader.closed(now(), &key);
                // A session that does not wait for it has gone.
                let _ = done.send(());
            }
        }
    }

    fn take_change(&mut self, change: Option<PodChange>) {
        let Some(word) = &self.pods else { return };
        match change {
            Some(PodChange::Ended(pod)) => self.leader.pod_ended(now(), &pod),
            Some(PodChange::Vanished(pod)) => self.leader.pod_vanished(now(), &pod),
            Some(PodChange::Changed(pod)) => {
                if let Some(facts) = word.pods.by_id(&pod) {
                    self.leader.pod_changed(&pod, &facts.decides());
                }
            }
            // Changes were missed: everything is looked at.
            None => {
                word.pods.for_each(|facts| {
                    self.leader.pod_changed(&facts.id(), &facts.decides());
                    if facts.life == Life::Ended {
                        self.leader.pod_ended(now(), &facts.id());
                    }
                });
                let vanished = word.pods.vanished();
                vanished.iter().for_each(|pod| self.leader.pod_vanished(now(), pod));
            }
        }
    }

    fn show(&mut self) {
        let snapshot = self.leader.snapshot(now(), &self.policy.borrow());
        self.snapshot.send_replace(Arc::new(snapshot));
    }
}

/// The next change of a pod, `None` if some were missed; for ever where there is no watch. Safe to cancel.
async fn next_change(word: &mut Option<PodWord>) -> Option<PodChange> {
    let Some(word) = word else { return std::future::pending().await };
    match word.changes.recv().await {
        Ok(change) => Some(change),
        Err(broadcast::error::RecvError::Lagged(_)) => None,
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

/// The ledger's time as the runtime's.
fn wakeup(at: Option<Time>) -> Instant {
    let wait = at.map_or(SNAPSHOT_EVERY, |at| at.since(now()));
    Instant::now() + wait.min(SNAPSHOT_EVERY)
}

// === impl Handle ===

impl Handle {
    /// Asks for a session.
    pub(crate) async fn open(
        &self,
        applicant: Applicant,
    ) -> Result<Result<SessionKey, Refusal>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Open(Box::new(applicant), reply)).await?;
        answer.await.map_err(|_| Ended)
    }

    /// Passes on a message of a session; waits while there are too many.
    pub(crate) async fn message(
        &self,
        key: &SessionKey,
        message: ToAllocator,
    ) -> Result<(), Ended> {
        self.send(Input::Message(key.clone(), Box::new(message))).await
    }

    /// The stream of a session has ended. After this nothing more is sent to it.
    pub(crate) async fn closed(&self, key: SessionKey) -> Result<(), Ended> {
        let (done, is_done) = oneshot::channel();
        self.send(Input::Closed(key, done)).await?;
        is_done.await.map_err(|_| Ended)
    }

    async fn send(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }
}
