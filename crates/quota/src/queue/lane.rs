//! A lane: budgets that some draw needs together, and everything that waits for them.
//!
//! Lanes never compete, so each has a virtual time of its own: a workload that comes to a slow limit
//! must not be behind because a fast limit went ahead. Who is next is decided in [`super::walk`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::budget::BudgetId;
use crate::charge::Vector;
use crate::policy::Name;
use crate::queue::accounts::Accounts;
use crate::queue::class::Class;
use crate::queue::config::{Band, Config};
use crate::queue::draw::{Draw, FlowKey};
use crate::queue::flow::{Budgets, Flow, Line, Order};
use crate::queue::least::Least;
use crate::queue::levels::Levels;
use crate::queue::reservations::Fit;
use crate::queue::tag::{Stretch, Tag};
use crate::queue::walk::{Head, Turn, View, Walk};
use crate::time::Time;
use crate::units::Amount;

/// How far a workload that waits may fall behind the virtual time of its class: what a ceiling or a
/// large head kept it from is not owed to it for ever.
const LAG_MAX: Duration = Duration::from_secs(30);
/// How far what a workload used outside the order of service (by guarantee, from leases) may put it
/// ahead: use that nobody was waiting for is soon forgotten.
const LEAD_MAX: Duration = Duration::from_secs(2);

/// A workload in one class.
pub(super) type FlowId = (Name, FlowKey);

/// What the lanes share.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) config: Config,
    pub(super) accounts: Accounts,
    /// The figures of the classes, made out once.
    bands: BTreeMap<Name, Band>,
}

/// Budgets that some draw needs together, and everything that waits for them.
#[derive(Clone, Debug)]
pub(super) struct Lane<K> {
    pub(super) flows: BTreeMap<FlowId, Flow<K>>,
    pub(super) classes: BTreeMap<Name, Class>,
    /// What must be there for anything to be granted.
    least: Least,
    /// The virtual time of each class value.
    clocks: BTreeMap<i32, Tag>,
}

// === impl Rules ===

impl Rules {
    /// Adopts a policy.
    pub(super) fn configure(&mut self, config: Config) {
        let bands = config.classes.keys().map(|class| (class.clone(), config.band(class)));
        self.bands = bands.collect();
        self.accounts.retain(&config.flows);
        self.config = config;
    }

    /// The figures of a class.
    pub(super) fn band(&self, class: &str) -> Band {
        self.bands.get(class).copied().unwrap_or_else(|| self.config.band(class))
    }
}

// === impl Lane ===

impl<K> Default for Lane<K> {
    fn default() -> Lane<K> {
        Lane {
            flows: BTreeMap::new(),
            classes: BTreeMap::new(),
            least: Least::default(),
            clocks: BTreeMap::new(),
        }
    }
}

impl<K> Lane<K> {
    pub(super) fn push(&mut self, rules: &Rules, budgets: &Budgets, order: Order, draw: Draw<K>) {
        let work = rules.config.work(&draw.vector);
        let band = rules.band(&draw.class);
        let class = self.classes.entry(draw.class.clone()).or_insert_with(|| Class::new(band));
        class.arrive(&draw.vector);
        self.least.arrive(budgets, &draw.vector);
        let flow = self.flow((draw.class.clone(), draw.flow.clone()), rules);
        flow.push(budgets, order, draw, work);
    }

    /// Takes a draw out without serving it.
    pub(super) fn remove(
        &mut self,
        id: &FlowId,
        budgets: &Budgets,
        order: &Order,
    ) -> Option<Draw<K>> {
        let draw = self.flows.get_mut(id)?.remove(budgets, order)?;
        self.left(budgets, &draw);
        Some(draw)
    }

    /// Grants all that can be granted now, in order.
    pub(super) fn dispatch(
        &mut self,
        now: Time,
        levels: &mut impl Levels,
        rules: &mut Rules,
    ) -> Vec<Draw<K>> {
        let mut granted = Vec::new();
        if self.least.opens_at(now, levels) > now {
            return granted;
        }
        self.forget_idle();
        // What one walk grants may make a minimum share due for a head that it had passed before.
        loop {
            let before = granted.len();
            self.grant(now, levels, rules, &mut granted);
            if granted.len() == before || self.least.opens_at(now, levels) > now {
                return granted;
            }
        }
    }

