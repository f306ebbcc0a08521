//! Error bodies (`providers.md` 2.5).

use http::StatusCode;
use providers::duration::format_go;
use providers::enforce::denied::Denied;
use quota::dimension::{Dimension, Unit};
use serde_json::{Value, json};

use crate::refusal::Refusal;

const INVALID: &str = "invalid_request_error";
const LIMITS_PAGE: &str = "https://platform.openai.com/account/rate-limits";

/// The body of a refusal of a call by `organisation`.
pub(super) fn body(refusal: &Refusal, organisation: &str) -> Value {
    let invalid = |param: Option<&str>, code: Option<&str>, message: &str| {
        object(INVALID, param, code, message)
    };
    let error = match refusal {
        Refusal::NoKey => invalid(
            None,
            None,
            "You didn't provide an API key. You need to provide your API key in an Authorization \
             header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        ),
        Refusal::WrongKey => invalid(
            None,
            Some("invalid_api_key"),
            "Incorrect API key provided. You can find your API key at \
             https://platform.openai.com/account/api-keys.",
        ),
        Refusal::NoPath { what } => invalid(None, None, &format!("Invalid URL ({what})")),
        Refusal::BodyTooLarge => invalid(None, None, "The request body is too large."),
        Refusal::BodyLost => invalid(None, None, "The request body did not arrive."),
        Refusal::Body(providers::call::BadBody::NoModel) => {
            invalid(Some("model"), None, "you must provide a model parameter")
        }
        Refusal::Body(problem) => invalid(
            None,
            None,
            &format!("We could not parse the JSON body of your request. ({problem})"),
        ),
        Refusal::Missing(member) => {
            let message = format!("Missing required parameter: '{member}'.");
            invalid(Some(member), Some("missing_required_parameter"), &message)
        }
        Refusal::TooManyChoices { most } => {
            let message = format!("Invalid 'n': expected a value <= {most}.");
            invalid(Some("n"), Some("integer_above_max_value"), &message)
        }
        Refusal::TooManyInputs { most } => {
            let message = format!("Invalid 'input': array too long, at most {most} inputs.");
            invalid(Some("input"), Some("array_above_max_length"), &message)
        }
        Refusal::InputsTooLong { tokens, most } => {
            let message = format!(
                "Invalid 'input': maximum request size is {most} tokens per request, got {tokens}."
            );
            object("max_tokens_per_request", None, Some("max_tokens_per_request"), &message)
        }
        Refusal::NoModel(model) => {
            let message =
                format!("The model `{model}` does not exist or you do not have access to it.");
            invalid(None, Some("model_not_found"), &message)
        }
        Refusal::Limited { denied, model, .. } => limited(denied, model, organisation),
        Refusal::Storm { model, wait } => {
            let message = format!(
                "Rate limit reached for {model} in organization {organisation} on requests per min \
                 (RPM). Please try again in {}. Visit {LIMITS_PAGE} to learn more.",
                format_go(*wait)
            );
            object("requests", None, Some("rate_limit_exceeded"), &message)
        }
        Refusal::Fault { status, error_type, code, message, .. } => {
            let (usual_type, usual_code, usual_message) = usual(*status);
            object(
                error_type.as_deref().unwrap_or(usual_type),
                None,
                code.as_deref().or(usual_code),
                message.as_deref().unwrap_or(usual_message),
            )
        }
    };
    json!({"error": error})
}

/// The object inside.
pub(super) fn object(kind: &str, param: Option<&str>, code: Option<&str>, message: &str) -> Value {
    json!({"message": message, "type": kind, "param": param, "code": code})
}

fn limited(denied: &Denied, model: &str, organisation: &str) -> Value {
    let Denied { limit, used, requested, .. } = denied;
    let kind = match denied.dimension.unit() {
        Unit::Requests | Unit::Slots => "requests",
        Unit::TotalTokens | Unit::InputTokens | Unit::OutputTokens => "tokens",
    };
    let on = match denied.dimension {
        Dimension::RequestsPerMinute => "requests per min (RPM)",
        Dimension::TokensPerMinute => "tokens per min (TPM)",
        Dimension::InputTokensPerMinute => "input tokens per min (ITPM)",
        Dimension::OutputTokensPerMinute => "output tokens per min (OTPM)",
        Dimension::RequestsPerDay => "requests per day (RPD)",
        Dimension::TokensPerDay => "tokens per day (TPD)",
        Dimension::ConcurrentRequests => "concurrent requests",
    };
    let message = if denied.too_large {
        format!(
            "Request too large for {model} in organization {organisation} on {on}: Limit {limit}, \
             Requested {requested}. The input or output tokens must be reduced in order to run \
             successfully. Visit {LIMITS_PAGE} to learn more."
        )
    } else {
        let again = denied.wait.map_or_else(
            || "Please try again later.".to_owned(),
            |wait| format!("Please try again in {}.", format_go(wait)),
        );
        format!(
            "Rate limit reached for {model} in organization {organisation} on {on}: Limit {limit}, \
             Used {used}, Requested {requested}. {again} Visit {LIMITS_PAGE} to learn more."
        )
    };
    object(kind, None, Some("rate_limit_exceeded"), &message)
}

/// Type, code and message that a status usually has.
fn usual(status: StatusCode) -> (&'static str, Option<&'static str>, &'static str) {
    match status.as_u16() {
        401 => (INVALID, Some("invalid_api_key"), "Incorrect API key provided."),
        429 => (
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota, please check your plan and billing details. For more \
             information on this error, read the docs: \
             https://platform.openai.com/docs/guides/error-codes/api-errors.",
        ),
        503 => (
            "service_unavailable_error",
            Some("server_is_overloaded"),
            "The engine is currently overloaded, please try again later",
        ),
        400..=499 => (INVALID, None, "The request cannot be served."),
        _ => (
            "server_error",
            None,
            "The server had an error while processing your request. Sorry about that!",
        ),
    }
}
