//! The leader: the ledger, the record behind it, and the sessions it serves, brought together.
//!
//! [`crate::ledger_task`] calls it with the time and does the waiting. What may be granted is decided in
//! `quota::ledger`; here is decided what must be on record first, who is who, and what a successor or an
//! old state directory may assume (`leases.md` 3.6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quota::accounts::Takeover;
use quota::budget::{BudgetId, Kind};
use quota::ledger::{Ledger, StockMark};
use quota::message::{Epoch, PodId, ToAllocator};
use quota::policy::{Name, Policy};
use quota::time::Time;
use quota::timing::Timing;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use wire::FromAllocator;

pub(crate) use crate::leader::session::{Applicant, SessionKey};
use crate::leader::session::{Refused, Session};
use crate::metrics::Metrics;
use crate::policy::Current;
use crate::reach::Pod;
use crate::record::Run;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::state::{self, Memory, State};
use crate::view::{ClassView, PolicyView, RefusalView};

mod session;

/// The ledger and all that must agree with it.
pub(crate) struct Leader {
    ledger: Ledger,
    state: State,
    policy: Arc<Policy>,
    sessions: BTreeMap<PodId, Session>,
    /// Ends with a pod's process.
    watched: JoinSet<(PodId, Run)>,
    /// Pods without a stream whose process is not known, and when the last of what they may hold has
    /// surely ended.
    silent: BTreeMap<PodId, Time>,
    /// Pods that are there no more and have a stream, and until when.
    vanished: BTreeMap<PodId, Time>,
    last_session: u64,
    /// When each pod's last session was greeted, in the order of greetings.
    arrivals: BTreeMap<PodId, u64>,
    /// The last ones, the newest first.
    refusals: VecDeque<RefusalView>,
    metrics: Arc<Metrics>,
}

/// Refusals that are remembered for people to look at.
const REFUSALS_MAX: usize = 50;

/// How far ahead of the record another leader can have come: one takeover every two seconds for an hour.
const EPOCHS_AHEAD: u64 = 1_800;

/// Stands for pods that a lost or old record does not name: it is missing until all they may hold has
/// ended. No pod can have this name.
const UNKNOWN_PODS: &str = "?";

/// A pod that is deleted by force ends all the same, mostly in view of nobody: the usual grace period.
pub(crate) const GOODBYE_WITHIN: Duration = Duration::from_secs(30);

/// For a mark to be written; a draw that waits for it is looked at again then.
const MARK_RETRY: Duration = Duration::from_millis(5);

/// Days of stocks end at midnight UTC.
const DAY: Duration = Duration::from_secs(86_400);

// === impl Leader ===

impl Leader {
    /// Begins to lead, with what the state directory knows of the leader before.
    pub(crate) fn new(
        now: Time,
        (mut state, memory): (State, Memory),
        policy: Arc<Policy>,
        metrics: Arc<Metrics>,
    ) -> Leader {
        let mut leader = Leader {
            ledger: begin(now, &mut state, memory, &policy),
            state,
            policy,
            sessions: BTreeMap::new(),
            watched: JoinSet::new(),
            silent: BTreeMap::new(),
            vanished: BTreeMap::new(),
            last_session: 0,
            arrivals: BTreeMap::new(),
            refusals: VecDeque::new(),
            metrics,
        };
        let roster: Vec<(PodId, Run)> =
            leader.state.record().pods().map(|(pod, run)| (pod.clone(), *run)).collect();
        for (pod, run) in roster {
            leader.watch(&pod, run);
            leader.go_silent(now, &pod);
        }
        leader
    }

