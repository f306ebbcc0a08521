//! From a request to what it asks for: provider, operation, model, what it will be charged.
//!
//! The first segment of the path names the provider, the rest is the provider's own and stays as it
//! is. The body is read whole, because the model stands in it, and kept as it came.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use parking_lot::Mutex;
use providers::Adapter;
use providers::call::Call;
use providers::estimator::{Estimate, Estimator};
use providers::refusal::Refusal;
use providers::usage::Usage;
use quota::charge::{Charge, Vector};
use quota::dimension::Protocol;
use quota::policy::Name;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::headers::{self, Patience};
use crate::policy::{Snapshot, Standing, Target};
use crate::record::Record;

/// Reads requests.
pub(crate) struct Router {
    standing: watch::Receiver<Standing>,
    /// Until then requests wait for a policy.
    start_wait: Duration,
    pub(crate) estimator: Mutex<Estimator>,
    bodies: Arc<Semaphore>,
}

/// A request of which all is known that the further steps need.
pub(crate) struct Routed {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) asked: Asked,
    /// The class that it asks for.
    pub(crate) class: Name,
    pub(crate) patience: Patience,
    /// The request's head, with the provider's own path and without what is ours.
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    /// The body's part of [`BODY_MEMORY`].
    pub(crate) memory: OwnedSemaphorePermit,
}

/// What is asked of whom; kept until the answer has been read.
pub(crate) struct Asked {
    pub(crate) target: Arc<Target>,
    pub(crate) call: Call,
    pub(crate) estimate: Estimate,
}

/// Anthropic's own limit, and the largest of the two providers (`providers.md` 4.3).
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// On loopback; an application that sends its body more slowly than this holds a connection for
/// nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// All bodies that are in memory at once, in KiB: 300 prompts of 400 KiB wait for their turn. Beyond
/// it requests are refused, lest the kernel ends the pod.
const BODY_MEMORY_KIB: usize = 128 * 1024;

// === impl Router ===

impl Router {
    pub(crate) fn new(standing: watch::Receiver<Standing>, start_wait: Duration) -> Router {
        Router {
            standing,
            start_wait,
            estimator: Mutex::default(),
            bodies: Arc::new(Semaphore::new(BODY_MEMORY_KIB)),
        }
    }

    /// Reads a request; waits for its body, and at the start for the policy.
    pub(crate) async fn read(
        &self,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Routed, Refusal> {
        let (mut head, body) = request.into_parts();
        let (segment, path) = split(&head.uri);
        record.adapter = shape(&segment);
        let snapshot = self.policy().await?;
        let target = snapshot.target(&segment);
        let target = target.ok_or(Refusal::UnknownProvider { name: segment })?.clone();
        record.adapter = Some(target.adapter);
        record.provider = Some(target.provider.name.clone());
        refuse_unreadable(&head)?;

        let (body, memory) = self.whole(&head.headers, body).await?;
        let operation = target.adapter.operation(head.method.as_str(), path.path());
        let call = target.adapter.read(operation, &body).map_err(bad_request)?;
        record.call = call.clone();
        let estimate = self.estimator.lock().estimate(&target.provider.name, &call);
        let class = class(&head.headers, &snapshot)?;
        record.class = Some(class.clone());
        let patience = Patience::of(&head.headers);
        head.uri = path;
        headers::strip_request(&mut head.headers);
        let asked = Asked { target, call, estimate };
        Ok(Routed { snapshot, asked, class, patience, head, body, memory })
    }

    /// The policy; waits a while for the first one.
    async fn policy(&self) -> Result<Arc<Snapshot>, Refusal> {
        let known = |standing: &Standing| !matches!(standing, Standing::Unknown);
        if !known(&self.standing.borrow()) {
            // Whether it came or not: what is known now, counts.
            let mut standing = self.standing.clone();
            drop(timeout(self.start_wait, standing.wait_for(known)).await);
        }
        let current = self.standing.borrow().clone();
        match current {
            Standing::Known(snapshot) => Ok(snapshot),
            Standing::NoQuota(explain) => Err(Refusal::NotPermitted { what: explain.to_string() }),
            Standing::Unknown => Err(Refusal::Unavailable {
                reason: "no allocator has told this pod its quota yet".to_owned(),
            }),
        }
    }

    /// The body, whole, and the memory that it takes.
    async fn whole(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > MAX_BODY_BYTES) {
            return Err(too_large());
        }
        timeout(BODY_TIMEOUT, self.collect(body)).await.unwrap_or_else(|_| {
            Err(Refusal::BadRequest { message: "the body did not come within 60 s".to_owned() })
        })
    }

    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let mut memory = self.reserve(0)?;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|_| Refusal::BadRequest { message: "the body broke off".to_owned() })?;
            let Ok(data) = frame.into_data() else { continue };
            let len = first.len() + rest.len() + data.len();
            if len > MAX_BODY_BYTES {
                return Err(too_large());
            }
            let missing = len.div_ceil(1024).saturating_sub(memory.num_permits());
            memory.merge(self.reserve(missing)?);
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            // Most bodies come in one frame and are never copied.
            if rest.is_empty() {
                let left = usize::try_from(body.size_hint().lower()).unwrap_or(0);
                rest.reserve(len + left.min(MAX_BODY_BYTES));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, memory))
    }

    fn reserve(&self, kib: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        self.bodies.clone().try_acquire_many_owned(kib).map_err(|_| Refusal::Unavailable {
            reason: "too many large requests of this pod wait".to_owned(),
        })
    }
}

