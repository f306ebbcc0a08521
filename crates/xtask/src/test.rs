//! `test`: everything CI runs, cheapest first.
//!
//! A step that fails does not stop the others, so that one run tells everything. Progress and times
//! go to stdout as they happen; the last line is the sum.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::cluster::{Need, Suite, install};
use crate::workspace::Workspace;
use crate::{chart, prove, sdk, tidy};

/// Worlds of the simulator, from a fixed seed, so that a red run is red again. `cargo xtask prove`
/// with another seed looks at something new.
const WORLDS: &str = "3000";

/// The size of the sidecar that we promise, in bytes; it is in every pod.
const SIDECAR_MAX_BYTES: u64 = 8_000_000;

/// The tests on a cluster that a run of everything has no time for.
const LONG: [&str; 3] = ["thirty_pods", "an_outage_of_minutes", "upgrade"];

/// What the names of tests begin with that need a Chromium.
const IN_BROWSER: &str = "in_a_browser";

/// What the tests counted, and a step that failed without a failed test counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

struct Step {
    name: &'static str,
    run: fn(&Workspace) -> anyhow::Result<Tally>,
}

/// In this order: what is quick and most likely to fail comes first.
const STEPS: [Step; 11] = [
    Step { name: "format", run: format },
    Step { name: "tidy", run: tidy },
    Step { name: "clippy", run: clippy },
    Step { name: "documentation", run: documentation },
    Step { name: "SDKs", run: sdks },
    Step { name: "build", run: build },
    Step { name: "tests", run: tests },
    Step { name: "proofs", run: proofs },
    Step { name: "sidecar size", run: sidecar_size },
    Step { name: "cluster", run: cluster },
    Step { name: "chart", run: chart },
];

/// Runs all steps; true if all went well.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let start = now();
    let mut sum = Tally::default();
    let mut failed = Vec::new();
    for (number, step) in (1..).zip(&STEPS) {
        println!("\n=== {number}/{} {}", STEPS.len(), step.name);
        let step_start = now();
        let tally = (step.run)(workspace).unwrap_or_else(|error| {
            println!("{error:#}");
            Tally::FAILED
        });
        sum = sum.plus(tally);
        let outcome = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("=== {} {outcome} after {:.1} s", step.name, since(step_start).as_secs_f64());
        if tally.failed > 0 {
            failed.push(step.name);
        }
    }
    println!("\n{} steps in {:.0} s", STEPS.len(), since(start).as_secs_f64());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(failed.is_empty())
}

fn format(workspace: &Workspace) -> anyhow::Result<Tally> {
    succeeds(workspace.cargo().args(["fmt", "--all", "--check"]))
}

fn tidy(workspace: &Workspace) -> anyhow::Result<Tally> {
    Ok(Tally::of(tidy::run(workspace)?))
}

fn clippy(workspace: &Workspace) -> anyhow::Result<Tally> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    succeeds(workspace.cargo().args(arguments))
}

fn documentation(workspace: &Workspace) -> anyhow::Result<Tally> {
    let arguments = ["doc", "--quiet", "--workspace", "--no-deps", "--lib", "--locked"];
    succeeds(workspace.cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

fn sdks(workspace: &Workspace) -> anyhow::Result<Tally> {
    sdk::install(workspace)?;
    Ok(Tally::default())
}

/// The programs themselves: tests start them as processes, and `cargo test` alone builds only those
/// of packages that have integration tests.
fn build(workspace: &Workspace) -> anyhow::Result<Tally> {
    succeeds(workspace.cargo().args(["build", "--workspace", "--bins", "--locked"]))
}

fn tests(workspace: &Workspace) -> anyhow::Result<Tally> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast", "--locked"]);
    // A snapshot that differs is a failure here, not a new file.
    cargo.env("INSTA_UPDATE", "no");
    if let Err(reason) = install(&[Need::BROWSER]) {
        println!("without the test in a browser: {reason:#}");
        cargo.args(["--", "--skip", IN_BROWSER]);
    }
    count(&mut cargo)
}

/// Runs test programs, and reads what they counted as they say it.
fn count(command: &mut Command) -> anyhow::Result<Tally> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().context("the tests cannot be started")?;
    let stdout = child.stdout.take().expect("it was piped");
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the output of the tests cannot be read")?;
        println!("{line}");
        tally = tally.plus(Tally::of_result_line(&line).unwrap_or_default());
    }
    let succeeded = child.wait().context("the tests cannot be waited for")?.success();
    // A test that does not compile, or that kills its process, is in no line.
    Ok(if succeeded || tally.failed > 0 { tally } else { tally.plus(Tally::FAILED) })
}

