//! How large a world the check explores to its end: the model's times, and how often each thing may
//! happen in it.

use std::time::Duration;

use quota::timing::Timing;

/// One world of the check. Times are ticks of one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its name in reports and counterexamples.
    pub name: &'static str,
    /// How many states it had when it was last explored, to tell how far a run is; 0 if not known.
    pub states: usize,
    /// T1.
    pub lease_ticks: u8,
    /// T2; 0 for a world without floors.
    pub floor_ticks: u8,
    /// For how long an old leader goes on after it was given up for lost.
    pub zombie_ticks: u8,
    /// When the world ends.
    pub end_tick: u8,
    /// Whether pod a's clock may be slow, and fast, by one tick in [`DRIFT_SPACING`].
    pub drift: Drift,
    /// How often the first leader, and the successor, may ask a pod for its holdings.
    pub challenges: [u8; 2],
    /// The rates that are granted, beside 0.
    pub rates: &'static [u8],
    /// How many leases each leader may grant.
    pub grants: u8,
    /// Whether the leader's death may be confirmed.
    pub death: bool,
    /// Whether the leader may be given up for lost while it goes on.
    pub silence: bool,
    /// How often a pod's container may restart.
    pub restarts: u8,
    /// How many pods may end.
    pub ends: u8,
    /// Whether a third pod may join.
    pub join: bool,
    /// Whether the budget may be halved.
    pub cut: bool,
}

/// How pod a's clock may err.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Not at all.
    None,
    /// It may stand still for a tick.
    Slow,
    /// It may also jump over a tick.
    SlowAndFast,
}

/// The budget, in units per second; the smallest that can be split.
pub const CAPACITY: u8 = 2;
/// The ceiling of all floors together (phi * C).
pub const FLOORS: u8 = 1;
/// A clock that errs does so at most once in so many ticks, which a rho of one half covers: in `d`
/// ticks it advances by at least `d - ceil(d / 3)`.
pub const DRIFT_SPACING: u8 = 3;
const DRIFT_PPM: u64 = 500_000;

// === impl Size ===

impl Size {
    const BASE: Size = Size {
        name: "",
        states: 0,
        lease_ticks: 2,
        floor_ticks: 0,
        zombie_ticks: 2,
        end_tick: 5,
        drift: Drift::None,
        challenges: [0, 2],
        rates: &[2],
        grants: 2,
        death: false,
        silence: false,
        restarts: 0,
        ends: 0,
        join: false,
        cut: false,
    };

    /// One leader that grants, shrinks and lets expire.
    pub const PLAIN: Size = Size {
        name: "plain",
        states: 29_555,
        challenges: [0, 0],
        rates: &[1, 2],
        grants: 3,
        end_tick: 3,
        ..Size::BASE
    };
    /// One leader; a pod's container restarts, and the budget is cut.
    pub const RESTART: Size = Size {
        name: "restart",
        states: 1_763_521,
        challenges: [1, 0],
        rates: &[1, 2],
        restarts: 1,
        cut: true,
        end_tick: 3,
        ..Size::BASE
    };
    /// One leader; a pod ends, another joins.
    pub const CHURN: Size = Size {
        name: "churn",
        states: 2_563_325,
        challenges: [1, 0],
        rates: &[1, 2],
        ends: 1,
        join: true,
        end_tick: 3,
        ..Size::BASE
    };
    /// One leader, and a clock that errs.
    pub const DRIFT: Size = Size {
        name: "drift",
        states: 1_208_661,
        challenges: [0, 0],
        grants: 3,
        end_tick: 7,
        drift: Drift::SlowAndFast,
        ..Size::BASE
    };
    /// A leader that dies in view, and its successor.
    pub const DEATH: Size =
        Size { name: "death", states: 1_412_176, end_tick: 3, death: true, ..Size::BASE };
    /// A leader that is given up for lost and goes on for a while.
    pub const SILENCE: Size =
        Size { name: "silence", states: 2_133_886, silence: true, ..Size::BASE };
    /// The same, and a pod that joins or restarts meanwhile.
    pub const SILENCE_CHURN: Size = Size {
        name: "silence-churn",
        states: 1_440_416,
        challenges: [1, 2],
        grants: 1,
        end_tick: 4,
        silence: true,
        restarts: 1,
        join: true,
        ..Size::BASE
    };
    /// Floors outlive leases and leaders.
    pub const FLOORS: Size = Size {
        name: "floors",
        states: 1_439_196,
        lease_ticks: 1,
        floor_ticks: 3,
        zombie_ticks: 1,
        grants: 1,
        silence: true,
        death: true,
        ..Size::BASE
    };
    /// A takeover with a clock that errs.
    pub const SILENCE_DRIFT: Size = Size {
        name: "silence-drift",
        states: 443_993,
        zombie_ticks: 1,
        grants: 1,
        end_tick: 4,
        silence: true,
        drift: Drift::SlowAndFast,
        ..Size::BASE
    };

    /// What every run explores.
    pub const ALL: [Size; 9] = [
        Size::PLAIN,
        Size::RESTART,
        Size::CHURN,
        Size::DRIFT,
        Size::DEATH,
        Size::SILENCE,
        Size::SILENCE_CHURN,
        Size::FLOORS,
        Size::SILENCE_DRIFT,
    ];

    /// The same worlds with one more lease for each leader.
    pub fn deep() -> [Size; 9] {
        Size::ALL.map(|size| Size { states: 0, grants: size.grants + 1, ..size })
    }

    /// The size of a name.
    pub fn named(name: &str) -> Option<Size> {
        Size::ALL.into_iter().find(|size| size.name == name)
    }

    /// The protocol's times in this world.
    pub fn timing(&self) -> Timing {
        Timing {
            lease_ttl: seconds(self.lease_ticks),
            spend_by: seconds(1),
            drift_ppm: if self.drift == Drift::None { 0 } else { DRIFT_PPM },
            margin: Duration::ZERO,
        }
    }
}

/// So many ticks.
pub(super) fn seconds(ticks: u8) -> Duration {
    Duration::from_secs(u64::from(ticks))
}
