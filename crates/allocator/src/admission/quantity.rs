//! `Quantity`: an amount of CPU or memory as Kubernetes writes it, such as `50m` or `64Mi`.
//!
//! The API server checks quantities too, but a pod that it refuses because of an annotation would be
//! refused in words about `spec.initContainers[0]`, which nobody has written.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An amount that is not negative.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    /// What the text comes to, in billionths, the finest that Kubernetes keeps.
    nanos: u128,
}

/// A text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no quantity such as 50m for CPU or 64Mi for memory")]
pub struct Error;

const NANOS: u128 = 1_000_000_000;

/// More digits than anybody writes, and few enough for every suffix.
const MAX_DIGITS: usize = 15;

// === impl Quantity ===

impl Quantity {
    /// One unit: a core, or a byte.
    pub(super) const fn units(units: u128) -> u128 {
        units * NANOS
    }

    pub(super) fn nanos(&self) -> u128 {
        self.nanos
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Quantity, Error> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
            return Err(Error);
        }
        let digits: u128 = digits.parse().map_err(|_| Error)?;
        let nanos = digits.checked_mul(scale(suffix).ok_or(Error)?).ok_or(Error)?;
        let places = u32::try_from(fraction.len()).map_err(|_| Error)?;
        // As the API server does, up: a billionth is the least there is.
        Ok(Quantity { text: text.to_owned(), nanos: nanos.div_ceil(10_u128.pow(places)) })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How many billionths one of `suffix` is.
fn scale(suffix: &str) -> Option<u128> {
    let binary = |power: u32| Some(NANOS << (10 * power));
    let decimal = |power: u32| Some(10_u128.pow(power));
    match suffix {
        "n" => decimal(0),
        "u" => decimal(3),
        "m" => decimal(6),
        "" => decimal(9),
        "k" => decimal(12),
        "M" => decimal(15),
        "G" => decimal(18),
        "T" => decimal(21),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        exponent => {
            // Up to 1e12, a terabyte.
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (exponent <= 12).then_some(())?;
            decimal(9 + exponent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Quantity};

    fn quantity(text: &str) -> Result<Quantity, Error> {
        text.parse()
    }

    #[test]
    fn different_writings_of_one_amount_are_equal() {
        for (left, right) in [
            ("0.3", "300m"),
            ("1", "1000m"),
            ("64Mi", "65536Ki"),
            ("1e3", "1k"),
            ("1.5Gi", "1536Mi"),
            (".5", "500m"),
            ("1u", "1000n"),
        ] {
            assert_eq!(quantity(left), quantity(right), "{left} {right}");
            assert_eq!(quantity(left).unwrap().to_string(), left);
        }
        assert!(quantity("1G").unwrap() < quantity("1Gi").unwrap());
        assert!(quantity("999m").unwrap() < quantity("1").unwrap());
    }

    #[test]
    fn what_the_api_server_refuses_is_no_quantity() {
        for text in [
            "",
            "half",
            "-1",
            "1.2.3",
            "1 Gi",
            "64MB",
            "64mi",
            ".",
            "1e99",
            "9999999999999999",
            "Mi",
        ] {
            assert_eq!(quantity(text), Err(Error), "{text}");
        }
    }
}
