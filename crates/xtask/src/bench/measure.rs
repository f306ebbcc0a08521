//! The measurement itself: the same requests each way, in turns.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bench::client::{Client, now};
use crate::bench::machine;
use crate::bench::process::{Process, pause};
use crate::bench::rig::Rig;
use crate::bench::tell;

/// All figures of a run.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) rounds: u32,
    pub(super) requests: u32,
    pub(super) series: BTreeMap<(Kind, Way), Series>,
    /// Answers per second that the emulator gives when it does nothing else.
    pub(super) capacity: BTreeMap<Kind, f64>,
    /// The part of the sidecar's requests that went from its lease, without a draw.
    pub(super) leased_share: f64,
    /// How many cores others kept busy meanwhile, per core of the machine.
    pub(super) foreign_load: f64,
}

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    Direct,
    Haproxy,
    Sidecar,
}

/// What is asked for, and which time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// An answer of about 1 KB of JSON; the time to its last byte.
    Whole,
    /// A stream of 64 events; the time to the first byte of its body. The first event comes by itself.
    Stream,
}

/// One kind of request on one way.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The times in microseconds, by round.
    pub(super) rounds: Vec<Vec<f64>>,
    /// What the proxy on the way used of the CPU.
    pub(super) cpu: Duration,
    /// How long the turns were, all together.
    pub(super) elapsed: Duration,
    /// Bytes of one body.
    pub(super) bytes: usize,
}

/// What happened in the rounds, apart from times.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Requests that the sidecar admitted from its lease ...
    leased: u64,
    /// ... and others.
    drawn: u64,
    /// Time of cores, of everybody.
    busy: Duration,
    /// Time of cores, of this command and its processes.
    own: Duration,
    elapsed: Duration,
}

/// Clients of all ways, which keep their connections.
struct Clients(BTreeMap<Way, Client>);

/// Streams in one turn, as a part of the whole answers: each takes 2 ms, for its pause.
const STREAMS_PART: u32 = 3;

/// Enough connections to keep one core of the emulator busy while the client has another. With
/// streams, which pause, it could do more than that.
const FLOOD_CONNECTIONS: usize = 16;
const FLOOD_TIME: Duration = Duration::from_secs(2);

/// A lease is a part of the demand that was seen, which falls by half in 30 s. A flood before the
/// first round, and again after this time, makes one that covers all that the rounds ask for; before
/// the first it also is the warm-up.
const FLOOD_INTERVAL: Duration = Duration::from_secs(20);

/// The level that the flood has used up fills in a second.
const FLOOD_REST: Duration = Duration::from_millis(1_500);

/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The headers of OpenAI's Python SDK: what a proxy has to read and to forward.
const HEADERS: &str = "\
host: 127.0.0.1\r\n\
accept-encoding: gzip, deflate\r\n\
connection: keep-alive\r\n\
accept: application/json\r\n\
content-type: application/json\r\n\
user-agent: OpenAI/Python 1.109.1\r\n\
x-stainless-lang: python\r\n\
x-stainless-package-version: 1.109.1\r\n\
x-stainless-os: Linux\r\n\
x-stainless-arch: x64\r\n\
x-stainless-runtime: CPython\r\n\
x-stainless-runtime-version: 3.12.3\r\n\
authorization: Bearer bench\r\n\
x-stainless-async: false\r\n\
x-stainless-retry-count: 0\r\n\
x-stainless-read-timeout: 600\r\n";

const PROMPT_BYTES: usize = 200;

// === impl Measured ===

impl Measured {
    /// Runs so many rounds, of so many requests for whole answers each way, and fewer streams.
    pub(super) fn run(rig: &Rig, rounds: u32, requests: u32) -> anyhow::Result<Measured> {
        tell("the emulator's own capacity");
        let mut capacity = BTreeMap::new();
        for kind in Kind::ALL {
            capacity.insert(kind, flood(rig.provider, &request(kind, Way::Direct))?);
        }
        let mut clients = Clients::connect(rig)?;
        tell(&format!("warm-up, then {rounds} rounds of {requests} requests"));
        let mut flooded = warm_up(rig)?;
        clients.round(rig, requests, &mut BTreeMap::new())?;
        let (mut series, mut tally, mut told) = (BTreeMap::new(), Tally::default(), now());
        for round in 1..=rounds {
            if flooded.elapsed() > FLOOD_INTERVAL {
                flooded = warm_up(rig)?;
            }
            let before = Tally::read(rig)?;
            let start = now();
            clients.round(rig, requests, &mut series)?;
            let took = start.elapsed();
            tally.add(before, Tally::read(rig)?, took);
            if told.elapsed() >= PROGRESS_INTERVAL {
                told = now();
                tell(&format!("round {round} of {rounds}"));
            }
        }
        let cores = thread::available_parallelism()?.get();
        let foreign = tally.busy.saturating_sub(tally.own);
        Ok(Measured {
            rounds,
            requests,
            series,
            capacity,
            leased_share: tally.leased as f64 / (tally.leased + tally.drawn).max(1) as f64,
            foreign_load: foreign.as_secs_f64() / tally.elapsed.as_secs_f64() / cores as f64,
        })
    }
}

