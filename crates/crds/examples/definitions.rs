//! Writes the definitions of all kinds into a folder: `cargo xtask gen` runs it.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder =
        env::args_os().nth(1).map_or_else(|| PathBuf::from("manifests/crds"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    for (name, text) in crds::definitions::files() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