    /// Takes a policy.
    pub(crate) fn set_policy(&mut self, now: Time, policy: Arc<Policy>) {
        if Arc::ptr_eq(&policy, &self.policy) {
            return;
        }
        let before = std::mem::replace(&mut self.policy, policy);
        self.ledger.set_policy(now, self.policy.clone());
        let known: BTreeSet<&BudgetId> = before.budgets().map(|budget| &budget.id).collect();
        let mut marks = stock_marks(&self.state, &self.policy);
        marks.retain(|mark| !known.contains(&mark.budget));
        self.ledger.set_stock_marks(&marks);
        self.promise_floors();
        for (pod, session) in &self.sessions {
            self.ledger.set_quota(pod, workload(&self.policy, session));
        }
    }

    /// A sidecar asks for a session.
    pub(crate) fn open(&mut self, now: Time, applicant: Applicant) -> Result<SessionKey, Refusal> {
        let (pod, run) = (applicant.pod.clone(), applicant.run);
        if !applicant.is_proven {
            self.refuse_duplicate(&pod, run)?;
        }
        let before = self.state.record().run(&pod);
        let seen = applicant.highest_epoch_seen;
        self.refuse_stale(&applicant, before)?;
        // A Lease is taken over the version that was read, so that nobody else can have our epoch: there,
        // only a higher one is another's.
        if self.is_foreign(seen, before == Some(run) || applicant.is_proven) {
            self.outbid(now, &pod, seen);
        }
        // A new run in the place of one that is known to have ended: by its process, or because a
        // container of a pod has one run at a time.
        let is_known = |before: Run| before.process.is_some() || applicant.is_proven;
        if before.is_some_and(|it| it.boot != run.boot && it != Run::UNKNOWN && is_known(it)) {
            self.ledger.gone(now, &pod);
        }
        self.close(&pod);
        self.silent.remove(&pod);
        self.state.update(|record| record.add_pod(&pod, run));
        self.promise_floors();
        if before != Some(run) {
            self.watch(&pod, run);
        }
        self.arrivals.insert(pod.clone(), applicant.arrival);
        self.last_session += 1;
        let session = Session::new(self.last_session, applicant);
        let quota = workload(&self.policy, &session);
        let pid = run.process.map(|process| process.pid);
        info!(%pod, quota = quota.as_deref(), pid, "sidecar connected");
        self.ledger.connect(now, &pod, run.boot, quota);
        self.sessions.insert(pod.clone(), session);
        self.count_sessions();
        Ok(SessionKey { pod, number: self.last_session })
    }

    /// A message has arrived in a session.
    pub(crate) fn receive(&mut self, now: Time, key: &SessionKey, message: ToAllocator) {
        let metrics = self.metrics.clone();
        let Some(session) = self.session(key) else { return };
        match &message {
            ToAllocator::Draw(draw) => session.draw_arrived(now, draw),
            ToAllocator::Cancel(id) => session.draw_cancelled(now, *id, &metrics),
            _ => {}
        }
        let is_bye = matches!(message, ToAllocator::Bye(_));
        self.ledger.receive(now, &key.pod, message);
        if is_bye {
            info!(pod = %key.pod, "sidecar ended");
            self.forget(&key.pod);
        }
    }

    /// A session's stream has ended. What the pod holds, it may still hold.
    pub(crate) fn closed(&mut self, now: Time, key: &SessionKey) {
        if self.session(key).is_none() {
            return;
        }
        info!(pod = %key.pod, "sidecar disconnected");
        self.close(&key.pod);
        self.ledger.disconnect(&key.pod);
        self.go_silent(now, &key.pod);
    }

