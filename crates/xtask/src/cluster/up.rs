//! Bringing a cluster up, step by step with a limit on each, and taking it down.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::control::{self, Request};
use crate::cluster::keeper::{self, Lifeline};
use crate::cluster::packages::{Need, need};
use crate::cluster::part::{self, API_SERVER, CONTAINERD, CONTROLLERS, DNS, ETCD};
use crate::cluster::part::{KUBELET, PROXY, Part, SCHEDULER};
use crate::cluster::programs::{self, execute};
use crate::cluster::state::State;
use crate::cluster::{configuration, wait};
use crate::images;
use crate::workspace::Workspace;

/// A cluster that runs, and that ends with this value unless it is kept.
#[derive(Debug)]
pub(crate) struct Cluster {
    state: State,
    lifeline: Option<Lifeline>,
}

/// Ports for API servers: below those that the kernel gives to connections, inside and outside.
const PORTS: std::ops::Range<u16> = 16443..16543;

/// What takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What takes seconds, on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// Of one look at the API server.
const REQUEST_TIMEOUT: &str = "--request-timeout=10s";

/// Starts a cluster in `state` and waits until it takes pods; what fails leaves nothing behind.
pub(crate) fn up(workspace: &Workspace, state: State) -> anyhow::Result<Cluster> {
    let start = wait::now();
    need(&Need::FOR_CLUSTER)?;
    need(&Need::FOR_IMAGES)?;
    let programs = programs::build(workspace)?;
    let pause = images::pause(workspace)?;
    if state.exists() {
        ensure!(
            control::ask(&state, &Request::Status).is_err(),
            "a cluster of this name is up ({}); `cluster down` removes it",
            state.folder().display()
        );
        down(&state).context("what an earlier cluster left cannot be removed")?;
    }
    let (listener, port) = free_port()?;
    let prepared = state
        .create()
        .and_then(|()| configuration::write(workspace, &state, &programs, port))
        .and_then(|()| keeper::start(&state, listener.into()));
    let lifeline = match prepared {
        Ok(lifeline) => lifeline,
        Err(error) => {
            state.clean()?;
            return Err(error);
        }
    };
    let mut cluster = Cluster { state, lifeline: Some(lifeline) };
    match cluster.start(workspace, &pause) {
        Ok(()) => {
            say("the cluster is up", start);
            Ok(cluster)
        }
        Err(error) => {
            cluster.remove().with_context(|| format!("after this: {error:#}"))?;
            Err(error)
        }
    }
}

/// Removes a cluster, or what is left of one.
pub(crate) fn down(state: &State) -> anyhow::Result<()> {
    if !state.exists() {
        println!("there is no cluster in {}", state.folder().display());
        return Ok(());
    }
    // It may be unable to answer, and it ends without an answer if it is not.
    let asked = control::ask(state, &Request::End);
    let gone = || Ok((!state.exists()).then_some(()));
    if asked.is_ok() && wait::within(SOON, "the cluster ends", gone).is_ok() {
        return Ok(());
    }
    let numbers = fs::read_to_string(state.path(keeper::PROCESSES)).unwrap_or_default();
    for number in numbers.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        if is_of(number, state) {
            // It may end by itself meanwhile.
            let _gone = kill_process(number, Signal::KILL);
        }
    }
    state.clean()
}

/// Loads archives, or all those that `cargo xtask images` has made.
pub(crate) fn load(
    workspace: &Workspace,
    state: &State,
    archives: &[PathBuf],
) -> anyhow::Result<()> {
    let made = if archives.is_empty() { images::made(workspace)? } else { archives.to_vec() };
    ensure!(!made.is_empty(), "there are no images; `cargo xtask images` makes them");
    for archive in &made {
        import(state, archive)?;
    }
    Ok(())
}

/// What enters the cluster's namespaces and runs the arguments that are added to it.
pub(crate) fn command_inside(state: &State) -> anyhow::Result<Command> {
    let number = control::first_process(state)?;
    let folder = std::env::current_dir().context("the current directory")?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &number.to_string(), "--net", "--mount", "--pid", "--", "env"]);
    command.arg(assignment("--chdir", folder.as_os_str()));
    command.arg(assignment("KUBECONFIG", state.kubeconfig().as_os_str()));
    command.arg(assignment("KUBECACHEDIR", state.path("kubectl").as_os_str()));
    command.arg(format!("PATH={}", part::path_inside(&state.path("bin"))));
    Ok(command)
}

fn assignment(name: &str, value: &OsStr) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

fn import(state: &State, archive: &Path) -> anyhow::Result<()> {
    let start = wait::now();
    let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
    let mut ctr = command_inside(state)?;
    ctr.args(["ctr", "--address", "/run/weir/containerd.sock", "--namespace", "k8s.io"]);
    ctr.args(["images", "import"]).arg(&archive).stdout(Stdio::null());
    execute(&mut ctr).with_context(|| format!("{} cannot be loaded", archive.display()))?;
    let name = archive.file_stem().unwrap_or_default().to_string_lossy();
    say(&format!("image {name} is loaded"), start);
    Ok(())
}

