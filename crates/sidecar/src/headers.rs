//! Headers of a request: what is ours, what is the hop's, and what they say about patience.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};

/// The class that a request asks for.
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("x-weir-priority");
/// The caller's deadline, in milliseconds from the arrival.
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static("x-weir-deadline-ms");
/// Why the sidecar refused a request, on answers of its own; a label of a closed list.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-weir-reason");

/// All headers with this prefix are between application and sidecar.
const OURS: &str = "x-weir-";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// The Stainless SDKs' patience in seconds (`providers.md` 12.3).
const READ_TIMEOUT: &str = "x-stainless-read-timeout";

/// RFC 9110, 7.6.1: between two neighbours only.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a caller says about its patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    /// When it wants its whole answer, from the arrival.
    pub(crate) deadline: Option<Duration>,
    /// How long it waits for the next byte.
    pub(crate) read_timeout: Option<Duration>,
}

// === impl Patience ===

impl Patience {
    /// Reads it. What cannot be read says nothing: SDKs send `NOT_GIVEN` and the like.
    pub(crate) fn of(headers: &HeaderMap) -> Patience {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let ours =
            text(DEADLINE.as_str()).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        let grpc = text(GRPC_TIMEOUT).and_then(grpc_timeout);
        let seconds = text(READ_TIMEOUT).and_then(|seconds| seconds.parse::<f64>().ok());
        Patience {
            deadline: ours.into_iter().chain(grpc).min(),
            read_timeout: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }

    /// How long the caller may wait for admission, at most `max_wait`: half of its read timeout is
    /// the provider's.
    pub(crate) fn admission(&self, max_wait: Duration) -> Duration {
        let half = self.read_timeout.map(|timeout| timeout / 2);
        self.deadline.into_iter().chain(half).fold(max_wait, Duration::min)
    }
}

/// Takes out what is not for the provider: the hop's headers and ours.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop(headers);
    // Most requests have none of them, and a look costs less than a list.
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with(OURS)).cloned() {
        headers.remove(name);
    }
}

/// Takes out what is between two neighbours only, also what `connection` names.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        // The usual words, which name no header.
        .filter(|name| !["keep-alive", "close"].iter().any(|word| name.eq_ignore_ascii_case(word)))
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// `8H`, `5M`, `10S`, `500m`, `7u`, `9n` (gRPC over HTTP/2); at most eight digits.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_shortest_patience_bounds_the_wait() {
        for (pairs, wait_ms) in [
            (&[][..], 10_000),
            (&[("x-weir-deadline-ms", "1500")], 1_500),
            (&[("x-weir-deadline-ms", "1500"), ("grpc-timeout", "1S")], 1_000),
            (&[("x-weir-deadline-ms", "0")], 0),
            (&[("x-weir-deadline-ms", "soon")], 10_000),
            (&[("grpc-timeout", "250m")], 250),
            (&[("grpc-timeout", "123456789S")], 10_000),
            (&[("grpc-timeout", "S")], 10_000),
            (&[("x-stainless-read-timeout", "5")], 2_500),
            (&[("x-stainless-read-timeout", "600.0")], 10_000),
            (&[("x-stainless-read-timeout", "NOT_GIVEN")], 10_000),
            (&[("x-stainless-read-timeout", "-1")], 10_000),
            (&[("x-stainless-read-timeout", "NaN")], 10_000),
        ] {
            let wait = Patience::of(&headers(pairs)).admission(Duration::from_secs(10));
            assert_eq!(wait, Duration::from_millis(wait_ms), "{pairs:?}");
        }
    }

    #[test]
    fn only_what_is_for_the_provider_goes_on() {
        let mut headers = headers(&[
            ("authorization", "Bearer k"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("x-weir-priority", "batch"),
            ("x-weir-anything", "1"),
            ("x-stainless-lang", "python"),
        ]);
        strip_request(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-stainless-lang"]);
    }
}
