//! `sdk`: the official SDKs that tests drive, fetched into the target directory.
//!
//! Versions stand in `tests/sdk/`: `requirements.txt` for pip, `package.json` and its lock for npm.
//! Tests find `<target>/sdk/python/bin/python` and `<target>/sdk/node/node_modules`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::workspace::Workspace;

const MANIFESTS: [&str; 3] = ["requirements.txt", "package.json", "package-lock.json"];

/// Installs what `tests/sdk/` names, unless exactly that is installed.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    let wanted = workspace.root.join("tests/sdk");
    let folder = workspace.target.join("sdk");
    let stamp = folder.join("installed");
    let mut manifests = String::new();
    for name in MANIFESTS {
        let file = wanted.join(name);
        manifests += &fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == manifests) {
        println!("the SDKs are there: {}", folder.display());
        return Ok(());
    }
    install_python(&wanted, &folder.join("python"))?;
    install_node(&wanted, &folder.join("node"))?;
    fs::write(&stamp, manifests).with_context(|| stamp.display().to_string())
}

fn install_python(wanted: &Path, folder: &Path) -> anyhow::Result<()> {
    execute(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder),
        "tests of the Python SDKs need python3 with its venv module (on Debian: python3-venv)",
    )?;
    execute(
        Command::new(folder.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(wanted.join("requirements.txt")),
        "the Python SDKs cannot be fetched",
    )
}

fn install_node(wanted: &Path, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(wanted.join(name), folder.join(name))?;
    }
    execute(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(folder),
        "tests of the Node SDKs need node and npm (node 20 or newer)",
    )
}

/// Runs `command`; `need` says what a person lacks if it does not work.
fn execute(command: &mut Command, need: &'static str) -> anyhow::Result<()> {
    println!("{command:?}");
    let status = command.status().context(need)?;
    ensure!(status.success(), "{need} ({status})");
    Ok(())
}
