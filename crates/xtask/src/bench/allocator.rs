//! `bench allocator`: what one allocator on one core does for thousands of sidecars.
//!
//! The allocator is the real one, in directory mode, pinned to one core; the sidecars are simulated in
//! one process on the others, each with a real holder and a connection of its own (`weir-fleet`). How to
//! read the figures is in `docs/benchmarks.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::bench::allocator::fleet::Fleet;
use crate::bench::allocator::report::{Change, Load, Recovery, Report, Rest, Times};
use crate::bench::client::{self, get, now};
use crate::bench::machine::Machine;
use crate::bench::process::{Process, pause};
use crate::bench::rig::free;
use crate::bench::{Output, commit, tell};
use crate::workspace::Workspace;

mod fleet;
mod policy;
mod report;

/// How many there are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Sidecars.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    sidecars: u32,
    /// LLMQuota objects, of which each is for as many of the sidecars.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    quotas: u32,
    /// For how long each load is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,
    /// How both are built; `quick` takes a third of the time, and the result says so.
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// The form of the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Allocator and sidecars, which end when this is dropped.
struct Rig {
    allocator: Process,
    fleet: Fleet,
    program: PathBuf,
    folder: PathBuf,
    addresses: [std::net::SocketAddr; 2],
    core: usize,
    args: Args,
    changes_made: u32,
}

/// Until figures at rest are those of rest.
const SETTLE: Duration = Duration::from_secs(10);
/// Until a load has been seen by everybody.
const WARM_UP: Duration = Duration::from_secs(10);
/// Far above what a change or a takeover takes: what is not there by then is counted as missing.
const PATIENCE: u32 = 120;
/// How often each change of the policy is made.
const CHANGES: u32 = 5;
/// How long is looked at what is admitted after the allocator was killed.
const RECOVERY: u32 = 20;
/// Requests per second that the limit admits.
const BUDGET: u32 = 1_000;

/// Builds what is measured, measures it, prints the result, and keeps it in the target directory.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    // Before the build, which is a load of its own.
    let machine = Machine::read()?;
    build(workspace, &args.profile)?;
    let folder = workspace.target.join("bench/allocator");
    let mut rig = Rig::start(&workspace.target.join(&args.profile), &folder, args)?;
    let report = rig.measure(commit(workspace)?, machine)?;
    drop(rig);
    let json = serde_json::to_string_pretty(&report)?;
    let kept = folder.with_extension("json");
    fs::write(&kept, &json).with_context(|| kept.display().to_string())?;
    match args.output {
        Output::Table => println!("{report}"),
        Output::Json => println!("{json}"),
    }
    Ok(())
}

fn build(workspace: &Workspace, profile: &str) -> anyhow::Result<()> {
    tell(&format!("cargo build --profile={profile} --package=allocator --package=fleet"));
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package=allocator", "--package=fleet"]);
    cargo.args(["--profile", profile]);
    let status = cargo.status().context("cargo cannot be started")?;
    ensure!(status.success(), "the build has failed");
    Ok(())
}

// === impl Rig ===

