//! The parts of a cluster that is ours: they can be killed, frozen, and started again.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// A part by its name, for example `kube-apiserver` or `kubelet`.
#[derive(Clone, Copy, Debug)]
pub struct Part(pub &'static str);

/// Where the first process of a cluster of ours listens, as its own processes see it.
const SOCKET: &str = "/run/weir/control.sock";

// === impl Part ===

impl Part {
    /// Whether there are parts to lay hands on; a cluster of `WEIR_TEST_CLUSTER=existing` has none.
    pub fn are_ours() -> bool {
        UnixStream::connect(SOCKET).is_ok()
    }

    /// Kills it.
    pub fn stop(self) {
        ask(&format!("stop {}", self.0));
    }

    /// Starts it again.
    pub fn start(self) {
        ask(&format!("start {}", self.0));
    }

    /// Stops it in the middle of whatever it does; it notices nothing.
    pub fn freeze(self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(self) {
        self.signal("-CONT");
    }

    fn signal(self, signal: &str) {
        let status = ask("status");
        let mut lines = status.lines().filter_map(|line| line.split_once("\truns as "));
        let number = lines.find_map(|(name, number)| (name == self.0).then_some(number));
        let number = number.unwrap_or_else(|| panic!("{} does not run:\n{status}", self.0));
        let done = Command::new("kill").args([signal, number]).status();
        assert!(done.is_ok_and(|it| it.success()), "{} cannot be signalled", self.0);
    }
}

/// The protocol of `crates/xtask/src/cluster/control.rs`: a line there, a text back.
fn ask(request: &str) -> String {
    let mut stream = UnixStream::connect(SOCKET).expect("the cluster is ours");
    stream.write_all(format!("{request}\n").as_bytes()).expect("it listens");
    stream.shutdown(Shutdown::Write).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(!answer.starts_with("error: "), "{request}: {answer}");
    answer
}
