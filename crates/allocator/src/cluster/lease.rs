//! The Lease object: who leads, and when another may (`leases.md` 3.6 and 3.7).
//!
//! Here is what it says and what follows from it, without a clock and without a request;
//! [`crate::cluster::term`] reads and writes it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// What the Lease object holds of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Which version of the object this is; a write on top of another one fails.
    pub(crate) version: Option<String>,
    /// The one that leads, or led; `None` once it has released the Lease.
    pub(crate) holder: Option<Holder>,
    /// The record of [`crate::record`], as text; `None` if there is none.
    pub(crate) record: Option<String>,
    /// False for a Lease that is not ours, or whose words cannot be read.
    pub(crate) is_readable: bool,
}

/// One acquisition of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    /// The pod, by name and uid.
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    /// The container's run, once the kubelet has named it; empty before. A restarted container keeps
    /// its pod and gets a new id.
    pub(crate) container_id: String,
    /// Drawn at each acquisition.
    pub(crate) nonce: u64,
    /// Where sidecars reach it.
    pub(crate) address: String,
}

/// Why a Lease may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// There is no Lease object: nobody has ever led here.
    FirstUse,
    /// The one before released it, after its last word.
    Released,
    /// This is the next run of the very container that led.
    NextRun,
    /// The kubelet has reported the end of the container that led.
    ConfirmedEnd,
    /// It has not been renewed for so long that its holder has stopped by itself.
    Silence,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acquire(Ground),
    /// Look again after this time, or when something changes.
    Wait(Duration),
}

/// A Lease that was not renewed for this long may be taken. Long, so that an API server's restart goes
/// unnoticed; a leader that ends in view of the kubelet is succeeded at once all the same.
pub(crate) const DURATION: Duration = Duration::from_secs(30);
/// A leader stops this long after the start of its last renewal that succeeded.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(22);
/// Between two renewals, or two tries.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

const HOLDER: &str = "weir.dev/holder";
const RECORD: &str = "weir.dev/record";

/// What a candidate may do, given what it sees. `unchanged_for` counts on the candidate's own clock,
/// since it saw the object change: timestamps of others are never compared. `has_ended` is the
/// kubelet's word on the holder's container. `is_old` says that a higher epoch has been seen than the
/// object tells: it was deleted, or restored from a copy, and what it says of its holder is not true;
/// somebody may lead.
pub(crate) fn decide(
    held: Option<&Held>,
    pod_uid: &str,
    unchanged_for: Duration,
    has_ended: bool,
    is_old: bool,
) -> Verdict {
    if is_old {
        return if unchanged_for >= DURATION {
            Verdict::Acquire(Ground::Silence)
        } else {
            Verdict::Wait((DURATION - unchanged_for).min(RETRY))
        };
    }
    let Some(held) = held else { return Verdict::Acquire(Ground::FirstUse) };
    match &held.holder {
        None if held.is_readable => Verdict::Acquire(Ground::Released),
        Some(holder) if holder.pod_uid == pod_uid => Verdict::Acquire(Ground::NextRun),
        Some(_) if has_ended => Verdict::Acquire(Ground::ConfirmedEnd),
        _ if unchanged_for >= DURATION => Verdict::Acquire(Ground::Silence),
        _ => Verdict::Wait((DURATION - unchanged_for).min(RETRY)),
    }
}

// === impl Held ===

impl Held {
    /// The epoch that the record tells; 0 if it tells none.
    pub(crate) fn epoch(&self) -> u64 {
        let record = self.record.as_deref().map(|text| Record::from_json(text.as_bytes()));
        record.and_then(Result::ok).map_or(0, |record| record.epoch().0)
    }

