//! Admission: what the API server asks about objects before it stores them.
//!
//! [`inject`] puts the sidecar into a pod, [`validate`] says what the schema of a custom resource
//! cannot, and [`router`] answers the API server with both. All decisions are pure functions of
//! their arguments; `weir inject` calls the same [`inject`].
//!
//! Not here: the listener and its TLS, the webhook configurations, and who watches what.

mod answer;
mod args;
mod base_url;
mod container;
mod inject;
mod metrics;
mod names;
mod obstacle;
mod pod;
mod quantity;
mod server;
mod settings;
mod tuning;
mod validate;
mod warnings;

#[cfg(test)]
mod tests;

pub use args::SidecarArgs;
pub use base_url::Sdk;
pub use inject::{Namespace, Outcome, inject};
pub use quantity::Quantity;
pub use server::{Webhook, router};
pub use settings::{PullPolicy, Resources, Settings};
pub use validate::{Change, Object, Verdict, validate};
