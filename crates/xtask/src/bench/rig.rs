//! All that is measured, on loopback: the emulated provider with prepared answers, HAProxy and a
//! sidecar in front of it, and the sidecar's allocator.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::bench::client::{self, Client, get};
use crate::bench::process::{self, Process};

/// Everything runs. It ends when it is dropped.
pub(super) struct Rig {
    pub(super) emulator: Process,
    pub(super) haproxy: Process,
    pub(super) allocator: Process,
    pub(super) sidecar: Sidecar,
    /// Where the emulator serves.
    pub(super) provider: SocketAddr,
    /// Where HAProxy serves.
    pub(super) proxy: SocketAddr,
    program: PathBuf,
    leases: SocketAddr,
    folder: PathBuf,
}

/// A sidecar that runs.
pub(super) struct Sidecar {
    pub(super) process: Process,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// One thread, kept-alive connections on both sides, each of them reused for everybody, and events
/// that leave as they come (without `http-no-delay` they wait for more): as lean as HAProxy can be for
/// this work.
const HAPROXY: &str = "\
global
    nbthread 1
    maxconn 256

defaults
    mode http
    option http-keep-alive
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend application
    bind {proxy}
    default_backend provider

backend provider
    server emulator {provider}
";

/// Limits on requests and on tokens, as most accounts have them, so high that a lease always fits.
const POLICY: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  protocol: OpenAI
  endpoint: http://{provider}
  limits:
  - name: all
    models: ["*"]
    requestsPerMinute: 60000000
    tokensPerMinute: 60000000000
---
apiVersion: weir.dev/v1alpha1
kind: LLMPriorityClass
metadata: {name: normal}
spec: {value: 0, globalDefault: true}
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {namespace: bench, name: everything}
spec:
  selector: {}
  budgets: [{provider: openai}]
"#;

// === impl Rig ===

impl Rig {
    /// Starts everything, from the executables in `programs`, with files in `folder`, which is
    /// emptied.
    pub(super) fn start(programs: &Path, folder: &Path) -> anyhow::Result<Rig> {
        let _ = fs::remove_dir_all(folder);
        let policy = folder.join("policy");
        fs::create_dir_all(&policy).with_context(|| policy.display().to_string())?;
        let [provider, emulator_admin, proxy, leases, allocator_admin] = free()?;
        let fill = |template: &str| {
            let text = template.replace("{provider}", &provider.to_string());
            text.replace("{proxy}", &proxy.to_string())
        };
        let configuration = folder.join("haproxy.cfg");
        fs::write(&configuration, fill(HAPROXY))?;
        fs::write(policy.join("policy.yaml"), fill(POLICY))?;

        let mut command = Command::new(programs.join("weir"));
        command.args(["emulator", "--prepared", "--listen", &provider.to_string()]);
        command.args(["--admin", &emulator_admin.to_string()]);
        let mut emulator = Process::start("emulator", command, folder)?;
        emulator.until(|| Client::connect(provider).ok())?;

        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&configuration);
        let mut haproxy = Process::start("haproxy", command, folder)?;
        haproxy.until(|| Client::connect(proxy).ok())?;

        let mut command = Command::new(programs.join("weir-allocator"));
        command.arg("--policy").arg(&policy).arg("--state").arg(folder.join("state"));
        command.args(["--listen", &leases.to_string(), "--admin", &allocator_admin.to_string()]);
        command.arg("--insecure-plaintext");
        let mut allocator = Process::start("allocator", command, folder)?;
        allocator.until(|| client::answers(allocator_admin, &get("/ready")))?;

        let program = programs.join("weir-sidecar");
        let mut sidecar = Sidecar::start(&program, "bench", leases, folder)?;
        sidecar.process.until(|| client::answers(sidecar.admin, &get("/ready")))?;
        let folder = folder.to_owned();
        Ok(Rig { emulator, haproxy, allocator, sidecar, provider, proxy, program, leases, folder })
    }

    /// Starts one more sidecar, and does not wait.
    pub(super) fn start_sidecar(&self, pod: &str) -> anyhow::Result<Sidecar> {
        Sidecar::start(&self.program, pod, self.leases, &self.folder)
    }

    /// The CPU time that the command and all its processes have used.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let processes = [&self.emulator, &self.haproxy, &self.allocator, &self.sidecar.process];
        let sum: anyhow::Result<Duration> = processes.into_iter().map(Process::cpu).sum();
        Ok(sum? + process::cpu("self")?)
    }
}

// === impl Sidecar ===

impl Sidecar {
    fn start(
        program: &Path,
        pod: &str,
        leases: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Sidecar> {
        let [listen, admin] = free()?;
        let mut command = Command::new(program);
        command.args(["--allocator", &format!("http://{leases}"), "--namespace", "bench"]);
        command.args([
            "--pod",
            pod,
            "--listen",
            &listen.to_string(),
            "--admin",
            &admin.to_string(),
        ]);
        Ok(Sidecar { process: Process::start(pod, command, folder)?, listen, admin })
    }

    /// How many requests it has admitted: from its lease, and otherwise.
    pub(super) fn admissions(&self) -> anyhow::Result<(u64, u64)> {
        let mut client = Client::connect(self.admin)?;
        let page = client.ask(&get("/metrics"))?.body;
        let page = String::from_utf8_lossy(page);
        let (mut leased, mut others) = (0, 0);
        for line in page.lines().filter(|line| line.starts_with("weir_sidecar_admissions_total{")) {
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            let count = count.with_context(|| format!("no count: {line}"))?;
            if line.contains("source=\"lease\"") { leased += count } else { others += count }
        }
        Ok((leased, others))
    }
}

/// Addresses on 127.0.0.1 that nobody listens on.
pub(super) fn free<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    // All are held until the last one is known, so that no two are the same.
    let mut held = Vec::new();
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}
