//! Keeps the Secret of [`crate::cluster::certificates`]: makes it at first use, follows it, and has the
//! certificate made anew in time. Every replica may; whoever writes first wins, the others follow.
//!
//! The webhooks' `caBundle` is kept in step with it, so that nothing else need be installed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{PatchParams, PostParams};
use kube::{Api, Client, Resource};
use rand::RngCore as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use service::clock::unix_now;
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tracing::{error, info, warn};

use crate::cluster::certificates::{self, Certificates};
use crate::cluster::watching;

/// What is in force; clones share it.
pub(crate) type Current = watch::Receiver<Arc<Certificates>>;

/// The Secret, and what is in it.
pub(crate) struct Vault {
    client: Client,
    api: Api<Secret>,
    names: Vec<String>,
    /// The Secret of certificates that others make; then ours holds the key of tickets only.
    theirs: Option<String>,
    current: watch::Sender<Arc<Certificates>>,
}

/// The Secret's name.
const SECRET: &str = "weir-ca";
/// The webhooks' configurations, of the names that the chart gives them.
const INJECTOR: &str = "weir-injector";
const VALIDATOR: &str = "weir-policy";
/// Who has written what, as the API server notes it.
const MANAGER: &str = "weir-allocator";
/// How often the certificate's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// While somebody else makes a certificate.
const WAIT: Duration = Duration::from_secs(2);
/// Replicas that start together write together; one of them wins each time.
const TRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(300);

// === impl Vault ===

impl Vault {
    /// Reads the Secret, or makes it. `names` are what certificates are for; `theirs` is the Secret of
    /// those that another makes.
    pub(crate) async fn open(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        theirs: Option<String>,
    ) -> anyhow::Result<(Vault, Current)> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut first = read_or_make(&api, &names).await?;
        if let Some(name) = &theirs {
            // cert-manager may take its time; the pod is not ready meanwhile, and says why.
            let secret = loop {
                match api.get_opt(name).await? {
                    Some(secret) => break secret,
                    None => {
                        info!(secret = name, "waiting for the certificate's Secret");
                        sleep(WAIT).await;
                    }
                }
            };
            first = first.shown_from(&secret).with_context(|| {
                format!("Secret {name} does not hold tls.crt, tls.key and ca.crt that can be used")
            })?;
        }
        let (current, receiver) = watch::channel(Arc::new(first));
        Ok((Vault { client, api, names, theirs, current }, receiver))
    }

    /// Follows the Secret and the webhooks for as long as it is polled.
    pub(crate) async fn run(self) {
        match self.theirs.clone() {
            // Both webhooks' watches are in it.
            None => Box::pin(self.keep_ours()).await,
            Some(name) => self.follow_theirs(&name).await,
        }
    }

    async fn follow_theirs(&self, name: &str) {
        let mut secrets = pin!(watching::one(self.api.clone(), name));
        while let Some(told) = secrets.next().await {
            match told {
                Ok(Some(secret)) => {
                    let read = self.current.borrow().shown_from(&secret);
                    self.set(name, read);
                }
                Ok(None) => warn!(secret = name, "it was deleted; what was in it stays in use"),
                Err(error) => warn!(secret = name, %error, "its watch failed; it starts anew"),
            }
        }
    }

    async fn keep_ours(&self) {
        let secrets = watching::one(self.api.clone(), SECRET);
        let mut secrets = pin!(secrets);
        let injector =
            keep_ca_bundle::<MutatingWebhookConfiguration>(&self.client, INJECTOR, &self.current);
        let validator = keep_ca_bundle::<ValidatingWebhookConfiguration>(
            &self.client,
            VALIDATOR,
            &self.current,
        );
        let (mut injector, mut validator) = (pin!(injector), pin!(validator));
        let mut look = interval(LOOK_EVERY);
        loop {
            // All arms are cancel-safe; the two that keep bundles never end.
            tokio::select! {
                Some(told) = secrets.next() => match told {
                    Ok(Some(secret)) => self.set(SECRET, Certificates::of(&secret)),
                    Ok(None) => self.restore().await,
                    Err(error) => warn!(%error, "the watch of the Secret {SECRET} failed; it starts anew"),
                },
                _ = look.tick() => self.renew().await,
                () = &mut injector => {}
                () = &mut validator => {}
            }
        }
    }

    fn set(&self, name: &str, read: Result<Certificates, certificates::Error>) {
        match read {
            Ok(read) => {
                self.current.send_if_modified(|current| {
                    let is_new = **current != read;
                    if is_new {
                        *current = Arc::new(read);
                    }
                    is_new
                });
            }
            Err(error) => {
                error!(secret = name, %error, "it is damaged; what was in it before stays in use");
            }
        }
    }

    /// Somebody has deleted the Secret: sidecars trust what was in it, so it comes back.
    async fn restore(&self) {
        warn!(
            "the Secret {SECRET} was deleted; it is written again, or all pods would have to restart"
        );
        let secret = (**self.current.borrow()).clone().into_secret(SECRET, None);
        if let Err(error) = self.api.create(&PostParams::default(), &secret).await {
            warn!(%error, "the Secret {SECRET} could not be written");
        }
    }

    async fn renew(&self) {
        // A Secret that is not there is written again as it was: a new authority would be trusted by
        // nobody.
        if matches!(self.api.get_opt(SECRET).await, Ok(None)) {
            return self.restore().await;
        }
        if let Err(error) = read_or_make(&self.api, &self.names).await {
            warn!(%error, "the certificate could not be made anew; it is tried again");
        }
    }
}

