use proptest::prelude::*;

use super::*;

fn claim(band: i32, weight: u32, demand: u64) -> Claim {
    Claim {
        band,
        weight,
        demand: Rate::from_micros(demand),
        guaranteed: Rate::ZERO,
        ceiling: None,
        min_share: Rate::ZERO,
    }
}

fn solved(available: u64, claims: &[Claim]) -> Vec<u64> {
    solve(Rate::from_micros(available), claims).into_iter().map(Rate::micros).collect()
}

/// The definition, taken literally: one unit at a time.
fn unit_by_unit(available: u64, claims: &[Claim]) -> Vec<u64> {
    let spans: Vec<Span> = claims.iter().map(Span::of).collect();
    let bands: std::collections::BTreeSet<i32> = claims.iter().map(|claim| claim.band).collect();
    let total = |shares: &[u64], band: i32| -> u64 {
        (0..claims.len()).filter(|&i| claims[i].band == band).map(|i| shares[i]).sum()
    };
    let mut shares = vec![0; claims.len()];
    let mut left = available;
    let give = |shares: &mut Vec<u64>, band: i32, weights: &[u64], bounds: &[u64]| -> bool {
        let next = (0..claims.len())
            .filter(|&i| claims[i].band == band && shares[i] < bounds[i])
            .min_by(|&a, &b| cmp_ratio((shares[a] + 1, weights[a]), (shares[b] + 1, weights[b])));
        next.inspect(|&i| shares[i] += 1).is_some()
    };
    let lows: Vec<u64> = spans.iter().map(|span| span.lo).collect();
    let highs: Vec<u64> = spans.iter().map(|span| span.hi).collect();
    let weights: Vec<u64> = spans.iter().map(|span| span.weight).collect();

    for &band in bands.iter().rev() {
        while left > 0 && give(&mut shares, band, &lows, &lows) {
            left -= 1;
        }
    }
    let needs: Vec<(i32, u64)> = bands
        .iter()
        .rev()
        .map(|&band| {
            let members = claims.iter().filter(|claim| claim.band == band);
            let min = members.map(|claim| claim.min_share.micros()).max().unwrap_or(0);
            (band, min.min(total(&highs, band)).saturating_sub(total(&lows, band)))
        })
        .collect();
    let mut given = vec![0; needs.len()];
    while left > 0 {
        let next = (0..needs.len())
            .filter(|&i| given[i] < needs[i].1)
            .min_by(|&a, &b| cmp_ratio((given[a] + 1, needs[a].1), (given[b] + 1, needs[b].1)));
        let Some(next) = next else { break };
        assert!(give(&mut shares, needs[next].0, &weights, &highs));
        given[next] += 1;
        left -= 1;
    }
    for &band in bands.iter().rev() {
        while left > 0 && give(&mut shares, band, &weights, &highs) {
            left -= 1;
        }
    }
    shares
}

fn any_claim(max: u64) -> impl Strategy<Value = Claim> {
    let rate = move || (0..=max).prop_map(Rate::from_micros);
    let ceiling = prop_oneof![Just(None), rate().prop_map(Some)];
    let low = prop_oneof![Just(Rate::ZERO), (0..=max / 3).prop_map(Rate::from_micros)];
    (0..3i32, 0..6u32, rate(), low, ceiling, (0..=max / 8).prop_map(Rate::from_micros)).prop_map(
        |(band, weight, demand, guaranteed, ceiling, min_share)| Claim {
            band,
            weight,
            demand,
            guaranteed,
            ceiling,
            min_share,
        },
    )
}

