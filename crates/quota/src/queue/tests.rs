mod rig;

use std::time::Duration;

use super::*;
use rig::{Rig, rpm, tpm, vector};

fn secs(secs: u64) -> Time {
    Time::from_millis(1_000 * secs)
}

#[test]
fn a_draw_that_fits_is_granted_at_once_and_taken_from_the_level() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60)]);
    rig.push("one", "a", &[(rpm(), 1)]).unwrap();
    assert_eq!(rig.dispatch(), ["one"]);
    assert_eq!(rig.level(&rpm()), 59);
    assert!(rig.queue.is_empty());
}

#[test]
fn a_higher_class_goes_first_whoever_came_first() {
    let mut rig = Rig::new(&[("low", 0), ("high", 9)], &[(rpm(), 60)]);
    rig.drain();
    rig.push("l1", "low", &[(rpm(), 1)]).unwrap();
    rig.push("h1", "high", &[(rpm(), 1)]).unwrap();
    rig.push("h2", "high", &[(rpm(), 1)]).unwrap();
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.dispatch(), ["h1", "h2"]);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.dispatch(), ["l1"]);
}

#[test]
fn a_draw_takes_from_all_its_budgets_or_from_none() {
    let mut rig = Rig::new(&[("a", 0)], &[(rpm(), 60), (tpm(), 6_000)]);
    rig.take(&tpm(), 6_000);
    rig.push("one", "a", &[(rpm(), 1), (tpm(), 100)]).unwrap();
    assert!(rig.dispatch().is_empty());
    assert_eq!((rig.level(&rpm()), rig.level(&tpm())), (60, 0));
    assert_eq!(rig.queue.next_wakeup(rig.now, &rig.levels), Some(rig.now + Duration::from_secs(1)));
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.dispatch(), ["one"]);
}
