//! `cluster`: a real Kubernetes of one node on this machine, for the tests and to try things out.
//!
//! etcd, API server, controllers, scheduler, kubelet, kube-proxy, containerd and CoreDNS are built
//! once from published Go modules and then run inside namespaces of their own: nothing of the
//! machine is changed, nothing in the cluster reaches a network, and ending one process ends it all.
//! What each part does:
//!
//! * `programs` and `packages` see to it that everything is there that runs;
//! * `state` is the one directory of a cluster, with `certificates` and `configuration` in it;
//! * `up` starts it and waits, `keeper` takes it away however it ends, `inside` is its first process;
//! * `control` asks `inside` to start and stop parts, `suite` runs the tests.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

use self::control::Request;
use self::state::State;

mod certificates;
mod configuration;
mod control;
mod inside;
mod keeper;
mod packages;
mod part;
pub(crate) mod programs;
mod relay;
mod state;
mod suite;
mod up;
pub(crate) mod wait;

pub(crate) use self::packages::{Need, install, need};
pub(crate) use self::suite::Suite;

/// What `cargo xtask cluster` takes.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Clusters of different names run side by side.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build Kubernetes, etcd, CoreDNS and helm into the cache directory; minutes the first time.
    Build,
    /// Start the cluster and load the images that are built; the last line says KUBECONFIG=...
    Up,
    /// Run a command inside the cluster's network, with KUBECONFIG set.
    Exec {
        /// For example `-- kubectl get pods` or `-- curl 10.244.0.5:7411/metrics`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Load images from docker-archive files; without any, all those in target/images.
    Load { archives: Vec<PathBuf> },
    /// Say what runs.
    Status,
    /// Kill one part, for example kube-apiserver; `start` brings it back.
    Stop { part: String },
    /// Start a part that was stopped.
    Start { part: String },
    /// Remove the cluster with everything in it.
    Down,
    /// Run the tests of tests/cluster; in a cluster of their own unless one of this name is up.
    Test {
        /// Build no images: those in target/images are used.
        #[arg(long)]
        no_images: bool,
        /// For the test program, for example a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The process that removes the cluster when it ends; `up` starts it.
    #[command(hide = true)]
    Keeper { state: PathBuf },
    /// The first process in the cluster's namespaces; the keeper starts it.
    #[command(hide = true)]
    Inside { state: PathBuf },
}

/// Is the keeper of a cluster or its first process, if that is what `args` say: they know all they
/// need, and no cargo is asked from in there. Returns whether they were.
pub(crate) fn serve(args: &Args) -> anyhow::Result<bool> {
    match &args.action {
        Action::Keeper { state } => keeper::run(&State::at(state.clone()))?,
        Action::Inside { state } => inside::run(&State::at(state.clone()))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Does what `args` ask for; true if it went well.
pub(crate) fn run(workspace: &Workspace, args: Args) -> anyhow::Result<bool> {
    let state = State::of(workspace, &args.name)?;
    match args.action {
        Action::Build => {
            need(&Need::FOR_IMAGES)?;
            programs::build(workspace)?;
            crate::images::pause(workspace)?;
        }
        Action::Up => {
            let cluster = up::up(workspace, state)?;
            println!("KUBECONFIG={}", cluster.keep()?.kubeconfig().display());
        }
        Action::Exec { command } => return Err(exec(&state, &command)),
        Action::Load { archives } => up::load(workspace, &state, &archives)?,
        Action::Status => print!("{}", control::ask(&state, &Request::Status)?),
        Action::Stop { part } => print!("{}", control::ask(&state, &Request::Stop(part))?),
        Action::Start { part } => print!("{}", control::ask(&state, &Request::Start(part))?),
        Action::Down => up::down(&state)?,
        Action::Test { no_images, arguments } => {
            return suite::run(workspace, &args.name, !no_images, &arguments);
        }
        // These were done before the workspace was looked at.
        Action::Keeper { .. } | Action::Inside { .. } => {}
    }
    Ok(true)
}

/// Becomes `command`, inside. It returns only if that fails.
fn exec(state: &State, command: &[OsString]) -> anyhow::Error {
    let enter = || -> anyhow::Result<anyhow::Error> {
        ensure!(!command.is_empty(), "there is no command");
        let mut inside = up::command_inside(state)?;
        inside.args(command);
        let error = inside.exec();
        Ok(anyhow::Error::new(error).context("nsenter cannot be started"))
    };
    enter().context("the command cannot be run in the cluster").unwrap_or_else(|error| error)
}
