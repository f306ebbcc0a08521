//! How large each pod's lease should be: what it will surely use, so that nothing is stranded.
//!
//! A part of what a pod is entitled to and asks for; the rest stays central, where credit goes to
//! whoever is first in line. A pod whose part is too small for its requests gets a lease of the size
//! of its floor, and credit (`leases.md` 4.4).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::accounts::Capacity;
use crate::budget::BudgetId;
use crate::message::{PodId, Terms};
use crate::policy::Name;
use crate::shares::{self, Claim};
use crate::units::{Amount, Rate};

/// What is leased of what a pod asks for while nobody waits: half of it where the budget is used up,
/// so that a lease is used up even where demand wavers; twice as much where it is idle, so that hardly
/// anybody has to ask. At most two thirds of a budget are leased this way.
const LEASED_FULL_PERCENT: u64 = 50;
const LEASED_IDLE_PERCENT: u64 = 200;
/// And while somebody waits: what has accrued in a pod towards its next request is a quarter over
/// three quarters of half a request on average, and a higher class finds credit at the centre.
const LEASED_CONTENDED_PERCENT: u64 = 25;
/// Growth room above the demand that was seen (`leases.md` 4.2).
const GROWTH_PERCENT: u64 = 110;
/// A pod is worth a lease if its part of the rate brings four of its large requests in 5 s.
const LEASABLE_SPAN: Duration = Duration::from_secs(5);
const LEASABLE_REQUESTS: u64 = 4;
/// A floor that takes longer than this for one large request serves nobody.
const FLOOR_SPAN: Duration = Duration::from_secs(10);
/// What a local level may hold: a large request, or a second's worth. More would be taken from the
/// central level without use.
const CAP_SPAN: Duration = Duration::from_secs(1);

/// One pod that asks for something.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) pod: PodId,
    /// Its workload, whose weight and bounds its pods divide among them.
    pub(super) flow: Name,
    pub(super) band: i32,
    pub(super) weight: u32,
    pub(super) demand: BTreeMap<BudgetId, Wish>,
}

/// What a pod asks of one budget, and what its workload is entitled to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) rate: Rate,
    pub(super) large: Amount,
    pub(super) guaranteed: Rate,
    pub(super) ceiling: Option<Rate>,
    pub(super) min_share: Rate,
}

/// What may be leased of one budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leasable {
    pub(super) capacity: Capacity,
    pub(super) floor_ttl: Duration,
    /// False for stocks and slots, which are drawn one by one.
    pub(super) by_rate: bool,
    /// Draws wait for it.
    pub(super) contended: bool,
}

/// A lease for each asker.
pub(super) fn leases(
    budgets: &BTreeMap<BudgetId, Leasable>,
    askers: &[Asker],
) -> BTreeMap<PodId, BTreeMap<BudgetId, Terms>> {
    let entitled = entitlements(budgets, askers);
    let mut totals: BTreeMap<&BudgetId, Rate> = BTreeMap::new();
    for rates in &entitled {
        for (budget, rate) in rates {
            *totals.entry(budget).or_default() += *rate;
        }
    }
    let mut caps: BTreeMap<&BudgetId, Amount> =
        budgets.iter().map(|(budget, leasable)| (budget, leasable.capacity.caps)).collect();
    let mut order: Vec<usize> = (0..askers.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(askers[*index].band), &askers[*index].pod));
    let mut leases = BTreeMap::new();
    for index in order {
        let asker = &askers[index];
        let wanted = terms(budgets, asker, &entitled[index], &totals);
        let lease = wanted.and_then(|terms| with_caps(terms, asker, &mut caps));
        leases.insert(asker.pod.clone(), lease.unwrap_or_default());
    }
    leases
}

