//! How the official SDKs of OpenAI and Anthropic retry (`providers.md` 12): three attempts, the wait
//! that the server names, else half a second that doubles.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use rand::Rng;

/// What one attempt came to.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// The server answered.
    Answered(StatusCode, HeaderMap),
    /// The connection failed.
    Broken,
}

/// The first and two retries.
pub(crate) const ATTEMPTS: u32 = 3;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

/// A server that names a longer wait is not asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// How long the SDK waits before it tries again, after `earlier` retries; `None` if it does not.
pub(crate) fn retry_after(
    attempt: &Attempt,
    earlier: u32,
    dice: &mut impl Rng,
) -> Option<Duration> {
    if earlier + 1 >= ATTEMPTS {
        return None;
    }
    let Attempt::Answered(status, headers) = attempt else { return Some(backoff(earlier, dice)) };
    let wanted = match text(headers, "x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status.as_u16(), 408 | 409 | 429 | 500..),
    };
    let told =
        number(headers, "retry-after-ms", 1e-3).or_else(|| number(headers, "retry-after", 1.0));
    match told {
        _ if !wanted => None,
        Some(told) if told > LONGEST_WAIT => None,
        Some(told) if told > Duration::ZERO => Some(told),
        _ => Some(backoff(earlier, dice)),
    }
}

/// Up to a quarter less than half a second, one second, two.
fn backoff(earlier: u32, dice: &mut impl Rng) -> Duration {
    let whole = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(earlier)).min(LONGEST_BACKOFF);
    whole.mul_f64(dice.random_range(0.75..=1.0))
}

fn number(headers: &HeaderMap, name: &str, scale: f64) -> Option<Duration> {
    let number: f64 = text(headers, name)?.parse().ok()?;
    Duration::try_from_secs_f64(number * scale).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn retries_are_those_of_the_official_sdks() {
        let mut dice = SmallRng::seed_from_u64(1);
        let exactly = |millis| Some(millis..=millis);
        let told = [("retry-after-ms", "300"), ("retry-after", "1")];
        for (status, headers, earlier, expected) in [
            (429, &told[..], 0, exactly(300)),
            (429, &told[1..], 1, exactly(1_000)),
            (429, &told[..], 2, None),
            (429, &[], 0, Some(375..=500)),
            (429, &[], 1, Some(750..=1_000)),
            (429, &[("retry-after", "300")], 0, None),
            (429, &[("retry-after", "0")], 0, Some(375..=500)),
            (429, &[("x-should-retry", "false"), ("retry-after", "1")], 0, None),
            (400, &[("x-should-retry", "true"), ("retry-after-ms", "200")], 0, exactly(200)),
            (400, &told, 0, None),
            (409, &[], 0, Some(375..=500)),
            (529, &[], 0, Some(375..=500)),
        ] {
            let pairs = headers.iter().map(|&(name, value)| {
                (name.parse().unwrap(), http::HeaderValue::from_static(value))
            });
            let status_code = StatusCode::from_u16(status).unwrap();
            let attempt = Attempt::Answered(status_code, pairs.collect());
            let found = retry_after(&attempt, earlier, &mut dice).map(|wait| wait.as_millis());
            let fits = match (&expected, found) {
                (Some(range), Some(found)) => range.contains(&found),
                (expected, found) => expected.is_none() && found.is_none(),
            };
            assert!(fits, "{status} {headers:?} after {earlier}: {found:?}");
        }
        assert!(retry_after(&Attempt::Broken, 0, &mut dice).is_some());
    }
}
