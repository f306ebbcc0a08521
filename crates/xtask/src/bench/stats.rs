//! Quantiles, and how far rounds lie apart.

use serde::Serialize;

/// The median of some rounds, and between what most of them lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    /// One round in ten is below.
    pub(super) p10: f64,
    /// One round in ten is above.
    pub(super) p90: f64,
}

// === impl Spread ===

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> Spread {
        let [p10, median, p90] = quantiles(values, [0.1, 0.5, 0.9]);
        Spread { median, p10, p90 }
    }
}

/// The smallest values that such shares of all values do not exceed; zero if there are none.
pub(super) fn quantiles<const N: usize>(values: &[f64], shares: [f64; N]) -> [f64; N] {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    shares.map(|share| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is a small whole number"
        )]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::{Spread, quantiles};

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(quantiles(&values, [0.0, 0.5, 0.9, 0.99, 1.0]), [1.0, 5.0, 9.0, 10.0, 10.0]);
        assert_eq!(Spread::of(&values), Spread { median: 5.0, p10: 1.0, p90: 9.0 });
        assert_eq!(quantiles(&[], [0.5]), [0.0]);
    }
}
