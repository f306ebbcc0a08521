//! Durations as people write them: `1h`, `90s`, `1h30m`, `500ms`.
//!
//! A subset of what Go and CEL read, so that the schema's rules and this parser agree.

use std::time::Duration;

/// Every text that [`parse`] reads. Six digits per unit keep the sum far from overflow.
const FORM: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$";

/// [`parse`] as a CEL rule; the schema refuses empty texts before it.
pub(crate) const RULE: &str =
    "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$')";

/// What a person is told whose text [`parse`] does not read.
pub(crate) const MESSAGE: &str = "is not a duration: write whole numbers with the units h, m, s, \
     ms in this order, as in 1h, 90s, 1h30m or 500ms";

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const MAX_DIGITS: usize = 6;

/// Reads a duration; `None` if the text has another form.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut millis = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        if number.is_empty() || number.len() > MAX_DIGITS {
            return None;
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        millis += number.parse::<u64>().ok()? * scale;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// A CEL rule that holds for durations of at most `max`, and for what is none.
pub(crate) fn at_most(max: Duration) -> String {
    format!("!self.matches('{FORM}') || duration(self) <= duration('{}s')", max.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_whole_numbers_with_units_from_large_to_small() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("90s", Some(90_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("999999h", Some(999_999 * 3_600_000)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5h", None),
            ("10 s", None),
            ("-1s", None),
            ("30m1h", None),
            ("1s1s", None),
            ("1d", None),
            ("1000000s", None),
            ("10S", None),
        ] {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn the_rule_has_the_form_of_the_parser() {
        assert_eq!(RULE, format!("self.matches('{FORM}')"));
    }
}
