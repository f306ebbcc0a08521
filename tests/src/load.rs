//! Closed loops: clients that call again as soon as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::Client;

/// Loops that run until [`Load::end`].
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    loops: JoinSet<Vec<String>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: AtomicU64,
    ends: AtomicBool,
}

// === impl Load ===

impl Load {
    /// Starts so many loops for each client, all with the same call.
    pub fn start(
        clients: impl IntoIterator<Item = Client>,
        loops: usize,
        path: &'static str,
        body: &Value,
    ) -> Load {
        let shared = Arc::new(Shared::default());
        let mut running = JoinSet::new();
        for client in clients {
            for _ in 0..loops {
                running.spawn(run(shared.clone(), client.clone(), path, body.clone()));
            }
        }
        Load { shared, loops: running }
    }

    /// Good answers until now.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Lets every loop finish its call; returns what was no good answer.
    pub async fn end(self) -> Vec<String> {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.loops.join_all().await.concat()
    }
}

async fn run(shared: Arc<Shared>, client: Client, path: &str, body: Value) -> Vec<String> {
    let mut errors = Vec::new();
    while !shared.ends.load(Ordering::Relaxed) {
        match client.attempt(path, &body).await {
            Some(answer) if answer.is_good() => {
                shared.answers.fetch_add(1, Ordering::Relaxed);
            }
            Some(answer) => errors.push(format!("{} {}", answer.status, answer.text())),
            None => errors.push("no connection".to_owned()),
        }
    }
    errors
}
