//! Conversions of the lease protocol's parts: holdings, reports, draws, leases, denials.

use std::sync::Arc;
use std::time::Duration;

use quota::budget::BudgetId;
use quota::charge::Vector;
use quota::message::{
    Counters, Credit, Denial, DrawId, DrawRequest, Epoch, Held, Holdings, LeaseSet, Nonce, Reason,
    Report, ReportItem, Seen, Terms, Version, WindowEnd,
};
use quota::time::Time;
use quota::units::{Amount, Rate};

use crate::bounds::{
    self, BUDGETS_MAX, EXPLAIN_MAX, STRING_MAX, VECTOR_MAX, budget, known, nanos, required,
};
use crate::error::Error;
use crate::generated as proto;

// === impl Holdings ===

impl From<Holdings> for proto::Holdings {
    fn from(holdings: Holdings) -> proto::Holdings {
        proto::Holdings {
            nonce: holdings.nonce.0,
            mono_nanos: holdings.mono.as_nanos(),
            ttl_left_nanos: nanos(holdings.ttl_left),
            items: holdings.items.iter().map(held).collect(),
            counters: holdings.counters.iter().map(counters).collect(),
            debts: vector(&holdings.debts),
        }
    }
}

impl TryFrom<proto::Holdings> for Holdings {
    type Error = Error;

    fn try_from(holdings: proto::Holdings) -> Result<Holdings, Error> {
        Ok(Holdings {
            nonce: Nonce(holdings.nonce),
            mono: Time::from_nanos(holdings.mono_nanos),
            ttl_left: Duration::from_nanos(holdings.ttl_left_nanos),
            items: bounds::map("holdings.items", holdings.items, BUDGETS_MAX, checked_held)?,
            counters: bounds::map(
                "holdings.counters",
                holdings.counters,
                BUDGETS_MAX,
                checked_counters,
            )?,
            debts: checked_vector("holdings.debts", holdings.debts, BUDGETS_MAX)?,
        })
    }
}

fn held((budget, held): (&BudgetId, &Held)) -> proto::Held {
    proto::Held {
        budget: budget.to_string(),
        rate_micros: held.rate.micros(),
        cap_micros: held.cap.micros(),
        floor_micros: held.floor.micros(),
        floor_left_nanos: nanos(held.floor_left),
        in_use_micros: held.in_use.micros(),
    }
}

fn checked_held(held: proto::Held) -> Result<(BudgetId, Held), Error> {
    let budget = budget("holdings.items.budget", held.budget)?;
    let held = Held {
        rate: Rate::from_micros(held.rate_micros),
        cap: Amount::from_micros(held.cap_micros),
        floor: Rate::from_micros(held.floor_micros),
        floor_left: Duration::from_nanos(held.floor_left_nanos),
        in_use: Amount::from_micros(held.in_use_micros),
    };
    Ok((budget, held))
}

// === impl Report ===

impl From<Report> for proto::Report {
    fn from(report: Report) -> proto::Report {
        let items = report.items.iter().map(|(budget, item)| proto::ReportItem {
            counters: Some(counters((budget, &item.counters))),
            large_micros: item.large.micros(),
            seen: item.seen.map(proto::Seen::from),
        });
        proto::Report {
            mono_nanos: report.mono.as_nanos(),
            items: items.collect(),
            waiting: report.waiting,
            refused: report.refused,
            provider_429: report.provider_429,
            transit_nanos: nanos(report.transit),
        }
    }
}

impl TryFrom<proto::Report> for Report {
    type Error = Error;

    fn try_from(report: proto::Report) -> Result<Report, Error> {
        let item = |item: proto::ReportItem| {
            let counters = required("report.items.counters", item.counters)?;
            let (budget, counters) = checked_counters(counters)?;
            let large = Amount::from_micros(item.large_micros);
            Ok((budget, ReportItem { counters, large, seen: item.seen.map(Seen::from) }))
        };
        Ok(Report {
            mono: Time::from_nanos(report.mono_nanos),
            items: bounds::map("report.items", report.items, BUDGETS_MAX, item)?,
            waiting: report.waiting,
            refused: report.refused,
            provider_429: report.provider_429,
            transit: Duration::from_nanos(report.transit_nanos),
        })
    }
}

fn counters((budget, counters): (&BudgetId, &Counters)) -> proto::Counters {
    proto::Counters {
        budget: budget.to_string(),
        offered_micros: counters.offered.micros(),
        leased_micros: counters.leased.micros(),
        credited_micros: counters.credited.micros(),
        returned_micros: counters.returned.micros(),
        overdrawn_micros: counters.overdrawn.micros(),
        settled_micros: counters.settled.micros(),
        unspent_micros: counters.unspent.micros(),
    }
}