    /// Waits for the end of a pod's process; for ever if none is known. Safe to cancel.
    pub(crate) async fn process_ended(&mut self) -> (PodId, Run) {
        loop {
            match self.watched.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => debug!(%error, "the watch over a process failed"),
                None => std::future::pending().await,
            }
        }
    }

    /// A process has ended: what its pod held is free, unless another run has taken its place.
    pub(crate) fn ended(&mut self, now: Time, pod: &PodId, run: Run) {
        if self.state.record().run(pod) == Some(run) {
            info!(%pod, "the sidecar's process has ended");
            self.ledger.gone(now, pod);
            self.forget(pod);
        }
    }

    /// The kubelet has reported the end of a pod's sidecar, and that it will not run again.
    pub(crate) fn pod_ended(&mut self, now: Time, pod: &PodId) {
        if self.state.record().run(pod).is_some() {
            info!(%pod, "the kubelet has reported the sidecar's end");
            self.ledger.gone(now, pod);
            self.forget(pod);
        }
    }

    /// A pod is no longer there, and nobody has seen its end. It may still say goodbye, and gets nothing
    /// more after that: one day a successor would not count what it holds.
    pub(crate) fn pod_vanished(&mut self, now: Time, pod: &PodId) {
        if self.sessions.contains_key(pod) {
            self.vanished.entry(pod.clone()).or_insert(now + GOODBYE_WITHIN);
        }
    }

    /// Something about a pod has changed: one whose quota may be another's now has to ask again. Leases
    /// run on meanwhile.
    pub(crate) fn pod_changed(&mut self, pod: &PodId, of: &Pod) {
        if let Some(session) = self.sessions.get(pod).filter(|session| session.of != *of) {
            info!(%pod, "what decides this pod's quota has changed; it connects anew");
            session.close();
        }
    }

    /// Brings on record what the next [`Leader::poll`] relies on.
    pub(crate) async fn prepare(&mut self, now: Time) -> Result<(), state::Error> {
        let day = today();
        if day > self.state.record().day() {
            self.state.update(|record| record.begin_day(day));
            self.ledger.new_period();
        }
        let over = self.silent.iter().filter(|(_, until)| **until <= now);
        for pod in over.map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
            info!(%pod, "all that a silent sidecar may have held has ended");
            self.ledger.gone(now, &pod);
            self.forget(&pod);
        }
        let over = self.vanished.extract_if(.., |_, until| *until <= now);
        for (pod, _) in over.collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get(&pod) {
                warn!(%pod, "this pod was deleted without word of its end; its stream is closed");
                session.close();
            }
        }
        let marks = self.ledger.stock_marks_wanted();
        for mark in &marks {
            self.state.update(|record| record.mark_stock(mark));
        }
        self.state.update(|record| record.end_unknown(now));
        if self.state.save().await? {
            self.ledger.stock_marks_written(&marks);
        }
        Ok(())
    }

    /// Does all that is due, and sends what follows. A session that does not read it is closed.
    pub(crate) fn poll(&mut self, now: Time) {
        for (pod, message) in self.ledger.poll(now) {
            let Some(session) = self.sessions.get_mut(&pod) else { continue };
            if let Some(refused) = session.answered(now, &message, &self.metrics) {
                remember(&mut self.refusals, &pod, refused);
            }
            if session.send(FromAllocator::Lease(message)).is_err() {
                warn!(%pod, "a sidecar does not read what it is sent; its stream is closed");
                let key = SessionKey { number: session.number(), pod };
                self.closed(now, &key);
            }
        }
    }

    /// When there is something to do next, if nothing else happens.
    pub(crate) fn next_wakeup(&self, now: Time) -> Option<Time> {
        // Draws may wait for a mark that the last poll has brought near.
        let wanted = !self.ledger.stock_marks_wanted().is_empty();
        let mark = wanted.then_some(now + MARK_RETRY);
        let silent = self.silent.values().copied().min();
        let vanished = self.vanished.values().copied().min();
        [self.ledger.next_wakeup(now), mark, silent, vanished].into_iter().flatten().min()
    }

    /// What there is to see.
    pub(crate) fn snapshot(&mut self, now: Time, current: &Current) -> Snapshot {
        let mut classes: BTreeMap<String, ClassView> = BTreeMap::new();
        for (class, since) in self.sessions.values().flat_map(Session::waiting) {
            let of = classes.entry(class.to_string()).or_default();
            of.waiting += 1;
            of.oldest_ms = of.oldest_ms.max(millis(now.since(since)));
        }
        let policy = PolicyView {
            generation: self.policy.generation,
            warnings: current.warnings.iter().map(ToString::to_string).collect(),
            problems: current.problems.clone(),
        };
        Snapshot {
            at: service::clock::unix_now(),
            status: self.ledger.status(now),
            classes,
            refusals: self.refusals.clone(),
            policy,
        }
    }

    /// Stops to lead: tells every sidecar, ends every stream, and returns what to hold until all of
    /// them are closed. Leases run on.
    pub(crate) fn resign(self) -> State {
        for session in self.sessions.values() {
            // One that reads nothing learns it from the end of its stream.
            let _ = session.send(FromAllocator::Drain);
            session.close();
        }
        self.metrics.sessions.set(0);
        self.state
    }

    // --- who is who ---

    /// A greeting that took its time (a token had to be checked) may be of a run that has ended
    /// meanwhile; and an epoch far above ours is garbage, which must not be outbid.
    fn refuse_stale(&self, applicant: &Applicant, before: Option<Run>) -> Result<(), Refusal> {
        let last = self.arrivals.get(&applicant.pod).copied().unwrap_or(0);
        let is_other = before.is_some_and(|before| before.boot != applicant.run.boot);
        if is_other && applicant.arrival < last {
            return Err(Refusal::Stale);
        }
        let (seen, ours) = (applicant.highest_epoch_seen, self.state.record().epoch());
        if applicant.is_proven && seen.0 > ours.0.saturating_add(EPOCHS_AHEAD) {
            return Err(Refusal::Epoch(seen));
        }
        Ok(())
    }

    /// One name, one process: a second one would double what the pod holds.
    fn refuse_duplicate(&self, pod: &PodId, run: Run) -> Result<(), Refusal> {
        let Some(before) = self.state.record().run(pod).filter(|it| it.boot != run.boot) else {
            return Ok(());
        };
        let is_alive = match before.process {
            Some(process) => process.is_alive(),
            None => self.sessions.contains_key(pod),
        };
        if is_alive {
            let pid = before.process.map(|process| process.pid);
            return Err(Refusal::Duplicate { pod: pod.clone(), pid });
        }
        Ok(())
    }

    /// True if a sidecar cannot have this epoch from us: it is higher, or it is ours and the sidecar is
    /// not on record, where each one is before it is told the epoch.
    fn is_foreign(&self, seen: Epoch, is_known: bool) -> bool {
        let ours = self.state.record().epoch();
        seen > ours || (seen == ours && !is_known)
    }

    /// Stops to grant, takes an epoch above the one seen, and goes by silence.
    fn outbid(&mut self, now: Time, pod: &PodId, seen: Epoch) {
        warn!(
            %pod, epoch = seen.0,
            "a sidecar has seen an epoch that this state directory does not know: the directory is \
             old, or another allocator leads; nothing is granted until all earlier leases have ended"
        );
        self.metrics.epochs_raised.inc();
        self.state.update(|record| record.raise_epoch_above(seen));
        self.ledger = begin(now, &mut self.state, Memory::Lost, &self.policy);
        for (pod, session) in &mut self.sessions {
            session.forget_draws();
            let quota = workload(&self.policy, session);
            self.ledger.connect(now, pod, session.run.boot, quota);
        }
    }

    fn watch(&mut self, pod: &PodId, run: Run) {
        if let Some(process) = run.process {
            let pod = pod.clone();
            self.watched.spawn(async move {
                process.ended().await;
                (pod, run)
            });
        }
    }

    // --- small matters ---

    fn session(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(&key.pod).filter(|session| session.number() == key.number)
    }

    fn close(&mut self, pod: &PodId) {
        if let Some(session) = self.sessions.remove(pod) {
            session.close();
            self.count_sessions();
        }
    }

    /// The pod holds nothing any more.
    fn forget(&mut self, pod: &PodId) {
        self.close(pod);
        self.silent.remove(pod);
        self.arrivals.remove(pod);
        self.vanished.remove(pod);
        self.state.update(|record| record.remove_pod(pod));
    }

    /// Only silence ends what a pod without a known process holds.
    fn go_silent(&mut self, now: Time, pod: &PodId) {
        let record = self.state.record();
        if record.run(pod).is_some_and(|run| run.process.is_none()) {
            self.silent.insert(pod.clone(), now + longest_hold(record.floor_ttl()));
        }
    }

    /// A successor must know what floors the pods on record may hold.
    fn promise_floors(&mut self) {
        if self.state.record().pods().next().is_some() {
            promise_floors(&mut self.state, &self.policy);
        }
    }

    fn count_sessions(&self) {
        self.metrics.sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
    }
}

