use std::time::Duration;

use proptest::prelude::*;
use quota::budget::Shape;
use quota::charge::Charge;
use quota::dimension::Dimension::{
    self, ConcurrentRequests, OutputTokensPerMinute, RequestsPerDay, RequestsPerMinute,
    TokensPerMinute,
};
use quota::dimension::{Protocol, Window};
use quota::time::Time;
use quota::units::{Amount, Requests, Slots, Tokens};

use super::figures::Figures;
use super::rule::{Algorithm, Limit, Rule};
use super::{Limiter, Ticket};

const MODEL: &str = "gpt-4o";
const MINUTE: Duration = Duration::from_secs(60);

fn bucket(dimension: Dimension, limit: u64, period: Duration) -> Rule {
    let algorithm = Algorithm::Bucket { period, burst_percent: 100 };
    Rule { dimension, limit: Amount::from_units(limit), algorithm, count_rejected: false }
}

fn limiter(rules: Vec<Rule>) -> Limiter {
    let limit = Limit { name: "gpt-4o".into(), models: vec!["gpt-4o*".into()], rules };
    Limiter::new(Time::ZERO, &[limit])
}

fn tokens(total: u64) -> Charge {
    Charge { requests: Requests(1), total: Tokens(total), slots: Slots(1), ..Charge::default() }
}

fn seconds(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

fn admit(limiter: &mut Limiter, now: Time, charge: &Charge) -> Ticket {
    limiter.admit(now, MODEL, charge).expect("it fits")
}

fn only(limiter: &mut Limiter, now: Time) -> Figures {
    limiter.figures(now).remove(0)
}

/// `providers.md` 2.2: published error texts of OpenAI, in milliseconds.
#[test]
fn waits_are_those_that_openai_published() {
    for (limit, used, requested, window, wait_ms) in [
        (30_000, 14_567, 24_754, 60, 18_642),
        (30_000, 18_928, 11_159, 60, 174),
        (30_000, 28_039, 3_906, 60, 3_890),
        (30_000, 22_343, 10_955, 60, 6_596),
        (30_000, 29_937, 385, 60, 644),
        (200_000, 162_960, 42_288, 60, 1_574),
        (10_000, 8_554, 3_082, 60, 9_816),
        (200_000, 195_663, 7_592, 60, 976),
        (1_000_000, 976_163, 70_716, 60, 2_812),
        (3, 3, 1, 60, 20_000),
        (200, 200, 1, 86_400, 432_000),
        (50, 50, 1, 86_400, 1_728_000),
        (2_000, 2_000, 1, 86_400, 43_200),
        (100_000, 96_749, 19_126, 2_592_000, 411_480_000),
    ] {
        let mut limiter =
            limiter(vec![bucket(TokensPerMinute, limit, Duration::from_secs(window))]);
        let _held = admit(&mut limiter, Time::ZERO, &tokens(used));
        let denied = limiter.admit(Time::ZERO, MODEL, &tokens(requested)).unwrap_err();
        assert_eq!((denied.limit, denied.used, denied.requested), (limit, used, requested));
        let wait = denied.wait.unwrap();
        assert_eq!(wait.as_millis(), wait_ms, "{limit} {used} {requested}");
        limiter
            .admit(Time::ZERO + (wait - Duration::from_nanos(1)), MODEL, &tokens(requested))
            .expect_err("a nanosecond too early");
        let _fits = admit(&mut limiter, Time::ZERO + wait, &tokens(requested));
    }
}

/// `providers.md` 2.2: header dumps, in milliseconds.
#[test]
fn resets_are_those_that_openai_sent() {
    for (limit, remaining, window, reset_ms) in [
        (10_000, 9_481, 60, 3_114),
        (30_000, 29_996, 60, 8),
        (500, 499, 60, 120),
        (10_000, 9_999, 86_400, 8_640),
        (20_000, 15_482, 60, 13_554),
        (200_000, 199_978, 60, 6),
    ] {
        let mut limiter =
            limiter(vec![bucket(TokensPerMinute, limit, Duration::from_secs(window))]);
        let _held = admit(&mut limiter, Time::ZERO, &tokens(limit - remaining));
        let level = limiter.levels(Time::ZERO, MODEL).remove(0);
        assert_eq!((level.limit, level.remaining), (limit, remaining));
        assert_eq!(level.reset.as_millis(), reset_ms, "{limit} {remaining}");
    }
}

#[test]
fn a_bucket_refills_exactly_however_often_it_is_looked_at() {
    let mut limiter = limiter(vec![bucket(RequestsPerMinute, 7, MINUTE)]);
    for _ in 0..7 {
        let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
    }
    // 60 s / 7 is no whole number of nanoseconds: the eighth call fits from the next one on.
    let due = 8_571_428_572;
    for nanos in (0..due).step_by(1_000_003) {
        assert!(limiter.admit(Time::from_nanos(nanos), MODEL, &tokens(0)).is_err());
    }
    assert!(limiter.admit(Time::from_nanos(due - 1), MODEL, &tokens(0)).is_err());
    let _held = admit(&mut limiter, Time::from_nanos(due), &tokens(0));
}

#[test]
fn a_call_that_one_figure_refuses_is_charged_to_none() {
    let rules = vec![bucket(TokensPerMinute, 100, MINUTE), bucket(RequestsPerMinute, 10, MINUTE)];
    let mut limiter = limiter(rules);
    let _held = admit(&mut limiter, Time::ZERO, &tokens(60));
    let denied = limiter.admit(Time::ZERO, MODEL, &tokens(60)).unwrap_err();
    assert_eq!(denied.dimension, TokensPerMinute);
    let remaining: Vec<u64> =
        limiter.levels(Time::ZERO, MODEL).iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [9, 40]);
}

