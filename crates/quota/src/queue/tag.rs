//! Virtual time: what orders the workloads of a class.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Parts of a virtual nanosecond: keeps the rounding of tiny requests of heavy workloads small.
const PARTS: i128 = 1 << 20;

/// A point in virtual time. It advances by the work of a workload divided by its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Tag(i128);

/// A span of virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Stretch(i128);

impl Tag {
    /// Later than every other.
    pub(super) const END: Tag = Tag(i128::MAX);
}

impl Stretch {
    /// What `work` is worth to a workload of this weight.
    pub(super) fn of(work: Duration, weight: u32) -> Stretch {
        let nanos = i128::try_from(work.as_nanos()).unwrap_or(i128::MAX / PARTS);
        Stretch(nanos.saturating_mul(PARTS) / i128::from(weight.max(1)))
    }

    /// The work that a workload of this weight gets done in it; none if it is negative.
    pub(super) fn work(self, weight: u32) -> Duration {
        let nanos = self.0.max(0).saturating_mul(i128::from(weight.max(1))) / PARTS;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Add<Stretch> for Tag {
    type Output = Tag;
    fn add(self, rhs: Stretch) -> Tag {
        Tag(self.0.saturating_add(rhs.0))
    }
}

impl Sub<Stretch> for Tag {
    type Output = Tag;
    fn sub(self, rhs: Stretch) -> Tag {
        Tag(self.0.saturating_sub(rhs.0))
    }
}

impl Sub for Tag {
    type Output = Stretch;
    fn sub(self, rhs: Tag) -> Stretch {
        Stretch(self.0.saturating_sub(rhs.0))
    }
}
