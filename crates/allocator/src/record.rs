//! The record in the state directory: its figures and its form (JSON, numbered).
//!
//! It holds what `leases.md` 3.6 lists, and no secret. Where it is kept is [`crate::state`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use quota::budget::{Budget, BudgetId};
use quota::ledger::StockMark;
use quota::message::{Epoch, PodId};
use quota::time::Time;
use quota::timing::Timing;
use quota::units::{Amount, Rate};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// What must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    form: u64,
    epoch: u64,
    /// The process that leads, for the message to one that waits.
    leader: u32,
    /// Which run of the machine wrote this: processes of an earlier one have all ended.
    machine: String,
    /// Pods that may hold something.
    pods: BTreeMap<PodId, Run>,
    /// Until when, on the clock of the machine's boot, pods may hold something that are not named here;
    /// 0 if there are none.
    unknown_until_nanos: u64,
    /// The most that floors were promised together since no pod could hold one, per budget.
    floors_micros: BTreeMap<String, u64>,
    /// The longest time they were promised for.
    floor_ttl_nanos: u64,
    stocks: Stocks,
}

/// One run of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Drawn at its start.
    pub(crate) boot: u64,
    /// Its process; `None` if it is not known, so that only silence ends it.
    pub(crate) process: Option<Process>,
}

/// Why a text is no record.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It has a form that this version does not know.
    Newer(u64),
    /// It is damaged.
    Broken(serde_json::Error),
}

/// What of the day's stocks may have been granted.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Stocks {
    /// Days since the Unix epoch, UTC.
    day: u64,
    /// The memory of this day is lost: all of it counts as granted.
    is_lost: bool,
    marks_micros: BTreeMap<String, u64>,
}

/// Only the number of the form, which every form has.
#[derive(Deserialize)]
struct Numbered {
    form: u64,
}

/// The form of this version.
const FORM: u64 = 1;

/// Drawn by the kernel at each start of the machine. Absent outside Linux; then every run is the same,
/// and pods are waited for that have ended with the machine.
const MACHINE_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

// === impl Run ===

impl Run {
    /// Of a pod that a watch has told of: it may hold something, and has not said which run it is.
    pub(crate) const UNKNOWN: Run = Run { boot: 0, process: None };
}

// === impl Record ===

impl Record {
    pub(crate) fn from_json(text: &[u8]) -> Result<Record, Unreadable> {
        let Numbered { form } = serde_json::from_slice(text).map_err(Unreadable::Broken)?;
        if form != FORM {
            return Err(Unreadable::Newer(form));
        }
        serde_json::from_slice(text).map_err(Unreadable::Broken)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("text keys and integers make JSON")
    }

    /// This process leads from `now` on.
    pub(crate) fn begin_epoch(&mut self, now: Time) {
        self.epoch = self.epoch.saturating_add(1);
        self.leader = std::process::id();
        let machine = fs::read_to_string(MACHINE_BOOT_ID).unwrap_or_default().trim().to_owned();
        if machine != self.machine {
            self.pods.clear();
            self.unknown_until_nanos = 0;
            self.machine = machine;
        }
        if now.as_nanos() >= self.unknown_until_nanos {
            self.unknown_until_nanos = 0;
        }
        self.pods.retain(|_, run| run.process.is_none_or(Process::is_alive));
        self.forget_floors();
    }

    /// Replicas of a cluster lead from `now` on, wherever they run: clocks of machines and processes mean
    /// nothing here, so pods that the record does not name are waited for anew.
    pub(crate) fn begin_epoch_in_cluster(&mut self, now: Time) {
        self.epoch = self.epoch.saturating_add(1);
        self.pods.clear();
        if self.has_unknown() {
            let timing = Timing::default();
            let held = timing.charged(self.floor_ttl().max(timing.lease_ttl));
            self.unknown_until_nanos = (now + held).as_nanos();
        }
    }

    /// What other replicas can use: pods are known from a watch, and times of one machine are not told.
    pub(crate) fn shared(&self) -> Record {
        Record {
            leader: 0,
            machine: String::new(),
            pods: BTreeMap::new(),
            unknown_until_nanos: u64::from(self.has_unknown()),
            ..self.clone()
        }
    }

