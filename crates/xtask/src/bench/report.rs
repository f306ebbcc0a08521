//! The result of a run: the figures, and whether they may be called a measurement.

use std::fmt;

use serde::Serialize;

use crate::bench::footprint::{Footprint, Start};
use crate::bench::machine::Machine;
use crate::bench::measure::{Kind, Measured, Series, Way};
use crate::bench::process::Memory;
use crate::bench::stats::{Spread, quantiles};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// False if there are objections.
    is_measurement: bool,
    /// Why these figures should not be quoted.
    objections: Vec<String>,
    versions: Versions,
    machine: Machine,
    /// Cores that others kept busy during the rounds, per core of the machine.
    foreign_load: f64,
    rounds: u32,
    requests_per_round: u32,
    rows: Vec<Row>,
    /// The part of the sidecar's requests that went from its lease.
    leased_share: f64,
    footprint: Footprint,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Versions {
    pub(super) weir: String,
    pub(super) haproxy: String,
}

/// One kind of request.
#[derive(Clone, Debug, Serialize)]
struct Row {
    answers: Kind,
    ways: Vec<Figures>,
    /// What the sidecar adds to the median, over what HAProxy adds, by rounds.
    added_ratio: Spread,
    emulator: Emulator,
}

/// One way. Times are in microseconds.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    way: Way,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    /// The same quantiles of each round, less those of the direct way in that round.
    added_p50_us: Spread,
    added_p90_us: Spread,
    added_p99_us: Spread,
    /// What the proxy used of the CPU per request.
    cpu_us: f64,
    /// A body as this way delivers it.
    bytes: usize,
}

/// How far the emulator is from its own limit.
#[derive(Clone, Copy, Debug, Serialize)]
struct Emulator {
    capacity_per_second: f64,
    /// Through the proxy behind which requests followed each other fastest.
    busiest_per_second: f64,
}

/// Load of others per core, before and during the run, above which times are theirs as well.
const MAX_FOREIGN_LOAD: f64 = 0.5;

/// The part of its capacity up to which the emulator counts as a constant.
const MAX_EMULATOR_SHARE: f64 = 0.5;

/// Of the requests that shall go from the lease: a draw takes a round trip, and is another thing.
const MIN_LEASED_SHARE: f64 = 0.999;

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

const MIB: f64 = 1_048_576.0;

// === impl Report ===

