//! A provider, an allocator and sidecars, together.

use emulator::Config;
use emulator::config::Provider as Which;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::allocator::Allocator;
use crate::policy::Policy;
use crate::provider::Provider;
use crate::sidecar::Sidecar;
use crate::wait;

/// All of it; it ends with this.
#[derive(Debug)]
pub struct World {
    /// The provider.
    pub provider: Provider,
    /// Its allocator.
    pub allocator: Allocator,
    /// The sidecars.
    pub sidecars: Vec<Sidecar>,
    /// The policy that was written last.
    pub policy: Policy,
    /// Logs, policy and state. Dropped last.
    pub folder: TempDir,
}

// === impl World ===

impl World {
    /// Starts a provider with `config` and as many sidecars, under the policy that `change` makes of
    /// the provider's limits; returns when all are ready.
    pub async fn start(config: Config, sidecars: usize, change: impl FnOnce(&mut Policy)) -> World {
        let mut world = World::without_allocator(config, change).await;
        world.allocator.start().await;
        world.add_sidecars(sidecars).await;
        world
    }

    /// The same with neither allocator nor sidecars.
    pub async fn without_allocator(config: Config, change: impl FnOnce(&mut Policy)) -> World {
        let folder = tempfile::tempdir().expect("a directory");
        let provider = Provider::start(config.clone()).await;
        let mut policy = Policy::of(&config, provider.address);
        change(&mut policy);
        let allocator = Allocator::new(folder.path());
        policy.write(&allocator.policy);
        World { provider, allocator, sidecars: Vec::new(), policy, folder }
    }

    /// Starts so many more sidecars, and waits until they are ready.
    pub async fn add_sidecars(&mut self, count: usize) {
        let known = self.sidecars.len();
        for number in known..known + count {
            self.launch_sidecar(&format!("pod-{number}"), &[]);
        }
        for sidecar in &mut self.sidecars[known..] {
            sidecar.ready().await;
        }
    }

    /// Starts one sidecar with further flags, and does not wait.
    pub fn launch_sidecar(&mut self, name: &str, more: &[&str]) -> &mut Sidecar {
        let sidecar = Sidecar::launch(self.folder.path(), self.allocator.listen, name, more);
        self.sidecars.push(sidecar);
        self.sidecars.last_mut().expect("it was just pushed")
    }

    /// Starts a sidecar of the same name in the place of one that has ended, and waits until it is
    /// ready.
    pub async fn restart_sidecar(&mut self, number: usize) {
        let name = format!("pod-{number}");
        let next = Sidecar::launch(self.folder.path(), self.allocator.listen, &name, &[]);
        self.sidecars[number] = next;
        self.sidecars[number].ready().await;
    }

    /// Changes the policy, which must differ then, and waits until the allocator has taken it.
    pub async fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        let before = self.generation().await;
        change(&mut self.policy);
        self.policy.write(&self.allocator.policy);
        wait::until("the policy is in force", async || {
            (self.generation().await > before).then_some(())
        })
        .await;
    }

    /// The generation of the policy in force.
    pub async fn generation(&self) -> u64 {
        let state = self.allocator.state().await;
        state["policy"]["generation"].as_u64().expect("a generation")
    }

    /// Input and output tokens that all sidecars have settled with a provider.
    pub async fn settled(&self, which: Which) -> (u64, u64) {
        let mut sum = (0, 0);
        for sidecar in &self.sidecars {
            let (input, output) = sidecar.tokens(name_of(which)).await;
            sum = (sum.0 + input, sum.1 + output);
        }
        sum
    }

    /// What the allocator counts as used of a provider's budget in the last minute, in whole units.
    pub async fn used(&self, which: Which, dimension: &str) -> f64 {
        let state = self.allocator.state().await;
        let budget = format!("{}/default/{dimension}", name_of(which));
        let used = &state["budgets"][&budget]["used_last_minute"];
        used.as_f64().unwrap_or_else(|| panic!("no budget {budget}: {state:#}"))
    }

    /// Asks all sidecars to end, and waits until the allocator has their last words: nobody holds
    /// anything of any budget then.
    pub async fn end_sidecars(&mut self) {
        // What it shows is up to a second old: what is shown without pods below is newer than this.
        let count = self.sidecars.len();
        wait::until("all are shown", async || (self.pods().await.len() == count).then_some(()))
            .await;
        for sidecar in &mut self.sidecars {
            let status = sidecar.stop().await;
            assert!(status.success(), "{} ended with {status}", sidecar.pod);
        }
        self.sidecars.clear();
        wait::until("nobody holds anything", async || {
            let state = self.allocator.state().await;
            let budgets = state["budgets"].as_object()?;
            let is_free = |budget: &Value| {
                ["leased_per_second", "local_level_caps", "credited", "waiting"]
                    .iter()
                    .all(|figure| budget[figure].as_f64() == Some(0.0))
            };
            let free = state["pods"].as_object()?.is_empty() && budgets.values().all(is_free);
            free.then_some(())
        })
        .await;
    }

    /// The pods that the allocator shows, with what each holds.
    pub async fn pods(&self) -> Map<String, Value> {
        let state = self.allocator.state().await;
        state["pods"].as_object().expect("a map of pods").clone()
    }

    /// Waits until no request is in flight, at the sidecars nor at the provider.
    pub async fn settle(&self) {
        wait::until("nothing is in flight", async || {
            for sidecar in &self.sidecars {
                if sidecar.metrics().await.count("weir_sidecar_in_flight", &[]) > 0 {
                    return None;
                }
            }
            (self.provider.state().await.in_flight == 0).then_some(())
        })
        .await;
    }
}

/// The LLMProvider of one of the two.
pub fn name_of(which: Which) -> &'static str {
    match which {
        Which::OpenAi => "openai",
        Which::Anthropic => "anthropic",
    }
}
