//! Headers of a response as plain strings, so that no HTTP library is needed here.

use std::time::Duration;

use jiff::Timestamp;

use crate::duration;

/// Names and values; names compare without case.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Headers<'a> {
    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let mut named = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }

    /// A header that is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// A header that is a time span in any form, or an instant, which is taken relative to `date`.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        duration::parse(self.get(name)?, self.date())
    }

    /// By how much [`Headers::duration`] may be off, either way: an instant in whole seconds, relative
    /// to a date in whole seconds.
    pub fn grain(&self, name: &str) -> Duration {
        let is_instant = self.get(name).is_some_and(|text| duration::parse(text, None).is_none());
        if is_instant { Duration::from_secs(1) } else { Duration::ZERO }
    }

    /// When the provider says that it answered.
    pub fn date(&self) -> Option<Timestamp> {
        duration::http_date(self.get("date")?)
    }

    /// How long the provider asks to wait: the longer of `retry-after-ms` and `retry-after` (Azure
    /// is known to send a zero in one of them).
    pub fn retry_after(&self) -> Option<Duration> {
        let millis =
            self.get("retry-after-ms").and_then(|ms| duration::parse(&format!("{ms}ms"), None));
        millis.max(self.duration("retry-after"))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(headers: I) -> Headers<'a> {
        Headers(headers.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_the_first_value_counts() {
        let headers: Headers<'_> = [("Date", "x"), ("A", " 7 "), ("a", "8")].into_iter().collect();
        assert_eq!(headers.number("a"), Some(7));
        assert_eq!(headers.date(), None);
    }

    #[test]
    fn an_instant_is_known_to_the_second() {
        let headers = [("a", "1.5s"), ("b", "2026-11-20T10:00:07Z"), ("c", "2")];
        let headers: Headers<'_> = headers.into_iter().collect();
        assert_eq!(["a", "b", "c"].map(|name| headers.grain(name).as_secs()), [0, 1, 0]);
    }

    #[test]
    fn the_longer_of_two_waits_counts() {
        for (headers, wait) in [
            (vec![], None),
            (vec![("retry-after", "2")], Some(2_000)),
            (vec![("retry-after-ms", "300"), ("retry-after", "1")], Some(1_000)),
            (vec![("retry-after-ms", "1500.5"), ("retry-after", "1")], Some(1_500)),
            (vec![("retry-after-ms", "0"), ("retry-after", "1")], Some(1_000)),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "Fri, 20 Nov 2026 10:00:07 GMT")], None),
            (
                vec![
                    ("date", "Fri, 20 Nov 2026 10:00:00 GMT"),
                    ("retry-after", "Fri, 20 Nov 2026 10:00:07 GMT"),
                ],
                Some(7_000),
            ),
        ] {
            let seen = headers.iter().copied().collect::<Headers<'_>>().retry_after();
            let millis = seen.map(|wait| u64::try_from(wait.as_millis()).unwrap());
            assert_eq!(millis, wait, "{headers:?}");
        }
    }
}
