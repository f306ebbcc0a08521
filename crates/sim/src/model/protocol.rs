//! What can happen in a state of the model, and what it leads to. Every decision is taken by
//! `quota::lease::Lease` and `quota::accounts::Accounts`; here is only the world around them, and the
//! lies of [`Mutation`].

use std::collections::{BTreeMap, BTreeSet};

use quota::accounts::{Accounts, Capacity, Registration, Takeover};
use quota::budget::BudgetId;
use quota::lease::{Adoption, Lease};
use quota::message::{Holdings, LeaseSet, Nonce, PodId, Terms, Version};
use quota::time::Time;
use quota::timing::Timing;
use quota::units::{Amount, Rate};

use super::action::Action;
use super::mutation::Mutation;
use super::size::{CAPACITY, DRIFT_SPACING, Drift, FLOORS, Size, seconds};
use super::state::{Leader, Life, Message, PODS, Part, Pod, State, epoch};

/// A world, and the lie told in it, if any.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    size: Size,
    lie: Option<Mutation>,
    timing: Timing,
    budget: BudgetId,
    pods: [PodId; PODS],
}

// === impl Protocol ===

impl Protocol {
    pub(super) fn new(size: Size, lie: Option<Mutation>) -> Protocol {
        let mut timing = size.timing();
        if lie == Some(Mutation::NoMargin) {
            timing.drift_ppm = 0;
        }
        let pods = ["a", "b", "c"].map(PodId::from);
        Protocol { size, lie, timing, budget: BudgetId::from_wire("budget"), pods }
    }

    /// One leader that knows pods a and b, which hold nothing.
    pub(super) fn start(&self) -> State {
        let start = Takeover {
            epoch: epoch(0),
            quiet_until: Time::ZERO,
            roster: BTreeSet::new(),
            floors: BTreeMap::new(),
            floor_ttl: seconds(0),
        };
        let mut state = State {
            tick: 0,
            capacity: CAPACITY,
            stored_floors: 0,
            pods: [Life::Present, Life::Present, Life::Absent].map(Pod::new),
            leaders: [Some(self.leader(Time::ZERO, start, u8::MAX)), None],
            succeeded: false,
            net: Vec::new(),
            restarts_left: self.size.restarts,
            ends_left: self.size.ends,
        };
        for pod in 0..2 {
            state = self.challenge(&state, 0, pod, 1).expect("a leader may ask at once");
            let open = state.leaders[0].as_ref().map(|leader| leader.open[usize::from(pod)]);
            let nonce = open.expect("the leader is there").into();
            state = self.answer(&state, 0, pod, nonce).expect("the challenge is on its way");
            state = self.register(&state, 0, pod, nonce, 0).expect("the answer is on its way");
        }
        if let Some(leader) = &mut state.leaders[0] {
            leader.challenges_left = self.size.challenges[0];
        }
        state
    }

