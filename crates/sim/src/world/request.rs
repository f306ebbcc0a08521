//! One request of a world's demand, with all that will happen to it wherever it goes: Weir and the
//! ideal bucket beside it are asked for the same.

use std::time::Duration;

use quota::charge::Charge;
use quota::units::{Requests, Slots, Tokens};

use super::options::{Estimate, Options};
use super::random::Random;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The rank of its class; higher goes first.
    pub(super) class: usize,
    /// What the pod reserves.
    pub(super) reserved: Charge,
    /// What the provider charges when it comes in.
    pub(super) admitted: Charge,
    /// And in the end.
    pub(super) actual: Charge,
    /// How long it waits for its turn.
    pub(super) patience: Duration,
    /// When its client leaves, if it still waits then.
    pub(super) leaves_after: Option<Duration>,
    /// From the debit to the moment when its head is written.
    pub(super) connecting: Duration,
    /// False if it turns out then that it cannot be sent.
    pub(super) is_sent: bool,
    /// From its arrival at the provider until its answer has ended.
    pub(super) service: Duration,
}

impl Request {
    pub(super) fn draw(options: &Options, largest: u64, random: &mut Random) -> Request {
        let classes = options.classes.len() as u64;
        let class = usize::try_from(random.range(0, classes - 1)).expect("a few classes");
        let tokens = match options.median_tokens {
            0 => 0,
            median => random.lognormal(median).min(largest.max(1)),
        };
        let part = random.range(10, 100);
        let (admitted, actual) = match options.estimate {
            Estimate::Exact => (tokens, tokens),
            Estimate::Cap => (tokens, (tokens * part / 100).max(1)),
            Estimate::Produced => ((tokens * part / 100).max(1), tokens),
            Estimate::TooLow => (tokens, if part < 30 { tokens * 2 } else { tokens }),
        };
        let reserved = if options.estimate == Estimate::Produced { actual } else { admitted };
        let patience = random.duration(options.patience.0, options.patience.1);
        let leaves = random.percent(options.leaving_percent);
        let leaves_after = random.duration(Duration::ZERO, patience);
        Request {
            class,
            reserved: charge(reserved),
            admitted: charge(admitted),
            actual: Charge { slots: Slots(0), ..charge(actual) },
            patience,
            leaves_after: leaves.then_some(leaves_after),
            connecting: random.duration(options.connecting.0, options.connecting.1),
            is_sent: !random.percent(options.unsent_percent),
            service: random.duration(options.service.0, options.service.1),
        }
    }
}

fn charge(tokens: u64) -> Charge {
    Charge { requests: Requests(1), total: Tokens(tokens), slots: Slots(1), ..Charge::default() }
}
