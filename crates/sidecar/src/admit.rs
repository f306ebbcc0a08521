//! Asks the lease for what a request takes. No I/O of its own, no await but the wait for its turn.

use std::time::Duration;

use providers::refusal::Refusal;
use quota::charge::{Charge, Vector};
use quota::holder::{Ask, Refused};
use quota::message::Reason;
use quota::policy::{Mode, Quota};
use rand::Rng;
use tracing::{Instrument, Span};

use crate::gate::{Gate, Hold, now};
use crate::record::Record;
use crate::route::{Asked, Routed};
use crate::spans;

/// Waits until the request may go, or says why it may not. Dropped while it waits, the request leaves
/// the queue.
pub(crate) async fn admit(
    gate: &Gate,
    routed: &Routed,
    record: &mut Record,
) -> Result<Hold, Refusal> {
    let asked = &routed.asked;
    let quota = &routed.snapshot.policy.quota;
    permitted(quota, asked)?;
    let charge = asked.reserve();
    let vector = asked.vector(&charge);
    record.reserved_tokens = tokens(&charge);
    let span = spans::admit(&routed.class, &vector);
    let hold = match quota.mode {
        Mode::Off => gate.pass(),
        Mode::Shadow => gate.force(vector),
        Mode::Enforce => {
            let patience = routed.patience.admission(quota.queue.max_wait);
            let ask = Ask {
                vector: vector.clone(),
                class: routed.class.clone(),
                deadline: now() + patience.saturating_sub(record.age()),
                traceparent: spans::traceparent(&span, &routed.head.headers),
            };
            let before = record.age();
            let admitted = gate.admit(ask).instrument(span.clone()).await;
            record.waited = record.age().saturating_sub(before);
            admitted.map_err(|refused| refusal(&span, refused, asked, &vector, record))?
        }
    };
    record.source = Some(hold.source());
    spans::admitted(&span, record);
    Ok(hold)
}

/// What the quota says about this request whatever the budgets are.
fn permitted(quota: &Quota, asked: &Asked) -> Result<(), Refusal> {
    let (provider, model) = (&asked.target.provider, asked.model());
    let mut limits = provider.limits_of(model).peekable();
    let named = |limit: &quota::policy::Limit| {
        let uses = quota.uses.iter().filter(|u| u.provider == provider.name);
        uses.into_iter().any(|u| u.limit.as_ref().is_none_or(|name| *name == limit.name))
    };
    if asked.target.lacks_key(model) {
        return Err(Refusal::NotPermitted {
            what: format!("LLMProvider {} has no key for model `{model}`", provider.name),
        });
    }
    if quota.mode != Mode::Enforce {
        return Ok(());
    }
    if limits.peek().is_some() && !limits.any(named) {
        return Err(Refusal::NotPermitted {
            what: format!(
                "LLMQuota {} names no limit of {} that covers model `{model}`",
                quota.key(),
                provider.name
            ),
        });
    }
    let Some(largest) = quota.per_request_max_tokens else { return Ok(()) };
    let output = asked.call.output_cap.map(|cap| cap.saturating_mul(asked.call.choices));
    let output = output.unwrap_or(asked.estimate.output.0);
    let requested = asked.estimate.input.0.saturating_add(output);
    if requested > largest {
        let what = format!("perRequest.maxTokens of LLMQuota {}", quota.key());
        return Err(Refusal::TooLarge { what, requested, largest });
    }
    Ok(())
}

/// The lease's word, in the words of a refusal.
fn refusal(
    span: &Span,
    refused: Refused,
    asked: &Asked,
    vector: &Vector,
    record: &mut Record,
) -> Refusal {
    record.reason = Some(refused.reason);
    spans::denied(span, &refused);
    let wait = refused.retry_after.unwrap_or(Duration::from_secs(1));
    match refused.reason {
        Reason::Deadline | Reason::QueueFull => Refusal::Busy { wait: jittered(wait) },
        Reason::Exhausted => Refusal::Exhausted { what: refused.explain },
        Reason::TooLarge => too_large(asked, vector, refused.explain),
        Reason::NotPermitted => Refusal::NotPermitted { what: refused.explain },
        Reason::AllocatorLost => Refusal::Unavailable { reason: refused.explain },
    }
}

/// Names the budget that the request does not fit.
fn too_large(asked: &Asked, vector: &Vector, explain: String) -> Refusal {
    let budgets = asked.target.provider.limits_of(asked.model()).flat_map(|limit| &limit.budgets);
    let exceeded = budgets
        .filter_map(|budget| Some((budget, *vector.get(&budget.id)?)))
        .find(|(budget, amount)| *amount > budget.largest_request());
    match exceeded {
        Some((budget, amount)) => Refusal::TooLarge {
            what: budget.id.to_string(),
            requested: amount.units(),
            largest: budget.largest_request().units(),
        },
        None => Refusal::Exhausted { what: explain },
    }
}

/// Up to a fifth more: SDKs add no jitter to a wait that they are told (`providers.md` 13.1).
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(1.0..=1.2))
}

/// All tokens that a charge reserves, for metrics.
fn tokens(charge: &Charge) -> u64 {
    charge.total.0.max(charge.input.0.saturating_add(charge.output.0))
}
