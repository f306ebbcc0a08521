//! Everything at once: processes that crash and freeze, a policy that changes, a provider that
//! stumbles, in an order that is drawn anew each time. Whatever it is, the provider never has to
//! refuse a call for want of budget, and when it is over everybody is served again.

use std::time::Duration;

use emulator::config::LimitConfig;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tests::load::Load;
use tests::provider::quick;
use tests::wait;
use tests::world::World;
use tokio::time::{Instant, sleep};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    SidecarCrashes(usize),
    AllocatorCrashes,
    AllocatorFreezes,
    PolicyChanges,
    ProviderStumbles(usize),
}

const PODS: usize = 4;

/// For how long things happen.
const LENGTH: Duration = Duration::from_secs(8);

/// Between two events; a takeover and a second's credit are longer, so that events overlap.
const LONGEST_PAUSE_MS: u64 = 700;

/// Longer than credit may be spent, 1 s.
const FREEZE: Duration = Duration::from_millis(1_200);

#[tokio::test]
async fn whatever_happens_nobody_is_refused_by_the_provider_and_all_are_served_afterwards() {
    let seed: u64 = rand::rng().random();
    let mut dice = SmallRng::seed_from_u64(seed);
    let limit = LimitConfig {
        requests_per_minute: Some(1_200),
        tokens_per_minute: Some(20_000),
        concurrent_requests: Some(10),
        burst_percent: 5,
        ..LimitConfig::default()
    };
    let mut world = World::start(quick(limit), PODS, |_| {}).await;
    let mut loads: Vec<Load> = (0..PODS).map(|pod| load(&world, pod)).collect();
    let (end, mut events) = (Instant::now() + LENGTH, Vec::new());
    while Instant::now() < end {
        let event = Event::draw(&mut dice);
        events.push(event);
        event.happen(&mut world, &mut loads).await;
        sleep(Duration::from_millis(dice.random_range(0..LONGEST_PAUSE_MS))).await;
    }
    let story = format!("seed {seed}: {events:?}");
    let before: Vec<u64> = loads.iter().map(Load::answers).collect();
    wait::until(&format!("all are served after {story}"), async || {
        let answered = |(load, before): (&Load, &u64)| load.answers() >= before + 6;
        loads.iter().zip(&before).all(answered).then_some(())
    })
    .await;
    for load in loads {
        let errors = load.end().await;
        let ours = errors.iter().find(|error| error.contains("Weir"));
        assert_eq!(ours, None, "the queue was long enough; {story}");
    }
    for limit in world.provider.state().await.limits {
        let refused = (limit.refused, limit.peak_over_admission);
        assert_eq!(refused, (0, 0.0), "{story}\n{limit:#?}");
    }
}

/// Loops that ask for more than a pod's part; every second pod streams.
fn load(world: &World, pod: usize) -> Load {
    let client = world.sidecars[pod].client("openai");
    Load::start([client], 6, "/v1/chat/completions", &chat(pod))
}

fn chat(pod: usize) -> Value {
    let question = json!([{"role": "user", "content": "Why do rivers bend?".repeat(1 + pod)}]);
    json!({"model": "gpt-4o", "max_tokens": 20, "stream": pod.is_multiple_of(2), "messages": question})
}

// === impl Event ===

impl Event {
    fn draw(dice: &mut SmallRng) -> Event {
        match dice.random_range(0..8) {
            0 | 1 => Event::SidecarCrashes(dice.random_range(0..PODS)),
            2 => Event::AllocatorCrashes,
            3 | 4 => Event::AllocatorFreezes,
            5 => Event::PolicyChanges,
            _ => Event::ProviderStumbles(dice.random_range(0..3)),
        }
    }

    async fn happen(self, world: &mut World, loads: &mut [Load]) {
        match self {
            Event::SidecarCrashes(pod) => {
                world.sidecars[pod].kill().await;
                world.restart_sidecar(pod).await;
                loads[pod] = load(world, pod);
            }
            Event::AllocatorCrashes => {
                world.allocator.kill().await;
                world.allocator.start().await;
            }
            Event::AllocatorFreezes => {
                world.allocator.freeze();
                sleep(FREEZE).await;
                world.allocator.thaw();
            }
            Event::PolicyChanges => {
                let weight = |policy: &mut tests::policy::Policy| {
                    let weight = &mut policy.quota()["weight"];
                    *weight = (weight.as_u64().unwrap_or(1) + 1).into();
                };
                world.change_policy(weight).await;
            }
            Event::ProviderStumbles(kind) => {
                let kinds = [
                    json!({"cut": {"afterTokens": 3}}),
                    json!({"streamError": {"afterTokens": 3}}),
                    json!({"status": {"status": 500}}),
                ];
                world.provider.arm(json!({"kind": kinds[kind], "count": 3})).await;
            }
        }
    }
}
