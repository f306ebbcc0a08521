//! What a world is like. Every world draws its own options from its seed (swarm testing), so that
//! rare combinations come up without anybody thinking of them.

use std::time::Duration;

use quota::timing::Timing;

use super::random::Random;

/// What a world is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of everything random in it.
    pub seed: u64,
    /// No fault, more demand than budget, and what of the budget is used is held against a target.
    pub steady: bool,
    /// When arrivals begin to be measured, and when they end.
    pub warm_up: Duration,
    /// See `warm_up`.
    pub end: Duration,
    /// How many there are at first.
    pub pods: usize,
    /// What the limits admit, in requests of mean size per second.
    pub capacity: u64,
    /// Demand, in percent of that.
    pub load_percent: u64,
    /// How the provider enforces its limits.
    pub limiter: Limiter,
    /// When a window of the provider ends.
    pub edge: Duration,
    /// What the provider counts.
    pub requests: bool,
    /// See `requests`.
    pub tokens: bool,
    /// Requests in flight at once.
    pub slots: Option<u64>,
    /// Who asks for it.
    pub demand: Demand,
    /// Priority classes and workloads.
    pub classes: Vec<ClassOptions>,
    /// Workloads beside each other, each in one of the classes.
    pub workloads: usize,
    /// Tokens of a usual request, or none: then all are alike.
    pub median_tokens: u64,
    /// How what is reserved compares to what is charged in the end.
    pub estimate: Estimate,
    /// How long a request waits for its turn at most.
    pub patience: (Duration, Duration),
    /// From the head of a request to the end of its answer.
    pub service: (Duration, Duration),
    /// One way between pods and the provider.
    pub trip: (Duration, Duration),
    /// From a debit until the head of the request is written.
    pub connecting: (Duration, Duration),
    /// One way between pods and allocators.
    pub delay: (Duration, Duration),
    /// Pods' clocks run up to so much fast or slow.
    pub drift_ppm: u64,
    /// T1 and what goes with it.
    pub timing: Timing,
    /// What active pods may go on using without an allocator, in percent, and for how long.
    pub floor: (u32, Duration),
    /// Percent of requests whose client leaves while they wait.
    pub leaving_percent: u64,
    /// Percent of requests that cannot be sent after all.
    pub unsent_percent: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// A rule that is broken on purpose.
    pub lie: Option<Lie>,
}

/// How the provider enforces its limits per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limiter {
    /// Refills continuously and holds so many percent of a minute's worth.
    Bucket(u32),
    /// Counts from zero at each edge, and tells when the next one comes.
    Window(Duration),
    /// Counts from zero at each edge, and tells nothing.
    HiddenWindow(Duration),
}

/// How demand is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// All pods alike.
    Even,
    /// The n-th pod asks for an n-th of what the first one does (Zipf).
    Skewed,
    /// One pod has it all.
    OnePod,
    /// Each pod is busy for a while and idle for a while.
    OnOff,
    /// Pods are busy for about 20 s and idle for about 60 s; when busy, the n-th asks for an n-th of
    /// what the first one does (`leases.md` 2.2).
    Popular,
}

/// One priority class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassOptions {
    /// In percent.
    pub min_share: u32,
    /// In percent.
    pub holdback: u32,
}

/// How what is reserved compares to what is charged in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Estimate {
    /// The same.
    Exact,
    /// The provider charges the output cap at admission, and gives back what was not produced.
    Cap,
    /// The provider charges output as it is produced; all of it is reserved.
    Produced,
    /// Some requests are charged more in the end than anybody knew before.
    TooLow,
}

/// How many of each fault happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Streams break; messages on their way are lost.
    pub breaks: u64,
    /// Pods end, and their end is seen.
    pub crashes: u64,
    /// Pods end, and nobody sees it.
    pub losses: u64,
    /// Containers restart: the same pod, another run.
    pub restarts: u64,
    /// Pods join.
    pub joins: u64,
    /// Pods say goodbye.
    pub leaves: u64,
    /// The leader's process ends, and the next one begins.
    pub kills: u64,
    /// The leader is given up for lost, and goes on for a while.
    pub silences: u64,
    /// The policy changes.
    pub edits: u64,
}

