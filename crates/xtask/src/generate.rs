//! `gen`: files that are generated from the sources and committed. Tests of the crates that they come
//! from hold them to it, and `cargo xtask test` those that need helm.

use anyhow::Context;

use crate::chart;
use crate::workspace::Workspace;

/// Where the custom resource definitions are, plain and as templates of the chart.
const DEFINITIONS: [&str; 2] = ["manifests/crds", "charts/weir/templates/crds"];

/// Writes them anew; true if all went well.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--package=crds", "--example=definitions", "--"]);
    let status = cargo.args(DEFINITIONS).status().context("cargo cannot be started")?;
    if !status.success() {
        return Ok(false);
    }
    for folder in DEFINITIONS {
        println!("{folder}: written");
    }
    chart::generate(workspace)?;
    Ok(true)
}