fn proofs(workspace: &Workspace) -> anyhow::Result<Tally> {
    println!("cargo xtask prove --seed 1 --worlds {WORLDS}");
    succeeds(prove::command(workspace).args(["--seed", "1", "--worlds", WORLDS]))
}

fn sidecar_size(workspace: &Workspace) -> anyhow::Result<Tally> {
    let arguments = ["build", "--release", "--package=sidecar", "--bin=weir-sidecar", "--locked"];
    let built = succeeds(workspace.cargo().args(arguments))?;
    if built.failed > 0 {
        return Ok(built);
    }
    let file = workspace.target.join("release/weir-sidecar");
    let bytes = fs::metadata(&file).with_context(|| file.display().to_string())?.len();
    println!("weir-sidecar: {bytes} bytes of at most {SIDECAR_MAX_BYTES}");
    Ok(Tally::of(bytes <= SIDECAR_MAX_BYTES))
}

fn chart(workspace: &Workspace) -> anyhow::Result<Tally> {
    Ok(Tally { passed: chart::check(workspace)?, failed: 0 })
}

/// A real Kubernetes, where the machine can run one.
fn cluster(workspace: &Workspace) -> anyhow::Result<Tally> {
    // Cargo leaves out what does not belong to a plain `cargo test`.
    let arguments = ["clippy", "--package=cluster-tests", "--test=cluster", "--locked"];
    let linted = succeeds(workspace.cargo().args(arguments).args(["--", "-D", "warnings"]))?;
    let without = LONG.iter().flat_map(|name| ["--skip", name]).map(OsString::from);
    match Suite::if_possible(workspace, &without.collect::<Vec<_>>())? {
        Ok(mut suite) => {
            println!(
                "without what takes many minutes ({}): cargo xtask cluster test",
                LONG.join(", ")
            );
            let counted = count(suite.command())?;
            suite.finish()?;
            Ok(counted.plus(linted))
        }
        Err(reason) => {
            println!("LEFT OUT: no test ran on a real cluster, because {reason}");
            Ok(linted)
        }
    }
}

/// Runs a command whose success is the whole answer; only its failure counts.
fn succeeds(command: &mut Command) -> anyhow::Result<Tally> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    Ok(Tally::of(status.success()))
}

#[expect(clippy::disallowed_methods, reason = "for progress and for a seed that differs each time")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn since(start: SystemTime) -> Duration {
    now().duration_since(start).unwrap_or_default()
}

// === impl Tally ===

impl Tally {
    const FAILED: Tally = Tally { passed: 0, failed: 1 };

    fn of(succeeded: bool) -> Tally {
        if succeeded { Tally::default() } else { Tally::FAILED }
    }

    /// `test result: ok. 25 passed; 0 failed; ...`, the line at the end of each test program.
    fn of_result_line(line: &str) -> Option<Tally> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |name: &str| {
            let mut parts = counts.split("; ");
            parts.find_map(|part| part.trim().strip_suffix(name)?.trim().parse::<u64>().ok())
        };
        Some(Tally { passed: count(" passed")?, failed: count(" failed")? })
    }

    fn plus(self, other: Tally) -> Tally {
        Tally { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_sum_is_read_from_the_line_that_ends_each_test_program() {
        for (line, expected) in [
            (
                "test result: ok. 25 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
                 finished in 0.11s",
                Some(Tally { passed: 25, failed: 0 }),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; finished in 1s",
                Some(Tally { passed: 3, failed: 2 }),
            ),
            ("test clock::tests::it_goes_on ... ok", None),
            ("a test said: 7 passed; 1 failed", None),
        ] {
            assert_eq!(Tally::of_result_line(line), expected, "{line}");
        }
    }
}