    /// Another leader of that epoch has been seen: takes one above.
    pub(crate) fn raise_epoch_above(&mut self, seen: Epoch) -> bool {
        self.epoch = self.epoch.max(seen.0).saturating_add(1);
        true
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    // --- pods ---

    pub(crate) fn pods(&self) -> impl Iterator<Item = (&PodId, &Run)> {
        self.pods.iter()
    }

    pub(crate) fn roster(&self) -> BTreeSet<PodId> {
        self.pods.keys().cloned().collect()
    }

    pub(crate) fn run(&self, pod: &PodId) -> Option<Run> {
        self.pods.get(pod).copied()
    }

    pub(crate) fn add_pod(&mut self, pod: &PodId, run: Run) -> bool {
        self.pods.insert(pod.clone(), run) != Some(run)
    }

    pub(crate) fn remove_pod(&mut self, pod: &PodId) -> bool {
        let removed = self.pods.remove(pod).is_some();
        self.forget_floors();
        removed
    }

    /// Pods that are not named here may hold something until then.
    pub(crate) fn set_unknown_until(&mut self, until: Time) -> bool {
        self.unknown_until_nanos = until.as_nanos();
        true
    }

    /// What unnamed pods may have held has ended.
    pub(crate) fn end_unknown(&mut self, now: Time) -> bool {
        let has_ended = self.has_unknown() && now.as_nanos() >= self.unknown_until_nanos;
        if has_ended {
            self.unknown_until_nanos = 0;
            self.forget_floors();
        }
        has_ended
    }

    /// The same without what may be behind on record: a stock's marks bound what is granted by themselves.
    pub(crate) fn without_marks(&self) -> Record {
        Record { stocks: Stocks::default(), ..self.clone() }
    }

    /// True if pods that are not named here may hold something.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown_until_nanos > 0
    }

    // --- floors ---

    pub(crate) fn floors(&self) -> BTreeMap<BudgetId, Rate> {
        let floors = self.floors_micros.iter();
        floors.map(|(id, micros)| (BudgetId::from_wire(id), Rate::from_micros(*micros))).collect()
    }

    pub(crate) fn floor_ttl(&self) -> Duration {
        Duration::from_nanos(self.floor_ttl_nanos)
    }

    /// Floors of this budget may be promised.
    pub(crate) fn promise_floors(&mut self, budget: &Budget) -> bool {
        let floors = budget.rate().scale(u64::from(budget.floor_percent), 100).micros();
        if floors == 0 {
            return false;
        }
        let ttl = u64::try_from(budget.floor_duration.as_nanos()).unwrap_or(u64::MAX);
        let before = (self.floors_micros.get(budget.id.as_str()).copied(), self.floor_ttl_nanos);
        let after = (before.0.unwrap_or(0).max(floors), before.1.max(ttl));
        self.floors_micros.insert(budget.id.to_string(), after.0);
        self.floor_ttl_nanos = after.1;
        before != (Some(after.0), after.1)
    }

    /// Where no pod can hold a floor, none is promised.
    fn forget_floors(&mut self) {
        if self.pods.is_empty() && !self.has_unknown() {
            self.floors_micros.clear();
            self.floor_ttl_nanos = 0;
        }
    }

    // --- stocks ---

    /// The day whose stocks are on record.
    pub(crate) fn day(&self) -> u64 {
        self.stocks.day
    }

    /// Moves on to a day, if it is later than the one on record: marks of earlier ones are void.
    pub(crate) fn begin_day(&mut self, day: u64) -> bool {
        let is_later = day > self.stocks.day;
        if is_later {
            self.stocks = Stocks { day, ..Stocks::default() };
        }
        is_later
    }

    /// What this day's stocks were used for is not known: nothing of them is granted until tomorrow.
    pub(crate) fn lose_stocks(&mut self, day: u64) -> bool {
        self.stocks = Stocks { day, is_lost: true, ..Stocks::default() };
        true
    }

    /// What of this stock, which holds `amount` a day, may have been granted today.
    pub(crate) fn stock_mark(&self, budget: &BudgetId, amount: Amount) -> StockMark {
        let marked = self.stocks.marks_micros.get(budget.as_str());
        let granted = match marked {
            _ if self.stocks.is_lost => amount,
            Some(micros) => Amount::from_micros(*micros),
            None => Amount::ZERO,
        };
        StockMark { budget: budget.clone(), granted }
    }

    pub(crate) fn mark_stock(&mut self, mark: &StockMark) -> bool {
        let (id, micros) = (mark.budget.to_string(), mark.granted.micros());
        self.stocks.marks_micros.insert(id, micros) != Some(micros)
    }
}