    /// When something could be granted that cannot now; [`Time::NEVER`] if time alone does not help.
    pub(super) fn next_wakeup(&self, now: Time, levels: &impl Levels, rules: &Rules) -> Time {
        let opens_at = self.least.opens_at(now, levels);
        if self.is_empty() || opens_at > now {
            return opens_at;
        }
        let view = View { now, lane: self, rules };
        let mut walk = Walk::begin(view);
        let mut earliest = Time::NEVER;
        while let Some((turn, head)) = walk.next(view) {
            let Some((_, draw)) = self.head(&head) else { continue };
            let holdback = self.holdback(turn, &head);
            match walk.fit(levels, &draw.vector, holdback) {
                Fit::Now => return now,
                Fit::Later(None) => {}
                Fit::Later(Some(wait)) => earliest = earliest.min(now + wait),
            }
            walk.blocked(levels, &head, &draw.vector, holdback);
        }
        earliest.min(walk.permitted_at()).min(self.guaranteed_at(now, rules))
    }

    /// Counts what a workload used without a draw.
    pub(super) fn charge(&mut self, rules: &Rules, id: FlowId, budget: &BudgetId, amount: Amount) {
        let value = rules.band(&id.0).value;
        let clock = self.clock(value);
        self.share_out(Turn::Class, value, &id.0, &[(budget.clone(), amount)].into());
        let work = rules.config.work_on(budget, amount);
        self.flow(id, rules).advance(budget, clock, work, clock + Stretch::of(LEAD_MAX, 1));
    }

