//! The processes of a demo: an emulated provider for each run, an allocator, a sidecar for each pod.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::child::{self, Child};
use crate::demo::scenario::Scenario;
use crate::port;

/// All of them. Dropped, they are killed.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// In the order of `Way::ALL`.
    pub(crate) emulators: Vec<Server>,
    pub(crate) sidecars: Vec<Server>,
    allocator: Server,
    allocator_arguments: Vec<OsString>,
    /// Policy, state and logs; removed at the end.
    directory: TempDir,
    /// When windows of the providers begin.
    pub(crate) window_begins: Instant,
}

/// A process that listens.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    /// `None` once it was killed on purpose.
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Until the first window begins: everything must be up and warm by then. Half a second does on an
/// idle machine.
const LEAD: Duration = Duration::from_secs(5);
const LEAD_PER_POD: Duration = Duration::from_millis(100);

// === impl Fleet ===

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(scenario: &Scenario) -> anyhow::Result<Fleet> {
        let directory = tempfile::Builder::new().prefix("weir-demo-").tempdir()?;
        let pods = u32::from(scenario.args.sidecars);
        let lead = LEAD + LEAD_PER_POD * pods;
        let window_begins = Instant::now() + lead;
        let phase = (service::clock::unix_now() + lead).as_millis() % 60_000;
        let config = scenario.emulator(u64::try_from(phase).context("a phase is below a minute")?);
        let config_file = directory.path().join("emulator.json");
        std::fs::write(&config_file, serde_json::to_vec(&config)?)?;
        let emulators = ["emulator-direct", "emulator-static", "emulator-weir"].map(|name| {
            let arguments = ["emulator".into(), "--config".into(), config_file.clone().into()];
            Server::start(name, &arguments, directory.path())
        });
        let emulators = emulators.into_iter().collect::<anyhow::Result<Vec<Server>>>()?;
        let policy = directory.path().join("policy");
        std::fs::create_dir(&policy)?;
        let endpoint = format!("http://{}", emulators[2].address);
        for (name, text) in scenario.policy(&endpoint) {
            std::fs::write(policy.join(name), text)?;
        }
        let allocator_arguments = allocator_arguments(&policy, &directory.path().join("state"));
        let allocator = Server::start("allocator", &allocator_arguments, directory.path())?;
        let sidecars = (0..scenario.pods()).map(|pod| {
            let name = format!("pod-{pod}");
            Server::start(&name, &sidecar_arguments(&name, allocator.address), directory.path())
        });
        let sidecars = sidecars.collect::<anyhow::Result<Vec<Server>>>()?;
        let mut fleet =
            Fleet { emulators, sidecars, allocator, allocator_arguments, directory, window_begins };
        for server in fleet.servers() {
            server.ready().await?;
        }
        Ok(fleet)
    }

    /// Where the allocator serves its page.
    pub(crate) fn page(&self) -> SocketAddr {
        self.allocator.admin
    }

    /// Kills the sidecars of the first `count` pods.
    pub(crate) async fn kill_sidecars(&mut self, count: usize) -> anyhow::Result<()> {
        for sidecar in &mut self.sidecars[..count] {
            sidecar.kill().await?;
        }
        Ok(())
    }

    /// Kills the allocator, and starts it again `pause` later; returns when it is ready.
    pub(crate) async fn restart_allocator(&mut self, pause: Duration) -> anyhow::Result<()> {
        self.allocator.kill().await?;
        sleep(pause).await;
        let Server { name, address, admin, .. } = &self.allocator;
        let arguments = with_addresses(&self.allocator_arguments, *address, *admin);
        let child = Child::start(name, arguments, &log(self.directory.path(), name))?;
        self.allocator.child = Some(child);
        self.allocator.ready().await
    }

    /// An error if a process has ended that should not have.
    pub(crate) fn check(&mut self) -> Result<(), child::Error> {
        self.servers().try_for_each(|server| match &mut server.child {
            Some(child) => child.check(),
            None => Ok(()),
        })
    }

    /// Ends everything, in the order in which it is needed.
    pub(crate) async fn stop(self) {
        let Fleet { emulators, sidecars, allocator, directory, .. } = self;
        for servers in [sidecars, vec![allocator], emulators] {
            // All of them learn of the end before any is waited for.
            let stopping: Vec<_> =
                servers.into_iter().filter_map(|server| server.child).map(Child::stop).collect();
            for child in stopping {
                child.await;
            }
        }
        // What cannot be removed is left to the system's own cleaning.
        let _ = directory.close();
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        let allocator = std::iter::once(&mut self.allocator);
        self.emulators.iter_mut().chain(allocator).chain(&mut self.sidecars)
    }
}

// === impl Server ===

impl Server {
    fn start(name: &str, arguments: &[OsString], directory: &Path) -> anyhow::Result<Server> {
        let (address, admin) = (port::free()?, port::free()?);
        let arguments = with_addresses(arguments, address, admin);
        let child = Child::start(name, arguments, &log(directory, name))?;
        Ok(Server { name: name.to_owned(), child: Some(child), address, admin })
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.ready(self.admin).await?;
        }
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("{} cannot be killed", self.name))?;
        }
        Ok(())
    }
}

fn with_addresses(arguments: &[OsString], listen: SocketAddr, admin: SocketAddr) -> Vec<OsString> {
    let addresses = [format!("--listen={listen}"), format!("--admin={admin}")];
    arguments.iter().cloned().chain(addresses.map(OsString::from)).collect()
}

fn allocator_arguments(policy: &Path, state: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["allocator", "--insecure-plaintext"].map(Into::into).into();
    for (flag, path) in [("--policy", policy), ("--state", state)] {
        arguments.extend([flag.into(), path.into()]);
    }
    arguments
}

fn sidecar_arguments(pod: &str, allocator: SocketAddr) -> Vec<OsString> {
    let allocator = format!("http://{allocator}");
    let arguments = [
        "sidecar",
        "--allocator",
        &allocator,
        "--namespace",
        "demo",
        "--pod",
        pod,
        "--labels",
        "app=demo",
    ];
    arguments.map(Into::into).into()
}

fn log(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}
