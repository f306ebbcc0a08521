//! Writes the definitions of all kinds into a folder, and the chart's templates of them into another:
//! `cargo xtask gen` runs it.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let mut folders = env::args_os().skip(1);
    let (Some(plain), Some(chart)) = (folders.next(), folders.next()) else {
        return Err(io::Error::other("usage: definitions FOLDER CHART_FOLDER"));
    };
    write(Path::new(&plain), crds::definitions::files())?;
    write(Path::new(&chart), crds::definitions::templates())
}

fn write(folder: &Path, files: Vec<(String, String)>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
