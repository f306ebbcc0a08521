//! What the API server is told: allowed, patched, or refused in a form that kubectl shows as it shows
//! the API server's own refusals.

use crds::problem::Violation;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse};
use kube::core::response::{Status, StatusCause, StatusDetails};
use serde_json::Value;

/// One request to review.
pub(super) type Request = AdmissionRequest<DynamicObject>;

/// As many as a person reads; the API server cuts them off at 4 KiB together.
const MAX_WARNINGS: usize = 12;

/// Allows the request as it is.
pub(super) fn allow(request: &Request, warnings: Vec<String>) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    response.warnings = shorten(warnings);
    response
}

/// Allows the request with what makes `after` out of `before`.
pub(super) fn patch(
    request: &Request,
    (before, after): (&Value, &Value),
    warnings: Vec<String>,
) -> Result<AdmissionResponse, kube::core::admission::SerializePatchError> {
    let patch = json_patch::diff(before, after);
    if patch.is_empty() {
        return Ok(allow(request, warnings));
    }
    allow(request, warnings).with_patch(patch)
}

/// Refuses the request. Kubectl says `The LLMQuota "chat" is invalid:` and the violations; others see
/// the message.
pub(super) fn refuse(request: &Request, violations: &[Violation]) -> AdmissionResponse {
    let lines: Vec<String> = violations.iter().map(line).collect();
    let causes = violations.iter().map(|violation| StatusCause {
        reason: "FieldValueInvalid".into(),
        message: violation.message.clone(),
        field: violation.path.to_string(),
    });
    let details = StatusDetails {
        name: name(request),
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        uid: String::new(),
        causes: causes.collect(),
        retry_after_seconds: 0,
    };
    let mut response = AdmissionResponse::from(request);
    response.allowed = false;
    response.result =
        Status::failure(&lines.join("; "), "Invalid").with_code(422).with_details(details);
    response
}

/// The object's name, or how its name will begin.
pub(super) fn name(request: &Request) -> String {
    let generated = || {
        let metadata = request.object.as_ref().map(|object| &object.metadata);
        metadata.and_then(|metadata| metadata.generate_name.clone()).unwrap_or_default()
    };
    if request.name.is_empty() { generated() } else { request.name.clone() }
}

fn line(violation: &Violation) -> String {
    let Violation { path, message } = violation;
    if path.is_root() { message.clone() } else { format!("{path}: {message}") }
}

fn shorten(mut warnings: Vec<String>) -> Option<Vec<String>> {
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS;
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("{more} more warnings are left out"));
    }
    (!warnings.is_empty()).then_some(warnings)
}
