//! Terms of leadership: waits until the Lease may be taken, takes it, renews it, gives it back.
//!
//! What may be done when is decided in [`crate::cluster::lease`]. One task writes the object, so that
//! a renewal and a change of the record never cross; every write names the version it was read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use quota::time::Time;
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::kubelet::Kubelet;
use crate::cluster::lease::{Ground, Held, Holder, RENEW_DEADLINE, RETRY, Verdict, decide};
use crate::cluster::watching;
use crate::leader::today;
use crate::ledger_task::now;
use crate::record::{Record, Unreadable};
use crate::state::{self, Memory, Save};

/// What the watch of the Lease shows, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `None` before anything is known; then `None` inside if there is no such object.
    pub(crate) lease: Option<Option<Held>>,
    since: Instant,
    /// The highest epoch that was ever seen: an object with a lower one is an old copy.
    highest_epoch: u64,
}

/// Where what is seen is kept; the watch and a candidate that has read for itself write it.
type Sight = Arc<watch::Sender<Seen>>;

/// This allocator, as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    /// Where sidecars reach it.
    pub(crate) address: String,
    /// When the process started, by the node's wall clock.
    pub(crate) started: Duration,
}

/// Takes part in elections.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    me: Me,
    kubelet: Kubelet,
    sight: Sight,
    seen: watch::Receiver<Seen>,
}

/// A Lease that was taken.
pub(crate) struct Term {
    pub(crate) record: Record,
    pub(crate) memory: Memory,
    pub(crate) authority: Authority,
    pub(crate) saves: mpsc::Sender<Save>,
    pub(crate) keeper: Keeper,
}

/// Until when this process may act as the leader. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    until: Arc<AtomicU64>,
    ended: CancellationToken,
}

/// The one writer of the Lease during a term.
pub(crate) struct Keeper {
    api: Api<Lease>,
    name: String,
    lease: Lease,
    held: Held,
    /// Of this term.
    nonce: u64,
    me: Me,
    kubelet: Kubelet,
    /// The container of an earlier run, which is not this one.
    container_before: String,
    authority: Authority,
    saves: mpsc::Receiver<Save>,
    /// Saves that are answered by the next write that succeeds.
    unanswered: Vec<oneshot::Sender<()>>,
    seen: watch::Receiver<Seen>,
}

/// Why a write did not happen.
enum Failure {
    /// Another has written since: whether the Lease is lost is to be read.
    Conflict,
    /// The API server did not take it.
    Unavailable,
}

/// An API server that does not answer one write may answer the next.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Changes of the record that wait to be written.
const SAVES_MAX: usize = 4;

/// Follows the Lease object for as long as the task is polled.
pub(crate) fn follow(
    client: Client,
    namespace: &str,
    name: &str,
) -> (Sight, impl Future<Output = ()> + use<>) {
    let first = Seen { lease: None, since: Instant::now(), highest_epoch: 0 };
    let sight: Sight = Arc::new(watch::Sender::new(first));
    let events = watching::one(Api::<Lease>::namespaced(client, namespace), name);
    let told = sight.clone();
    let task = async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(lease) => see(&told, lease.as_ref()),
                Err(error) => warn!(%error, "the watch of the Lease failed; it starts anew"),
            }
        }
    };
    (sight, task)
}

fn see(sight: &Sight, lease: Option<&Lease>) {
    let lease = Some(lease.map(Held::of));
    sight.send_if_modified(|seen| {
        let is_new = seen.lease != lease;
        if is_new {
            let epoch = lease.as_ref().and_then(Option::as_ref).map_or(0, Held::epoch);
            let highest_epoch = seen.highest_epoch.max(epoch);
            *seen = Seen { lease, since: Instant::now(), highest_epoch };
        }
        is_new
    });
}

// === impl Candidate ===

