//! Weir's custom resources (`weir.dev/v1alpha1`): their structs and schemas, what they must satisfy,
//! and the policy that they compile to.
//!
//! The path of a text: [`directory::read`] -> schema -> structs -> [`validate`] ->
//! [`compile::compile`] -> `quota::policy::Policy`. In a cluster the API server does the first two
//! steps by the definitions of [`definitions`], and the admission webhook calls
//! [`validate`].
//!
//! Not in this crate: a Kubernetes client, files, clocks. A field is in a schema only when it is
//! enforced.

pub mod compile;
pub mod definitions;
pub mod directory;
pub mod duration;
pub mod endpoint;
pub mod figure;
mod metadata;
pub mod path;
#[allow(unreachable_pub, reason = "KubeSchema derives from a private copy of each pub struct")]
#[allow(clippy::duplicated_attributes, reason = "two printer columns may be of one type")]
pub mod priority_class;
pub mod problem;
#[allow(unreachable_pub, reason = "KubeSchema derives from a private copy of each pub struct")]
#[allow(clippy::duplicated_attributes, reason = "two printer columns may be of one type")]
pub mod provider;
#[allow(unreachable_pub, reason = "KubeSchema derives from a private copy of each pub struct")]
#[allow(clippy::duplicated_attributes, reason = "two printer columns may be of one type")]
pub mod quota;
mod review;
mod schema;
pub mod secret;
#[allow(unreachable_pub, reason = "KubeSchema derives from a private copy of each pub struct")]
pub mod status;
pub mod validate;
mod yaml;

#[cfg(test)]
mod tests;
