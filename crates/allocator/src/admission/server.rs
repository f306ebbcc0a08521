//! `POST /inject` and `POST /validate`: reads an AdmissionReview, asks the functions that decide, and
//! answers. The caller listens and does the TLS.
//!
//! A pod's environment may hold keys, and so may anything that somebody sends by mistake: what was
//! sent is neither logged nor repeated in an answer about a text that cannot be read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use crds::compile::Objects;
use crds::path::Path;
use crds::problem::Violation;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview, Operation};
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use super::answer::{self, Request};
use super::inject::{self, Namespace, inject};
use super::metrics::{Hook, Metrics, Outcome};
use super::settings::Settings;
use super::validate::{Change, Object, validate};

/// Where the webhooks get from what they need at the moment of a review.
pub struct Webhook {
    settings: Source<Settings>,
    objects: Source<Objects>,
    metrics: Metrics,
    places: Semaphore,
}

type Source<T> = Box<dyn Fn() -> Option<Arc<T>> + Send + Sync>;

/// Why there is no answer. The API server then does what the webhook's failure policy says.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the body has more than {MAX_BODY_BYTES} bytes, or broke off")]
    Body,
    #[error(
        "the body is no AdmissionReview of admission.k8s.io/v1 with a request: it stops being one at line {line}, column {column}"
    )]
    NoReview { line: usize, column: usize },
    #[error("this path reviews {expected}, not {kind}")]
    Kind { expected: &'static str, kind: String },
    #[error("the request has no object")]
    NoObject,
    #[error("the settings of sidecars are not known yet")]
    NoSettings,
    #[error("the review took longer than {} s", TIMEOUT.as_secs())]
    Late,
    #[error("the patch cannot be written")]
    Patch(#[from] kube::core::admission::SerializePatchError),
}

/// Two objects of the API server's own limit of 3 MiB, and what is around them.
const MAX_BODY_BYTES: usize = 7 << 20;
/// Below the webhook's own timeout (5 s), so that the API server gets the reason.
const TIMEOUT: Duration = Duration::from_secs(4);
/// With bodies as large as that they are 224 MiB; one takes a millisecond.
const MAX_REVIEWS: usize = 32;

const API_VERSION: &str = "admission.k8s.io/v1";

/// The webhooks' two paths.
pub fn router(webhook: Webhook) -> Router {
    let inject = async |State(webhook): State<Arc<Webhook>>, body: Body| {
        webhook.review(Hook::Inject, body).await
    };
    let validate = async |State(webhook): State<Arc<Webhook>>, body: Body| {
        webhook.review(Hook::Validate, body).await
    };
    Router::new()
        .route("/inject", axum::routing::post(inject))
        .route("/validate", axum::routing::post(validate))
        .with_state(Arc::new(webhook))
}

// === impl Webhook ===

impl Webhook {
    /// Webhooks that count in `registry`. `settings` are those of the moment, as the certificates
    /// change; `objects` are the custom resources that are there. Either is `None` until it is known.
    pub fn new(
        registry: &mut Registry,
        settings: impl Fn() -> Option<Arc<Settings>> + Send + Sync + 'static,
        objects: impl Fn() -> Option<Arc<Objects>> + Send + Sync + 'static,
    ) -> Webhook {
        Webhook {
            settings: Box::new(settings),
            objects: Box::new(objects),
            metrics: Metrics::register(registry),
            places: Semaphore::new(MAX_REVIEWS),
        }
    }

    async fn review(&self, hook: Hook, body: Body) -> Response {
        match timeout(TIMEOUT, self.answer(hook, body)).await.unwrap_or(Err(Error::Late)) {
            Ok(response) => Json(response.into_review()).into_response(),
            Err(error) => {
                self.metrics.count(hook, Outcome::Failed);
                warn!(webhook = hook.label(), %error, "admission review failed");
                (error.status(), format!("{error}\n")).into_response()
            }
        }
    }

    async fn answer(&self, hook: Hook, body: Body) -> Result<AdmissionResponse, Error> {
        let _place = self.places.acquire().await.expect("it is never closed");
        let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Error::Body)?;
        let request = read(&body)?;
        let response = match hook {
            Hook::Inject => self.inject(&request)?,
            Hook::Validate => self.validate(&request).await?,
        };
        let outcome = match (response.allowed, &response.patch) {
            (false, _) => Outcome::Refused,
            (true, Some(_)) => Outcome::Patched,
            (true, None) => Outcome::Allowed,
        };
        self.metrics.count(hook, outcome);
        log(hook, outcome, &request, &response);
        Ok(response)
    }

    fn inject(&self, request: &Request) -> Result<AdmissionResponse, Error> {
        if !request.kind.group.is_empty() || request.kind.kind != "Pod" {
            return Err(Error::kind("pods", request));
        }
        // The containers of a pod that is there cannot change.
        if request.operation != Operation::Create || request.sub_resource.is_some() {
            return Ok(answer::allow(request, Vec::new()));
        }
        let object = request.object.as_ref().ok_or(Error::NoObject)?;
        // Only the metadata has gone through a struct; it is an object, and a field that the struct
        // does not know is in neither side of the patch.
        let pod = json!({"metadata": object.metadata, "spec": object.data.get("spec")});
        let settings = (self.settings)().ok_or(Error::NoSettings)?;
        // Pods that say nothing come only from namespaces that do: the webhook's selector sees to it.
        match inject(&pod, Namespace::Injects, &settings) {
            inject::Outcome::Patched { pod: after, warnings } => {
                Ok(answer::patch(request, (&pod, &after), warnings)?)
            }
            inject::Outcome::Untouched { warnings, .. } => Ok(answer::allow(request, warnings)),
            inject::Outcome::Refused(violations) => Ok(answer::refuse(request, &violations)),
        }
    }

    async fn validate(&self, request: &Request) -> Result<AdmissionResponse, Error> {
        if request.sub_resource.is_some() {
            return Ok(answer::allow(request, Vec::new()));
        }
        let change = match change(request)? {
            Ok(change) => change,
            Err(violation) => return Ok(answer::refuse(request, &[violation])),
        };
        let objects = (self.objects)();
        // A thousand quotas take some ten milliseconds, which other connections need not wait.
        let reviewing = tokio::task::spawn_blocking(move || validate(&change, objects.as_deref()));
        let verdict = reviewing.await.expect("a review does not panic");
        if verdict.errors.is_empty() {
            return Ok(answer::allow(request, verdict.warnings));
        }
        Ok(answer::refuse(request, &verdict.errors))
    }
}

