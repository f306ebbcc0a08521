//! Who gets how much of a rate: bounded weighted max-min in bands.
//!
//! The ledger calls it to size leases and to say in a status what everybody would get. It knows
//! nothing of budgets, pods or time. Deliberately not here: demand (the ledger measures it) and the
//! order of single draws (`queue`).

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use crate::units::Rate;

/// What one participant asks of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The value of its class; higher bands are served first.
    pub band: i32,
    /// Its share among the claims of its band; 0 counts as 1.
    pub weight: u32,
    /// What it could use.
    pub demand: Rate,
    /// What it gets before any surplus is given out, as far as it can use it.
    pub guaranteed: Rate,
    /// What it never exceeds.
    pub ceiling: Option<Rate>,
    /// What its whole band gets, guarantees included, before any surplus is given out. A figure of
    /// the band: the largest among its claims counts, whatever their number.
    pub min_share: Rate,
}

/// One participant of a single water filling: between `lo` and `hi`, in proportion to `weight`.
#[derive(Clone, Copy, Debug)]
struct Span {
    weight: u64,
    lo: u64,
    hi: u64,
}

/// One band while it is being served.
#[derive(Debug, Default)]
struct Band {
    /// The positions of its claims.
    members: Vec<usize>,
    /// The sum of what is guaranteed.
    lo: u128,
    /// The sum of what can be used.
    hi: u128,
    min_share: u64,
    /// What the band gets.
    total: u128,
}

/// A unit that could go to a span next: the unit number `at` (from 1) costs `at / weight` of water.
#[derive(PartialEq, Eq)]
struct Step {
    at: u64,
    weight: u64,
    index: usize,
}

/// What each claim gets, in the order of `claims`.
///
/// Guarantees of all bands come first (from the highest band down and in proportion inside one, where
/// they are more than there is), then the minimum share of each band, then the surplus by band from
/// high to low; inside a band by `sum(clamp(level * weight, lo, hi)) = total` (`leases.md` 4.3). Exact
/// in integers: the sum is the smaller of `available` and of what all can use, single units go where
/// the share per weight is least, so that more to give out, or more weight, never means less.
/// O(n log n).
pub fn solve(available: Rate, claims: &[Claim]) -> Vec<Rate> {
    let spans: Vec<Span> = claims.iter().map(Span::of).collect();
    let mut bands = bands_of(claims, &spans);
    let available = u128::from(available.micros());
    let guaranteed: u128 = bands.values().map(|band| band.lo).sum();

    let mut shares = vec![Rate::ZERO; claims.len()];
    if guaranteed > available {
        give_by_band(available, &mut bands, |band| band.lo);
    } else {
        let left = available - guaranteed;
        let left = left - give_min_shares(left, &mut bands);
        give_by_band(left, &mut bands, |band| band.hi);
    }
    for band in bands.values() {
        let members = band.members.iter().map(|&index| spans[index]);
        let filled = if band.total < band.lo {
            fill(band.total, &in_proportion(members.map(|span| span.lo)))
        } else {
            fill(band.total, &members.collect::<Vec<_>>())
        };
        for (&index, share) in band.members.iter().zip(filled) {
            shares[index] = Rate::from_micros(share);
        }
    }
    shares
}

/// The bands, highest first, each holding what is guaranteed to it if everything fits.
fn bands_of(claims: &[Claim], spans: &[Span]) -> BTreeMap<Reverse<i32>, Band> {
    let mut bands: BTreeMap<Reverse<i32>, Band> = BTreeMap::new();
    for (index, (claim, span)) in claims.iter().zip(spans).enumerate() {
        let band = bands.entry(Reverse(claim.band)).or_default();
        band.members.push(index);
        band.lo += u128::from(span.lo);
        band.hi += u128::from(span.hi);
        band.min_share = band.min_share.max(claim.min_share.micros());
    }
    bands
}

/// Raises bands up to `bound`, the highest first, with `left` in all.
fn give_by_band(
    mut left: u128,
    bands: &mut BTreeMap<Reverse<i32>, Band>,
    bound: impl Fn(&Band) -> u128,
) {
    for band in bands.values_mut() {
        let more = left.min(bound(band) - band.total);
        band.total += more;
        left -= more;
    }
}

