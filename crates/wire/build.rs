//! Generates the messages and both halves of the stream from `proto/`, without `protoc`.

use std::error::Error;

const PROTO: &str = "../../proto/weir/v1/allocator.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["../../proto"])?;
    tonic_prost_build::configure()
        // Maps in a fixed order, so that equal messages have equal bytes.
        .btree_map(".")
        // The generated types are read in the .proto file, not in rustdoc.
        .disable_comments(["."])
        // A key must not show in a `Debug` of any message around it.
        .skip_debug([".weir.v1.Key"])
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(files)?;
    Ok(())
}