// === impl Asked ===

impl Asked {
    /// The model; empty where the API does not ask for one.
    pub(crate) fn model(&self) -> &str {
        self.call.model.as_deref().unwrap_or_default()
    }

    /// What is taken at admission.
    pub(crate) fn reserve(&self) -> Charge {
        self.target.adapter.reserve(&self.call, self.estimate)
    }

    /// What is charged for `usage` in the end.
    pub(crate) fn charged(&self, usage: &Usage) -> Vector {
        self.vector(&self.target.adapter.settle(&self.call, usage))
    }

    /// What `charge` takes from which budgets.
    pub(crate) fn vector(&self, charge: &Charge) -> Vector {
        self.target.provider.vector(self.model(), charge)
    }
}

/// The first segment of the path, and the rest with its query.
fn split(uri: &Uri) -> (String, Uri) {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let path = path.strip_prefix('/').unwrap_or(path);
    let end = path.find(['/', '?']).unwrap_or(path.len());
    let (segment, rest) = path.split_at(end);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    (segment.to_owned(), rest.parse().unwrap_or_default())
}

/// The shape of refusals to a request of which only the first segment is known.
fn shape(segment: &str) -> Option<&'static dyn Adapter> {
    let protocols = [Protocol::OpenAi, Protocol::Anthropic];
    protocols.into_iter().find(|protocol| protocol.alias() == segment).map(providers::adapter)
}

/// What hides what is asked would bypass the quota.
fn refuse_unreadable(head: &Parts) -> Result<(), Refusal> {
    let says = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let websocket = says(header::UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    let message = if websocket || head.method == Method::CONNECT {
        "WebSocket and CONNECT do not pass here; use HTTP and server-sent events"
    } else if says(header::CONTENT_ENCODING).is_some_and(|it| !it.eq_ignore_ascii_case("identity"))
    {
        "a compressed body cannot be read here; send it without content-encoding"
    } else {
        return Ok(());
    };
    Err(Refusal::BadRequest { message: message.to_owned() })
}

/// The class of a request: the quota's, unless the request asks for another that it permits.
fn class(headers: &HeaderMap, snapshot: &Snapshot) -> Result<Name, Refusal> {
    let quota = &snapshot.policy.quota;
    let Some(asked) = headers.get(headers::PRIORITY) else { return Ok(quota.class.clone()) };
    let asked = asked.to_str().unwrap_or_default().trim();
    if !quota.permits(asked) {
        return Err(Refusal::NotPermitted {
            what: format!(
                "LLMQuota {} does not permit class `{asked}`; see its permittedClasses",
                quota.key()
            ),
        });
    }
    Ok(asked.into())
}

fn bad_request(error: providers::call::BadBody) -> Refusal {
    Refusal::BadRequest { message: error.to_string() }
}

fn too_large() -> Refusal {
    Refusal::BodyTooLarge { limit: MAX_BODY_BYTES as u64 }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_first_segment_goes_and_the_rest_stays_as_it_is() {
        for (uri, segment, rest) in [
            ("/openai/v1/chat/completions", "openai", "/v1/chat/completions"),
            ("/openai/v1/models?limit=2&x=a%2Fb", "openai", "/v1/models?limit=2&x=a%2Fb"),
            ("/openai/v1/a%2Fb//c/", "openai", "/v1/a%2Fb//c/"),
            ("/openai", "openai", "/"),
            ("/openai?x=1", "openai", "/?x=1"),
            ("/", "", "/"),
            ("http://127.0.0.1:7410/openai/v1/x", "openai", "/v1/x"),
        ] {
            let (found, path) = split(&uri.parse().unwrap());
            assert_eq!((found.as_str(), path.to_string().as_str()), (segment, rest), "{uri}");
        }
    }
}
