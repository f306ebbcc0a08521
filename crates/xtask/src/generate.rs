//! `gen`: files that are generated from the sources and committed. Tests of the crates that they come
//! from hold them to it.

use anyhow::Context;

use crate::workspace::Workspace;

/// Where the custom resource definitions are.
const DEFINITIONS: &str = "manifests/crds";

/// Writes them anew; true if all went well.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--package=crds", "--example=definitions", "--", DEFINITIONS]);
    let status = cargo.status().context("cargo cannot be started")?;
    if status.success() {
        println!("{DEFINITIONS}: written");
    }
    Ok(status.success())
}
