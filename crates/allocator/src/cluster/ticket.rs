//! Resumption tickets: what a replica that has checked a pod's token gives it, so that the next one need
//! not ask the API server again (`leases.md` 3.7).
//!
//! A ticket names one pod and an end, under a key that the replicas share. It is worth nothing once the
//! pod is gone: whoever takes it also asks the watch of pods.

use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};

/// A pod, as its token proved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proven {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    of: Proven,
    /// Seconds since the Unix epoch.
    ends: u64,
}

/// As long as a token itself.
const LIFE: Duration = Duration::from_secs(3_600);
const MAC_BYTES: usize = 32;

/// A ticket for a pod. `now` counts from the Unix epoch.
pub(crate) fn issue(key: &[u8], of: &Proven, now: Duration) -> Vec<u8> {
    let claims = Claims { of: of.clone(), ends: (now + LIFE).as_secs() };
    let mut ticket = serde_json::to_vec(&claims).expect("texts and a number make JSON");
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &ticket);
    ticket.extend_from_slice(mac.as_ref());
    ticket
}

/// The pod that a ticket was issued for; `None` if it is not ours, not whole, or over.
pub(crate) fn verify(key: &[u8], ticket: &[u8], now: Duration) -> Option<Proven> {
    let (claims, mac) = ticket.split_at_checked(ticket.len().checked_sub(MAC_BYTES)?)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), claims, mac).ok()?;
    let claims: Claims = serde_json::from_slice(claims).ok()?;
    (now.as_secs() < claims.ends).then_some(claims.of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn pod() -> Proven {
        Proven { namespace: "shop".into(), pod: "chat-0".into(), uid: "u-1".into() }
    }

    #[test]
    fn a_ticket_is_good_until_its_end_and_under_its_own_key_only() {
        let ticket = issue(b"key", &pod(), NOW);
        assert!(ticket.len() <= 512, "{}", ticket.len());
        assert_eq!(verify(b"key", &ticket, NOW), Some(pod()));
        assert_eq!(verify(b"key", &ticket, NOW + LIFE), None);
        assert_eq!(verify(b"yek", &ticket, NOW), None);
        for cut in [0, 1, MAC_BYTES, ticket.len() - 1] {
            assert_eq!(verify(b"key", &ticket[..cut], NOW), None, "{cut}");
        }
        let mut forged = ticket;
        let at = forged.iter().position(|byte| *byte == b'0').unwrap();
        forged[at] = b'1';
        assert_eq!(verify(b"key", &forged, NOW), None);
    }

    #[test]
    fn the_longest_names_of_kubernetes_fit() {
        let long = Proven { namespace: "n".repeat(63), pod: "p".repeat(253), uid: "u".repeat(36) };
        assert!(issue(b"key", &long, NOW).len() <= 512);
    }
}
