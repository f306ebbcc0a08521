//! The encoding of what sidecar and allocator say to each other: generated gRPC code, and checked
//! conversions between it and the types of `quota`.
//!
//! The sidecar uses [`AllocatorClient`], the allocator [`AllocatorServer`] (feature `server`). Both
//! speak in [`FromSidecar`] and [`FromAllocator`]; a message of the other side is converted by
//! `try_from`, which checks every field and bound of `proto/weir/v1/allocator.proto` and never
//! panics. What the messages mean, and what follows from them, is not decided here.

mod bounds;
mod error;
mod from_allocator;
mod from_sidecar;
mod generated;
mod lease;
mod policy;

pub use error::Error;
pub use from_allocator::{FromAllocator, RefusedReason};
pub use from_sidecar::{FromSidecar, Hello};
pub use generated::allocator_client::AllocatorClient;
#[cfg(feature = "server")]
pub use generated::allocator_server::{Allocator, AllocatorServer};
pub use generated::{ToAllocator, ToSidecar};

/// The version of the protocol in this crate. T1 and the rules of `leases.md` 3 are part of it.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest encoded message either side sends or takes. A policy with its keys is the largest, and
/// rarely over 100 KiB; both sides hold one message of each stream in memory.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
