//! `prove`: the model check and the simulator.

use std::process::Command;

use anyhow::Context;

use crate::workspace::Workspace;

/// Runs the `sim` program with `arguments`; true if it found nothing wrong.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<bool> {
    let status = command(workspace).args(arguments).status().context("cargo cannot be started")?;
    Ok(status.success())
}

/// The `sim` program, built with its own profile: optimised, with every assertion.
pub(crate) fn command(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--profile=sim", "--package=sim", "--bin=sim", "--"]);
    cargo
}