/// A ledger for the epoch on record.
fn begin(now: Time, state: &mut State, memory: Memory, policy: &Arc<Policy>) -> Ledger {
    let timing = Timing::default();
    state.update(|record| record.begin_day(today()));
    let mut quiet_until = now;
    if memory == Memory::Lost {
        // Whoever leads by another record, or led by the lost one, may act for as long as its leases.
        quiet_until = now + timing.charged(timing.lease_ttl);
        promise_floors(state, policy);
        let until = quiet_until + longest_hold(state.record().floor_ttl());
        state.update(|record| record.set_unknown_until(until));
        state.update(|record| record.lose_stocks(today()));
    }
    let record = state.record();
    let mut roster = record.roster();
    if record.has_unknown() {
        roster.insert(UNKNOWN_PODS.into());
    }
    let (epoch, floors, floor_ttl) = (record.epoch(), record.floors(), record.floor_ttl());
    let start = Takeover { epoch, quiet_until, roster, floors, floor_ttl };
    info!(epoch = epoch.0, ?memory, pods = start.roster.len(), "leading");
    let mut ledger = Ledger::new(now, timing, start, memory == Memory::FirstUse);
    ledger.set_policy(now, policy.clone());
    ledger.set_stock_marks(&stock_marks(state, policy));
    ledger
}

