use super::options::Lie;
use super::*;

/// Worlds of an ordinary test run, which is not optimised; `cargo xtask prove` runs thousands.
const WORLDS: u64 = 12;

#[test]
fn nothing_goes_wrong_in_the_first_worlds() {
    for seed in 1..=WORLDS {
        let (result, events) = run(&Options::draw(seed), Keep::Last(40));
        if let Err(violation) = result {
            panic!("seed {seed}: {violation}\n{}", events.join("\n"));
        }
    }
}

#[test]
fn a_seed_means_the_same_world_to_the_last_event() {
    for seed in 1..=3 {
        let options = Options::draw(seed);
        let (first, second) = (run(&options, Keep::All), run(&options, Keep::All));
        assert!(first == second, "seed {seed} happens in two ways");
        assert!(!first.1.is_empty(), "seed {seed} tells what happens");
    }
}

#[test]
fn levels_that_start_full_are_noticed() {
    let noticed = (1..=WORLDS * 4).any(|seed| {
        let options = Options { lie: Some(Lie::FullLevels), ..Options::draw(seed) };
        run(&options, Keep::Nothing).0.is_err()
    });
    assert!(noticed, "rule 8 is broken in every world and nobody sees it");
}
