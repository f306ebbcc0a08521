//! The admin listener: what a test or a person asks of the emulator, apart from its data path.
//!
//! `GET /__emu/state`, `POST /__emu/config`, `POST` and `DELETE /__emu/fault`, `POST
//! /__emu/reset`, `POST /__emu/clock`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use quota::dimension::Dimension;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::admin::{self, Admin, Answer};
use service::metrics;
use service::readiness::Readiness;

use crate::config::{Config, Headers, Latency, Output, Provider};
use crate::exchange::Emulator;
use crate::fault::Fault;

/// A new figure of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// At which provider; at both if absent.
    #[serde(default)]
    pub provider: Option<Provider>,
    /// Of which account; of all if absent.
    #[serde(default)]
    pub account: Option<String>,
    /// Of which limit.
    pub limit: String,
    /// Which figure, for example `requestsPerMinute`.
    pub dimension: String,
    /// The new figure; of a shorter window, what one window admits.
    pub value: u64,
}

/// What may be changed while the emulator runs; what is absent stays.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reconfigure {
    /// New figures.
    pub limits: Vec<Change>,
    /// The share of every rate that somebody else uses.
    pub external_load_percent: Option<u32>,
    /// Which headers answers carry.
    pub headers: Option<Headers>,
    /// How long answers take.
    pub latency: Option<Latency>,
    /// How long answers are.
    pub output: Option<Output>,
}

/// How far the clock of the limits is set forward.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Advance {
    /// In milliseconds.
    pub advance_ms: u64,
}

// === impl Change ===

impl Change {
    pub(crate) fn dimension(&self) -> Option<Dimension> {
        Dimension::from_name(&self.dimension)
    }
}

/// The admin listener of an emulator.
pub(crate) fn admin(emulator: &Arc<Emulator>) -> Admin {
    let route = |handler: fn(&Emulator, &Method, Bytes) -> Answer| {
        let emulator = Arc::clone(emulator);
        move |ask: admin::Ask| {
            let (head, body) = ask.into_parts();
            std::future::ready(handler(&emulator, &head.method, body))
        }
    };
    let registry = Arc::new(metrics::registry("weir-emulator"));
    let shown = shown(&emulator.config);
    Admin::new(Readiness::default(), registry)
        .config(move || shown.clone())
        .route("/__emu/state", route(state))
        .route("/__emu/config", route(config))
        .route("/__emu/fault", route(fault))
        .route("/__emu/reset", route(reset))
        .route("/__emu/clock", route(clock))
}

/// The configuration with the names of accounts instead of keys.
fn shown(config: &Config) -> String {
    let mut shown = json!(config);
    shown["keys"] = config.keys.values().cloned().collect();
    shown.to_string()
}

fn state(emulator: &Emulator, method: &Method, _body: Bytes) -> Answer {
    if method != Method::GET {
        return wrong_method("GET");
    }
    emulator.change_what_is_due();
    admin::json(StatusCode::OK, json!(emulator.truth.state()).to_string())
}

fn config(emulator: &Emulator, method: &Method, body: Bytes) -> Answer {
    if method != Method::POST {
        return wrong_method("POST");
    }
    let wanted: Reconfigure = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return problem(&error.to_string()),
    };
    if let Some(change) = wanted.limits.iter().find(|change| !emulator.truth.has(change)) {
        return problem(&format!("no limit {} counts {}", change.limit, change.dimension));
    }
    for change in &wanted.limits {
        emulator.truth.change(change);
    }
    if let Some(percent) = wanted.external_load_percent {
        emulator.truth.external_load(percent);
    }
    let mut live = emulator.live.write();
    live.headers = wanted.headers.unwrap_or(live.headers);
    live.latency = wanted.latency.unwrap_or(live.latency);
    live.output = wanted.output.unwrap_or(live.output);
    done()
}

fn fault(emulator: &Emulator, method: &Method, body: Bytes) -> Answer {
    match *method {
        Method::POST => {
            let armed = serde_json::from_slice::<Fault>(&body)
                .map_err(|error| error.to_string())
                .and_then(|fault| emulator.arm(fault).map_err(|error| error.to_string()));
            armed.map_or_else(|error| problem(&error), |()| done())
        }
        Method::DELETE => {
            emulator.faults.lock().clear();
            done()
        }
        _ => wrong_method("POST or DELETE"),
    }
}

fn reset(emulator: &Emulator, method: &Method, _body: Bytes) -> Answer {
    if method != Method::POST {
        return wrong_method("POST");
    }
    emulator.truth.restart();
    done()
}

fn clock(emulator: &Emulator, method: &Method, body: Bytes) -> Answer {
    if method != Method::POST {
        return wrong_method("POST");
    }
    match serde_json::from_slice::<Advance>(&body) {
        Ok(Advance { advance_ms }) => {
            emulator.clock.advance(Duration::from_millis(advance_ms));
            done()
        }
        Err(error) => problem(&error.to_string()),
    }
}

fn done() -> Answer {
    admin::json(StatusCode::OK, "{}")
}

fn problem(what: &str) -> Answer {
    admin::json(StatusCode::BAD_REQUEST, json!({"error": what}).to_string())
}

fn wrong_method(allowed: &str) -> Answer {
    let what = json!({"error": format!("only {allowed}")});
    admin::json(StatusCode::METHOD_NOT_ALLOWED, what.to_string())
}
