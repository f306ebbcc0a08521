use std::path::PathBuf;

use super::action::Action;
use super::*;

fn kept(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counterexamples").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn every_kept_counterexample_violates_without_its_rule_and_not_with_it() {
    for lie in Mutation::ALL {
        let steps = Counterexample::read_steps(&kept(&format!("{}.txt", lie.name()))).unwrap();
        assert!(!steps.is_empty(), "{} has steps", lie.name());
        let with_lie = Counterexample::replay(&lie.size(), Some(lie), &steps);
        let without = Counterexample::replay(&lie.size(), None, &steps);
        assert!(with_lie.is_some_and(|what| what.starts_with("pods hold")), "{}", lie.name());
        assert_eq!(without, None, "{} with all rules", lie.name());
    }
}

#[test]
fn the_shortest_counterexample_of_a_small_world_is_the_one_that_is_kept() {
    for lie in [Mutation::AckedAtSend, Mutation::AnchoredAtReceipt, Mutation::EmptyRoster] {
        let found = shortest(&lie.size(), Some(lie), &mut |_| {}).expect("it was found before");
        assert_eq!(found.to_string(), kept(&format!("{}.txt", lie.name())));
    }
}

#[test]
fn what_the_check_once_found_in_the_code_happens_no_more() {
    for (file, size) in [
        ("found-delayed-hello.txt", Size { challenges: [2, 0], ..Size::RESTART }),
        ("found-levels-of-the-missing.txt", Size::FLOORS),
        ("found-joined-in-the-quiet.txt", Size::SILENCE_CHURN),
    ] {
        let steps = Counterexample::read_steps(&kept(file)).unwrap();
        assert!(!steps.is_empty(), "{file} has steps");
        assert_eq!(Counterexample::replay(&size, None, &steps), None, "{file}");
    }
}

#[test]
fn the_smallest_world_is_safe_and_has_the_states_it_always_had() {
    let (outcome, found) = check(&Size::PLAIN, &mut |_| {});
    assert_eq!(found, None);
    assert_eq!(outcome.states, Size::PLAIN.states);
}

#[test]
fn a_step_reads_back_as_it_was_written() {
    for step in [
        Action::Tick { advance: 2 },
        Action::Challenge { leader: 1, pod: 2, boot: 1 },
        Action::Register { leader: 0, pod: 1, nonce: 3, clock: 4 },
        Action::Grant { leader: 1, pod: 0, rate: 2, floor: 1 },
        Action::Silence,
    ] {
        assert_eq!(step.to_string().parse(), Ok(step));
    }
    for broken in ["", "grant 1 2", "tick x", "sleep 1"] {
        assert!(broken.parse::<Action>().is_err(), "{broken:?}");
    }
}
