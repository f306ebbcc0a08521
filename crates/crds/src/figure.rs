//! `Figure`: a number that a limit, a guarantee or a ceiling sets.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of requests, tokens or slots: 1 to [`Figure::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figure(pub u64);

impl Figure {
    /// Far above what any provider sells, and ten times over still an amount in millionths that
    /// fits into 64 bits (a bucket may hold ten minutes' worth).
    pub const MAX: u64 = 1_000_000_000_000;
}

impl JsonSchema for Figure {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Figure".into()
    }

    /// `int64`, because Kubernetes knows no unsigned formats.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "format": "int64",
            "minimum": 1,
            "maximum": Figure::MAX,
        })
    }
}
