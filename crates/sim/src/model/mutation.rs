//! The mutation list: for each rule of `leases.md` 3.5 a lie at the interface of the protocol code
//! that takes the rule away. The code itself has no switches. A check that does not find each of them
//! would prove nothing.

use super::size::Size;

/// One rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Rule 1.
    AckedAtSend,
    /// Rule 2.
    OrderStripped,
    /// Rule 3, the anchor.
    AnchoredAtReceipt,
    /// Rule 3, the margin.
    NoMargin,
    /// Rule 4.
    NoQuiet,
    /// Rule 5.
    StaleTrusted,
    /// Rule 6.
    NoFence,
    /// Rule 7.
    EmptyRoster,
    /// Rule 9.
    FloorsForgotten,
}

impl Mutation {
    /// All of them. Rule 8 is about levels, which the simulator checks.
    pub const ALL: [Mutation; 9] = [
        Mutation::AckedAtSend,
        Mutation::OrderStripped,
        Mutation::AnchoredAtReceipt,
        Mutation::NoMargin,
        Mutation::NoQuiet,
        Mutation::StaleTrusted,
        Mutation::NoFence,
        Mutation::EmptyRoster,
        Mutation::FloorsForgotten,
    ];

    /// Its name: the rule's number, and a letter where a rule has two halves.
    pub const fn name(self) -> &'static str {
        match self {
            Mutation::AckedAtSend => "rule-1",
            Mutation::OrderStripped => "rule-2",
            Mutation::AnchoredAtReceipt => "rule-3a",
            Mutation::NoMargin => "rule-3b",
            Mutation::NoQuiet => "rule-4",
            Mutation::StaleTrusted => "rule-5",
            Mutation::NoFence => "rule-6",
            Mutation::EmptyRoster => "rule-7",
            Mutation::FloorsForgotten => "rule-9",
        }
    }

    /// The mutation of a name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.into_iter().find(|mutation| mutation.name() == name)
    }

    /// The rule and the lie.
    pub const fn words(self) -> &'static str {
        match self {
            Mutation::AckedAtSend => {
                "commit, then grow: every grant is taken for confirmed as soon as it is sent"
            }
            Mutation::OrderStripped => {
                "order: the network makes every lease look newer than what the pod holds"
            }
            Mutation::AnchoredAtReceipt => {
                "anchor: a lease counts from its receipt instead of from its echo"
            }
            Mutation::NoMargin => "margin: the allocator adds nothing for clocks that differ",
            Mutation::NoQuiet => {
                "quiet: the successor begins at once although the old leader still acts"
            }
            Mutation::StaleTrusted => {
                "live reports only: holdings count as if asked for when they arrive"
            }
            Mutation::NoFence => "fence: a pod answers a challenge without raising its fence",
            Mutation::EmptyRoster => "no growth before knowledge: the successor's roster is empty",
            Mutation::FloorsForgotten => {
                "floors have a ceiling of their own: the stored sum of floors is lost"
            }
        }
    }

    /// The smallest world in which the lie shows.
    pub const fn size(self) -> Size {
        match self {
            Mutation::AckedAtSend | Mutation::OrderStripped | Mutation::AnchoredAtReceipt => {
                Size::PLAIN
            }
            Mutation::NoMargin => Size::DRIFT,
            Mutation::NoQuiet => Size::SILENCE,
            Mutation::StaleTrusted | Mutation::NoFence | Mutation::EmptyRoster => Size::DEATH,
            Mutation::FloorsForgotten => Size::FLOORS,
        }
    }
}
