//! `weir-allocator` as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::client::Client;
use crate::port;
use crate::process::Process;
use crate::program::Program;

/// One allocator after another on the same addresses, policy and state.
#[derive(Debug)]
pub struct Allocator {
    /// Where sidecars dial.
    pub listen: SocketAddr,
    /// Its policy.
    pub policy: PathBuf,
    admin: SocketAddr,
    folder: PathBuf,
    /// How many were started; each has a log of its own.
    started: u32,
    process: Option<Process>,
}

// === impl Allocator ===

impl Allocator {
    /// One with all its files in `folder`; not started yet.
    pub fn new(folder: &Path) -> Allocator {
        Allocator {
            listen: port::free(),
            policy: folder.join("policy"),
            admin: port::free(),
            folder: folder.to_owned(),
            started: 0,
            process: None,
        }
    }

    /// A second one with the same policy, state and address for sidecars.
    pub fn successor(&self) -> Allocator {
        let (policy, folder) = (self.policy.clone(), self.folder.clone());
        let (listen, admin) = (self.listen, port::free());
        Allocator { listen, policy, admin, folder, started: 100, process: None }
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self) {
        self.started += 1;
        let (policy, state) = (self.policy.clone(), self.folder.join("state"));
        let arguments = [
            "--policy".into(),
            policy.into_os_string(),
            "--state".into(),
            state.into_os_string(),
            "--listen".into(),
            self.listen.to_string().into(),
            "--admin".into(),
            self.admin.to_string().into(),
            "--insecure-plaintext".into(),
        ];
        let name = format!("allocator-{}", self.started);
        self.process = Some(Process::start(Program::Allocator, &name, arguments, &self.folder));
    }

    /// Starts it, and waits until it leads.
    pub async fn start(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Waits until it leads.
    pub async fn ready(&mut self) {
        let admin = self.admin;
        self.process().ready(admin).await;
    }

    /// True if it leads now.
    pub async fn is_ready(&self) -> bool {
        self.client().is_up("/ready").await
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        self.process().kill().await;
    }

    /// Freezes it: its connections stay open, and nothing comes.
    pub fn freeze(&mut self) {
        self.process().freeze();
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.process().thaw();
    }

    /// What it shows of itself.
    pub async fn state(&self) -> Value {
        self.client().get("/state").await.good().json()
    }

    /// A page of its admin listener.
    pub async fn page(&self, path: &str) -> String {
        self.client().get(path).await.good().text()
    }

    /// What it has said since it was started last.
    pub fn log(&mut self) -> String {
        self.process().log()
    }

    fn client(&self) -> Client {
        Client::new(self.admin, "")
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }
}
