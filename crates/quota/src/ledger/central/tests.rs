use super::*;
use crate::budget::{BudgetId, Shape};
use crate::dimension::{Dimension, Window};

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn units(units: u64) -> Amount {
    Amount::from_units(units)
}

/// 600 a minute from edge to edge, never used before, at time 0; nothing of it is leased.
fn window() -> Central {
    let shape = Shape { window: Window::FixedWindow, ..Shape::default() };
    let dimension = Dimension::RequestsPerMinute;
    let id = BudgetId::new("openai", "all", dimension);
    let mut central = Central::new(at(0), Budget::new(id, dimension, 600, shape), true);
    central.set_room(central.capacity().rate, Amount::ZERO);
    central
}

/// What is admitted until the level dies, if all of it always is.
fn used_up(central: &mut Central, mut now: Time, end: Time) -> Amount {
    let mut sum = Amount::ZERO;
    while now < end {
        central.advance(now);
        let level = central.available();
        central.take(level);
        sum += level;
        now = now + Duration::from_millis(10);
    }
    sum
}

#[test]
fn a_window_whose_edges_become_known_bears_what_was_admitted_of_it_before() {
    for (large, transit_ms) in [(0, 0), (250, 0), (250, 10)] {
        let mut central = window();
        // Larger than what is let through at a pace: at once, because the log has room.
        central.take(units(large));
        let begin = units(large) + used_up(&mut central, at(0), at(100));
        central.observe_reset(at(59_000), at(59_000), at(100));
        // The guard that was kept back for a slower way to the provider comes back.
        central.set_transit(Duration::from_millis(transit_ms));
        let all = begin + used_up(&mut central, at(100), at(58_940));
        assert!(all <= units(600), "{large}, then {all} in all");
        assert!(all >= units(580), "{large}, then {all} in all");
    }
}

#[test]
fn leases_grow_in_a_window_of_unknown_edges_only_while_its_log_bears_it() {
    let mut central = window();
    let leased = Rate::from_micros(5_000_000);
    assert!(central.bears(leased));
    // 300 in the last minute leave room for 5 a second until they are forgotten, 320 do not.
    central.take(units(295));
    assert!(central.bears(leased));
    central.take(units(20));
    assert!(!central.bears(leased));
}

#[test]
fn a_guard_that_falls_gives_back_only_what_was_kept_for_it() {
    let dimension = Dimension::RequestsPerMinute;
    let id = BudgetId::new("openai", "all", dimension);
    // 10 a second. A first leader has kept 200 ms of it more than it needs; a successor began with
    // nothing, and has nothing to give back.
    for (first_use, freed) in [(true, 2_000), (false, 0)] {
        let budget = Budget::new(id.clone(), dimension, 600, Shape::default());
        let mut central = Central::new(at(0), budget, first_use);
        central.set_room(central.capacity().rate, Amount::ZERO);
        central.take(central.available());
        central.set_transit(Duration::from_nanos(1));
        for (now, refilled) in [(0, 0), (1_000, 10_000)] {
            central.advance(at(now));
            let millis = (central.available().micros() + 500) / 1_000;
            assert_eq!(millis, freed + refilled, "first use: {first_use}");
        }
    }
}

#[test]
fn what_comes_back_after_an_edge_is_of_the_new_window_once_the_old_one_is_surely_told() {
    let mut central = window();
    assert!(!central.is_of_old_window(at(0)), "whoever knows no edge gives nothing back");
    central.observe_reset(at(59_000), at(59_000), at(100));
    central.advance(at(59_100));
    // The level died 250 ms and the clocks' 5 ms before the edge.
    assert!(central.is_of_old_window(at(58_000)));
    assert!(central.is_of_old_window(at(59_000)));
    assert!(!central.is_of_old_window(at(59_300)));
}