    pub(crate) fn of(lease: &Lease) -> Held {
        let annotation = |name| lease.metadata.annotations.as_ref().and_then(|all| all.get(name));
        let is_released = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref())
            .is_none_or(str::is_empty);
        let holder = annotation(HOLDER).and_then(|text| serde_json::from_str(text).ok());
        let record = annotation(RECORD).cloned();
        Held {
            version: lease.metadata.resource_version.clone(),
            is_readable: record.is_some() && (is_released || holder.is_some()),
            holder: holder.filter(|_| !is_released),
            record,
        }
    }

    /// Makes the object say so; what others have written into it stays.
    pub(crate) fn write_into(&self, lease: &mut Lease) {
        let holder = self.holder.as_ref();
        let text =
            holder.map(|it| serde_json::to_string(it).expect("texts and a number make JSON"));
        let annotations = lease.metadata.annotations.get_or_insert_default();
        for (name, text) in [(HOLDER, text), (RECORD, self.record.clone())] {
            match text {
                Some(text) => annotations.insert(name.to_owned(), text),
                None => annotations.remove(name),
            };
        }
        lease.metadata.resource_version.clone_from(&self.version);
        let identity = holder.map_or_else(String::new, |it| format!("{}_{:x}", it.pod, it.nonce));
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(identity);
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    fn holder(pod_uid: &str) -> Holder {
        Holder {
            pod: "weir-allocator-a".into(),
            pod_uid: pod_uid.into(),
            container_id: "containerd://1".into(),
            nonce: 7,
            address: "https://10.1.2.3:7420".into(),
        }
    }

    fn held(holder: Option<Holder>) -> Held {
        Held { version: Some("5".into()), holder, record: Some("{}".into()), is_readable: true }
    }

    #[test]
    fn a_lease_is_taken_at_once_when_its_holder_has_surely_ended_and_else_after_silence() {
        let (fresh, old) = (Duration::from_secs(1), DURATION);
        let other = held(Some(holder("other")));
        let mine = held(Some(holder("me")));
        let broken = Held { is_readable: false, ..held(None) };
        let acquire = Verdict::Acquire;
        for (lease, unchanged, has_ended, expected) in [
            (None, fresh, false, acquire(Ground::FirstUse)),
            (Some(&held(None)), fresh, false, acquire(Ground::Released)),
            (Some(&mine), fresh, false, acquire(Ground::NextRun)),
            (Some(&other), fresh, true, acquire(Ground::ConfirmedEnd)),
            (Some(&other), fresh, false, Verdict::Wait(RETRY)),
            (Some(&other), DURATION - fresh, false, Verdict::Wait(fresh)),
            (Some(&other), old, false, acquire(Ground::Silence)),
            // Who cannot be read may be leading.
            (Some(&broken), fresh, false, Verdict::Wait(RETRY)),
            (Some(&broken), old, false, acquire(Ground::Silence)),
        ] {
            let told = format!("{lease:?} {unchanged:?} {has_ended}");
            assert_eq!(decide(lease, "me", unchanged, has_ended, false), expected, "{told}");
            // Where more has been seen than the object tells, only silence counts.
            let silent = if unchanged >= DURATION {
                acquire(Ground::Silence)
            } else {
                Verdict::Wait((DURATION - unchanged).min(RETRY))
            };
            assert_eq!(decide(lease, "me", unchanged, has_ended, true), silent, "{told}");
        }
    }

    #[test]
    fn a_candidate_waits_longer_than_a_leader_acts() {
        // Clocks may drift by rho on either side, and the candidate looks again within a retry.
        assert!(DURATION > RENEW_DEADLINE + 2 * RETRY);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for holder in [None, Some(holder("a"))] {
            let written = held(holder);
            let mut lease = Lease::default();
            written.write_into(&mut lease);
            assert_eq!(Held::of(&lease), written);
        }
        // A Lease of something else has no words of ours, and does not count as free.
        let foreign = Lease {
            spec: Some(LeaseSpec { holder_identity: Some("x".into()), ..LeaseSpec::default() }),
            ..Lease::default()
        };
        assert!(!Held::of(&foreign).is_readable);
        assert!(!Held::of(&Lease::default()).is_readable);
    }
}
