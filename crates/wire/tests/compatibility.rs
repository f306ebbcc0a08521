//! Whether this version and the one before understand each other: sidecars and allocators are
//! upgraded one after the other, so for a while each side talks to the other's version.
//!
//! `previous/allocator.proto` is the contract as the previous version had it, byte for byte. It is
//! renewed at each release, by the file of that release: `cp proto/weir/v1/allocator.proto
//! crates/wire/tests/previous/`. Until there is one, it is that of commit 974a3c7, before `Ticket`.
//! What the previous version *did* with messages is shown on a cluster: `tests/cluster/tests/upgrade.rs`.

mod compatibility {
    mod messages;
    mod peers;
    mod schema;
}
