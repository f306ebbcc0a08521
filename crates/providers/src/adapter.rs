//! The one interface behind which a provider's API hides. The sidecar calls it in this order:
//! `operation`, `read`, `reserve` (admission), `edits` and `auth` (towards the provider),
//! `limits_seen`, `classify` and `meter` (the response), `settle` (its end); or `refuse`.

use quota::charge::Charge;
use quota::policy::Secret;

use crate::auth::Auth;
use crate::call::{BadBody, Call};
use crate::estimator::Estimate;
use crate::failure::Failure;
use crate::headers::Headers;
use crate::limit_seen::LimitSeen;
use crate::meter::{Meter, ResponseHead};
use crate::operation::Operation;
use crate::refusal::{Answer, Refusal};
use crate::splice::Splice;
use crate::usage::Usage;

/// What one protocol's API says. Stateless.
pub trait Adapter: Sync {
    /// What a request asks for. `path` is what follows the provider's segment, with or without a
    /// query.
    fn operation(&self, method: &str, path: &str) -> Operation;

    /// Reads from a request's body what is acted on, without building a tree.
    fn read(&self, operation: Operation, body: &[u8]) -> Result<Call, BadBody>;

    /// The change that a body needs before it goes upstream, if any. `body` is the one that `call`
    /// was read from. [`Adapter::meter`] takes for granted that it was made.
    fn edits(&self, call: &Call, body: &[u8]) -> Option<Splice>;

    /// What our ledger takes at admission: never less than the provider will charge, as far as that
    /// can be known (`leases.md` 4.6, `providers.md` 11).
    fn reserve(&self, call: &Call, estimate: Estimate) -> Charge;

    /// What the provider charges in the end (`providers.md` 11). Slots are zero: they come back.
    fn settle(&self, call: &Call, usage: &Usage) -> Charge;

    /// Reads a response as it passes. `estimate` stands in for what the response never says.
    fn meter(&self, call: &Call, estimate: Estimate, head: ResponseHead<'_>) -> Meter;

    /// The figures that the rate-limit headers of a response tell.
    fn limits_seen(&self, headers: &Headers<'_>) -> Vec<LimitSeen>;

    /// What a response of 400 or above means (`providers.md` 10). `body_prefix` is its beginning, as
    /// far as it was read: a few KiB do.
    fn classify(&self, status: u16, headers: &Headers<'_>, body_prefix: &[u8]) -> Failure;

    /// Our own refusal in the provider's shape (`providers.md` 13.1).
    fn refuse(&self, refusal: &Refusal) -> Answer;

    /// How a request presents `key` (`providers.md` 14).
    fn auth(&self, key: &Secret) -> Auth;
}
