use super::*;
use crate::message::Held;

const POOL: u64 = 10;

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

fn budget() -> BudgetId {
    BudgetId::from_wire("openai/gpt/requestsPerMinute")
}

fn pod(name: &str) -> PodId {
    name.into()
}

fn rate(units: u64) -> Rate {
    Rate::from_micros(units)
}

fn wanted(units: u64, floor: u64) -> BTreeMap<BudgetId, Terms> {
    let terms = Terms {
        rate: rate(units),
        cap: Amount::from_units(1),
        floor: rate(floor),
        floor_ttl: Duration::from_secs(3_600),
        ..Terms::default()
    };
    BTreeMap::from([(budget(), terms)])
}

fn takeover(epoch: u64, quiet: u64, roster: &[&str], floors: u64) -> Takeover {
    Takeover {
        epoch: Epoch(epoch),
        quiet_until: at(quiet),
        roster: roster.iter().map(|name| pod(name)).collect(),
        floors: BTreeMap::from([(budget(), rate(floors))]),
        floor_ttl: Duration::from_secs(3_600),
    }
}

fn accounts(start: Takeover) -> Accounts {
    let mut accounts = Accounts::new(at(0), Timing::default(), start);
    let caps = Amount::from_units(5);
    accounts.set_capacity(budget(), Capacity { rate: rate(POOL), caps, floors: rate(2) });
    accounts
}

fn holdings(nonce: Nonce, units: u64, ttl_left: u64, floor: u64) -> Holdings {
    let held = Held {
        rate: rate(units),
        cap: Amount::from_units(1),
        floor: rate(floor),
        floor_left: if floor > 0 { Duration::from_secs(3_000) } else { Duration::ZERO },
        in_use: Amount::ZERO,
    };
    Holdings {
        nonce,
        mono: at(0),
        ttl_left: Duration::from_secs(ttl_left),
        items: BTreeMap::from([(budget(), held)]),
        counters: BTreeMap::new(),
        debts: BTreeMap::new(),
    }
}

fn join(accounts: &mut Accounts, now: Time, name: &str) {
    let nonce = accounts.challenge(now, &pod(name), 1).unwrap();
    let empty = Holdings { items: BTreeMap::new(), ..holdings(nonce, 0, 0, 0) };
    assert_eq!(accounts.register(now, &pod(name), &empty), Registration::Accepted);
}

fn granted(accounts: &mut Accounts, now: Time, name: &str, units: u64) -> (Rate, Version) {
    let grant = accounts.grant(now, &pod(name), now, &wanted(units, 0)).unwrap();
    (grant.items.get(&budget()).map_or(Rate::ZERO, |terms| terms.rate), grant.version)
}

#[test]
fn what_one_pod_gives_up_is_granted_to_another_only_when_it_has_confirmed() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    join(&mut accounts, at(0), "a");
    join(&mut accounts, at(0), "b");
    assert_eq!(granted(&mut accounts, at(1), "a", 8).0, rate(8));
    let (_, shrink) = granted(&mut accounts, at(2), "a", 3);
    assert_eq!(granted(&mut accounts, at(2), "b", 9).0, rate(2));
    accounts.acked(&pod("a"), Epoch(1), shrink);
    assert_eq!(granted(&mut accounts, at(3), "b", 9).0, rate(7));
    assert_eq!(accounts.room(at(3), &budget()), rate(0));
}

#[test]
fn what_a_silent_pod_holds_comes_back_after_the_margin_and_its_floor_after_t2() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    join(&mut accounts, at(0), "a");
    accounts.grant(at(0), &pod("a"), at(0), &wanted(8, 2)).unwrap();
    assert_eq!(accounts.room(at(60), &budget()), rate(2));
    assert_eq!(accounts.room(at(61), &budget()), rate(8));
    assert_eq!(accounts.room(at(3_605), &budget()), rate(10));
    assert!(accounts.holds_nothing(at(3_605), &pod("a")));
}

#[test]
fn floors_together_never_exceed_their_ceiling() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    for name in ["a", "b"] {
        join(&mut accounts, at(0), name);
        accounts.grant(at(0), &pod(name), at(0), &wanted(5, 2)).unwrap();
    }
    assert_eq!(accounts.floors(at(0), &budget()), rate(2));
}

#[test]
fn a_new_leader_asks_nothing_before_the_old_one_has_surely_ended() {
    let mut accounts = accounts(takeover(2, 10, &["a"], 0));
    assert_eq!(accounts.challenge(at(9), &pod("a"), 1), None);
    assert!(accounts.challenge(at(10), &pod("a"), 1).is_some());
}

#[test]
fn holdings_that_may_have_died_on_the_way_are_asked_again() {
    let mut accounts = accounts(takeover(2, 0, &["a"], 0));
    let nonce = accounts.challenge(at(1), &pod("a"), 1).unwrap();
    let late = accounts.register(at(4), &pod("a"), &holdings(nonce, 4, 2, 0));
    assert_eq!(late, Registration::Stale);
    assert!(!accounts.registered(&pod("a")));
    let nonce = accounts.challenge(at(4), &pod("a"), 1).unwrap();
    let unasked = holdings(Nonce(nonce.0 + 1), 4, 30, 0);
    assert_eq!(accounts.register(at(4), &pod("a"), &unasked), Registration::Unasked);
    let fresh = accounts.register(at(4), &pod("a"), &holdings(nonce, 4, 30, 0));
    assert_eq!(fresh, Registration::Accepted);
}