// === impl Tally ===

impl Tally {
    fn read(rig: &Rig) -> anyhow::Result<Tally> {
        let (leased, drawn) = rig.sidecar.admissions()?;
        let (busy, own) = (machine::busy()?, rig.cpu()?);
        Ok(Tally { leased, drawn, busy, own, elapsed: Duration::ZERO })
    }

    fn add(&mut self, before: Tally, after: Tally, took: Duration) {
        self.leased += after.leased - before.leased;
        self.drawn += after.drawn - before.drawn;
        self.busy += after.busy - before.busy;
        self.own += after.own - before.own;
        self.elapsed += took;
    }
}

// === impl Way ===

impl Way {
    pub(super) const ALL: [Way; 3] = [Way::Direct, Way::Haproxy, Way::Sidecar];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Haproxy => "HAProxy",
            Way::Sidecar => "sidecar",
        }
    }

    fn address(self, rig: &Rig) -> SocketAddr {
        match self {
            Way::Direct => rig.provider,
            Way::Haproxy => rig.proxy,
            Way::Sidecar => rig.sidecar.listen,
        }
    }

    fn proxy(self, rig: &Rig) -> Option<&Process> {
        match self {
            Way::Direct => None,
            Way::Haproxy => Some(&rig.haproxy),
            Way::Sidecar => Some(&rig.sidecar.process),
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Way::Direct | Way::Haproxy => "/v1/chat/completions",
            Way::Sidecar => "/openai/v1/chat/completions",
        }
    }
}

// === impl Kind ===

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Whole, Kind::Stream];

    /// How many of this kind go one way in one turn.
    const fn of(self, requests: u32) -> u32 {
        match self {
            Kind::Whole => requests,
            Kind::Stream => requests / STREAMS_PART,
        }
    }
}

// === impl Clients ===

impl Clients {
    fn connect(rig: &Rig) -> anyhow::Result<Clients> {
        let connect = |way: Way| Ok((way, Client::connect(way.address(rig))?));
        Ok(Clients(Way::ALL.into_iter().map(connect).collect::<anyhow::Result<_>>()?))
    }

    /// Each kind of request each way once.
    fn round(
        &mut self,
        rig: &Rig,
        requests: u32,
        series: &mut BTreeMap<(Kind, Way), Series>,
    ) -> anyhow::Result<()> {
        for kind in Kind::ALL {
            let requests = kind.of(requests);
            for (way, client) in &mut self.0 {
                let series = series.entry((kind, *way)).or_default();
                series.turn(client, &request(kind, *way), kind, requests, way.proxy(rig))?;
            }
        }
        Ok(())
    }
}

// === impl Series ===

impl Series {
    /// One turn: requests one after the other, each as soon as the one before is answered.
    fn turn(
        &mut self,
        client: &mut Client,
        request: &[u8],
        kind: Kind,
        requests: u32,
        proxy: Option<&Process>,
    ) -> anyhow::Result<()> {
        let cpu = || proxy.map_or(Ok(Duration::ZERO), Process::cpu);
        let (start, before) = (now(), cpu()?);
        let mut times = Vec::new();
        for _ in 0..requests {
            let answer = client.ask(request)?;
            self.bytes = answer.body.len();
            let time = match kind {
                Kind::Whole => answer.whole,
                Kind::Stream => answer.first_byte,
            };
            times.push(time.as_secs_f64() * 1e6);
        }
        self.rounds.push(times);
        self.elapsed += start.elapsed();
        self.cpu += cpu()? - before;
        Ok(())
    }
}

/// Exactly what is sent.
pub(super) fn request(kind: Kind, way: Way) -> Vec<u8> {
    let stream = kind == Kind::Stream;
    let prompt = "How are you? ".repeat(PROMPT_BYTES / 13);
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"{prompt}"}}],"model":"gpt-4o-mini","max_tokens":64,"stream":{stream}}}"#
    );
    let (path, length) = (way.path(), body.len());
    format!("POST {path} HTTP/1.1\r\n{HEADERS}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Lets the sidecar have a lease for far more than the rounds ask for; the time when it has one.
fn warm_up(rig: &Rig) -> anyhow::Result<Instant> {
    flood(rig.sidecar.listen, &request(Kind::Whole, Way::Sidecar))?;
    pause(FLOOD_REST);
    Ok(now())
}

/// Answers per second over many connections, each in a closed loop.
fn flood(address: SocketAddr, request: &[u8]) -> anyhow::Result<f64> {
    let start = now();
    let connection = || -> anyhow::Result<u32> {
        let mut client = Client::connect(address)?;
        let mut answers = 0;
        while start.elapsed() < FLOOD_TIME {
            client.ask(request)?;
            answers += 1;
        }
        Ok(answers)
    };
    let answers: anyhow::Result<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..FLOOD_CONNECTIONS).map(|_| scope.spawn(connection)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).sum()
    });
    Ok(f64::from(answers?) / start.elapsed().as_secs_f64())
}