fn checked_counters(counters: proto::Counters) -> Result<(BudgetId, Counters), Error> {
    let budget = budget("counters.budget", counters.budget)?;
    let counters = Counters {
        offered: Amount::from_micros(counters.offered_micros),
        leased: Amount::from_micros(counters.leased_micros),
        credited: Amount::from_micros(counters.credited_micros),
        returned: Amount::from_micros(counters.returned_micros),
        overdrawn: Amount::from_micros(counters.overdrawn_micros),
        settled: Amount::from_micros(counters.settled_micros),
        unspent: Amount::from_micros(counters.unspent_micros),
    };
    Ok((budget, counters))
}

impl From<Seen> for proto::Seen {
    fn from(seen: Seen) -> proto::Seen {
        proto::Seen {
            at_nanos: seen.at.as_nanos(),
            reset_lo_nanos: seen.reset_lo.as_nanos(),
            reset_hi_nanos: seen.reset_hi.as_nanos(),
            limit_micros: seen.limit.micros(),
            remaining_micros: seen.remaining.micros(),
        }
    }
}

impl From<proto::Seen> for Seen {
    fn from(seen: proto::Seen) -> Seen {
        Seen {
            at: Time::from_nanos(seen.at_nanos),
            reset_lo: Time::from_nanos(seen.reset_lo_nanos),
            reset_hi: Time::from_nanos(seen.reset_hi_nanos),
            limit: Amount::from_micros(seen.limit_micros),
            remaining: Amount::from_micros(seen.remaining_micros),
        }
    }
}

// === impl DrawRequest ===

impl From<DrawRequest> for proto::Draw {
    fn from(draw: DrawRequest) -> proto::Draw {
        proto::Draw {
            id: draw.id.0,
            mono_nanos: draw.mono.as_nanos(),
            vector: vector(&draw.vector),
            class: draw.class.to_string(),
            max_wait_nanos: nanos(draw.max_wait),
            waited_nanos: nanos(draw.waited),
            traceparent: draw.traceparent.map(|parent| parent.to_string()),
        }
    }
}

impl TryFrom<proto::Draw> for DrawRequest {
    type Error = Error;

    fn try_from(draw: proto::Draw) -> Result<DrawRequest, Error> {
        let vector = checked_vector("draw.vector", draw.vector, VECTOR_MAX)?;
        if vector.is_empty() {
            return Err(Error::Missing { field: "draw.vector" });
        }
        if vector.values().any(|amount| amount.is_zero()) {
            return Err(Error::Zero { field: "draw.vector.amount_micros" });
        }
        let traceparent =
            draw.traceparent.map(|parent| bounds::text("draw.traceparent", parent, STRING_MAX));
        Ok(DrawRequest {
            id: DrawId(draw.id),
            mono: Time::from_nanos(draw.mono_nanos),
            vector,
            class: bounds::name("draw.class", draw.class)?,
            max_wait: Duration::from_nanos(draw.max_wait_nanos),
            waited: Duration::from_nanos(draw.waited_nanos),
            traceparent: traceparent.transpose()?.map(Arc::from),
        })
    }
}

fn vector(vector: &Vector) -> Vec<proto::BudgetAmount> {
    let amounts = vector.iter().map(|(budget, amount)| proto::BudgetAmount {
        budget: budget.to_string(),
        amount_micros: amount.micros(),
    });
    amounts.collect()
}

fn checked_vector(
    field: &'static str,
    amounts: Vec<proto::BudgetAmount>,
    max: usize,
) -> Result<Vector, Error> {
    bounds::map(field, amounts, max, |amount| {
        Ok((budget(field, amount.budget)?, Amount::from_micros(amount.amount_micros)))
    })
}

// === impl LeaseSet ===

impl From<LeaseSet> for proto::LeaseSet {
    fn from(lease: LeaseSet) -> proto::LeaseSet {
        proto::LeaseSet {
            epoch: lease.epoch.0,
            version: lease.version.0,
            echo_mono_nanos: lease.echo.as_nanos(),
            ttl_nanos: nanos(lease.ttl),
            items: lease.items.iter().map(terms).collect(),
        }
    }
}

impl TryFrom<proto::LeaseSet> for LeaseSet {
    type Error = Error;

