//! The allocator in a cluster: policy from custom resources, identity from tokens, authority from a
//! Lease.
//!
//! ```text
//!   LLMProvider  LLMPriorityClass  LLMQuota  Secrets        Pods with a sidecar     Lease   own Pods
//!        \_____________|_______________|______/                    |                 |        |
//!                    source                                      pods             term <- kubelet
//!                      |  policy                    labels, ends  |   roster          |  authority
//!                      v                                          v                   v
//!                  ledger task  <---------------------------  leader  <---------  campaign
//! ```
//!
//! Everything is a watch; nothing is asked again and again. What may be granted is decided in
//! `quota::ledger`, as it is on one machine.

pub(crate) mod app;
mod certificates;
mod condition;
pub(crate) mod identity;
mod kubelet;
pub(crate) mod lease;
pub(crate) mod mirror;
mod missing;
pub(crate) mod pods;
mod report;
mod secrets;
pub(crate) mod source;
mod status;
pub(crate) mod term;
mod ticket;
mod vault;
mod watching;
mod webhook;