    /// All that can happen.
    pub(super) fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        self.world_actions(state, &mut actions);
        for leader in 0..2 {
            self.leader_actions(state, leader, &mut actions);
        }
        actions.extend(state.net.iter().map(|message| match *message.get() {
            Message::Challenge { leader, pod, nonce, .. } => {
                Action::Answer { leader, pod, nonce: small(nonce.0) }
            }
            Message::Holdings { leader, pod, clock, ref holdings, .. } => {
                Action::Register { leader, pod, nonce: small(holdings.nonce.0), clock }
            }
            Message::Lease { leader, pod, ref grant, .. } => {
                Action::Adopt { leader, pod, version: small(grant.version.0) }
            }
            Message::Ack { leader, pod, version } => {
                Action::Ack { leader, pod, version: small(version.0) }
            }
        }));
        actions
    }

    /// What an action leads to; `None` if it cannot happen here.
    pub(super) fn apply(&self, state: &State, action: Action) -> Option<State> {
        let mut next = match action {
            Action::Tick { advance } => self.tick(state, advance),
            Action::Challenge { leader, pod, boot } => self.challenge(state, leader, pod, boot),
            Action::Answer { leader, pod, nonce } => self.answer(state, leader, pod, nonce.into()),
            Action::Register { leader, pod, nonce, clock } => {
                self.register(state, leader, pod, nonce.into(), clock)
            }
            Action::Grant { leader, pod, rate, floor } => {
                self.grant(state, leader, pod, self.terms(rate, floor))
            }
            Action::Adopt { leader, pod, version } => self.adopt(state, leader, pod, version),
            Action::Ack { leader, pod, version } => self.ack(state, leader, pod, version),
            Action::Restart { pod } => restart(state, pod),
            Action::End { pod } => end(state, pod),
            Action::Confirm { leader, pod } => self.confirm(state, leader, pod),
            Action::Join { pod } => self.join(state, pod),
            Action::Death => self.succeed(state, true),
            Action::Silence => self.succeed(state, false),
            Action::Cut => self.cut(state),
        }?;
        next.forget_dead_messages(self.lie == Some(Mutation::OrderStripped));
        Some(next)
    }

    /// What is wrong in a state, or about the step that led to it.
    pub(super) fn violation(&self, before: &State, state: &State) -> Option<String> {
        let held = state.pods.iter().enumerate().map(|(at, _)| self.held(state, at));
        let (rate, cap) = held.fold((0, 0), |sum, held| (sum.0 + held.0, sum.1 + held.1));
        let largest = u64::from(CAPACITY);
        if rate > largest {
            return Some(format!("pods hold {rate} of a budget of {largest}"));
        }
        if self.lie.is_some() {
            // A lie has to break the promise itself, not only the books.
            return None;
        }
        if cap > largest {
            return Some(format!("pods' levels may hold {cap} of a burst of {largest}"));
        }
        for (at, leader) in state.leaders.iter().enumerate() {
            let Some(leader) = leader else { continue };
            let before = before.leaders[at].as_ref();
            if let Some(violation) = self.books_violation(state, at, leader, before) {
                return Some(violation);
            }
        }
        None
    }

    /// The rates that pods believe valid, for people.
    pub(super) fn believed(&self, state: &State) -> String {
        let present = (0..PODS).filter(|at| state.pods[*at].life == Life::Present);
        let rates = present.map(|at| format!("{} {}", self.pods[at], self.held(state, at).0));
        rates.collect::<Vec<_>>().join(", ")
    }

    /// A leader's books must never fall below what is held, nor exceed the budget, nor grow above a
    /// cut one.
    fn books_violation(
        &self,
        state: &State,
        at: usize,
        leader: &Leader,
        before: Option<&Leader>,
    ) -> Option<String> {
        let (now, books) = (state.now(), leader.accounts.get());
        for (pod, id) in self.pods.iter().enumerate() {
            let known = books.registered(id)
                && state.pods[pod].runs(leader.runs[pod])
                && state.pods[pod].lease.get().epoch() == books.epoch();
            let (rate, cap) = self.held(state, pod);
            let charged = books.charge_of(now, id, &self.budget);
            if known && (charged.0.micros() < rate || charged.1.micros() < cap) {
                return Some(format!("leader {at} charges pod {id} less than it holds"));
            }
        }
        let charge = books.charge(now, &self.budget);
        if charge > Rate::from_micros(CAPACITY.into()) {
            return Some(format!("leader {at} charges {} in all", charge.micros()));
        }
        if books.floors(now, &self.budget) > Rate::from_micros(FLOORS.into()) {
            return Some(format!("leader {at} has promised floors above their ceiling"));
        }
        let granted = before.is_some_and(|before| before.grants_left > leader.grants_left);
        let grown = before.is_some_and(|b| charge > b.accounts.get().charge(now, &self.budget));
        (granted && grown && charge > Rate::from_micros(state.capacity.into()))
            .then(|| format!("leader {at} has granted above the cut budget"))
    }

    /// The rate and the cap that a pod believes it holds.
    fn held(&self, state: &State, pod: usize) -> (u64, u64) {
        let pod_state = &state.pods[pod];
        let lease = pod_state.lease.get();
        let clock = self.clock(pod, pod_state.clock);
        if pod_state.life != Life::Present || !lease.alive(clock, &self.budget) {
            return (0, 0);
        }
        let cap = lease.held(clock, &self.budget).cap;
        (lease.rate(clock, &self.budget).micros(), cap.micros())
    }

    fn world_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let size = &self.size;
        if state.tick < size.end_tick {
            actions.push(Action::Tick { advance: 1 });
            if state.pods[0].steady_for == 0 && size.drift != Drift::None {
                actions.push(Action::Tick { advance: 0 });
                if size.drift == Drift::SlowAndFast {
                    actions.push(Action::Tick { advance: 2 });
                }
            }
        }
        for pod in 0..3 {
            match state.pods[usize::from(pod)].life {
                Life::Present if state.restarts_left > 0 => actions.push(Action::Restart { pod }),
                Life::Absent if size.join => actions.push(Action::Join { pod }),
                _ => {}
            }
            if state.pods[usize::from(pod)].life == Life::Present && state.ends_left > 0 {
                actions.push(Action::End { pod });
            }
        }
        if !state.succeeded && size.death {
            actions.push(Action::Death);
        }
        if !state.succeeded && size.silence {
            actions.push(Action::Silence);
        }
        if size.cut && state.capacity == CAPACITY {
            actions.push(Action::Cut);
        }
    }

    fn leader_actions(&self, state: &State, leader: u8, actions: &mut Vec<Action>) {
        let Some(books) = &state.leaders[usize::from(leader)] else { return };
        for pod in 0..3 {
            let at = usize::from(pod);
            let pod_state = &state.pods[at];
            if pod_state.life == Life::Present && books.challenges_left > 0 {
                let hello = |boot| Action::Challenge { leader, pod, boot };
                actions.extend((1..=pod_state.boot).map(hello));
            }
            if pod_state.life == Life::Ended && !books.confirmed[at] {
                actions.push(Action::Confirm { leader, pod });
            }
            if books.grants_left == 0 || !books.accounts.get().registered(&self.pods[at]) {
                continue;
            }
            let id = &self.pods[at];
            let charged = books.accounts.get().charge_of(state.now(), id, &self.budget).0;
            if !charged.is_zero() {
                actions.push(Action::Grant { leader, pod, rate: 0, floor: 0 });
            }
            let floors = if self.size.floor_ticks > 0 { FLOORS } else { 0 };
            for &rate in self.size.rates {
                let grant = |floor| Action::Grant { leader, pod, rate, floor };
                actions.extend((0..=floors).map(grant));
            }
        }
    }

    fn tick(&self, state: &State, advance: u8) -> Option<State> {
        let mut next = state.clone();
        let errs = advance != 1;
        if errs && state.pods[0].steady_for > 0 {
            return None;
        }
        next.tick += 1;
        for (at, pod) in next.pods.iter_mut().enumerate() {
            pod.clock += if at == 0 { advance } else { 1 };
            pod.steady_for = pod.steady_for.saturating_sub(1);
        }
        if errs {
            next.pods[0].steady_for = DRIFT_SPACING - 1;
        }
        for leader in &mut next.leaders {
            leader.take_if(|leader| next.tick >= leader.until);
        }
        (next.tick <= self.size.end_tick).then_some(next)
    }

    fn challenge(&self, state: &State, leader: u8, pod: u8, boot: u8) -> Option<State> {
        let mut next = state.clone();
        let (now, at) = (state.now(), usize::from(pod));
        let books = next.leaders[usize::from(leader)].as_mut()?;
        books.challenges_left = books.challenges_left.checked_sub(1)?;
        let mut accounts = books.accounts.get().clone();
        let nonce = accounts.challenge(now, &self.pods[at], boot.into())?;
        books.accounts = Part::new(accounts);
        books.open[at] = small(nonce.0);
        next.send(Message::Challenge { leader, pod, boot, nonce });
        Some(next)
    }

    fn answer(&self, state: &State, leader: u8, pod: u8, nonce: u64) -> Option<State> {
        let mut next = state.clone();
        let at = usize::from(pod);
        let boot = state.pods[at].boot;
        let asked = Message::Challenge { leader, pod, boot, nonce: Nonce(nonce) };
        find(state, |message| *message == asked)?;
        let mut lease = state.pods[at].lease.get().clone();
        if self.lie != Some(Mutation::NoFence) && !lease.fence(epoch(leader)) {
            return None;
        }
        let clock = self.clock(at, state.pods[at].clock);
        let granted = lease.grant().is_some_and(|grant| grant.items.contains_key(&self.budget));
        let held = granted.then(|| (self.budget.clone(), lease.held(clock, &self.budget)));
        let holdings = Holdings {
            nonce: Nonce(nonce),
            mono: clock,
            ttl_left: lease.ttl_left(clock),
            items: held.into_iter().collect(),
            counters: BTreeMap::new(),
            debts: BTreeMap::new(),
        };
        next.pods[at].lease = Part::new(lease);
        let clock = state.pods[at].clock;
        next.send(Message::Holdings { leader, pod, boot, clock, holdings });
        Some(next)
    }

    fn register(&self, state: &State, to: u8, of: u8, nonce: u64, at: u8) -> Option<State> {
        let mut next = state.clone();
        let (boot, mut holdings) = find(state, |message| {
            matches!(message, Message::Holdings { leader, pod, clock, holdings, .. }
                if (*leader, *pod, holdings.nonce.0, *clock) == (to, of, nonce, at))
        })
        .and_then(|message| match message {
            Message::Holdings { boot, holdings, .. } => Some((*boot, holdings.clone())),
            _ => None,
        })?;
        let books = next.leaders[usize::from(to)].as_mut()?;
        let mut accounts = books.accounts.get().clone();
        let id = &self.pods[usize::from(of)];
        if self.lie == Some(Mutation::StaleTrusted) {
            holdings.nonce = accounts.challenge(state.now(), id, boot.into())?;
        }
        if accounts.register(state.now(), id, &holdings) == Registration::Accepted {
            books.runs[usize::from(of)] = boot;
        }
        books.open[usize::from(of)] = 0;
        books.accounts = Part::new(accounts);
        Some(next)
    }

    fn grant(&self, state: &State, leader: u8, pod: u8, wanted: Terms) -> Option<State> {
        let mut next = state.clone();
        let (now, at) = (state.now(), usize::from(pod));
        let books = next.leaders[usize::from(leader)].as_mut()?;
        books.grants_left = books.grants_left.checked_sub(1)?;
        let mut accounts = books.accounts.get().clone();
        // The newest reading that the leader can have: older ones only end the lease earlier.
        let echo = self.clock(at, state.pods[at].clock);
        let wanted = BTreeMap::from([(self.budget.clone(), wanted)]);
        let grant = accounts.grant(now, &self.pods[at], echo, &wanted)?;
        if self.lie == Some(Mutation::AckedAtSend) {
            accounts.acked(&self.pods[at], grant.epoch, grant.version);
        }
        let floors = accounts.floors(now, &self.budget).micros();
        next.stored_floors = state.stored_floors.max(small(floors));
        books.accounts = Part::new(accounts);
        let boot = books.runs[at];
        next.send(Message::Lease { leader, pod, boot, grant });
        Some(next)
    }

    fn adopt(&self, state: &State, leader: u8, pod: u8, version: u8) -> Option<State> {
        let mut next = state.clone();
        let at = usize::from(pod);
        let sent = Version(version.into());
        let grant = find(state, |message| {
            matches!(message, Message::Lease { leader: l, pod: p, boot, grant }
                if (*l, *p, grant.version) == (leader, pod, sent) && state.pods[at].runs(*boot))
        })
        .and_then(|message| match message {
            Message::Lease { grant, .. } => Some(grant.clone()),
            _ => None,
        })?;
        let mut lease = state.pods[at].lease.get().clone();
        let clock = self.clock(at, state.pods[at].clock);
        if lease.adopt(self.delivered(grant, &lease, clock)) == Adoption::Stale {
            return None;
        }
        next.pods[at].lease = Part::new(lease);
        next.send(Message::Ack { leader, pod, version: sent });
        Some(next)
    }

    /// A lease as the pod sees it: as it was sent, but for the lies.
    fn delivered(&self, mut grant: LeaseSet, lease: &Lease, clock: Time) -> LeaseSet {
        if self.lie == Some(Mutation::AnchoredAtReceipt) {
            grant.echo = clock;
        }
        if let (Some(Mutation::OrderStripped), Some(held)) = (self.lie, lease.grant())
            && grant.epoch == held.epoch
        {
            grant.version = Version(held.version.0 + 1);
        }
        grant
    }

    fn ack(&self, state: &State, leader: u8, pod: u8, version: u8) -> Option<State> {
        let mut next = state.clone();
        let version = Version(version.into());
        let sent = Message::Ack { leader, pod, version };
        find(state, |message| *message == sent)?;
        let books = next.leaders[usize::from(leader)].as_mut()?;
        let mut accounts = books.accounts.get().clone();
        accounts.acked(&self.pods[usize::from(pod)], epoch(leader), version);
        books.accounts = Part::new(accounts);
        let newest = &mut books.acked[usize::from(pod)];
        *newest = small(version.0).max(*newest);
        Some(next)
    }

    fn confirm(&self, state: &State, leader: u8, pod: u8) -> Option<State> {
        let mut next = state.clone();
        let at = usize::from(pod);
        let books = next.leaders[usize::from(leader)].as_mut()?;
        if state.pods[at].life != Life::Ended || books.confirmed[at] {
            return None;
        }
        let mut accounts = books.accounts.get().clone();
        accounts.gone(&self.pods[at]);
        books.accounts = Part::new(accounts);
        books.confirmed[at] = true;
        books.open[at] = 0;
        Some(next)
    }

    fn join(&self, state: &State, pod: u8) -> Option<State> {
        let mut next = state.clone();
        let at = usize::from(pod);
        if state.pods[at].life != Life::Absent {
            return None;
        }
        next.pods[at] = Pod { clock: state.tick, ..Pod::new(Life::Present) };
        for books in next.leaders.iter_mut().flatten() {
            let mut accounts = books.accounts.get().clone();
            accounts.joined(state.now(), &self.pods[at]);
            books.accounts = Part::new(accounts);
        }
        Some(next)
    }

    fn cut(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        next.capacity = CAPACITY / 2;
        for books in next.leaders.iter_mut().flatten() {
            let mut accounts = books.accounts.get().clone();
            accounts.set_capacity(self.budget.clone(), capacity(next.capacity, FLOORS));
            books.accounts = Part::new(accounts);
        }
        (state.capacity == CAPACITY).then_some(next)
    }

    fn succeed(&self, state: &State, death: bool) -> Option<State> {
        if state.succeeded {
            return None;
        }
        let mut next = state.clone();
        let quiet_ticks = if death { 0 } else { self.size.zombie_ticks };
        let quiet_ticks = if self.lie == Some(Mutation::NoQuiet) { 0 } else { quiet_ticks };
        let known = (0..PODS).filter(|at| state.pods[*at].life != Life::Absent);
        let roster = match self.lie {
            Some(Mutation::EmptyRoster) => BTreeSet::new(),
            _ => known.map(|at| self.pods[at].clone()).collect(),
        };
        let stored = match self.lie {
            Some(Mutation::FloorsForgotten) => 0,
            _ => state.stored_floors,
        };
        let start = Takeover {
            epoch: epoch(1),
            quiet_until: state.now() + seconds(quiet_ticks),
            roster,
            floors: BTreeMap::from([(self.budget.clone(), Rate::from_micros(stored.into()))]),
            floor_ttl: seconds(self.size.floor_ticks),
        };
        next.leaders[1] = Some(self.leader(state.now(), start, u8::MAX));
        next.leaders[0].take_if(|_| death);
        if let Some(old) = &mut next.leaders[0] {
            old.until = state.tick + self.size.zombie_ticks;
            // It can no longer write its state, so it may promise no floors above what is stored.
            let mut accounts = old.accounts.get().clone();
            let floors = capacity(state.capacity, state.stored_floors);
            accounts.set_capacity(self.budget.clone(), floors);
            old.accounts = Part::new(accounts);
        }
        next.succeeded = true;
        Some(next)
    }

    fn leader(&self, now: Time, start: Takeover, until: u8) -> Leader {
        let mut accounts = Accounts::new(now, self.timing, start);
        accounts.set_capacity(self.budget.clone(), capacity(CAPACITY, FLOORS));
        Leader {
            accounts: Part::new(accounts),
            runs: [0; PODS],
            confirmed: [false; PODS],
            open: [0; PODS],
            acked: [0; PODS],
            until,
            challenges_left: self.size.challenges[1].max(2),
            grants_left: self.size.grants,
        }
    }

    fn terms(&self, rate: u8, floor: u8) -> Terms {
        Terms {
            rate: Rate::from_micros(rate.into()),
            cap: Amount::from_micros(rate.into()),
            floor: Rate::from_micros(floor.into()),
            floor_ttl: seconds(if floor > 0 { self.size.floor_ticks } else { 0 }),
            ..Terms::default()
        }
    }

    /// A pod's own clock. No two clocks have the same origin.
    fn clock(&self, pod: usize, ticks: u8) -> Time {
        let origin = u64::try_from(pod).expect("there are three") + 1;
        Time::from_millis(1_000_000 * origin) + seconds(ticks)
    }
}

fn restart(state: &State, pod: u8) -> Option<State> {
    let mut next = state.clone();
    next.restarts_left = state.restarts_left.checked_sub(1)?;
    let restarted = &mut next.pods[usize::from(pod)];
    restarted.boot += 1;
    restarted.lease = Part::new(Lease::default());
    (restarted.life == Life::Present).then_some(next)
}

fn end(state: &State, pod: u8) -> Option<State> {
    let mut next = state.clone();
    next.ends_left = state.ends_left.checked_sub(1)?;
    let ended = &mut next.pods[usize::from(pod)];
    if ended.life != Life::Present {
        return None;
    }
    ended.life = Life::Ended;
    ended.lease = Part::new(Lease::default());
    Some(next)
}

fn find(state: &State, wanted: impl Fn(&Message) -> bool) -> Option<&Message> {
    state.net.iter().map(Part::get).find(|message| wanted(message))
}

fn capacity(units: u8, floors: u8) -> Capacity {
    Capacity {
        rate: Rate::from_micros(units.into()),
        caps: Amount::from_micros(units.into()),
        floors: Rate::from_micros(floors.into()),
    }
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("every count of the model is small")
}
