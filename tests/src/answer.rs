//! An HTTP answer that was read to its end.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// Status, headers and body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it came.
    pub body: Bytes,
    /// False if the body was cut.
    pub complete: bool,
}

// === impl Answer ===

impl Answer {
    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// True if it is a whole answer without an error.
    pub fn is_good(&self) -> bool {
        self.status == 200 && self.complete
    }

    /// The same, or a panic that shows it.
    pub fn good(self) -> Answer {
        assert!(self.is_good(), "{} complete: {}: {}", self.status, self.complete, self.text());
        self
    }
}
