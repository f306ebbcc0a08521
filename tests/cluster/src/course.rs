//! What a provider was charged in the course of time, asked of it without the API server, which may be
//! what is away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::provider::Truth;

/// Asks until it is finished.
#[derive(Debug)]
pub struct Recorder {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

/// What was asked, in order.
#[derive(Clone, Debug)]
pub struct Course(Vec<Sample>);

/// At one instant.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    truth: Truth,
}

/// Fine against the gaps that matter, and nothing that the provider would feel.
const INTERVAL: Duration = Duration::from_millis(50);
/// The provider is on this machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What the provider at `address` says.
pub(crate) fn ask(address: &str) -> Value {
    let mut stream = TcpStream::connect(address).expect("the provider can be reached");
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).expect("it is not zero");
    let request =
        format!("GET /__emu/state HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the provider listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the provider answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("it speaks HTTP");
    serde_json::from_str(body).expect("it tells JSON")
}

// === impl Recorder ===

impl Recorder {
    #[expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
    pub(crate) fn start(address: String) -> Recorder {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let truth = Truth::of(&ask(&address));
                samples.push(Sample { at: Instant::now(), truth });
                thread::sleep(INTERVAL);
            }
            samples
        });
        Recorder { is_over, thread }
    }

    /// What was seen until now.
    pub fn finish(self) -> Course {
        self.is_over.store(true, Ordering::Relaxed);
        Course(self.thread.join().expect("the provider was there all the time"))
    }
}

// === impl Course ===

impl Course {
    /// The part of it between two instants.
    pub fn between(&self, from: Instant, until: Instant) -> Course {
        let part = self.0.iter().filter(|sample| (from..=until).contains(&sample.at));
        Course(part.copied().collect())
    }

    /// All of it together.
    pub fn truth(&self) -> Truth {
        let (first, last) = (self.0.first(), self.0.last());
        last.zip(first).map(|(last, first)| last.truth - first.truth).expect("there is a sample")
    }

    /// What was charged in each span of this length.
    pub fn per(&self, span: Duration) -> Vec<f64> {
        let mut charged = Vec::new();
        let mut before = self.0.first().expect("there is a sample");
        for sample in &self.0 {
            if sample.at >= before.at + span {
                charged.push(sample.truth.settled - before.truth.settled);
                before = sample;
            }
        }
        charged
    }

    /// The longest time without a charge.
    pub fn longest_gap(&self) -> Duration {
        let mut last = self.0.first().expect("there is a sample");
        let mut longest = Duration::ZERO;
        for sample in &self.0 {
            longest = longest.max(sample.at - last.at);
            if sample.truth.settled > last.truth.settled {
                last = sample;
            }
        }
        longest
    }

    /// After what time the first span of this length begins in which so much was charged.
    pub fn reaches(&self, charged: f64, span: Duration) -> Option<Duration> {
        let found = self.0.iter().find(|first| {
            let last = self.0.iter().find(|sample| sample.at >= first.at + span);
            last.is_some_and(|last| last.truth.settled - first.truth.settled >= charged)
        });
        found.zip(self.0.first()).map(|(found, first)| found.at - first.at)
    }
}
