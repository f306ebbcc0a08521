//! What `build.rs` made of the .proto file. Private: the rest of the crate says what is public.

#![allow(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated code follows its generator's style"
)]

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/weir.v1.rs"));

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}