/// A rule that is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Rule 8: local levels start full.
    FullLevels,
}

// === impl Options ===

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Options {
        let mut random = Random::new(seed);
        let steady = random.percent(2);
        let mut options = Options::base(seed, &mut random);
        options.draw_limits(&mut random, steady);
        options.draw_traffic(&mut random);
        options.draw_network(&mut random);
        if steady {
            options.make_steady(&mut random);
        } else {
            options.draw_faults(&mut random);
        }
        options
    }

    /// A world of so many pods that is always overloaded and in which nothing goes wrong.
    pub fn steady(seed: u64) -> Options {
        let mut random = Random::new(seed);
        let mut options = Options::base(seed, &mut random);
        options.draw_limits(&mut random, true);
        options.draw_traffic(&mut random);
        options.draw_network(&mut random);
        options.make_steady(&mut random);
        options
    }

    /// The scenario of `leases.md` 2.2: requests of LLM sizes on a limit of tokens that holds a tenth
    /// of a minute, from pods that come and go; a request waits 5 s at most.
    pub fn scenario(seed: u64, pods: usize, load_percent: u64) -> Options {
        let mut random = Random::new(seed);
        Options {
            end: Duration::from_secs(600),
            pods,
            capacity: 7,
            load_percent,
            limiter: Limiter::Bucket(10),
            requests: false,
            tokens: true,
            demand: Demand::Popular,
            classes: vec![ClassOptions { min_share: 2, holdback: 0 }],
            median_tokens: 1_500,
            patience: (millis(5_000), millis(5_000)),
            service: (millis(500), millis(8_000)),
            drift_ppm: 50,
            ..Options::base(seed, &mut random)
        }
    }

    fn base(seed: u64, random: &mut Random) -> Options {
        let pods = match random.range(0, 49) {
            0 => 100,
            _ => usize::try_from(random.range(1, 12)).expect("a dozen"),
        };
        let load_percent = random.pick(&[30, 60, 90, 110, 150, 200, 300, 500, 1_000]);
        let arrivals = random.range(10, 40);
        Options {
            seed,
            steady: false,
            warm_up: millis(0),
            end: millis(random.range(5_000, 20_000)),
            pods,
            capacity: (arrivals * 100 / load_percent).max(1),
            load_percent,
            limiter: Limiter::Bucket(100),
            edge: random.duration(Duration::ZERO, Duration::from_secs(60)),
            requests: true,
            tokens: false,
            slots: None,
            demand: random.pick(&[Demand::Even, Demand::Skewed, Demand::OnePod, Demand::OnOff]),
            classes: Vec::new(),
            workloads: 1,
            median_tokens: 0,
            estimate: Estimate::Exact,
            patience: (millis(500), millis(4_000)),
            service: (millis(20), millis(200)),
            trip: (millis(1), millis(3)),
            connecting: (millis(0), millis(2)),
            delay: (millis(1), millis(2)),
            drift_ppm: random.pick(&[0, 50, 500]),
            timing: Timing::default(),
            floor: (20, Duration::from_secs(3_600)),
            leaving_percent: 0,
            unsent_percent: 0,
            faults: Faults::default(),
            lie: None,
        }
    }

    fn draw_limits(&mut self, random: &mut Random, steady: bool) {
        // A short window is mostly guard; what is used of it is no figure.
        let length = if steady { 60 } else { random.pick(&[10, 20, 60]) };
        let length = Duration::from_secs(length);
        self.limiter = match random.range(0, 4) {
            0..=1 => Limiter::Bucket(random.pick(&[5, 10, 100])),
            2..=3 => Limiter::Window(length),
            _ => Limiter::HiddenWindow(length),
        };
        self.tokens = random.percent(50);
        self.requests = !self.tokens || random.percent(30);
        if self.tokens {
            self.median_tokens = random.pick(&[100, 1_500]);
            self.estimate = random.pick(&[
                Estimate::Exact,
                Estimate::Cap,
                Estimate::Cap,
                Estimate::Produced,
                Estimate::TooLow,
            ]);
        }
        if random.percent(20) {
            self.slots = Some(random.range(4, 40));
        }
    }

    fn draw_traffic(&mut self, random: &mut Random) {
        let classes = random.range(1, 3);
        let class = |_| ClassOptions {
            min_share: random.pick(&[0, 2, 10]),
            holdback: random.pick(&[0, 5, 20]),
        };
        self.classes = (0..classes).map(class).collect();
        self.workloads = usize::try_from(random.range(1, 3)).expect("three");
        let longest = random.pick(&[1_000, 4_000, 10_000]);
        self.patience = (millis(longest / 4), millis(longest));
        let service = random.pick(&[50, 400, 5_000]);
        self.service = (millis(service / 5), millis(service));
        self.leaving_percent = random.pick(&[0, 0, 10]);
        self.unsent_percent = random.pick(&[0, 0, 3]);
    }

    fn draw_network(&mut self, random: &mut Random) {
        let delay = random.pick(&[200, 2_000, 20_000, 50_000]);
        self.delay = (Duration::from_micros(delay / 2), Duration::from_micros(delay));
        let trip = random.pick(&[500, 5_000, 20_000]);
        self.trip = (Duration::from_micros(trip), Duration::from_micros(trip * 2));
        self.connecting = (millis(0), millis(random.pick(&[0, 5, 40, 300])));
    }

    /// More demand than budget all the time, and nothing else that costs any of it.
    fn make_steady(&mut self, random: &mut Random) {
        self.steady = true;
        // As many that what lies in pods at an edge, a part of a request in each, is below a percent.
        self.capacity = 20;
        self.load_percent = random.pick(&[150, 200, 300]);
        self.demand = random.pick(&[Demand::Even, Demand::Skewed, Demand::OnePod]);
        // Of two limits that bind alike neither can be used up; what is held back dies at an edge.
        self.requests = !self.tokens;
        self.classes.iter_mut().for_each(|class| class.holdback = class.holdback.min(5));
        self.slots = None;
        // The guard that long ways need is no small part of a window.
        self.connecting.1 = self.connecting.1.min(millis(40));
        self.estimate = Estimate::Exact;
        self.unsent_percent = 0;
        self.patience = (millis(4_000), millis(8_000));
        // A bucket is empty by then. A window is measured from edge to edge; one of unknown edges from
        // the first, because whoever is ahead of the pace once makes up for it later.
        self.warm_up = Duration::from_secs(20);
        match &mut self.limiter {
            Limiter::Bucket(burst_percent) => {
                *burst_percent = random.pick(&[5, 10]);
                self.end = self.warm_up + Duration::from_secs(40);
            }
            Limiter::Window(length) => self.end = self.warm_up + *length,
            Limiter::HiddenWindow(length) => {
                self.warm_up = Duration::ZERO;
                self.end = *length * 2;
            }
        }
        self.edge = self.warm_up;
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let ttl = Duration::from_secs(random.pick(&[4, 10, 60]));
        self.timing = Timing { lease_ttl: ttl, ..Timing::default() };
        self.floor = random.pick(&[
            (0, Duration::ZERO),
            (20, Duration::from_secs(8)),
            (20, Duration::from_secs(3_600)),
        ]);
        let mut some = |most: u64| if random.percent(25) { random.range(1, most) } else { 0 };
        self.faults = Faults {
            breaks: some(6),
            crashes: some(3),
            losses: some(2),
            restarts: some(3),
            joins: some(3),
            leaves: some(3),
            kills: some(3),
            silences: some(1),
            edits: some(3),
        };
    }

    /// True if the provider cannot be charged more than was reserved, nor later: every 429 is ours.
    pub fn is_exact(&self) -> bool {
        matches!(self.estimate, Estimate::Exact | Estimate::Cap)
    }

    /// What of the budget must be used while demand exceeds it all the time, in percent.
    pub fn target_percent(&self) -> u64 {
        match self.limiter {
            Limiter::HiddenWindow(_) => 97,
            _ if self.tokens => 98,
            _ => 99,
        }
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
