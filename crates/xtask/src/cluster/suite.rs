//! The tests of `tests/cluster`: their program, and a cluster for it.
//!
//! The program runs inside the cluster's namespaces, so that it reaches Services and pods by their
//! addresses. With `WEIR_TEST_CLUSTER=existing` it runs outside, against the cluster that
//! `KUBECONFIG` names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::cluster::control::{self, Request};
use crate::cluster::packages::{Need, possible};
use crate::cluster::state::State;
use crate::cluster::up::{self, Cluster};
use crate::images::{self, Earlier};
use crate::workspace::{Workspace, output};

/// The test program, ready to run. Its cluster ends with this value, unless it was there before.
#[derive(Debug)]
pub(crate) struct Suite {
    cluster: Option<Cluster>,
    command: Command,
}

/// A line of `cargo test --message-format=json`.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

/// The name of the test program.
const PROGRAM: &str = "cluster";

/// Says which cluster the tests run against.
const VARIABLE: &str = "WEIR_TEST_CLUSTER";

/// The tests that begin with an earlier version, and what tells them where its files are.
const UPGRADES: &str = "upgrade::";
const EARLIER: &str = "WEIR_TEST_EARLIER";

/// One node with two cores: side by side, subjects would measure each other.
const ONE_AT_A_TIME: &str = "--test-threads=1";

/// The cluster's name when `cargo xtask test` runs the tests.
const NAME: &str = "tests";

/// `cluster test`; true if all tests passed.
pub(super) fn run(
    workspace: &Workspace,
    name: &str,
    with_images: bool,
    arguments: &[OsString],
) -> anyhow::Result<bool> {
    let mut suite = Suite::prepare(workspace, name, with_images, arguments)?;
    let status = suite.command().status().context("the tests cannot be started")?;
    suite.finish()?;
    Ok(status.success())
}

// === impl Suite ===

impl Suite {
    /// For `cargo xtask test`; the text says why the machine cannot run it.
    pub(crate) fn if_possible(
        workspace: &Workspace,
        arguments: &[OsString],
    ) -> anyhow::Result<Result<Suite, String>> {
        let needs = [Need::FOR_CLUSTER.as_slice(), &Need::FOR_IMAGES].concat();
        match possible(&needs) {
            Err(reason) if !existing() => Ok(Err(format!("{reason:#}"))),
            _ => Suite::prepare(workspace, NAME, true, arguments).map(Ok),
        }
    }

    fn prepare(
        workspace: &Workspace,
        name: &str,
        with_images: bool,
        arguments: &[OsString],
    ) -> anyhow::Result<Suite> {
        let program = build(workspace)?;
        if existing() {
            ensure!(
                std::env::var_os("KUBECONFIG").is_some(),
                "{VARIABLE}=existing means the cluster of KUBECONFIG, which is not set"
            );
            let mut command = Command::new(program);
            command.arg(ONE_AT_A_TIME).args(arguments);
            return Ok(Suite { cluster: None, command });
        }
        if with_images {
            images::for_tests(workspace)?;
        }
        let upgrades = selects(&program, arguments, UPGRADES)?;
        let earlier = if upgrades { Some(images::earlier(workspace)?) } else { None };
        let state = State::of(workspace, name)?;
        let cluster = if control::ask(&state, &Request::Status).is_ok() {
            println!("the tests run in the cluster {name}, which is up already");
            if with_images {
                up::load(workspace, &state, &[])?;
            }
            None
        } else {
            Some(up::up(workspace, state.clone())?)
        };
        let mut command = up::command_inside(&state)?;
        command.arg(program).arg(ONE_AT_A_TIME).args(arguments);
        if let Some(Earlier { sources, archives }) = earlier {
            up::load(workspace, &state, &archives)?;
            command.env(EARLIER, sources);
        }
        Ok(Suite { cluster, command })
    }

    /// The test program; it takes what every Rust test program does.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Removes the cluster, if it was made for this.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.cluster.map_or(Ok(()), Cluster::remove)
    }
}

fn existing() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| value == "existing")
}

/// Whether a test of this module is among those that `arguments` choose.
fn selects(program: &Path, arguments: &[OsString], module: &str) -> anyhow::Result<bool> {
    let list = output(Command::new(program).arg("--list").args(arguments))?;
    Ok(list.lines().any(|line| line.starts_with(module)))
}

fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package=cluster-tests", "--test", PROGRAM, "--no-run", "--locked"]);
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let text = output(&mut cargo)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut programs = messages.filter_map(|message| {
        let ours = message.target.is_some_and(|target| target.name == PROGRAM);
        message.executable.filter(|_| ours)
    });
    match programs.next() {
        Some(program) => Ok(program),
        None => bail!("cargo built no test program {PROGRAM}"),
    }
}