#[test]
fn the_first_figure_in_the_providers_order_names_the_error() {
    let rules = vec![
        bucket(RequestsPerDay, 1, Duration::from_secs(86_400)),
        bucket(TokensPerMinute, 10, MINUTE),
        bucket(RequestsPerMinute, 1, MINUTE),
    ];
    let mut limiter = limiter(rules);
    let _held = admit(&mut limiter, Time::ZERO, &tokens(10));
    let denied = limiter.admit(Time::ZERO, MODEL, &tokens(10)).unwrap_err();
    assert_eq!(denied.dimension, RequestsPerMinute);
    let too_large = limiter.admit(Time::ZERO, MODEL, &tokens(11)).unwrap_err();
    assert_eq!((too_large.dimension, too_large.too_large), (TokensPerMinute, true));
    assert_eq!(too_large.wait, None);
}

#[test]
fn a_model_that_no_limit_names_passes() {
    let mut limiter = limiter(vec![bucket(RequestsPerMinute, 0, MINUTE)]);
    assert!(limiter.admit(Time::ZERO, "other", &tokens(1)).is_ok());
    assert!(limiter.admit(Time::ZERO, MODEL, &tokens(1)).unwrap_err().too_large);
}

#[test]
fn refused_requests_saturate_a_limit_that_counts_them() {
    let counting = bucket(RequestsPerMinute, 3, MINUTE).counting_rejected_as(Protocol::OpenAi);
    assert!(counting.count_rejected);
    let mut limiter = limiter(vec![counting]);
    for _ in 0..3 {
        let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
    }
    // Whoever waits as told gets through; a refusal sets everybody back to a full wait.
    for (at, wait) in [(10, 10), (10, 20), (29, 1), (48, 1), (67, 1)] {
        let denied = limiter.admit(seconds(at), MODEL, &tokens(0)).unwrap_err();
        assert_eq!(denied.wait, Some(Duration::from_secs(wait)), "{at}");
    }
    let _held = admit(&mut limiter, seconds(87), &tokens(0));
    assert_eq!(only(&mut limiter, seconds(87)).refused, 5);
}

#[test]
fn a_window_counts_from_zero_at_each_edge_and_keeps_no_refund_from_before() {
    let (length, phase) = (Duration::from_secs(10), Duration::from_secs(3));
    let rule = Rule {
        algorithm: Algorithm::Window { length, phase },
        ..bucket(TokensPerMinute, 100, MINUTE)
    };
    let mut limiter = limiter(vec![rule]);
    let first = admit(&mut limiter, seconds(2), &tokens(100));
    let denied = limiter.admit(seconds(2), MODEL, &tokens(1)).unwrap_err();
    assert_eq!(denied.wait, Some(Duration::from_secs(1)));
    let second = admit(&mut limiter, seconds(3), &tokens(60));
    limiter.settle(seconds(4), first, &tokens(10));
    assert_eq!(limiter.levels(seconds(4), MODEL)[0].remaining, 40);
    limiter.settle(seconds(5), second, &tokens(10));
    let level = limiter.levels(seconds(5), MODEL).remove(0);
    assert_eq!((level.remaining, level.reset), (90, Duration::from_secs(8)));
    assert_eq!(limiter.levels(seconds(333), MODEL)[0].remaining, 100);
}

