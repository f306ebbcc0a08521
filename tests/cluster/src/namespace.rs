//! A namespace for one test.

use std::time::Duration;

use crate::kubectl::Kubectl;
use crate::wait;

/// Removed with everything in it when it is dropped, if it was made here; nobody waits for that.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    made: bool,
}

/// One of that name may be on its way out, with pods in it that take their time.
const REMOVED: Duration = Duration::from_secs(120);

/// The controllers make the account within milliseconds.
const ACCOUNT: Duration = Duration::from_secs(60);

// === impl Namespace ===

impl Namespace {
    /// Makes it, unless it is there, and waits until pods may be made in it.
    pub fn new(name: &str) -> Namespace {
        let make = Kubectl::new(&["create", "namespace", name]);
        let phase = Kubectl::new(&["get", "namespace", name, "--output=jsonpath={.status.phase}"]);
        let made = wait::within(REMOVED, "the namespace can be made", || {
            let there = || phase.attempt().is_some_and(|phase| phase == "Active");
            if there() { Some(false) } else { make.attempt().map(|_| true) }
        });
        let account = Kubectl::new(&["--namespace", name, "get", "serviceaccount", "default"]);
        wait::within(ACCOUNT, "there is a default service account", || account.attempt());
        Namespace { name: name.to_owned(), made }
    }

    /// `kubectl --namespace NAME` with these arguments.
    pub fn kubectl(&self, arguments: &[&str]) -> Kubectl {
        Kubectl::new(&[&["--namespace", self.name.as_str()], arguments].concat())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.made {
            // The cluster may be what is broken; the test has said so.
            let _gone =
                Kubectl::new(&["delete", "namespace", &self.name, "--wait=false"]).attempt();
        }
    }
}