fn promise_floors(state: &mut State, policy: &Policy) {
    for budget in policy.budgets() {
        state.update(|record| record.promise_floors(budget));
    }
}

/// What of each stock may have been granted in this period.
fn stock_marks(state: &State, policy: &Policy) -> Vec<StockMark> {
    let marks = policy.budgets().filter_map(|budget| match budget.kind {
        Kind::Stock { amount, .. } => Some(state.record().stock_mark(&budget.id, amount)),
        Kind::Bucket { .. } | Kind::Window { .. } | Kind::Slots { .. } => None,
    });
    marks.collect()
}

/// After this time in silence a pod surely holds nothing.
pub(crate) fn longest_hold(floor_ttl: Duration) -> Duration {
    let timing = Timing::default();
    timing.charged(floor_ttl.max(timing.lease_ttl))
}

/// The workload of a pod.
fn workload(policy: &Policy, session: &Session) -> Option<Name> {
    policy.quota_of(&session.of.namespace, &session.of.labels).map(|quota| quota.key().into())
}

fn remember(refusals: &mut VecDeque<RefusalView>, pod: &PodId, refused: Refused) {
    let Refused { denial, class, trace_id } = refused;
    refusals.truncate(REFUSALS_MAX - 1);
    refusals.push_front(RefusalView {
        at_ms: millis(service::clock::unix_now()),
        pod: pod.to_string(),
        class: class.to_string(),
        reason: denial.reason.label().to_owned(),
        explain: denial.explain,
        trace_id,
    });
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Days since the Unix epoch.
pub(crate) fn today() -> u64 {
    service::clock::unix_now().as_secs() / DAY.as_secs()
}

#[cfg(test)]
mod tests;