#[test]
fn a_slot_is_taken_until_the_call_is_settled() {
    let mut limiter = limiter(vec![Rule::new(ConcurrentRequests, 1, &Shape::default())]);
    let held = admit(&mut limiter, Time::ZERO, &tokens(5));
    let denied = limiter.admit(seconds(1), MODEL, &tokens(5)).unwrap_err();
    assert_eq!((denied.dimension, denied.wait), (ConcurrentRequests, None));
    limiter.settle(seconds(2), held, &Charge::default());
    let _held = admit(&mut limiter, seconds(2), &tokens(5));
    assert_eq!(only(&mut limiter, seconds(3)).bound, Duration::from_secs(3));
}

#[test]
fn settlement_refunds_what_was_not_used_and_keeps_a_debt() {
    let mut limiter = limiter(vec![bucket(TokensPerMinute, 600, MINUTE)]);
    let held = admit(&mut limiter, Time::ZERO, &tokens(500));
    limiter.settle(Time::ZERO, held, &tokens(100));
    assert_eq!(limiter.levels(Time::ZERO, MODEL)[0].remaining, 500);
    let held = admit(&mut limiter, Time::ZERO, &tokens(500));
    limiter.settle(Time::ZERO, held, &tokens(700));
    assert_eq!(limiter.levels(Time::ZERO, MODEL)[0].remaining, 0);
    assert_eq!(limiter.levels(seconds(20), MODEL)[0].remaining, 0);
    assert_eq!(limiter.levels(seconds(21), MODEL)[0].remaining, 10);
    assert_eq!(only(&mut limiter, seconds(21)).peak_debt, Amount::from_units(200));
}

#[test]
fn output_charged_as_it_is_produced_refuses_the_next_call_not_this_one() {
    let mut limiter = limiter(vec![bucket(OutputTokensPerMinute, 60, MINUTE)]);
    let mut first = admit(&mut limiter, Time::ZERO, &tokens(0));
    limiter.produce(Time::ZERO, &mut first, Tokens(90));
    let denied = limiter.admit(Time::ZERO, MODEL, &tokens(0)).unwrap_err();
    assert_eq!(denied.wait, Some(Duration::from_secs(30)));
    let actual = Charge { output: Tokens(90), ..tokens(0) };
    limiter.settle(seconds(30), first, &actual);
    let _held = admit(&mut limiter, seconds(30), &tokens(0));
}

#[test]
fn a_changed_limit_keeps_what_is_used() {
    let mut limiter = limiter(vec![bucket(RequestsPerMinute, 60, MINUTE)]);
    for _ in 0..40 {
        let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
    }
    assert!(limiter.change_limit(Time::ZERO, "gpt-4o", RequestsPerMinute, Amount::from_units(30)));
    assert!(!limiter.change_limit(Time::ZERO, "gpt-4o", TokensPerMinute, Amount::ZERO));
    let wait = limiter.admit(Time::ZERO, MODEL, &tokens(0)).unwrap_err().wait;
    assert_eq!(wait, Some(Duration::from_secs(22)));
}

#[test]
fn somebody_elses_load_slows_the_refill_and_is_not_on_offer() {
    let mut limiter = limiter(vec![bucket(RequestsPerMinute, 60, MINUTE)]);
    limiter.external_load(Time::ZERO, 75);
    for _ in 0..60 {
        let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
    }
    assert_eq!(limiter.levels(seconds(40), MODEL)[0].remaining, 10);
    let figures = only(&mut limiter, seconds(40));
    assert_eq!(figures.on_offer + figures.in_flight, Amount::from_units(70));
}

