//! Readiness: what the process still waits for before it can serve.
//!
//! Each part that must come up holds a [`BlockReady`] and drops it when it is up, so that no path,
//! early return or panic can forget to report. `admin` serves the list as `/ready`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The list of what is pending; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Keeps the process unready until it is dropped.
#[must_use = "dropping it declares the task ready"]
#[derive(Debug)]
pub struct BlockReady {
    task: &'static str,
    readiness: Readiness,
}

// === impl Readiness ===

impl Readiness {
    /// Blocks readiness on `task` until the guard is dropped. Several guards may name one task.
    pub fn block(&self, task: &'static str) -> BlockReady {
        *self.pending.lock().entry(task).or_default() += 1;
        BlockReady { task, readiness: self.clone() }
    }

    /// What is pending, in alphabetical order; empty when ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.lock().keys().copied().collect()
    }

    /// True when nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.pending.lock().is_empty()
    }
}

// === impl BlockReady ===

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut pending = self.readiness.pending.lock();
        if let Some(guards) = pending.get_mut(self.task) {
            *guards -= 1;
            if *guards == 0 {
                pending.remove(self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn a_process_is_ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let policy = readiness.block("policy");
        let listener = readiness.block("listener");
        assert_eq!(readiness.pending(), ["listener", "policy"]);
        drop(policy);
        assert_eq!(readiness.pending(), ["listener"]);
        drop(listener);
        assert!(readiness.is_ready());
    }

    #[test]
    fn two_guards_of_one_task_both_count() {
        let readiness = Readiness::default();
        let first = readiness.block("listener");
        let second = readiness.block("listener");
        drop(first);
        assert!(!readiness.is_ready());
        drop(second);
        assert!(readiness.is_ready());
    }
}
