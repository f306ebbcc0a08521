//! How the API server is asked and watched, the same for everything that does.
//!
//! A connection whose other end has gone without a word (a node lost, a frozen API server, a firewall
//! that forgot) looks like one on which nothing happens. What would tell them apart by itself takes
//! long: kube gives a watch 295 s and any other answer for ever. So each watch is short and the server
//! ends it, which is a sign of life; where none comes, everything begins anew.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, Resource};
use rand::Rng as _;
use serde::de::DeserializeOwned;

/// The API server ends a watch after so many seconds, and it goes on from where it was without a new
/// list: a dozen cheap requests in this time. A peer that is dead is noticed five seconds later.
const WATCH_SECONDS: u32 = 30;
/// No answer is longer in coming. Above the time of a watch, in which nothing may happen.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// How long to wait after one more failure.
struct Retry(Duration);

/// After the first failure; jitter may halve it.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// kube's own is 30 s. An allocator has few watches, and what they tell (a policy, a pod's end) counts
/// from when an API server is back.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The client of this pod's service account.
pub(crate) async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("this is no pod of a cluster")?;
    config.read_timeout = Some(READ_TIMEOUT);
    // Counted from the request: a connection may have been idle before.
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// The events of all objects that `config` selects.
pub(crate) fn all<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    watcher(api, config.timeout(WATCH_SECONDS)).backoff(Retry(RETRY_MIN))
}

/// One object whenever it is another, `None` when it is not there.
pub(crate) fn one<K>(
    api: Api<K>,
    name: &str,
) -> impl Stream<Item = watcher::Result<Option<K>>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut is_listed = false;
    all(api, config).filter_map(move |event| {
        ready(match event {
            Ok(Event::Init) => {
                is_listed = false;
                None
            }
            Ok(Event::InitApply(object)) => {
                is_listed = true;
                Some(Ok(Some(object)))
            }
            Ok(Event::Apply(object)) => Some(Ok(Some(object))),
            Ok(Event::Delete(_)) => Some(Ok(None)),
            Ok(Event::InitDone) => (!is_listed).then_some(Ok(None)),
            Err(error) => Some(Err(error)),
        })
    })
}

// === impl Retry ===

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (2 * wait).min(RETRY_MAX);
        // Replicas that fail together must not come back together.
        Some(wait.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = RETRY_MIN;
    }
}

#[cfg(test)]
mod tests;