#[test]
fn shares_follow_guarantees_then_minimum_shares_then_bands_then_weights() {
    let guaranteed = |rate, claim: Claim| Claim { guaranteed: Rate::from_micros(rate), ..claim };
    let at_most = |rate, claim: Claim| Claim { ceiling: Some(Rate::from_micros(rate)), ..claim };
    let band_min = |rate, claim: Claim| Claim { min_share: Rate::from_micros(rate), ..claim };
    let table: &[(&str, u64, Vec<Claim>, Vec<u64>)] = &[
        ("nobody asks", 100, vec![], vec![]),
        ("enough for all", 100, vec![claim(0, 1, 30), claim(0, 9, 40)], vec![30, 40]),
        ("by weight", 100, vec![claim(0, 1, 100), claim(0, 3, 100)], vec![25, 75]),
        ("what one leaves", 100, vec![claim(0, 1, 10), claim(0, 1, 99)], vec![10, 90]),
        ("weight 0 counts as 1", 10, vec![claim(0, 0, 9), claim(0, 1, 9)], vec![5, 5]),
        ("the higher band first", 100, vec![claim(1, 1, 50), claim(5, 1, 70)], vec![30, 70]),
        (
            "a guarantee of the lower band stays",
            100,
            vec![guaranteed(40, claim(1, 1, 50)), claim(5, 1, 90)],
            vec![40, 60],
        ),
        (
            "a guarantee counts towards the share",
            100,
            vec![guaranteed(40, claim(1, 1, 90)), claim(1, 1, 90)],
            vec![50, 50],
        ),
        (
            "an idle guarantee is lent",
            100,
            vec![guaranteed(40, claim(1, 1, 5)), claim(1, 1, 99)],
            vec![5, 95],
        ),
        (
            "a ceiling bounds the surplus",
            100,
            vec![at_most(20, claim(1, 9, 90)), claim(1, 1, 90)],
            vec![20, 80],
        ),
        (
            "the minimum share of the lower band",
            100,
            vec![band_min(2, claim(1, 1, 50)), claim(5, 1, 200)],
            vec![2, 98],
        ),
        (
            "guarantees above what there is: by band, then in proportion",
            70,
            vec![
                guaranteed(50, claim(5, 1, 50)),
                guaranteed(10, claim(1, 1, 50)),
                guaranteed(30, claim(1, 1, 50)),
                guaranteed(10, claim(0, 1, 50)),
            ],
            vec![50, 5, 15, 0],
        ),
        (
            "minimum shares above what is left: in proportion",
            100,
            vec![
                guaranteed(80, claim(9, 1, 80)),
                band_min(10, claim(5, 1, 50)),
                band_min(30, claim(1, 1, 50)),
            ],
            vec![80, 5, 15],
        ),
    ];
    for (name, available, claims, expected) in table {
        assert_eq!(&solved(*available, claims), expected, "{name}");
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let all = Claim {
        weight: u32::MAX,
        guaranteed: Rate::from_micros(u64::MAX),
        min_share: Rate::from_micros(u64::MAX),
        ..claim(i32::MAX, 1, u64::MAX)
    };
    assert_eq!(solved(u64::MAX, &[all; 3]), [u64::MAX / 3; 3]);
    let surplus = Claim { guaranteed: Rate::ZERO, ..all };
    assert_eq!(solved(u64::MAX, &[surplus; 5]), [u64::MAX / 5; 5]);
    let low = claim(i32::MIN, 1, u64::MAX);
    assert_eq!(solved(u64::MAX, &[low, surplus]), [0, u64::MAX]);
    let small = Claim { weight: 1, ..surplus };
    assert_eq!(solved(u64::MAX, &[small, surplus]).iter().sum::<u64>(), u64::MAX);
}

#[test]
fn ten_thousand_claims_are_solved_in_no_time_worth_speaking_of() {
    // A quadratic solver would take minutes here; the figures are in the benchmarks.
    let claims: Vec<Claim> = (0..10_000u32)
        .map(|i| claim(i32::try_from(i % 5).unwrap(), 1 + i % 7, 1 + u64::from(i) * 7_919 % 10_007))
        .collect();
    let demand: u64 = claims.iter().map(|claim| claim.demand.micros()).sum();
    assert_eq!(solved(demand / 2, &claims).iter().sum::<u64>(), demand / 2);
}

proptest! {
    #[test]
    fn the_solver_agrees_with_giving_out_single_units(
        available in 0..400u64,
        claims in prop::collection::vec(any_claim(60), 0..12),
    ) {
        prop_assert_eq!(solved(available, &claims), unit_by_unit(available, &claims));
    }

    #[test]
    fn everything_usable_is_given_out_and_nothing_above(
        available in any::<u64>(),
        claims in prop::collection::vec(any_claim(u64::MAX), 0..20),
    ) {
        let shares = solved(available, &claims);
        let mut usable = 0u128;
        for (share, claim) in shares.iter().zip(&claims) {
            let hi = claim.ceiling.unwrap_or(claim.demand).min(claim.demand).micros();
            prop_assert!(*share <= hi);
            usable += u128::from(hi);
        }
        let sum: u128 = shares.into_iter().map(u128::from).sum();
        prop_assert_eq!(sum, usable.min(u128::from(available)));
    }

    #[test]
    fn more_to_give_out_never_means_less_for_anyone(
        available in 0..100_000u64,
        more in 0..5_000u64,
        claims in prop::collection::vec(any_claim(30_000), 1..12),
    ) {
        let before = solved(available, &claims);
        let after = solved(available + more, &claims);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(after >= before);
        }
    }

    #[test]
    fn more_weight_never_means_less_for_its_holder_nor_more_for_others_of_the_band(
        available in 0..100_000u64,
        more in 1..50u32,
        claims in prop::collection::vec(any_claim(30_000), 1..12),
        chosen in any::<prop::sample::Index>(),
    ) {
        let before = solved(available, &claims);
        let chosen = chosen.index(claims.len());
        let mut heavier = claims.clone();
        heavier[chosen].weight = claims[chosen].weight.max(1) + more;
        let after = solved(available, &heavier);
        for index in 0..claims.len() {
            if index == chosen {
                prop_assert!(after[index] >= before[index]);
            } else {
                prop_assert!(after[index] <= before[index]);
            }
        }
    }

    #[test]
    fn the_demand_of_lower_bands_never_lowers_the_highest_band_below_what_is_left_to_it(
        available in 0..100_000u64,
        claims in prop::collection::vec(any_claim(30_000), 1..12),
    ) {
        // Without guarantees and minimum shares a band does not feel the bands below it.
        let bare: Vec<Claim> = claims
            .into_iter()
            .map(|claim| Claim { guaranteed: Rate::ZERO, min_share: Rate::ZERO, ..claim })
            .collect();
        let highest = bare.iter().map(|claim| claim.band).max().unwrap();
        let alone: Vec<Claim> = bare
            .iter()
            .map(|claim| match claim.band == highest {
                true => *claim,
                false => Claim { demand: Rate::ZERO, ..*claim },
            })
            .collect();
        let (shared, alone) = (solved(available, &bare), solved(available, &alone));
        for index in (0..bare.len()).filter(|&index| bare[index].band == highest) {
            prop_assert_eq!(shared[index], alone[index]);
        }
    }
}