impl Rig {
    /// Starts both, from the executables in `programs`, with files in `folder`, which is emptied.
    fn start(programs: &Path, folder: &Path, args: &Args) -> anyhow::Result<Rig> {
        let _ = fs::remove_dir_all(folder);
        policy::write(&folder.join("policy"), args.quotas, BUDGET)?;
        raise_file_limit();
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores >= 2, "the allocator has one core to itself, so there must be two");
        let (core, addresses) = (cores - 1, free()?);
        let program = programs.join("weir-allocator");
        tell("starting allocator and sidecars");
        let allocator = start_allocator(&program, folder, addresses, core)?;
        let others = format!("0-{}", core - 1);
        let mut command = Command::new("taskset");
        command.args(["-c", &others]).arg(programs.join("weir-fleet"));
        command.args(["--allocator", &format!("http://{}", addresses[0])]);
        command.args(["--sidecars", &args.sidecars.to_string()]);
        let pods = args.sidecars.div_ceil(args.quotas);
        command.args(["--pods-per-quota", &pods.to_string()]);
        command.args(["--quotas-per-namespace", &policy::QUOTAS_PER_NAMESPACE.to_string()]);
        let fleet = Fleet::start(command)?;
        let (folder, args) = (folder.to_owned(), args.clone());
        Ok(Rig { allocator, fleet, program, folder, addresses, core, args, changes_made: 0 })
    }

    fn measure(&mut self, weir: String, machine: Machine) -> anyhow::Result<Report> {
        let (sidecars, seconds, profile) =
            (self.args.sidecars, self.args.seconds, self.args.profile.clone());
        let alone = self.allocator.memory()?;
        let connected: Times = self.fleet.ask(&format!("welcomed {PATIENCE}"))?;
        tell("at rest");
        pause(SETTLE);
        let rest = self.rest(alone)?;
        let (all, some) = (sidecars, sidecars.div_ceil(self.args.quotas));
        let mut changes = vec![self.changes("one LLMQuota, at rest", policy::quotas, some)?];
        let active = (sidecars / 10).max(1);
        // A tenth of the sidecars ask for half of the budget, then for twice as much as there is; then
        // all of them ask, so seldom that no lease fits them.
        let tenth = f64::from(BUDGET) / f64::from(active);
        let each = f64::from(BUDGET) / f64::from(sidecars);
        let mut loads = Vec::new();
        for (name, active, rate) in [
            ("a tenth of them ask for half of the budget", active, tenth / 2.0),
            ("all of them ask for half of the budget", sidecars, each / 2.0),
            ("all of them ask for 80 % of the budget", sidecars, each * 0.8),
            ("all of them ask for twice the budget", sidecars, each * 2.0),
            ("a tenth of them ask for twice the budget", active, tenth * 2.0),
        ] {
            loads.push(self.load(name, active, rate, seconds)?);
        }
        changes.push(self.changes("one LLMQuota, under the last load", policy::quotas, some)?);
        changes.push(self.changes(
            "the LLMProvider, under the last load",
            policy::provider,
            all,
        )?);
        let recovery = self.recovery()?;
        let memory_after = self.allocator.memory()?;
        let quotas = self.args.quotas;
        let budget = BUDGET;
        Ok(Report {
            weir,
            profile,
            machine,
            sidecars,
            quotas,
            budget,
            connected,
            rest,
            loads,
            changes,
            recovery,
            memory_after,
        })
    }

    /// What the allocator takes while nobody asks for anything.
    fn rest(&mut self, alone: crate::bench::process::Memory) -> anyhow::Result<Rest> {
        let (cpu, start) = (self.allocator.cpu()?, now());
        pause(Duration::from_secs(self.args.seconds.into()));
        let cores = (self.allocator.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        let memory = self.allocator.memory()?;
        let more = memory.resident_bytes.saturating_sub(alone.resident_bytes);
        let per_sidecar_bytes = more / u64::from(self.args.sidecars);
        Ok(Rest { alone, memory, per_sidecar_bytes, cores })
    }

    /// `active` sidecars ask `rate` times a second each.
    fn load(&mut self, name: &str, active: u32, rate: f64, seconds: u32) -> anyhow::Result<Load> {
        tell(name);
        self.fleet.tell(&format!("load {active} {rate}"))?;
        pause(WARM_UP);
        let (cpu, fleet_cpu) = (self.allocator.cpu()?, self.fleet.cpu()?);
        let admissions = self.fleet.ask(&format!("measure {seconds}"))?;
        let cores = |cpu: Duration| cpu.as_secs_f64() / f64::from(seconds);
        let fleet_cores = cores(self.fleet.cpu()? - fleet_cpu);
        let cores = cores(self.allocator.cpu()? - cpu);
        let (name, memory) = (name.to_owned(), self.allocator.memory()?);
        Ok(Load { name, active, rate, admissions, cores, fleet_cores, memory })
    }

    /// Changes one file of the policy again and again, which concerns so many sidecars.
    fn changes(
        &mut self,
        name: &str,
        text: fn(u32, u32) -> (String, String),
        sidecars: u32,
    ) -> anyhow::Result<Change> {
        tell(&format!("changes of the policy: {name}"));
        let mut rounds = Vec::new();
        for _ in 0..CHANGES {
            self.changes_made += 1;
            let (file, text) = text(self.changes_made, BUDGET);
            let next = self.folder.join("next.yaml");
            fs::write(&next, text)?;
            let file = self.folder.join("policy").join(file);
            let (from, to) = (next.display(), file.display());
            rounds.push(self.fleet.ask(&format!("replace {from} {to} {sidecars} {PATIENCE}"))?);
            pause(Duration::from_secs(1));
        }
        Ok(Change { name: name.to_owned(), rounds })
    }

    /// Kills the allocator and starts another at once.
    fn recovery(&mut self) -> anyhow::Result<Recovery> {
        tell("the allocator is killed");
        self.fleet.tell("mark")?;
        self.allocator.kill()?;
        self.allocator = start_allocator(&self.program, &self.folder, self.addresses, self.core)?;
        let welcomed = self.fleet.ask(&format!("welcomed {PATIENCE}"))?;
        let admitted: Vec<u32> = self.fleet.ask(&format!("series {RECOVERY}"))?;
        Ok(Recovery::new(welcomed, admitted, BUDGET))
    }
}

fn start_allocator(
    program: &Path,
    folder: &Path,
    [listen, admin]: [std::net::SocketAddr; 2],
    core: usize,
) -> anyhow::Result<Process> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command.arg("--policy").arg(folder.join("policy")).arg("--state").arg(folder.join("state"));
    command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.arg("--insecure-plaintext");
    let mut allocator = Process::start("allocator", command, folder)
        .context("taskset pins it to a core; on Debian and Ubuntu: apt-get install util-linux")?;
    allocator.until(|| client::answers(admin, &get("/ready")))?;
    Ok(allocator)
}

/// A connection takes a file, in both processes, which inherit this.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the sidecars that are missing will tell.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
