//! Error bodies (`providers.md` 4.3).

use http::StatusCode;
use providers::call::BadBody;
use providers::enforce::denied::Denied;
use quota::dimension::Dimension;
use serde_json::{Value, json};

use crate::refusal::Refusal;

const INVALID: &str = "invalid_request_error";
const RATE_LIMIT: &str = "rate_limit_error";
const REST: &str = "For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see \
    the response headers for current usage. Please reduce the prompt length or the maximum tokens \
    requested, or try again later. You may also contact sales at \
    https://claude.com/contact-sales to discuss your options for a rate limit increase.";

/// The body of a refusal of a call by `organisation`.
pub(super) fn body(refusal: &Refusal, organisation: &str, request_id: &str) -> Value {
    let (kind, message) = match refusal {
        Refusal::NoKey => ("authentication_error", "x-api-key header is required".to_owned()),
        Refusal::WrongKey => ("authentication_error", "invalid x-api-key".to_owned()),
        Refusal::NoPath { .. } => ("not_found_error", "Not Found".to_owned()),
        Refusal::BodyTooLarge => {
            ("request_too_large", "Request exceeds the maximum size".to_owned())
        }
        Refusal::BodyLost => (INVALID, "The request body did not arrive.".to_owned()),
        Refusal::Body(BadBody::NoModel) => (INVALID, "model: Field required".to_owned()),
        Refusal::Body(problem) => {
            (INVALID, format!("The request body is not valid JSON: {problem}"))
        }
        Refusal::Missing(member) => (INVALID, format!("{member}: Field required")),
        Refusal::TooManyChoices { .. }
        | Refusal::TooManyInputs { .. }
        | Refusal::InputsTooLong { .. } => (INVALID, "Extra inputs are not permitted".to_owned()),
        Refusal::NoModel(model) => ("not_found_error", format!("model: {model}")),
        Refusal::Limited { denied, model, .. } => {
            (RATE_LIMIT, limited(denied, organisation, model))
        }
        Refusal::Storm { .. } => (
            RATE_LIMIT,
            format!("Number of requests has exceeded your per-minute rate limit. {REST}"),
        ),
        Refusal::Fault { status, error_type, code, message, .. } => {
            let (usual_type, usual_message) = usual(*status);
            let kind = error_type.as_deref().unwrap_or(usual_type);
            let message = message.as_deref().unwrap_or(usual_message);
            let mut body = object(kind, message, request_id);
            if let Some(code) = code {
                body["error"]["details"] = json!({"error_code": code});
            }
            return body;
        }
    };
    object(kind, &message, request_id)
}

/// A whole error body.
pub(super) fn object(kind: &str, message: &str, request_id: &str) -> Value {
    let error = json!({"type": kind, "message": message});
    json!({"type": "error", "error": error, "request_id": request_id})
}

fn limited(denied: &Denied, organisation: &str, model: &str) -> String {
    let what = match denied.dimension {
        Dimension::RequestsPerMinute => "requests per minute",
        Dimension::TokensPerMinute => "tokens per minute",
        Dimension::InputTokensPerMinute => "input tokens per minute",
        Dimension::OutputTokensPerMinute => "output tokens per minute",
        Dimension::RequestsPerDay => "requests per day",
        Dimension::TokensPerDay => "tokens per day",
        Dimension::ConcurrentRequests => {
            return "Number of concurrent connections has exceeded your rate limit. Please try \
                    again later or contact sales at https://claude.com/contact-sales to discuss \
                    your options for a rate limit increase."
                .to_owned();
        }
    };
    let limit = grouped(denied.limit);
    format!(
        "This request would exceed your organization's rate limit of {limit} {what} (org: \
         {organisation}, model: {model}). {REST}"
    )
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Type and message that a status usually has.
fn usual(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => ("billing_error", "Your credit balance is too low to access the Anthropic API."),
        403 => ("permission_error", "Your API key does not have permission."),
        404 => ("not_found_error", "Not Found"),
        413 => ("request_too_large", "Request exceeds the maximum size"),
        429 => (RATE_LIMIT, "You have reached your API usage limits."),
        504 => ("timeout_error", "Request timed out"),
        529 => ("overloaded_error", "Overloaded"),
        400..=499 => (INVALID, "The request cannot be served."),
        _ => ("api_error", "Internal server error"),
    }
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (30_000, "30,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