impl Candidate {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: Me,
        kubelet: Kubelet,
        sight: Sight,
    ) -> Candidate {
        let api = Api::namespaced(client, namespace);
        let seen = sight.subscribe();
        Candidate { api, name: name.to_owned(), me, kubelet, sight, seen }
    }

    /// Waits until the Lease may be taken, and takes it.
    pub(crate) async fn win(&mut self) -> anyhow::Result<Term> {
        loop {
            let Seen { lease, since, highest_epoch } = self.seen.borrow_and_update().clone();
            let Some(lease) = lease else {
                let _ = self.seen.changed().await;
                continue;
            };
            let holder = lease.as_ref().and_then(|held| held.holder.as_ref());
            let has_ended = holder.is_some_and(|holder| self.kubelet.has_ended(holder));
            let is_old = lease.as_ref().map_or(0, Held::epoch) < highest_epoch;
            let uid = &self.me.pod_uid;
            let wait = match decide(lease.as_ref(), uid, since.elapsed(), has_ended, is_old) {
                Verdict::Wait(wait) => wait,
                Verdict::Acquire(ground) => {
                    if let Some(term) = self.acquire(lease, ground, highest_epoch).await? {
                        return Ok(term);
                    }
                    self.look().await;
                    RETRY
                }
            };
            // All arms are cancel-safe, and only say that it is worth looking again.
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.seen.changed() => {}
                () = self.kubelet.changed() => {}
            }
        }
    }

    /// Reads the Lease: a watch may be far behind without knowing it.
    async fn look(&self) {
        match timeout(WRITE_WITHIN, self.api.get_opt(&self.name)).await {
            Ok(Ok(lease)) => see(&self.sight, lease.as_ref()),
            Ok(Err(error)) => warn!(%error, "the Lease could not be read"),
            Err(_) => warn!("the API server did not answer a read of the Lease"),
        }
    }

    /// Takes the Lease, unless another was quicker.
    async fn acquire(
        &self,
        before: Option<Held>,
        ground: Ground,
        highest_epoch: u64,
    ) -> anyhow::Result<Option<Term>> {
        let (record, memory) = self.remember(before.as_ref(), highest_epoch)?;
        let holder = Holder {
            pod: self.me.pod.clone(),
            pod_uid: self.me.pod_uid.clone(),
            container_id: String::new(),
            nonce: rand::rng().random(),
            address: self.me.address.clone(),
        };
        let container_before = before
            .as_ref()
            .and_then(|held| held.holder.as_ref())
            .filter(|holder| holder.pod_uid == self.me.pod_uid)
            .map(|holder| holder.container_id.clone())
            .unwrap_or_default();
        let held = Held {
            version: before.and_then(|held| held.version),
            holder: Some(holder),
            record: Some(state::to_text(&record.shared())),
            is_readable: true,
        };
        let (saves_sender, saves) = mpsc::channel(SAVES_MAX);
        let mut keeper = Keeper {
            api: self.api.clone(),
            name: self.name.clone(),
            lease: Lease::default(),
            nonce: held.holder.as_ref().map_or(0, |holder| holder.nonce),
            held,
            me: self.me.clone(),
            kubelet: self.kubelet.clone(),
            container_before,
            authority: Authority::none(),
            saves,
            unanswered: Vec::new(),
            seen: self.seen.clone(),
        };
        if keeper.write().await.is_err() {
            return Ok(None);
        }
        see(&self.sight, Some(&keeper.lease));
        info!(epoch = record.epoch().0, ?ground, ?memory, "the Lease is ours");
        let authority = keeper.authority.clone();
        Ok(Some(Term { record, memory, authority, saves: saves_sender, keeper }))
    }

    /// The record of the leader before, with an epoch of our own, and whether it can be trusted.
    fn remember(
        &self,
        before: Option<&Held>,
        highest_epoch: u64,
    ) -> anyhow::Result<(Record, Memory)> {
        let text = before.and_then(|held| held.record.as_deref());
        let (mut record, mut memory) = match text.map(|text| Record::from_json(text.as_bytes())) {
            Some(Ok(record)) => (record, Memory::Kept),
            Some(Err(Unreadable::Newer(form))) => anyhow::bail!(
                "the Lease {} was written by a newer weir-allocator (its form is {form}): run that \
                 version, or delete the Lease once all pods with a sidecar have ended",
                self.name
            ),
            Some(Err(Unreadable::Broken(error))) => {
                warn!(%error, "the record in the Lease cannot be read");
                (Record::default(), Memory::Lost)
            }
            None if before.is_some() => (Record::default(), Memory::Lost),
            None => (Record::default(), Memory::FirstUse),
        };
        if record.epoch().0 < highest_epoch {
            warn!(
                epoch = record.epoch().0,
                seen = highest_epoch,
                "the Lease is older than what this allocator has seen: it was deleted, or restored \
                 from a copy; nothing is granted until all earlier leases have ended"
            );
            record.raise_epoch_above(quota::message::Epoch(highest_epoch));
            memory = Memory::Lost;
        }
        record.begin_epoch_in_cluster(now());
        if memory == Memory::Lost {
            // In the very write that takes the Lease: a successor must know it too.
            record.set_unknown_until(now());
            record.lose_stocks(today());
        }
        Ok((record, memory))
    }
}

// === impl Keeper ===