    /// Takes back what a workload was served for and did not use.
    pub(super) fn refund(&mut self, rules: &Rules, id: &FlowId, budget: &BudgetId, amount: Amount) {
        let work = rules.config.work_on(budget, amount);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.retreat(budget, work);
        }
    }

    /// Takes over everything of another lane, which turned out to be one with this.
    pub(super) fn absorb(&mut self, other: Lane<K>) {
        self.least.absorb(other.least);
        for (name, class) in other.classes {
            let band = class.band;
            self.classes.entry(name).or_insert_with(|| Class::new(band)).absorb(class);
        }
        for (id, mut theirs) in other.flows {
            // Their virtual time is moved to where ours is.
            let clock = other.clocks.get(&theirs.band.value).copied().unwrap_or_default();
            theirs.shift(self.clock(theirs.band.value) - clock);
            match self.flows.get_mut(&id) {
                Some(ours) => ours.absorb(theirs),
                None => drop(self.flows.insert(id, theirs)),
            }
        }
    }

    /// Adopts a changed policy. Classes keep what they are owed, workloads their place.
    pub(super) fn configure(&mut self, rules: &Rules) {
        let clocks = &self.clocks;
        let clock = |band: Band| clocks.get(&band.value).copied().unwrap_or_default();
        for ((class, key), flow) in &mut self.flows {
            let band = rules.band(class);
            flow.shift(clock(band) - clock(flow.band));
            flow.band = band;
            flow.terms = rules.config.flows.get(key).cloned().unwrap_or_default();
        }
        let configured = &rules.config.classes;
        self.classes.retain(|name, class| class.count > 0 || configured.contains_key(name));
        for (name, class) in &mut self.classes {
            class.band = rules.band(name);
        }
    }

    /// Everything that waits.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&FlowId, &Line<K>)> {
        self.flows.iter().flat_map(|(id, flow)| flow.lines.values().map(move |line| (id, line)))
    }

    /// The draw that a head stands for.
    pub(super) fn head(&self, head: &Head) -> Option<(&Order, &Draw<K>)> {
        self.flows.get(&head.flow)?.lines.get(&head.budgets)?.head()
    }

    /// Where the next service of a workload begins in virtual time.
    pub(super) fn start(&self, flow: &Flow<K>) -> Tag {
        let clock = self.clock(flow.band.value);
        flow.finish().map_or(clock, |finish| finish.max(clock - Stretch::of(LAG_MAX, 1)))
    }

    /// True if a class of a higher value waits for `budget`.
    pub(super) fn contended(&self, value: i32, budget: &BudgetId) -> bool {
        self.classes.values().any(|class| class.band.value > value && class.waits_for(budget))
    }

    pub(super) fn clock(&self, value: i32) -> Tag {
        self.clocks.get(&value).copied().unwrap_or_default()
    }

    /// What a draw must leave of each level, in percent. What is due by guarantee or minimum share
    /// need not leave anything: else a drained budget would keep it from the lowest class for ever.
    fn holdback(&self, turn: Turn, head: &Head) -> u32 {
        match turn {
            Turn::Guaranteed | Turn::MinShare => 0,
            Turn::Class => self.flows.get(&head.flow).map_or(0, |flow| flow.band.holdback),
        }
    }

    /// One walk over the heads.
    fn grant(
        &mut self,
        now: Time,
        levels: &mut impl Levels,
        rules: &mut Rules,
        granted: &mut Vec<Draw<K>>,
    ) {
        if self.is_empty() {
            return;
        }
        let mut walk = Walk::begin(View { now, lane: self, rules });
        while let Some((turn, head)) = walk.next(View { now, lane: self, rules }) {
            let Some((_, draw)) = self.head(&head) else { continue };
            let holdback = self.holdback(turn, &head);
            if walk.fit(levels, &draw.vector, holdback) != Fit::Now {
                walk.blocked(levels, &head, &draw.vector, holdback);
                continue;
            }
            let draw = self.serve(now, turn, &head, rules);
            for (budget, amount) in &draw.vector {
                levels.take(budget, *amount);
            }
            granted.push(draw);
            walk.served(View { now, lane: self, rules }, turn, &head);
        }
    }

    /// Takes the draw at `head` out and counts it as served.
    fn serve(&mut self, now: Time, turn: Turn, head: &Head, rules: &mut Rules) -> Draw<K> {
        let order = *self.head(head).expect("a head that was just looked at is still there").0;
        let flow = self.flows.get(&head.flow).expect("a head stands for a workload that waits");
        let (start, value) = (self.start(flow), flow.band.value);
        let clock = self.clocks.entry(value).or_default();
        let mut bound = Tag::END;
        if turn == Turn::Guaranteed {
            // Out of its turn: no measure for the others, and soon forgotten.
            bound = *clock + Stretch::of(LEAD_MAX, 1);
        } else {
            *clock = start.max(*clock);
        }
        let flow = self.flows.get_mut(&head.flow).expect("looked up above");
        let draw = flow.remove(&head.budgets, &order).expect("the head of a line can be taken out");
        flow.lift(start - Stretch::of(LAG_MAX, 1));
        for (budget, amount) in &draw.vector {
            flow.advance(budget, start, rules.config.work_on(budget, *amount), bound);
        }
        rules.accounts.take(now, &head.flow.1, &flow.terms, &draw.vector);
        self.share_out(turn, value, &head.flow.0, &draw.vector);
        self.left(&head.budgets, &draw);
        draw
    }

    /// When a workload that waits will have accrued something of its guarantee again.
    fn guaranteed_at(&self, now: Time, rules: &Rules) -> Time {
        let mut earliest = Time::NEVER;
        for ((_, key), flow) in self.flows.iter().filter(|(_, flow)| !flow.is_idle()) {
            for (budget, bounds) in &flow.terms.bounds {
                let at = rules.accounts.guaranteed_at(key, budget);
                if !bounds.guaranteed.is_zero() && at > now {
                    earliest = earliest.min(at);
                }
            }
        }
        earliest
    }

    /// Counts a grant towards the minimum shares of all classes.
    fn share_out(&mut self, turn: Turn, value: i32, class: &Name, vector: &Vector) {
        let mut contended: Vec<&BudgetId> = Vec::new();
        if turn == Turn::MinShare {
            contended.extend(vector.keys().filter(|id| self.contended(value, id)));
        }
        for (name, other) in &mut self.classes {
            if name == class {
                other.pay(vector, |id| contended.contains(&id));
            } else {
                other.accrue(vector);
            }
        }
    }

    fn left(&mut self, budgets: &Budgets, draw: &Draw<K>) {
        self.least.leave(budgets);
        if let Some(class) = self.classes.get_mut(&draw.class) {
            class.leave(&draw.vector);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.values().all(|class| class.count == 0)
    }

    /// The flow `id`; one that waited for nothing does not come back with time saved up.
    fn flow(&mut self, id: FlowId, rules: &Rules) -> &mut Flow<K> {
        let band = rules.band(&id.0);
        let clock = self.clock(band.value);
        let flow = self.flows.entry(id).or_insert_with_key(|(_, key)| {
            Flow::new(band, rules.config.flows.get(key).cloned().unwrap_or_default())
        });
        if flow.is_idle() {
            flow.lift(clock);
        }
        flow
    }

    /// Drops workloads of which nothing is to be remembered.
    fn forget_idle(&mut self) {
        let clocks = &self.clocks;
        self.flows.retain(|_, flow| {
            let clock = clocks.get(&flow.band.value).copied().unwrap_or_default();
            !flow.is_idle() || flow.finish().is_some_and(|finish| finish > clock)
        });
    }
}