    fn try_from(lease: proto::LeaseSet) -> Result<LeaseSet, Error> {
        Ok(LeaseSet {
            epoch: Epoch(lease.epoch),
            version: Version(lease.version),
            echo: Time::from_nanos(lease.echo_mono_nanos),
            ttl: Duration::from_nanos(lease.ttl_nanos),
            items: bounds::map("lease_set.items", lease.items, BUDGETS_MAX, checked_terms)?,
        })
    }
}

fn terms((budget, terms): (&BudgetId, &Terms)) -> proto::Terms {
    proto::Terms {
        budget: budget.to_string(),
        rate_micros: terms.rate.micros(),
        cap_micros: terms.cap.micros(),
        floor_micros: terms.floor.micros(),
        floor_ttl_nanos: nanos(terms.floor_ttl),
        window_end_nanos: terms.window_end.map(|end| nanos(end.after)),
        window_length_nanos: terms.window_end.map_or(0, |end| nanos(end.length)),
        fill_micros: terms.fill.micros(),
    }
}

fn checked_terms(terms: proto::Terms) -> Result<(BudgetId, Terms), Error> {
    let budget = budget("lease_set.items.budget", terms.budget)?;
    // Ends that lie no time apart would have the holder count them for ever.
    if terms.window_end_nanos.is_some() && terms.window_length_nanos == 0 {
        return Err(Error::Zero { field: "lease_set.items.window_length_nanos" });
    }
    let terms = Terms {
        rate: Rate::from_micros(terms.rate_micros),
        cap: Amount::from_micros(terms.cap_micros),
        floor: Rate::from_micros(terms.floor_micros),
        floor_ttl: Duration::from_nanos(terms.floor_ttl_nanos),
        window_end: terms.window_end_nanos.map(|after| WindowEnd {
            after: Duration::from_nanos(after),
            length: Duration::from_nanos(terms.window_length_nanos),
        }),
        fill: Amount::from_micros(terms.fill_micros),
    };
    Ok((budget, terms))
}

// === impl Credit ===

impl From<Credit> for proto::Credit {
    fn from(credit: Credit) -> proto::Credit {
        proto::Credit {
            id: credit.id.0,
            epoch: credit.epoch.0,
            echo_mono_nanos: credit.echo.as_nanos(),
            spend_by_nanos: nanos(credit.spend_by),
        }
    }
}

impl From<proto::Credit> for Credit {
    fn from(credit: proto::Credit) -> Credit {
        Credit {
            id: DrawId(credit.id),
            epoch: Epoch(credit.epoch),
            echo: Time::from_nanos(credit.echo_mono_nanos),
            spend_by: Duration::from_nanos(credit.spend_by_nanos),
        }
    }
}

// === impl Denial ===

impl From<Denial> for proto::Deny {
    fn from(denial: Denial) -> proto::Deny {
        let reason = match denial.reason {
            Reason::Deadline => proto::DenyReason::Deadline,
            Reason::TooLarge => proto::DenyReason::TooLarge,
            Reason::Exhausted => proto::DenyReason::Exhausted,
            Reason::QueueFull => proto::DenyReason::QueueFull,
            Reason::NotPermitted => proto::DenyReason::NotPermitted,
            Reason::AllocatorLost => proto::DenyReason::AllocatorLost,
        };
        proto::Deny {
            id: denial.id.0,
            reason: reason.into(),
            retry_after_nanos: denial.retry_after.map(nanos),
            explain: bounds::explain(denial.explain),
        }
    }
}

impl TryFrom<proto::Deny> for Denial {
    type Error = Error;

    fn try_from(deny: proto::Deny) -> Result<Denial, Error> {
        let reason = match known("deny.reason", deny.reason)? {
            proto::DenyReason::Unspecified => return Err(Error::Missing { field: "deny.reason" }),
            proto::DenyReason::Deadline => Reason::Deadline,
            proto::DenyReason::TooLarge => Reason::TooLarge,
            proto::DenyReason::Exhausted => Reason::Exhausted,
            proto::DenyReason::QueueFull => Reason::QueueFull,
            proto::DenyReason::NotPermitted => Reason::NotPermitted,
            proto::DenyReason::AllocatorLost => Reason::AllocatorLost,
        };
        Ok(Denial {
            id: DrawId(deny.id),
            reason,
            retry_after: deny.retry_after_nanos.map(Duration::from_nanos),
            explain: bounds::text("deny.explain", deny.explain, EXPLAIN_MAX)?,
        })
    }
}