impl Keeper {
    /// Renews the Lease and writes what is to be saved, until it is lost or `release` says that the
    /// last word has been spoken.
    pub(crate) async fn run(mut self, mut release: oneshot::Receiver<()>) {
        let mut tick = interval(RETRY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut release_wanted = false;
        while !self.authority.ended.is_cancelled() && !release_wanted {
            // All arms are cancel-safe: what is not taken stays where it is.
            tokio::select! {
                _ = tick.tick() => {}
                Some(Save { record, done }) = self.saves.recv() => {
                    self.held.record = Some(record);
                    self.unanswered.push(done);
                }
                _ = &mut release => release_wanted = true,
                Ok(()) = self.seen.changed() => {
                    let lease = self.seen.borrow_and_update().lease.clone();
                    if self.is_ours(&lease) {
                        continue;
                    }
                }
            }
            if release_wanted {
                self.held.holder = None;
            } else {
                self.name_container();
            }
            if let Err(Failure::Conflict) = self.write().await {
                self.read_again().await;
                if !self.authority.ended.is_cancelled() && self.write().await.is_ok() {
                    debug!("the Lease was written by another, and is ours still");
                }
            }
            if !self.authority.is_valid(now()) {
                self.authority.end("it was not renewed in time");
            }
        }
        self.authority.ended.cancel();
    }

    /// True if what the watch shows is of this term.
    fn is_ours(&self, lease: &Option<Option<Held>>) -> bool {
        match lease {
            None => true,
            Some(None) => false,
            Some(Some(held)) => held.holder.as_ref().is_some_and(|it| it.nonce == self.nonce),
        }
    }

    fn name_container(&mut self) {
        let Some(holder) = self.held.holder.as_mut().filter(|it| it.container_id.is_empty()) else {
            return;
        };
        let Me { pod_uid, started, .. } = &self.me;
        if let Some(id) = self.kubelet.own_container(pod_uid, *started, &self.container_before) {
            holder.container_id = id;
        }
    }

    /// Writes all that is held over the version that was read last. A success renews the authority,
    /// counted from before the request.
    async fn write(&mut self) -> Result<(), Failure> {
        let start = now();
        let mut next = self.lease.clone();
        next.metadata.name = Some(self.name.clone());
        self.held.write_into(&mut next);
        let spec = next.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
        let params =
            PostParams { field_manager: Some("weir-allocator".into()), ..PostParams::default() };
        let request = async {
            match self.held.version {
                None => self.api.create(&params, &next).await,
                Some(_) => self.api.replace(&self.name, &params, &next).await,
            }
        };
        match timeout(WRITE_WITHIN, request).await {
            Ok(Ok(lease)) => {
                self.held.version.clone_from(&lease.metadata.resource_version);
                self.lease = lease;
                self.authority.extend(start + RENEW_DEADLINE);
                for done in self.unanswered.drain(..) {
                    // Whoever does not wait for it any more has stopped to lead.
                    let _ = done.send(());
                }
                Ok(())
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                Err(Failure::Conflict)
            }
            Ok(Err(error)) => {
                warn!(%error, "the Lease could not be written");
                Err(Failure::Unavailable)
            }
            Err(_) => {
                warn!("the API server did not answer a write of the Lease");
                Err(Failure::Unavailable)
            }
        }
    }

    /// Somebody else has written the object, or an answer to us was lost. Whether it still is of this
    /// term decides.
    async fn read_again(&mut self) {
        match timeout(WRITE_WITHIN, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => {
                let read = Held::of(&lease);
                if self.is_ours(&Some(Some(read.clone()))) {
                    self.held.version = read.version;
                    self.lease = lease;
                } else {
                    self.authority.end("another holds it, or it was restored from an old copy");
                }
            }
            Ok(Ok(None)) => self.authority.end("it was deleted"),
            Ok(Err(error)) => warn!(%error, "the Lease could not be read"),
            Err(_) => warn!("the API server did not answer a read of the Lease"),
        }
    }
}

// === impl Authority ===

impl Authority {
    fn none() -> Authority {
        Authority { until: Arc::default(), ended: CancellationToken::new() }
    }

    /// For a leader whose authority is something else that cannot end while it lives.
    pub(crate) fn unlimited() -> Authority {
        let authority = Authority::none();
        authority.until.store(u64::MAX, Ordering::Release);
        authority
    }

    /// Whether anything may be sent at this instant. To be asked right before it is.
    pub(crate) fn is_valid(&self, now: Time) -> bool {
        !self.ended.is_cancelled() && now.as_nanos() < self.until.load(Ordering::Acquire)
    }

    /// Waits for its end. Safe to cancel.
    pub(crate) async fn over(&self) {
        while self.is_valid(now()) {
            let left = Time::from_nanos(self.until.load(Ordering::Acquire)).since(now());
            // Both arms are cancel-safe. The clock of the runtime does not count suspension, so it is
            // asked again and again.
            tokio::select! {
                () = self.ended.cancelled() => {}
                () = sleep(left.min(RETRY)) => {}
            }
        }
    }

    fn extend(&self, until: Time) {
        self.until.store(until.as_nanos(), Ordering::Release);
    }

    /// Ends it for good.
    pub(crate) fn end(&self, why: &str) {
        if !self.ended.is_cancelled() {
            warn!(why, "the Lease is lost: nothing is granted from here any more");
            self.ended.cancel();
        }
    }
}
