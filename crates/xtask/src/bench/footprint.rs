//! What the sidecar takes without any load: memory, bytes on disk, and the time until it answers.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::bench::client::{self, get, now};
use crate::bench::measure::{Kind, Way, request};
use crate::bench::process::{Memory, pause};
use crate::bench::rig::{Rig, Sidecar};
use crate::bench::stats::quantiles;
use crate::bench::tell;

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Footprint {
    /// Of a sidecar that has its policy, and has served nothing yet.
    pub(super) idle: Memory,
    /// The executable.
    pub(super) binary_bytes: u64,
    /// From just before exec until `/live` was answered.
    pub(super) live: Start,
    /// From just before exec until a request that went through to the provider was answered: the
    /// sidecar has dialled its allocator, got its policy and drawn credit by then.
    pub(super) first_answer: Start,
}

/// The time that a start takes, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Start {
    pub(super) median_ms: f64,
    pub(super) p90_ms: f64,
}

/// By then a sidecar has done all that it does at its start.
const IDLE: Duration = Duration::from_secs(3);

const STARTS: usize = 20;

// === impl Footprint ===

impl Footprint {
    /// Looks at the sidecar of `rig`, which must not have served anything, and starts others.
    pub(super) fn read(rig: &Rig, program: &Path) -> anyhow::Result<Footprint> {
        tell("the sidecar at rest");
        pause(IDLE);
        let idle = rig.sidecar.process.memory()?;
        let binary = fs::metadata(program).with_context(|| program.display().to_string())?;
        tell(&format!("{} starts of a sidecar", 2 * STARTS));
        let live = Start::measure(rig, "live", &get("/live"), |sidecar| sidecar.admin)?;
        let proxied = request(Kind::Whole, Way::Sidecar);
        let first_answer = Start::measure(rig, "first", &proxied, |sidecar| sidecar.listen)?;
        Ok(Footprint { idle, binary_bytes: binary.len(), live, first_answer })
    }
}

// === impl Start ===

impl Start {
    /// Starts sidecars one after the other, and waits for the first answer of each.
    fn measure(
        rig: &Rig,
        name: &str,
        request: &[u8],
        address: fn(&Sidecar) -> SocketAddr,
    ) -> anyhow::Result<Start> {
        let mut times = Vec::new();
        for number in 0..STARTS {
            let start = now();
            let mut sidecar = rig.start_sidecar(&format!("{name}-{number}"))?;
            let address = address(&sidecar);
            sidecar.process.until(|| client::answers(address, request))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let [median_ms, p90_ms] = quantiles(&times, [0.5, 0.9]);
        Ok(Start { median_ms, p90_ms })
    }
}