/// Raises every band from its guarantees to its minimum share; in proportion to the minimum shares
/// if `left` is too little, so that no band is left with nothing. Returns what it gave.
fn give_min_shares(left: u128, bands: &mut BTreeMap<Reverse<i32>, Band>) -> u128 {
    let needs = in_proportion(bands.values().map(|band| {
        let wanted = band.hi.min(u128::from(band.min_share));
        u64::try_from(wanted.saturating_sub(band.lo)).unwrap_or(u64::MAX)
    }));
    let given = fill(left, &needs);
    for (band, share) in bands.values_mut().zip(&given) {
        band.total = band.lo + u128::from(*share);
    }
    given.into_iter().map(u128::from).sum()
}

/// Spans from nothing to each part that fill up together. Weights keep the upper 32 bits, which is
/// as exact as anybody can see and keeps products within 128 bits.
fn in_proportion(parts: impl Iterator<Item = u64>) -> Vec<Span> {
    let parts: Vec<u64> = parts.collect();
    let largest = parts.iter().copied().max().unwrap_or(0);
    let shift = 32u32.saturating_sub(largest.leading_zeros());
    parts.into_iter().map(|hi| Span { weight: (hi >> shift).max(1), lo: 0, hi }).collect()
}

/// Gives out the smaller of `total` and the sum of `hi`; at least the sum of `lo` must be there.
fn fill(total: u128, spans: &[Span]) -> Vec<u64> {
    let (water, weight) = level(total, spans);
    let mut shares: Vec<u64> = spans.iter().map(|span| span.at(water, weight)).collect();
    let mut left = total - shares.iter().copied().map(u128::from).sum::<u128>();
    // Rounding down left fewer units than there are spans.
    let mut steps: BinaryHeap<Reverse<Step>> = spans
        .iter()
        .zip(&shares)
        .enumerate()
        .filter(|(_, (span, share))| **share < span.hi)
        .map(|(index, (span, share))| Reverse(Step { at: share + 1, weight: span.weight, index }))
        .collect();
    while left > 0
        && let Some(Reverse(step)) = steps.pop()
    {
        shares[step.index] = step.at;
        left -= 1;
        if step.at < spans[step.index].hi {
            steps.push(Reverse(Step { at: step.at + 1, ..step }));
        }
    }
    shares
}

/// The water level at which the spans take `total` together, as a fraction: (numerator,
/// denominator). A sweep over the levels at which a span begins (`lo / weight`) or ends to rise.
fn level(total: u128, spans: &[Span]) -> (u128, u128) {
    let mut bends: Vec<(u64, u64, bool)> = spans
        .iter()
        .filter(|span| span.lo < span.hi)
        .flat_map(|span| [(span.lo, span.weight, true), (span.hi, span.weight, false)])
        .collect();
    bends.sort_unstable_by(|a, b| cmp_ratio((a.0, a.1), (b.0, b.1)).then(b.2.cmp(&a.2)));

    // What does not rise with the water, and by how much per level the rest does.
    let mut fixed: u128 = spans.iter().map(|span| u128::from(span.lo)).sum();
    let mut slope: u128 = 0;
    let mut last = (0, 1);
    for (height, weight, begins) in bends {
        if slope * u128::from(height) > (total - fixed) * u128::from(weight) {
            break;
        }
        last = (u128::from(height), u128::from(weight));
        if begins {
            fixed -= u128::from(height);
            slope += u128::from(weight);
        } else {
            fixed += u128::from(height);
            slope -= u128::from(weight);
        }
    }
    if slope == 0 { last } else { (total - fixed, slope) }
}

fn cmp_ratio(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

// === impl Span ===

impl Span {
    fn of(claim: &Claim) -> Span {
        let hi = claim.ceiling.map_or(claim.demand, |ceiling| ceiling.min(claim.demand)).micros();
        let lo = hi.min(claim.guaranteed.micros());
        Span { weight: u64::from(claim.weight.max(1)), lo, hi }
    }

    /// What it holds when the water stands at `water / weight`.
    fn at(&self, water: u128, weight: u128) -> u64 {
        let wet = water.saturating_mul(u128::from(self.weight)) / weight;
        u64::try_from(wet).unwrap_or(u64::MAX).clamp(self.lo, self.hi)
    }
}

// === impl Step ===

impl Ord for Step {
    fn cmp(&self, other: &Step) -> Ordering {
        cmp_ratio((self.at, self.weight), (other.at, other.weight))
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Step) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