/// What the Secret holds, made or made anew if it is time.
async fn read_or_make(api: &Api<Secret>, names: &[String]) -> anyhow::Result<Certificates> {
    let params = PostParams::default();
    for _ in 0..TRIES {
        let now = unix_now();
        let read =
            api.get_opt(SECRET).await.with_context(|| format!("Secret {SECRET} cannot be read"))?;
        let (made, version) = match &read {
            Some(secret) => {
                let kept = Certificates::of(secret).with_context(|| {
                    format!(
                        "Secret {SECRET} is damaged: restore it, or delete it and restart all pods \
                         with a sidecar"
                    )
                })?;
                match kept.renewed(names, now)? {
                    None => return Ok(kept),
                    Some(renewed) => (renewed, secret.metadata.resource_version.clone()),
                }
            }
            None => {
                let mut key = [0; 32];
                rand::rng().fill_bytes(&mut key);
                (Certificates::make(names, now, key)?, None)
            }
        };
        let secret = made.clone().into_secret(SECRET, version.clone());
        let written = match version {
            None => api.create(&params, &secret).await,
            Some(_) => api.replace(SECRET, &params, &secret).await,
        };
        match written {
            Ok(_) => {
                info!(secret = SECRET, "certificate made");
                return Ok(made);
            }
            // Another replica was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => sleep(RETRY).await,
            Err(error) => return Err(error).context(format!("Secret {SECRET} cannot be written")),
        }
    }
    anyhow::bail!("Secret {SECRET} is written by others all the time")
}

/// What both kinds of webhook configuration have.
trait Webhooks: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug {
    /// Names and clients of its webhooks.
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Webhooks for MutatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let all = self.webhooks.iter().flatten();
        all.map(|webhook| (&*webhook.name, &webhook.client_config)).collect()
    }
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn clients(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let all = self.webhooks.iter().flatten();
        all.map(|webhook| (&*webhook.name, &webhook.client_config)).collect()
    }
}

/// Keeps the bundle of all webhooks of one configuration in step with the authority.
async fn keep_ca_bundle<K>(client: &Client, name: &str, current: &watch::Sender<Arc<Certificates>>)
where
    K: Webhooks + Send + 'static,
{
    let api = Api::<K>::all(client.clone());
    let mut current = current.subscribe();
    let mut events = pin!(watching::one(api.clone(), name));
    let mut seen: Option<K> = None;
    let mut has_failed = false;
    loop {
        // All arms are cancel-safe.
        tokio::select! {
            Some(told) = events.next() => match told {
                Ok(object) => seen = object,
                Err(error) => warn!(webhook = name, %error, "the watch of a webhook failed; it starts anew"),
            },
            Ok(()) = current.changed() => {}
            () = sleep(WAIT), if has_failed => {}
        }
        has_failed = false;
        let ca = current.borrow_and_update().ca().to_owned();
        let Some(patch) = seen.as_ref().and_then(|it| ca_bundle_patch(&it.clients(), &ca)) else {
            continue;
        };
        let patch = kube::api::Patch::<()>::Json(patch);
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match api.patch(name, &params, &patch).await {
            Ok(_) => info!(webhook = name, "the API server trusts this allocator's certificates"),
            Err(error) => {
                has_failed = true;
                warn!(webhook = name, %error, "caBundle could not be set; it is tried again");
            }
        }
    }
}

/// What makes all webhooks trust `ca`; `None` if they do.
fn ca_bundle_patch(clients: &[(&str, &WebhookClientConfig)], ca: &str) -> Option<Patch> {
    let wrong = clients.iter().enumerate().filter(|(_, (_, client))| {
        client.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != ca.as_bytes())
    });
    let operations: Vec<PatchOperation> = wrong
        .flat_map(|(index, (name, _))| {
            let pointer = |field: &[&str]| {
                let index = index.to_string();
                PointerBuf::from_tokens(
                    ["webhooks", &index].into_iter().chain(field.iter().copied()),
                )
            };
            [
                // The list may have changed meanwhile.
                PatchOperation::Test(TestOperation {
                    path: pointer(&["name"]),
                    value: Value::from(*name),
                }),
                PatchOperation::Add(AddOperation {
                    path: pointer(&["clientConfig", "caBundle"]),
                    value: Value::from(BASE64_STANDARD.encode(ca)),
                }),
            ]
        })
        .collect();
    (!operations.is_empty()).then_some(Patch(operations))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn only_webhooks_that_trust_something_else_are_changed() {
        let trusting = |ca: &str| WebhookClientConfig {
            ca_bundle: Some(ByteString(ca.into())),
            ..WebhookClientConfig::default()
        };
        let (ours, none, old) = (trusting("ca"), WebhookClientConfig::default(), trusting("old"));
        let patch = ca_bundle_patch(&[("a", &ours), ("b", &none), ("c", &old)], "ca").unwrap();
        let told = serde_json::to_string(&patch).unwrap();
        assert_eq!(
            told,
            r#"[{"op":"test","path":"/webhooks/1/name","value":"b"},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":"Y2E="},{"op":"test","path":"/webhooks/2/name","value":"c"},{"op":"add","path":"/webhooks/2/clientConfig/caBundle","value":"Y2E="}]"#
        );
        assert!(ca_bundle_patch(&[("a", &ours)], "ca").is_none());
        assert!(ca_bundle_patch(&[], "ca").is_none());
    }
}