/// What each asker is entitled to of each budget, scaled down alike in all budgets that it needs, so
/// that nobody holds requests without tokens.
fn entitlements(
    budgets: &BTreeMap<BudgetId, Leasable>,
    askers: &[Asker],
) -> Vec<BTreeMap<BudgetId, Rate>> {
    let mut siblings: BTreeMap<&Name, u32> = BTreeMap::new();
    for asker in askers {
        *siblings.entry(&asker.flow).or_default() += 1;
    }
    // The part of its demand that each asker gets, in millionths.
    let mut parts = vec![1_000_000u64; askers.len()];
    for (budget, leasable) in budgets.iter().filter(|(_, leasable)| leasable.by_rate) {
        let (indices, claims): (Vec<usize>, Vec<Claim>) = askers
            .iter()
            .enumerate()
            .filter_map(|(index, asker)| {
                let wish = asker.demand.get(budget)?;
                Some((index, claim(asker, wish, siblings[&asker.flow])))
            })
            .unzip();
        for (index, (share, claim)) in indices
            .into_iter()
            .zip(shares::solve(leasable.capacity.rate, &claims).into_iter().zip(&claims))
        {
            let part = Rate::from_micros(1_000_000).scale(share.micros(), claim.demand.micros());
            parts[index] = parts[index].min(part.micros());
        }
    }
    let entitled = |(asker, part): (&Asker, u64)| {
        let rates =
            asker.demand.iter().map(|(b, wish)| (b.clone(), wish.rate.scale(part, 1_000_000)));
        rates.collect()
    };
    askers.iter().zip(parts).map(entitled).collect()
}

fn claim(asker: &Asker, wish: &Wish, siblings: u32) -> Claim {
    let each = |rate: Rate| rate.scale(1, u64::from(siblings));
    Claim {
        band: asker.band,
        // A thousandth is fine enough to divide a weight of 1 over a thousand pods.
        weight: asker.weight.saturating_mul(1_000) / siblings.max(1),
        demand: wish.rate.scale(GROWTH_PERCENT, 100),
        guaranteed: each(wish.guaranteed),
        ceiling: wish.ceiling.map(each),
        min_share: wish.min_share,
    }
}

/// The terms for one asker before caps; `None` if a lease would be of no use to it.
fn terms(
    budgets: &BTreeMap<BudgetId, Leasable>,
    asker: &Asker,
    entitled: &BTreeMap<BudgetId, Rate>,
    totals: &BTreeMap<&BudgetId, Rate>,
) -> Option<BTreeMap<BudgetId, Terms>> {
    let leasable = |(budget, wish): (&BudgetId, &Wish)| {
        let rate = entitled.get(budget).copied().unwrap_or_default();
        rate.over(LEASABLE_SPAN).micros() / LEASABLE_REQUESTS >= wish.large.micros()
    };
    let full = asker.demand.iter().all(leasable);
    let mut terms = BTreeMap::new();
    for (budget, wish) in &asker.demand {
        let of = budgets.get(budget).filter(|leasable| leasable.by_rate)?;
        let rate = entitled.get(budget).copied().unwrap_or_default();
        let total = totals.get(budget).copied().unwrap_or_default();
        let leased = rate.scale(leased_percent(of, total), 100);
        let floor = of.capacity.floors.scale(rate.micros(), total.micros()).min(leased);
        let rate = if full { leased } else { floor };
        if rate.over(FLOOR_SPAN) < wish.large {
            return None;
        }
        let cap = wish.large.max(rate.over(CAP_SPAN));
        let floor_ttl = of.floor_ttl;
        let terms_of = Terms { rate, cap, floor, floor_ttl, ..Terms::default() };
        terms.insert(budget.clone(), terms_of);
    }
    Some(terms)
}

/// How much of its use a pod is leased, by how much of the budget all of them use.
fn leased_percent(of: &Leasable, used: Rate) -> u64 {
    if of.contended {
        return LEASED_CONTENDED_PERCENT;
    }
    let idle = of.capacity.rate - used;
    let more = Rate::from_micros(LEASED_IDLE_PERCENT - LEASED_FULL_PERCENT);
    LEASED_FULL_PERCENT + more.scale(idle.micros(), of.capacity.rate.micros()).micros()
}

/// Gives a lease its caps out of what is left of them; `None` if not even one large request fits.
fn with_caps(
    mut terms: BTreeMap<BudgetId, Terms>,
    asker: &Asker,
    caps: &mut BTreeMap<&BudgetId, Amount>,
) -> Option<BTreeMap<BudgetId, Terms>> {
    for (budget, terms) in &mut terms {
        terms.cap = terms.cap.min(*caps.get(budget)?);
        if terms.cap < asker.demand.get(budget)?.large {
            return None;
        }
    }
    for (budget, terms) in &terms {
        let left = caps.get_mut(budget)?;
        *left = *left - terms.cap;
    }
    Some(terms)
}