#[test]
fn figures_tell_use_against_what_was_on_offer() {
    for (window, on_offer) in [(Window::TokenBucket, 90), (Window::FixedWindow, 30)] {
        let shape = Shape { window, ..Shape::default() };
        let mut limiter = limiter(vec![Rule::new(RequestsPerMinute, 60, &shape)]);
        for _ in 0..15 {
            let held = admit(&mut limiter, seconds(10), &tokens(0));
            limiter.settle(seconds(11), held, &tokens(0));
        }
        let figures = only(&mut limiter, seconds(30));
        assert_eq!(figures.on_offer, Amount::from_units(on_offer), "{window:?}");
        assert_eq!(figures.settled, Amount::from_units(15));
        limiter.restart_figures(seconds(30));
        let figures = only(&mut limiter, seconds(31));
        assert_eq!((figures.admitted, figures.span), (Amount::ZERO, Duration::from_secs(1)));
    }
}

#[test]
fn a_call_begun_before_the_span_counts_only_by_its_difference() {
    let mut limiter = limiter(vec![bucket(TokensPerMinute, 600, MINUTE)]);
    let (less, more) = (
        admit(&mut limiter, Time::ZERO, &tokens(100)),
        admit(&mut limiter, Time::ZERO, &tokens(100)),
    );
    limiter.restart_figures(Time::ZERO);
    limiter.settle(Time::ZERO, less, &tokens(30));
    limiter.settle(Time::ZERO, more, &tokens(120));
    let figures = only(&mut limiter, Time::ZERO);
    assert_eq!(figures.on_offer, Amount::from_units(400 + 70));
    assert_eq!(figures.settled, Amount::from_units(20));
}

#[test]
fn a_limit_binds_while_a_usual_call_and_a_seconds_worth_are_not_left() {
    // Empty at 0 s, at 1 per second: 2 are left at 2 s.
    let mut limiter = limiter(vec![bucket(RequestsPerMinute, 60, MINUTE)]);
    for _ in 0..60 {
        let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
    }
    assert_eq!(only(&mut limiter, seconds(8)).bound, Duration::from_secs(2));
    assert!((only(&mut limiter, seconds(8)).bound_share() - 0.25).abs() < 1e-9);
}

#[test]
fn a_window_binds_while_its_use_is_ahead_of_an_even_pace() {
    let rule = Rule::new(
        RequestsPerMinute,
        60,
        &Shape { window: Window::FixedWindow, ..Shape::default() },
    );
    for (calls, bound) in [(0, 1), (10, 12), (60, 60)] {
        let mut limiter = limiter(vec![rule.clone()]);
        for _ in 0..calls {
            let _held = admit(&mut limiter, Time::ZERO, &tokens(0));
        }
        assert_eq!(only(&mut limiter, seconds(60)).bound, Duration::from_secs(bound), "{calls}");
    }
}

proptest! {
    /// Goal 1 of `leases.md` as the provider sees it: whatever is asked and refunded, what is held
    /// after admissions in any interval is within burst and refill, to the last millionth.
    #[test]
    fn a_bucket_never_admits_beyond_burst_and_refill(
        limit in 1_u64..2_000,
        burst_percent in 1_u32..=100,
        calls in prop::collection::vec((0_u64..3_000, 1_u64..200), 1..120),
    ) {
        let algorithm = Algorithm::Bucket { period: MINUTE, burst_percent };
        let rule = Rule { algorithm, ..bucket(TokensPerMinute, limit, MINUTE) };
        let mut limiter = limiter(vec![rule]);
        let (mut now, mut admitted) = (Time::ZERO, Vec::new());
        for (gap, asked) in calls {
            now = now + Duration::from_millis(gap);
            match limiter.admit(now, MODEL, &tokens(asked)) {
                Ok(_held) => admitted.push((now, asked)),
                Err(denied) if denied.too_large => {}
                Err(denied) => {
                    let wait = denied.wait.unwrap();
                    let mut later = limiter.clone();
                    prop_assert!(later.admit(now + wait, MODEL, &tokens(asked)).is_ok());
                }
            }
        }
        // In millionths times milliseconds of the minute, so that nothing is rounded.
        let burst = u128::from(limit) * u128::from(burst_percent) * 10_000 * 60_000;
        for (first, (from, _)) in admitted.iter().enumerate() {
            let mut sum = 0_u128;
            for (at, asked) in &admitted[first..] {
                sum += u128::from(*asked) * 1_000_000 * 60_000;
                let refill = u128::from(limit) * 1_000_000 * at.since(*from).as_millis();
                prop_assert!(sum <= burst + refill);
            }
        }
    }
}