/// The process is one of this cluster's, and not one that has its number by now.
fn is_of(number: Pid, state: &State) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", number.as_raw_nonzero())).unwrap_or_default();
    let folder = state.folder().as_os_str().as_encoded_bytes();
    line.split(|&byte| byte == 0).any(|argument| argument == folder)
}

fn free_port() -> anyhow::Result<(TcpListener, u16)> {
    let mut ports = PORTS;
    let bound = ports.find_map(|port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|listener| (listener, port))
    });
    bound.with_context(|| format!("no port is free from {} to {}", PORTS.start, PORTS.end))
}

fn say(what: &str, since: Instant) {
    println!("{what} ({:.1} s)", since.elapsed().as_secs_f64());
}

// === impl Cluster ===

impl Cluster {
    /// Lets it run on after this command.
    pub(crate) fn keep(mut self) -> anyhow::Result<State> {
        if let Some(lifeline) = self.lifeline.take() {
            lifeline.keep()?;
        }
        Ok(self.state)
    }

    /// Ends it, and waits until nothing is left.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        drop(self.lifeline.take());
        wait::within(READY, "the keeper removes the cluster", || {
            Ok((!self.state.exists()).then_some(()))
        })
    }

    fn start(&mut self, workspace: &Workspace, pause: &Path) -> anyhow::Result<()> {
        let start = wait::now();
        self.until("inside", SOON, "the first process answers", |state| {
            control::ask(state, &Request::Status).is_ok()
        })?;
        for part in [&ETCD, &CONTAINERD, &API_SERVER] {
            self.start_part(part)?;
        }
        self.until(API_SERVER.name, READY, "the API server is ready", |state| {
            kubectl(state, &["get", "--raw=/readyz"]).is_some()
        })?;
        say("the API server is ready", start);
        for part in [&CONTROLLERS, &SCHEDULER, &PROXY, &DNS] {
            self.start_part(part)?;
        }
        self.until(CONTAINERD.name, SOON, "containerd answers", |state| {
            state.path("containerd.sock").exists()
        })?;
        import(&self.state, pause)?;
        self.start_part(&KUBELET)?;
        let dns = workspace.root.join("tests/cluster/node/dns.yaml");
        let dns = dns.to_str().context("the workspace's path is no text")?;
        self.until(API_SERVER.name, SOON, "the Service of the DNS is taken", |state| {
            kubectl(state, &["apply", "--filename", dns]).is_some()
        })?;
        self.until(KUBELET.name, READY, "the node is Ready", |state| {
            let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            kubectl(state, &["get", "node", "node1", "--output", path]).as_deref() == Some("True")
        })?;
        self.until(CONTROLLERS.name, READY, "there is a default service account", |state| {
            kubectl(state, &["get", "serviceaccount", "default"]).is_some()
        })?;
        self.until(DNS.name, READY, "CoreDNS is ready", |state| {
            kubectl(state, &["get", "--raw=/api/v1/nodes/http:node1:8181/proxy/ready"]).is_some()
        })?;
        say("the node is Ready", start);
        for archive in images::made(workspace)? {
            import(&self.state, &archive)?;
        }
        Ok(())
    }

    fn start_part(&self, part: &Part) -> anyhow::Result<()> {
        control::ask(&self.state, &Request::Start(part.name.to_owned()))?;
        Ok(())
    }

    /// Waits for `probe`, and says what `part` has logged if that takes too long. A part that has
    /// ended ends the waiting.
    fn until(
        &self,
        part: &str,
        limit: Duration,
        what: &str,
        mut probe: impl FnMut(&State) -> bool,
    ) -> anyhow::Result<()> {
        let mut ended = None;
        let waited = wait::within(limit, what, || {
            if let Ok(status) = control::ask(&self.state, &Request::Status) {
                let mut lines = status.lines().filter_map(|line| line.split_once('\t'));
                ended = lines
                    .find(|(_, does)| !does.starts_with("runs"))
                    .map(|(name, does)| (name.to_owned(), format!("{name} {does}")));
            }
            if let Some((_, how)) = &ended {
                bail!("{how}");
            }
            Ok(probe(&self.state).then_some(()))
        });
        let guilty = ended.as_ref().map_or(part, |(name, _)| name.as_str());
        waited.map_err(|error| anyhow!("{error:#}\n{}", self.state.end_of_log(guilty)))
    }
}

/// What `kubectl` prints, by way of the relay; nothing if it fails.
fn kubectl(state: &State, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(state.path("bin/kubectl"));
    command.arg("--kubeconfig").arg(state.kubeconfig()).arg(REQUEST_TIMEOUT).args(arguments);
    command.env("KUBECACHEDIR", state.path("kubectl")).stderr(Stdio::null());
    let done = command.output().ok().filter(|done| done.status.success())?;
    String::from_utf8(done.stdout).ok()
}