#[test]
fn nothing_grows_before_every_pod_of_the_roster_is_known() {
    let mut accounts = accounts(takeover(2, 0, &["a", "b"], 0));
    let nonce = accounts.challenge(at(0), &pod("a"), 1).unwrap();
    accounts.register(at(0), &pod("a"), &holdings(nonce, 4, 30, 0));
    assert!(accounts.learning(at(1)));
    assert_eq!(granted(&mut accounts, at(1), "a", 9).0, rate(4));
    accounts.gone(&pod("b"));
    assert!(!accounts.learning(at(1)));
    assert_eq!(granted(&mut accounts, at(1), "a", 9).0, rate(9));
}

#[test]
fn while_pods_are_missing_what_is_known_may_move_between_the_others() {
    let mut accounts = accounts(takeover(2, 0, &["a", "b", "c"], 0));
    for name in ["a", "b"] {
        let nonce = accounts.challenge(at(0), &pod(name), 1).unwrap();
        accounts.register(at(0), &pod(name), &holdings(nonce, 4, 30, 0));
    }
    let (_, shrink) = granted(&mut accounts, at(1), "a", 1);
    accounts.acked(&pod("a"), Epoch(2), shrink);
    assert_eq!(granted(&mut accounts, at(1), "b", 9).0, rate(7));
}

#[test]
fn a_pod_that_stays_missing_counts_with_the_floors_of_its_leader_until_t2() {
    let mut accounts = accounts(takeover(2, 0, &["a", "b"], 2));
    join(&mut accounts, at(0), "a");
    assert_eq!(accounts.room(at(60), &budget()), rate(0));
    assert_eq!(accounts.room(at(61), &budget()), rate(8));
    assert_eq!(accounts.room(at(3_605), &budget()), rate(10));
}

#[test]
fn a_pod_that_answers_from_a_new_run_holds_nothing_of_its_old_one() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    join(&mut accounts, at(0), "a");
    granted(&mut accounts, at(0), "a", 8);
    let nonce = accounts.challenge(at(1), &pod("a"), 2).unwrap();
    assert_eq!(accounts.room(at(1), &budget()), rate(2), "a Hello proves nothing");
    let empty = Holdings { items: BTreeMap::new(), ..holdings(nonce, 0, 0, 0) };
    accounts.register(at(1), &pod("a"), &empty);
    assert_eq!(accounts.room(at(1), &budget()), rate(10));
}

#[test]
fn a_pod_that_confirms_nothing_is_granted_no_more() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    join(&mut accounts, at(0), "a");
    let grants =
        (0..100).filter(|_| accounts.grant(at(0), &pod("a"), at(0), &wanted(1, 0)).is_some());
    assert!(grants.count() <= UNCONFIRMED_MAX);
}

#[test]
fn a_cut_is_in_force_for_grants_at_once_and_for_the_sum_when_pods_confirm() {
    let mut accounts = accounts(takeover(1, 0, &[], 0));
    join(&mut accounts, at(0), "a");
    granted(&mut accounts, at(0), "a", 8);
    let cut = Capacity { rate: rate(5), caps: Amount::from_units(2), floors: rate(1) };
    accounts.set_capacity(budget(), cut);
    assert_eq!(accounts.room(at(1), &budget()), rate(0));
    let (less, version) = granted(&mut accounts, at(1), "a", 8);
    assert_eq!(less, rate(5));
    accounts.acked(&pod("a"), Epoch(1), version);
    assert_eq!(accounts.charge(at(1), &budget()), rate(5));
}

/// What is kept up to date is what adding up would say, whatever happens in whatever order.
#[test]
fn sums_kept_up_to_date_are_those_of_all_pods() {
    let mut accounts = accounts(takeover(1, 0, &["a"], 0));
    let pods: Vec<PodId> = (0..6).map(|n| pod(&format!("pod-{n}"))).collect();
    // Numbers without a pattern (Knuth's multiplier); the last bits of such a series have one.
    let mut last = 1u64;
    let mut draw = |below: u64| {
        last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (last >> 33) % below
    };
    let mut now = at(0);
    for step in 0..20_000 {
        let pod = &pods[usize::try_from(draw(6)).unwrap()];
        match draw(8) {
            0 => now = now + Duration::from_millis(draw(40_000)),
            1 => accounts.gone(pod),
            2 => {
                if let Some(nonce) = accounts.challenge(now, pod, draw(2)) {
                    let held = holdings(nonce, draw(3), draw(60), draw(2));
                    let _ = accounts.register(now, pod, &held);
                }
            }
            3 => accounts.acked(pod, Epoch(1), Version(draw(30))),
            4 => accounts.reap(now),
            _ => drop(accounts.grant(now, pod, now, &wanted(draw(5), draw(2)))),
        }
        let each = accounts.pods().map(|pod| accounts.charge_of(now, pod, &budget()));
        let (mut rates, mut caps, mut floors) = (Rate::ZERO, Amount::ZERO, Rate::ZERO);
        for (rate, cap, floor) in each {
            (rates, caps, floors) = (rates + rate, caps + cap, floors + floor);
        }
        assert_eq!(accounts.charge(now, &budget()), rates, "step {step}");
        assert_eq!(accounts.caps(now, &budget()) - accounts.lost_caps(now, &budget()), caps);
        assert_eq!(accounts.floors(now, &budget()), floors, "step {step}");
    }
}
