//! Where a provider is: the text of `spec.endpoint`, held to its rule.
//!
//! A key in plain text must not leave the machine or the private network that it is used in, so
//! `http://` is for addresses that stay inside.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The form as a CEL rule.
pub(crate) const FORM_RULE: &str = r"self.matches('^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:]+\\])(:[0-9]{1,5})?(/[!-~]*)?$') && !self.contains('@') && !self.contains('?') && !self.contains('#')";

/// What a person is told whose endpoint has another form. The text itself is not shown: where a
/// user or a query should not be, there may be a key.
pub(crate) const FORM_MESSAGE: &str = "must be https://HOST[:PORT][/PATH] (or http:// for an \
     address on this machine or a private network), without user, query and fragment, and \
     with a port of at most 65535";

/// The rule for `http://` in CEL: one pattern over the whole text, whose length has a bound. The API
/// server must know what a rule costs at most, and refuses the definition otherwise; what `url()` makes
/// of a text has no bound for it.
pub(crate) const PLAIN_RULE: &str = r"!self.startsWith('http://') || self.matches('^http://(127([.](25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|10([.](25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|(172[.](1[6-9]|2[0-9]|3[01])|192[.]168)([.](25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){2}|\\[((0{0,4}:)+0{0,3}1|[Ff][CcDd][0-9A-Fa-f]{2}:[0-9A-Fa-f:]+)\\]|[a-z]([a-z0-9-]*[a-z0-9])?|([a-z0-9-]+[.])+(svc|svc[.]cluster[.]local|local))(:[0-9]{1,5})?(/.*)?$')";

/// What a person is told whose `http://` address is a public one.
pub(crate) const PLAIN_MESSAGE: &str = "http:// would send keys and prompts over the network in \
     plain text: use https://, or an address that is loopback, private (10.0.0.0/8, 172.16.0.0/12, \
     192.168.0.0/16, fc00::/7), localhost, a name without a dot, or one that ends in .svc, \
     .svc.cluster.local or .local";

/// The endpoint without slashes at its end, or what is wrong with it.
pub fn parse(text: &str) -> Result<&str, &'static str> {
    let (plain, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(FORM_MESSAGE),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.chars().any(|c| !c.is_ascii_graphic() || "@?#".contains(c)) {
        return Err(FORM_MESSAGE);
    }
    match host(authority) {
        None => Err(FORM_MESSAGE),
        Some(host) if plain && !host.is_inside() => Err(PLAIN_MESSAGE),
        Some(_) => Ok(text.trim_end_matches('/')),
    }
}

enum Host<'a> {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(&'a str),
}

/// The host of `HOST[:PORT]`; `None` for everything else.
fn host(authority: &str) -> Option<Host<'_>> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_sound =
        port.strip_prefix(':').map_or(port.is_empty(), |digits| digits.parse::<u16>().is_ok());
    if !port_is_sound || port.contains('+') {
        return None;
    }
    if authority.starts_with('[') {
        return host.parse().ok().map(Host::V6);
    }
    let edges_are_sound = !host.is_empty()
        && !host.starts_with(['-', '.'])
        && !host.ends_with(['-', '.'])
        && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    edges_are_sound.then(|| host.parse().map_or(Host::Name(host), Host::V4))
}

impl Host<'_> {
    /// True for what does not leave the machine or the private network.
    fn is_inside(&self) -> bool {
        match self {
            Host::V4(address) => address.is_loopback() || address.is_private(),
            Host::V6(address) => address.is_loopback() || address.is_unique_local(),
            Host::Name(name) => is_inside_name(name),
        }
    }
}

/// A name without a dot begins with a letter: resolvers read `134744072` as 8.8.8.8.
fn is_inside_name(name: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    if !name.chars().all(lower) {
        return false;
    }
    if !name.contains('.') {
        return name.starts_with(|c: char| c.is_ascii_lowercase());
    }
    [".svc", ".svc.cluster.local", ".local"].iter().any(|suffix| name.ends_with(suffix))
        && name.split('.').all(|label| !label.is_empty())
}
