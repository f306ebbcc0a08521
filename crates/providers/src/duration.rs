//! Time spans as providers write them: Go's form, plain seconds, and instants (`providers.md` 1.3).

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units of Go's form. `ms` stands before `m`, which begins it.
const UNITS: [(&str, u128); 7] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
];

/// Digits after the point that count; more are below a nanosecond.
const MAX_FRACTION_DIGITS: usize = 12;

/// A time span in any of the forms that providers use: `6m0s`, `174ms`, bare seconds (`2`, `0.5`),
/// or an instant (RFC 3339, HTTP date), which is taken relative to `now`; one that is over is zero.
pub fn parse(text: &str, now: Option<Timestamp>) -> Option<Duration> {
    go(text).or_else(|| seconds(text)).or_else(|| {
        let then = text.parse::<Timestamp>().ok().or_else(|| http_date(text))?;
        Some(until(then, now?))
    })
}

/// The time from `now` to `then`; zero if `then` is over.
pub(crate) fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// An HTTP date, as in the headers `date` and `retry-after`.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text).ok()
}

/// Go's form: `1h2m3.5s`. All of `text` must be it.
pub fn go(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (value, after) = decimal(rest)?;
        let (unit, size) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        nanos = nanos.checked_add(value.checked_mul(size)? / FRACTION)?;
        rest = &after[unit.len()..];
    }
    from_nanos(nanos)
}

/// A span in Go's form, cut to milliseconds as OpenAI shows it: `0s`, `174ms`, `3.89s`, `1m0s`,
/// `114h18m0s`.
pub fn format_go(span: Duration) -> String {
    let millis = span.as_millis();
    if (1..1_000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (seconds, fraction) = (millis / 1_000, millis % 1_000);
    let mut text = String::new();
    // Writing to a string cannot fail.
    if seconds >= 3_600 {
        let _ = write!(text, "{}h", seconds / 3_600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let _ = write!(text, "{}", seconds % 60);
    if fraction > 0 {
        let digits = format!("{fraction:03}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    text.push('s');
    text
}

/// Bare seconds.
fn seconds(text: &str) -> Option<Duration> {
    let (value, rest) = decimal(text)?;
    if !rest.is_empty() {
        return None;
    }
    from_nanos(value.checked_mul(NANOS_PER_SECOND)? / FRACTION)
}

/// What a decimal number is multiplied by to be whole.
const FRACTION: u128 = 10_u128.pow(12);

/// A decimal number at the beginning of `text`, times [`FRACTION`], and what follows it.
fn decimal(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = digits(text);
    if whole.is_empty() {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(FRACTION)?;
    let Some(after_point) = rest.strip_prefix('.') else { return Some((whole, rest)) };
    let (fraction, rest) = digits(after_point);
    if fraction.is_empty() {
        return None;
    }
    let kept = &fraction[..fraction.len().min(MAX_FRACTION_DIGITS)];
    let fraction = format!("{kept:0<MAX_FRACTION_DIGITS$}").parse::<u128>().ok()?;
    Some((whole.checked_add(fraction)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).ok()?;
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).ok()?;
    Some(Duration::new(seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: [(&str, u64); 12] = [
        ("0s", 0),
        ("6ms", 6),
        ("174ms", 174),
        ("3.89s", 3_890),
        ("8.64s", 8_640),
        ("13.554s", 13_554),
        ("20s", 20_000),
        ("1m0s", 60_000),
        ("6m0s", 360_000),
        ("7m12s", 432_000),
        ("4m12.172s", 252_172),
        ("114h18m0s", 411_480_000),
    ];

    #[test]
    fn what_openai_writes_is_read_and_written_alike() {
        for (text, millis) in PUBLISHED {
            let span = Duration::from_millis(millis);
            assert_eq!(go(text), Some(span), "{text}");
            assert_eq!(format_go(span), text);
        }
    }

    #[test]
    fn every_form_of_header_is_read() {
        let now = "2026-11-20T10:00:00Z".parse::<Timestamp>().ok();
        for (text, nanos) in [
            ("60", Some(60_000_000_000)),
            ("0.5", Some(500_000_000)),
            ("26.211922938s", Some(26_211_922_938)),
            ("15µs", Some(15_000)),
            ("15us3ns", Some(15_003)),
            ("1h1ms", Some(3_600_001_000_000)),
            ("2026-11-20T10:00:01Z", Some(1_000_000_000)),
            ("2026-11-20T11:00:01+01:00", Some(1_000_000_000)),
            ("2026-11-20T09:59:59Z", Some(0)),
            ("Fri, 20 Nov 2026 10:01:00 GMT", Some(60_000_000_000)),
            ("", None),
            ("s", None),
            (".5s", None),
            ("5.s", None),
            ("-5s", None),
            ("-5", None),
            ("5 s", None),
            ("5x", None),
            ("99999999999999999999999999999999999999999h", None),
            ("NOT_GIVEN", None),
        ] {
            assert_eq!(parse(text, now), nanos.map(Duration::from_nanos), "{text}");
        }
    }

    #[test]
    fn an_instant_means_nothing_without_the_providers_own_time() {
        assert_eq!(parse("2026-11-20T10:00:01Z", None), None);
    }
}
