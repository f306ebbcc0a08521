//! Where the programs under test are: beside the test's own executable, in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// A program of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `weir-allocator`
    Allocator,
    /// `weir-sidecar`
    Sidecar,
    /// `weir`
    Weir,
}

// === impl Program ===

impl Program {
    const ALL: [Program; 3] = [Program::Allocator, Program::Sidecar, Program::Weir];

    /// Its executable. `cargo xtask test` has built all of them; `cargo test` alone builds none, so
    /// what is missing or older than its sources is built now, once.
    pub fn path(self) -> PathBuf {
        static BUILT: Once = Once::new();
        let folder = profile_folder();
        BUILT.call_once(|| {
            if !Program::ALL.iter().all(|program| is_current(&folder.join(program.name()))) {
                build(&folder);
            }
        });
        folder.join(self.name())
    }

    const fn name(self) -> &'static str {
        match self {
            Program::Allocator => "weir-allocator",
            Program::Sidecar => "weir-sidecar",
            Program::Weir => "weir",
        }
    }
}

/// The target directory.
pub(crate) fn target_folder() -> PathBuf {
    profile_folder().parent().expect("a profile's folder is in the target directory").to_owned()
}

/// `<target>/<profile>`: the test is in `deps` in it.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own executable");
    test.ancestors().nth(2).expect("it is in <target>/<profile>/deps").to_owned()
}

/// True if a program is there, and none of its sources, which cargo lists beside it, is newer.
fn is_current(program: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let Some(built) = changed(program) else { return false };
    let sources = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let mut sources = sources.split_whitespace().skip(1);
    sources.all(|source| changed(Path::new(source)).is_some_and(|changed| changed <= built))
}

fn build(folder: &Path) {
    // The folder of the profile `dev` is called `debug`.
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let arguments = ["build", "--bins", "--package=allocator", "--package=sidecar"];
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).args(["--package=weir", "--profile", profile]);
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    let done = status.is_ok_and(|status| status.success());
    assert!(done, "the programs under test are not built, and {cargo:?} cannot build them");
}