impl Report {
    pub(super) fn new(
        versions: Versions,
        machine: Machine,
        footprint: Footprint,
        measured: &Measured,
    ) -> Report {
        let rows: Vec<Row> = Kind::ALL.map(|kind| Row::new(kind, measured)).into();
        let (foreign_load, leased_share) = (measured.foreign_load, measured.leased_share);
        let load = machine.load_before.max(foreign_load);
        let mut objections = Vec::new();
        if load > MAX_FOREIGN_LOAD {
            objections.push(format!(
                "the machine is busy: a load of {load:.2} per core that is not ours, of at most \
                 {MAX_FOREIGN_LOAD}"
            ));
        }
        for row in rows.iter().filter(|row| row.emulator.share() > MAX_EMULATOR_SHARE) {
            let share = row.emulator.share() * 100.0;
            let answers = row.answers.title();
            objections.push(format!("{answers}: the emulator ran at {share:.0} % of its capacity"));
        }
        if leased_share < MIN_LEASED_SHARE {
            let share = leased_share * 100.0;
            objections.push(format!("only {share:.1} % of the requests went from the lease"));
        }
        Report {
            is_measurement: objections.is_empty(),
            objections,
            versions,
            machine,
            foreign_load,
            rounds: measured.rounds,
            requests_per_round: measured.requests,
            rows,
            leased_share,
            footprint,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel, load_before } = &self.machine;
        writeln!(f, "weir {}; {}", self.versions.weir, self.versions.haproxy)?;
        writeln!(f, "{cpu}, {cores} cores, Linux {kernel}; all on loopback")?;
        writeln!(
            f,
            "load per core: {load_before:.2} before the run, {:.2} of others during it",
            self.foreign_load
        )?;
        writeln!(
            f,
            "{} rounds of {} requests each way, one after the other on one connection, and streams; \
             {:.1} % of the sidecar's went from its lease\n",
            self.rounds,
            self.requests_per_round,
            self.leased_share * 100.0
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        write!(f, "{}", self.footprint)?;
        for objection in &self.objections {
            write!(f, "\nNOT A MEASUREMENT: {objection}")?;
        }
        Ok(())
    }
}

// === impl Row ===

impl Row {
    fn new(kind: Kind, measured: &Measured) -> Row {
        let series = |way| &measured.series[&(kind, way)];
        let direct = series(Way::Direct);
        let figures = |way| Figures::new(way, series(way), direct);
        let added = |way| differences(series(way), direct, 0.5);
        let ratios: Vec<f64> = added(Way::Sidecar)
            .into_iter()
            .zip(added(Way::Haproxy))
            .map(|(sidecar, haproxy)| sidecar / haproxy)
            .collect();
        // Straight, one client in a closed loop measures the emulator, and cannot overload it.
        let rates = [Way::Haproxy, Way::Sidecar].map(|way| {
            let series = series(way);
            series.rounds.iter().map(Vec::len).sum::<usize>() as f64 / series.elapsed.as_secs_f64()
        });
        Row {
            answers: kind,
            ways: Way::ALL.map(figures).into(),
            added_ratio: Spread::of(&ratios),
            emulator: Emulator {
                capacity_per_second: measured.capacity[&kind],
                busiest_per_second: rates.into_iter().fold(0.0, f64::max),
            },
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32}{:>8}{:>9}{:>9}{:>26}{:>9}{:>9}{:>8}",
            format!("{}, us", self.answers.title()),
            "p50",
            "p90",
            "p99",
            "added p50 (rounds)",
            "p90",
            "p99",
            "CPU"
        )?;
        for way in &self.ways {
            let Figures { p50_us, p90_us, p99_us, bytes, .. } = way;
            let name = format!("  {} ({bytes} bytes)", way.way.name());
            write!(f, "{name:<32}{p50_us:>8.1}{p90_us:>9.1}{p99_us:>9.1}")?;
            if way.way == Way::Direct {
                writeln!(f)?;
                continue;
            }
            writeln!(
                f,
                "{:>26}{:>9.1}{:>9.1}{:>8.1}",
                way.added_p50_us.to_string(),
                way.added_p90_us.median,
                way.added_p99_us.median,
                way.cpu_us
            )?;
        }
        let share = self.emulator.share() * 100.0;
        let Emulator { capacity_per_second, busiest_per_second } = self.emulator;
        writeln!(
            f,
            "  sidecar / HAProxy: {:.2} ({:.2} to {:.2}) of the added p50",
            self.added_ratio.median, self.added_ratio.p10, self.added_ratio.p90
        )?;
        writeln!(
            f,
            "  emulator: at most {busiest_per_second:.0} a second, {share:.0} % of the \
             {capacity_per_second:.0} that it can"
        )
    }
}

// === impl Figures ===

impl Figures {
    fn new(way: Way, series: &Series, direct: &Series) -> Figures {
        let all: Vec<f64> = series.rounds.concat();
        let [p50_us, p90_us, p99_us] = quantiles(&all, QUANTILES);
        let [added_p50_us, added_p90_us, added_p99_us] =
            QUANTILES.map(|share| Spread::of(&differences(series, direct, share)));
        Figures {
            way,
            p50_us,
            p90_us,
            p99_us,
            added_p50_us,
            added_p90_us,
            added_p99_us,
            cpu_us: series.cpu.as_secs_f64() * 1e6 / all.len() as f64,
            bytes: series.bytes,
        }
    }
}

// === impl Emulator ===

impl Emulator {
    fn share(self) -> f64 {
        self.busiest_per_second / self.capacity_per_second
    }
}

// === impl Kind ===

impl Kind {
    const fn title(self) -> &'static str {
        match self {
            Kind::Whole => "whole answers",
            Kind::Stream => "streams, to the first byte",
        }
    }
}

