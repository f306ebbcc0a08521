//! The arguments, checked; logged once at the start and shown as part of `/config`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Serialize;

use crate::args::Args;

/// What a sidecar runs with. Has no secret in it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    #[serde(serialize_with = "as_text")]
    pub(crate) allocator: Uri,
    /// How the allocator is trusted, and this pod by it; `None` on one machine.
    pub(crate) trust: Option<Trust>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) start_wait: Duration,
    pub(crate) drain: Duration,
}

/// What an allocator in a cluster is checked by, and what proves this pod to it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trust {
    /// PEM of certificates. They are public.
    #[serde(skip)]
    pub(crate) ca: String,
    /// The allocator's certificate is for this name, whatever address is dialled.
    pub(crate) name: String,
    pub(crate) token_file: PathBuf,
}

/// An argument that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "--allocator `{0}` is no URL such as http://127.0.0.1:7420 or \
         https://weir-allocator.weir-system.svc:7420"
    )]
    Allocator(String),
    #[error("--{0} is missing, which an https allocator needs: the injector gives it")]
    Untrusted(&'static str),
    #[error("--{0} must have 1 to {MAX_NAME_BYTES} bytes")]
    Name(&'static str),
    #[error("--labels: `{0}` is not key=value")]
    Label(String),
    #[error("--labels: more than {MAX_LABELS} labels")]
    ManyLabels,
    #[error("--labels: a key or value is longer than {MAX_NAME_BYTES} bytes")]
    LongLabel,
}

/// What the allocator takes (allocator.proto, Hello).
const MAX_NAME_BYTES: usize = 256;
const MAX_LABELS: usize = 64;

// === impl Config ===

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Config, Error> {
        let allocator = allocator(&args.allocator)?;
        Ok(Config {
            trust: trust(&allocator, args.ca, args.token_file)?,
            allocator,
            namespace: name("namespace", args.namespace)?,
            pod: name("pod", args.pod)?,
            pod_uid: args.pod_uid,
            labels: labels(&args.labels)?,
            listen: args.listen,
            admin: args.admin,
            start_wait: args.start_wait,
            drain: args.drain,
        })
    }
}

fn allocator(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.parse().ok();
    let is_known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    let uri = uri.filter(|uri| is_known(uri) && uri.host().is_some_and(|host| !host.is_empty()));
    uri.ok_or_else(|| Error::Allocator(url.to_owned()))
}

fn trust(
    allocator: &Uri,
    ca: Option<String>,
    token_file: Option<PathBuf>,
) -> Result<Option<Trust>, Error> {
    if allocator.scheme_str() != Some("https") {
        return Ok(None);
    }
    let name = allocator.host().unwrap_or_default().to_owned();
    let ca = ca.filter(|ca| !ca.is_empty()).ok_or(Error::Untrusted("ca"))?;
    let token_file = token_file.ok_or(Error::Untrusted("token-file"))?;
    Ok(Some(Trust { ca, name, token_file }))
}

fn name(flag: &'static str, name: String) -> Result<String, Error> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) { Ok(name) } else { Err(Error::Name(flag)) }
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::Label(pair.to_owned()))?;
        if key.is_empty() {
            return Err(Error::Label(pair.to_owned()));
        }
        if key.len() > MAX_NAME_BYTES || value.len() > MAX_NAME_BYTES {
            return Err(Error::LongLabel);
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    if labels.len() > MAX_LABELS { Err(Error::ManyLabels) } else { Ok(labels) }
}

fn as_text<S: serde::Serializer>(uri: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uri)
}

#[cfg(test)]
mod tests {
    use super::{allocator, labels, trust};

    #[test]
    fn labels_are_pairs() {
        let parsed = labels("app=chat, tier=,").unwrap();
        let pairs: Vec<_> = parsed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("app", "chat"), ("tier", "")]);
        for wrong in ["app", "=chat", &format!("{}=x", "k".repeat(257))] {
            assert!(labels(wrong).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..65).map(|i| format!("k{i}=v")).collect();
        assert!(labels(&many.join(",")).is_err());
    }

    #[test]
    fn an_allocator_without_scheme_is_refused_with_an_example() {
        let error = allocator("127.0.0.1:7420").unwrap_err().to_string();
        assert!(error.contains("such as http://"), "{error}");
        assert!(allocator("http://127.0.0.1:7420").is_ok());
    }

    #[test]
    fn an_allocator_in_a_cluster_is_checked_and_checks() {
        let url = allocator("https://weir-allocator.weir-system.svc:7420").unwrap();
        let (ca, file) = (Some("PEM".to_owned()), Some("/token".into()));
        let error = trust(&url, None, file.clone()).unwrap_err().to_string();
        assert!(error.starts_with("--ca is missing"), "{error}");
        assert!(trust(&url, ca.clone(), None).is_err());
        let trusted = trust(&url, ca, file).unwrap().unwrap();
        assert_eq!(trusted.name, "weir-allocator.weir-system.svc");
        assert!(trust(&allocator("http://127.0.0.1:7420").unwrap(), None, None).unwrap().is_none());
    }
}
