//! Who a sidecar is: by its pod's token, checked by the API server, or by a ticket for one that was.
//!
//! Names come from the token, never from what the sidecar says; what it says must agree all the same,
//! so that a token in the wrong hands shows. The workload comes from the watch of pods.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use service::clock::unix_now;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tracing::warn;
use wire::{Hello, RefusedReason};

use crate::cluster::pods::{PodFacts, Pods};
use crate::cluster::ticket::{self, Proven};
use crate::refusal::Refusal;

/// Checks identities.
#[derive(Clone)]
pub(crate) struct Identity {
    reviews: Api<TokenReview>,
    pods: Pods,
    ticket_key: Vec<u8>,
    recorder: Recorder,
}

/// The token's audience: a token for anything else is not for us.
const AUDIENCE: &str = "weir";
/// Longer tokens are none.
const TOKEN_MAX: usize = 16 * 1024;
/// A sidecar tries again soon.
const REVIEW_WITHIN: Duration = Duration::from_secs(3);

/// For an Event; it is not worth more.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

const USER_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

// === impl Identity ===

impl Identity {
    /// `pod` is this allocator's own.
    pub(crate) fn new(client: Client, pods: Pods, ticket_key: &[u8], pod: &str) -> Identity {
        let reporter = Reporter { controller: "weir-allocator".into(), instance: Some(pod.into()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Identity { reviews: Api::all(client), pods, ticket_key: ticket_key.to_vec(), recorder }
    }

    /// Tells people of a refusal by an Event on the pod that the sidecar said it is, if there is one:
    /// whoever can reach the allocator must not be able to fill the cluster with Events about anything.
    pub(crate) async fn tell(&self, hello: &Hello, refusal: &Refusal) {
        let Hello { namespace, pod, pod_uid, .. } = hello;
        // What passes by itself is no news.
        if refusal.reason() != RefusedReason::Identity
            || self.pods.get(namespace, pod, pod_uid).is_none()
        {
            return;
        }
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.clone()),
            name: Some(pod.clone()),
            uid: Some(pod_uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "SidecarRefused".into(),
            note: Some(refusal.to_string()),
            action: "Identify".into(),
            secondary: None,
        };
        // The sidecar waits for its refusal.
        match timeout(TOLD_WITHIN, self.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "an event could not be written"),
            Err(_) => warn!("the API server did not take an event in time"),
        }
    }

    /// The pod behind a greeting, and a ticket for its next one.
    pub(crate) async fn check(
        &self,
        hello: &Hello,
        metadata: &MetadataMap,
    ) -> Result<(PodFacts, Vec<u8>), Refusal> {
        let now = unix_now();
        let proven = match ticket::verify(&self.ticket_key, &hello.resumption_ticket, now) {
            Some(proven) => proven,
            None => self.review(metadata).await?,
        };
        let said = Proven {
            namespace: hello.namespace.clone(),
            pod: hello.pod.clone(),
            uid: hello.pod_uid.clone(),
        };
        if said != proven {
            return Err(Refusal::WrongPod { said: name(&said), proven: name(&proven) });
        }
        let facts = self.pods.find(&proven.namespace, &proven.pod, &proven.uid).await;
        let facts = facts.ok_or_else(|| Refusal::NoSuchPod(name(&proven)))?;
        Ok((facts, ticket::issue(&self.ticket_key, &proven, now)))
    }

    /// Asks the API server about the token.
    async fn review(&self, metadata: &MetadataMap) -> Result<Proven, Refusal> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|text| text.strip_prefix("Bearer "));
        let token = token.map(str::trim).filter(|it| (1..=TOKEN_MAX).contains(&it.len()));
        let token = token.ok_or(Refusal::NoToken)?;
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![AUDIENCE.to_owned()]),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let answer = timeout(REVIEW_WITHIN, self.reviews.create(&params, &review)).await;
        let status = match answer {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => {
                warn!(%error, "a token could not be checked");
                return Err(Refusal::NoReview);
            }
            Err(_) => return Err(Refusal::NoReview),
        };
        let is_ours = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        if status.authenticated != Some(true) || !is_ours {
            let reason = status.error.unwrap_or_else(|| "it is not for the audience weir".into());
            return Err(Refusal::BadToken(reason));
        }
        proven(&status.user.unwrap_or_default()).ok_or(Refusal::NoPodToken)
    }
}

/// The pod that a token is bound to.
fn proven(user: &UserInfo) -> Option<Proven> {
    let account = user.username.as_deref()?.strip_prefix(USER_PREFIX)?;
    let (namespace, _) = account.split_once(':')?;
    let extra = |name| user.extra.as_ref()?.get(name)?.first().cloned();
    Some(Proven { namespace: namespace.to_owned(), pod: extra(POD_NAME)?, uid: extra(POD_UID)? })
}

fn name(pod: &Proven) -> String {
    format!("{}/{} (uid {})", pod.namespace, pod.pod, pod.uid)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_come_from_the_token_that_is_bound_to_a_pod() {
        let extra = |entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]));
            Some(entries.collect::<BTreeMap<_, _>>())
        };
        let user = |username: &str, extra| UserInfo {
            username: Some(username.to_owned()),
            extra,
            ..UserInfo::default()
        };
        let bound = extra(&[(POD_NAME, "chat-0"), (POD_UID, "u-1")]);
        let expected = Proven { namespace: "shop".into(), pod: "chat-0".into(), uid: "u-1".into() };
        assert_eq!(proven(&user("system:serviceaccount:shop:app", bound.clone())), Some(expected));
        assert_eq!(proven(&user("system:node:n1", bound)), None);
        let unbound = extra(&[(POD_NAME, "chat-0")]);
        assert_eq!(proven(&user("system:serviceaccount:shop:app", unbound)), None);
    }
}