// === impl Error ===

impl Error {
    fn kind(expected: &'static str, request: &Request) -> Error {
        Error::Kind { expected, kind: request.kind.kind.clone() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Error::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Error::NoReview { .. } | Error::Kind { .. } | Error::NoObject => {
                StatusCode::BAD_REQUEST
            }
            Error::NoSettings => StatusCode::SERVICE_UNAVAILABLE,
            Error::Late => StatusCode::GATEWAY_TIMEOUT,
            Error::Patch(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn read(body: &[u8]) -> Result<Request, Error> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)
        .map_err(|error| Error::NoReview { line: error.line(), column: error.column() })?;
    let is_known = review.types.api_version == API_VERSION;
    let request = is_known.then(|| review.try_into().ok()).flatten();
    request.ok_or(Error::NoReview { line: 1, column: 1 })
}

/// The change that a request asks for; the violation is of an object that does not fit its kind.
fn change(request: &Request) -> Result<Result<Change, Violation>, Error> {
    let (after, before) = (request.object.as_ref(), request.old_object.as_ref());
    let subject = match request.operation {
        Operation::Delete => before,
        _ => after,
    };
    let object = match object(request, subject.ok_or(Error::NoObject)?)? {
        Ok(object) => object,
        Err(violation) => return Ok(Err(violation)),
    };
    if request.operation == Operation::Delete {
        return Ok(Ok(Change::Deleted(object)));
    }
    let before = before.map(|before| self::object(request, before)).transpose()?;
    Ok(Ok(Change::Applied { object, before: before.and_then(Result::ok).map(Box::new) }))
}

fn object(request: &Request, object: &DynamicObject) -> Result<Result<Object, Violation>, Error> {
    let mut metadata = object.metadata.clone();
    metadata.namespace = metadata.namespace.or_else(|| request.namespace.clone());
    let mut value = json!({
        "apiVersion": format!("{}/{}", request.kind.group, request.kind.version),
        "kind": request.kind.kind,
        "metadata": metadata,
    });
    value["spec"] = object.data.get("spec").cloned().unwrap_or(Value::Null);
    Ok(match request.kind.kind.as_str() {
        "LLMProvider" => parse(value).map(Object::Provider),
        "LLMPriorityClass" => parse(value).map(Object::Class),
        "LLMQuota" => parse(value).map(Object::Quota),
        _ => return Err(Error::kind("LLMProvider, LLMPriorityClass and LLMQuota", request)),
    })
}

/// The API server has held the object to its schema already; a schema of another version may differ.
fn parse<K: DeserializeOwned>(value: Value) -> Result<K, Violation> {
    serde_json::from_value(value).map_err(|error| {
        let message = format!("does not fit its kind: {error}");
        Violation { path: Path::root(), message }
    })
}

/// One line for each review: which object, and what became of it.
fn log(hook: Hook, outcome: Outcome, request: &Request, response: &AdmissionResponse) {
    let (webhook, outcome_label) = (hook.label(), outcome.label());
    let (kind, name) = (&request.kind.kind, answer::name(request));
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let warnings = response.warnings.as_ref().map_or(0, Vec::len);
    if outcome == Outcome::Refused {
        let causes = response.result.details.iter().flat_map(|details| &details.causes);
        let fields = causes.map(|cause| cause.field.as_str()).collect::<Vec<_>>().join(", ");
        warn!(webhook, outcome = outcome_label, kind, namespace, name, fields, "admission review");
    } else {
        let dry_run = request.dry_run;
        info!(
            webhook,
            outcome = outcome_label,
            kind,
            namespace,
            name,
            warnings,
            dry_run,
            "admission review"
        );
    }
}