impl Default for Record {
    /// Of a directory in which there has been no allocator.
    fn default() -> Record {
        Record {
            form: FORM,
            epoch: 0,
            leader: 0,
            machine: String::new(),
            pods: BTreeMap::new(),
            unknown_until_nanos: 0,
            floors_micros: BTreeMap::new(),
            floor_ttl_nanos: 0,
            stocks: Stocks::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use quota::budget::Shape;
    use quota::dimension::Dimension;

    use super::*;

    fn budget(dimension: Dimension, figure: u64) -> Budget {
        Budget::new(BudgetId::new("openai", "gpt", dimension), dimension, figure, Shape::default())
    }

    #[test]
    fn a_record_survives_its_json() {
        let mut record = Record::default();
        record.begin_epoch(Time::ZERO);
        let run = Run { boot: u64::MAX, process: Process::find(std::process::id()) };
        assert!(record.add_pod(&"shop/chat".into(), run));
        assert!(record.promise_floors(&budget(Dimension::RequestsPerMinute, 600)));
        let mark = StockMark {
            budget: BudgetId::from_wire("openai/gpt/tokensPerDay"),
            granted: Amount::from_units(7),
        };
        assert!(record.begin_day(20_000) && record.mark_stock(&mark));
        let read = Record::from_json(&record.to_json()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.stock_mark(&mark.budget, Amount::from_units(100)), mark);
    }

    #[test]
    fn a_pod_whose_process_has_ended_is_not_on_the_roster_of_the_next_epoch() {
        let me = Process::find(std::process::id()).unwrap();
        let mut record = Record::default();
        record.begin_epoch(Time::ZERO);
        let dead: Process =
            serde_json::from_str(&format!(r#"{{"pid":{},"start_ticks":1}}"#, me.pid)).unwrap();
        for (pod, process) in [("alive", Some(me)), ("dead", Some(dead)), ("silent", None)] {
            record.add_pod(&pod.into(), Run { boot: 1, process });
        }
        record.begin_epoch(Time::ZERO);
        assert_eq!(record.roster(), BTreeSet::from(["alive".into(), "silent".into()]));
    }

    #[test]
    fn floors_only_rise_until_no_pod_can_hold_one() {
        let pod: PodId = "shop/chat".into();
        let mut record = Record::default();
        record.add_pod(&pod, Run { boot: 1, process: None });
        let figure = |figure| budget(Dimension::RequestsPerMinute, figure);
        assert!(record.promise_floors(&figure(600)));
        assert!(!record.promise_floors(&figure(300)));
        // 600 a minute are 10 a second; 20 % of that.
        let floors = record.floors();
        assert_eq!(floors.values().copied().collect::<Vec<_>>(), [Rate::from_micros(2_000_000)]);
        assert_eq!(record.floor_ttl(), Duration::from_secs(3_600));
        record.remove_pod(&pod);
        assert!(record.floors().is_empty() && record.floor_ttl().is_zero());
    }

    #[test]
    fn floors_of_pods_that_are_not_named_are_kept_until_their_time_has_passed() {
        let later = Time::from_millis(9_000);
        let mut record = Record::default();
        record.begin_epoch(Time::ZERO);
        record.set_unknown_until(later);
        record.promise_floors(&budget(Dimension::RequestsPerMinute, 600));
        record.begin_epoch(Time::from_millis(8_999));
        assert!(record.has_unknown() && !record.floors().is_empty());
        record.begin_epoch(later);
        assert!(!record.has_unknown() && record.floors().is_empty());
    }

    #[test]
    fn a_new_day_voids_marks_and_an_earlier_one_changes_nothing() {
        let stock = budget(Dimension::RequestsPerDay, 100);
        let all = Amount::from_units(100);
        let mut record = Record::default();
        record.begin_day(10);
        record.mark_stock(&StockMark { budget: stock.id.clone(), granted: Amount::from_units(5) });
        assert!(!record.begin_day(9));
        assert_eq!(record.stock_mark(&stock.id, all).granted, Amount::from_units(5));
        record.lose_stocks(10);
        assert_eq!(record.stock_mark(&stock.id, all).granted, all);
        assert!(record.begin_day(11));
        assert_eq!(record.stock_mark(&stock.id, all).granted, Amount::ZERO);
    }
}