// === impl Spread ===

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1} to {:.1})", self.median, self.p10, self.p90)
    }
}

// === impl Footprint ===

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { resident_bytes, anonymous_bytes } = self.idle;
        writeln!(
            f,
            "the sidecar alone\n\
             \x20 resident at rest           {:.1} MiB, of which anonymous {:.1} MiB (goal: 10 MiB)\n\
             \x20 executable                 {:.2} MB (goal: 8 MB)\n\
             \x20 exec to a proxied answer   {} (goal: 20 ms)\n\
             \x20 exec to /live              {}",
            resident_bytes as f64 / MIB,
            anonymous_bytes as f64 / MIB,
            self.binary_bytes as f64 / 1e6,
            self.first_answer,
            self.live
        )
    }
}

// === impl Start ===

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms, p90 {:.1} ms", self.median_ms, self.p90_ms)
    }
}

/// By how much a quantile of each round is above that of the direct way in the same round.
fn differences(series: &Series, direct: &Series, share: f64) -> Vec<f64> {
    let of = |round: &Vec<f64>| quantiles(round, [share])[0];
    series.rounds.iter().zip(&direct.rounds).map(|(with, without)| of(with) - of(without)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    /// A run on a machine that is slower in its second round, with `capacity` and loads as given.
    fn report(capacity: f64, load_before: f64, foreign_load: f64) -> Report {
        let mut series = BTreeMap::new();
        for kind in Kind::ALL {
            for (way, added) in Way::ALL.into_iter().zip([0.0, 50.0, 60.0]) {
                let rounds = [100.0, 300.0].map(|base: f64| vec![base + added; 100]).into();
                let elapsed = Duration::from_millis(20);
                let cpu = Duration::from_millis(4);
                series.insert((kind, way), Series { rounds, cpu, elapsed, bytes: 1_000 });
            }
        }
        let capacity = Kind::ALL.map(|kind| (kind, capacity)).into();
        let measured = Measured {
            rounds: 2,
            requests: 100,
            series,
            capacity,
            leased_share: 1.0,
            foreign_load,
        };
        let start = Start { median_ms: 10.0, p90_ms: 12.0 };
        let idle = Memory { resident_bytes: 8 << 20, anonymous_bytes: 1 << 20 };
        let footprint =
            Footprint { idle, binary_bytes: 7_900_000, live: start, first_answer: start };
        let (cpu, kernel) = ("a CPU".to_owned(), "6.1".to_owned());
        let machine = Machine { cpu, cores: 2, kernel, load_before };
        let versions = Versions { weir: "abc".to_owned(), haproxy: "HAProxy 2.6".to_owned() };
        Report::new(versions, machine, footprint, &measured)
    }

    #[test]
    fn what_a_way_adds_is_told_by_rounds_whatever_the_machine_did_between_them() {
        let report = report(1e6, 0.0, 0.0);
        assert!(report.is_measurement);
        let row = &report.rows[0];
        assert_eq!(row.ways[2].added_p50_us, Spread { median: 60.0, p10: 60.0, p90: 60.0 });
        assert_eq!(row.added_ratio.median, 1.2);
        assert_eq!((row.ways[1].p50_us, row.ways[1].p90_us), (150.0, 350.0));
        assert_eq!(row.ways[1].cpu_us, 20.0);
    }

    #[test]
    fn a_busy_machine_or_emulator_makes_no_measurement() {
        // 10,000 requests a second in the rounds.
        for (capacity, load_before, foreign_load, objections) in
            [(21e3, 0.5, 0.5, 0), (19e3, 0.0, 0.0, 2), (1e6, 0.6, 0.0, 1), (1e6, 0.0, 0.6, 1)]
        {
            let report = report(capacity, load_before, foreign_load);
            assert_eq!(report.objections.len(), objections, "{:?}", report.objections);
            assert_eq!(report.is_measurement, objections == 0);
            assert_eq!(report.to_string().matches("NOT A MEASUREMENT").count(), objections);
        }
    }
}
