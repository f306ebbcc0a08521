//! What an application notices when a part of it all fails: as little as can be.

use std::time::Duration;

use emulator::config::{LimitConfig, Provider as Which};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::client::Client;
use tests::load::Load;
use tests::policy::replace;
use tests::provider::{Provider, ample, quick};
use tests::wait;
use tests::world::{World, name_of};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const CHAT: &str = "/v1/chat/completions";

fn chat() -> Value {
    let question = json!([{"role": "user", "content": "Why do rivers bend?"}]);
    json!({"model": "gpt-4o", "max_tokens": 20, "messages": question})
}

/// Ten requests a second, of which three seconds' worth may come at once.
fn scarce() -> LimitConfig {
    LimitConfig { requests_per_minute: Some(600), burst_percent: 5, ..LimitConfig::default() }
}

/// As many loops at each sidecar as ask for more than twice of that.
fn overload(world: &World) -> Load {
    let clients = world.sidecars.iter().map(|sidecar| sidecar.client("openai"));
    Load::start(clients, 6, CHAT, &chat())
}

/// Waits until `load` has had so many more good answers.
async fn go_on(load: &Load, answers: u64) {
    let before = load.answers();
    wait::until("calls are answered", async || (load.answers() >= before + answers).then_some(()))
        .await;
}

async fn assert_no_provider_429(world: &World) {
    let limit = world.provider.limit(Which::OpenAi, "requestsPerMinute").await;
    assert_eq!((limit.refused, limit.peak_over_admission), (0, 0.0));
    assert_eq!(world.provider.refusals().await, 0);
}

// --- the allocator ---

#[tokio::test]
async fn a_sidecar_that_starts_without_an_allocator_says_so_until_there_is_one() {
    let mut world = World::without_allocator(quick(ample()), |_| {}).await;
    world.launch_sidecar("pod-0", &["--start-wait", "300ms"]).ready().await;
    let client = world.sidecars[0].client("openai");
    let refused = client.post(CHAT, &chat()).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(refused.header("retry-after-ms"), Some("1000"));
    assert!(refused.json()["error"]["message"].is_string(), "OpenAI's shape: {}", refused.text());
    world.allocator.start().await;
    wait::until("the allocator is found", async || {
        client.post(CHAT, &chat()).await.is_good().then_some(())
    })
    .await;
    assert_eq!(world.provider.state().await.requests, 1);
}

#[tokio::test]
async fn requests_of_a_pod_that_starts_first_wait_for_the_allocator() {
    let mut world = World::without_allocator(quick(ample()), |_| {}).await;
    world.launch_sidecar("pod-0", &[]);
    let client = world.sidecars[0].client("openai");
    wait::until("the sidecar listens", async || {
        tokio::net::TcpStream::connect(world.sidecars[0].address).await.ok()
    })
    .await;
    let (body, allocator) = (chat(), &mut world.allocator);
    let (answer, ()) = tokio::join!(client.post(CHAT, &body), async {
        // The call is on its way before the allocator is.
        sleep(Duration::from_millis(100)).await;
        allocator.start().await;
    });
    answer.good();
}

#[tokio::test]
async fn an_allocator_that_is_killed_and_started_again_is_noticed_by_nobody() {
    let mut world = World::start(quick(scarce()), 2, |_| {}).await;
    let load = overload(&world);
    go_on(&load, 40).await;
    for _ in 0..2 {
        world.allocator.kill().await;
        // Requests that no lease admits pile up meanwhile.
        sleep(Duration::from_secs(1)).await;
        world.allocator.start().await;
        go_on(&load, 40).await;
    }
    assert_eq!(load.end().await, [""; 0]);
    assert_no_provider_429(&world).await;
    wait::until("the third leader is shown", async || {
        (world.allocator.state().await["epoch"] == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_allocator_that_freezes_is_noticed_by_nobody() {
    // Slots too: those of credit that comes too late must not stay taken.
    let limit = LimitConfig { concurrent_requests: Some(4), ..scarce() };
    let mut world = World::start(quick(limit), 2, |_| {}).await;
    let load = overload(&world);
    for frozen in [3_000, 1_200, 1_200] {
        go_on(&load, 20).await;
        world.allocator.freeze();
        sleep(Duration::from_millis(frozen)).await;
        world.allocator.thaw();
    }
    go_on(&load, 40).await;
    assert_eq!(load.end().await, [""; 0]);
    assert_no_provider_429(&world).await;
}

#[tokio::test]
async fn without_an_allocator_active_pods_go_on_and_idle_ones_do_what_their_quota_says() {
    let mut world = World::start(quick(scarce()), 0, |policy| {
        let mut open = policy.quotas[0].clone();
        open["metadata"]["name"] = "open".into();
        open["spec"]["selector"] = json!({"matchLabels": {"loss": "open"}});
        open["spec"]["onAllocatorLoss"] = "Open".into();
        let mut short = policy.quotas[0].clone();
        short["metadata"]["name"] = "short".into();
        short["spec"]["selector"] = json!({"matchLabels": {"loss": "short"}});
        // A request waits for an allocator as long as it may, or as leases run.
        short["spec"]["queue"]["maxWait"] = "7s".into();
        policy.quotas.extend([open, short]);
    })
    .await;
    for (name, labels) in [("active", "loss=floor"), ("idle", "loss=short"), ("open", "loss=open")]
    {
        world.launch_sidecar(name, &["--labels", labels]).ready().await;
    }
    let [active, idle, open] = [0, 1, 2].map(|pod: usize| world.sidecars[pod].client("openai"));
    let load = Load::start([active.clone()], 2, CHAT, &chat());
    go_on(&load, 40).await;
    world.allocator.kill().await;
    // Longer than a lost allocator takes to be counted as such, 5 s.
    let (body, body_too) = (chat(), chat());
    let (refused, answered, ()) = tokio::join!(
        idle.post(CHAT, &body),
        open.post(CHAT, &body_too),
        sleep(Duration::from_secs(6)),
    );
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    answered.good();
    go_on(&load, 10).await;
    assert_eq!(load.end().await, [""; 0]);
    assert_no_provider_429(&world).await;
}

#[tokio::test]
async fn a_second_allocator_waits_for_the_first_and_takes_over_when_it_is_killed() {
    let mut world = World::start(quick(scarce()), 2, |_| {}).await;
    let mut second = world.allocator.successor();
    second.launch();
    wait::until("the second one says that it waits", async || {
        second.log().contains("waiting for its end").then_some(())
    })
    .await;
    let load = overload(&world);
    go_on(&load, 40).await;
    assert!(!second.is_ready().await, "two lead at once");
    world.allocator.kill().await;
    second.ready().await;
    go_on(&load, 40).await;
    assert_eq!(load.end().await, [""; 0]);
    assert_no_provider_429(&world).await;
}

#[tokio::test]
async fn a_stock_is_not_spent_twice_by_an_allocator_that_was_killed() {
    let limit = LimitConfig { requests_per_day: Some(40), ..ample() };
    let mut world = World::start(quick(limit), 1, |_| {}).await;
    let client = world.sidecars[0].client("openai");
    for _ in 0..25 {
        client.post(CHAT, &chat()).await.good();
    }
    world.allocator.kill().await;
    world.allocator.start().await;
    let mut answered = 0;
    let refused = wait::until("the day's budget is used up", async || {
        let answer = client.post(CHAT, &chat()).await;
        answered += u64::from(answer.is_good());
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!((1..=15).contains(&answered), "{answered} after the first 25");
    assert_eq!(refused.header("x-should-retry"), Some("false"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(world.provider.refusals().await, 0);
}

// --- the policy ---

#[tokio::test]
async fn a_policy_that_breaks_is_named_and_the_last_good_one_stays_in_force() {
    let mut world = World::start(quick(ample()), 1, |_| {}).await;
    let client = world.sidecars[0].client("openai");
    client.post(CHAT, &chat()).await.good();
    let generation = world.generation().await;
    let broken =
        world.policy.to_yaml().replace("\"maxRequests\": 200", "\"maxRequests\": \"many\"");
    for (text, names) in [
        (broken.as_str(), ["policy.yaml", "LLMQuota shop/all", "spec.queue.maxRequests"]),
        ("kind: [LLMProvider", ["policy.yaml", "", ""]),
    ] {
        replace(&world.allocator.policy, text);
        let problem = wait::until("the problem is shown", async || {
            let state = world.allocator.state().await;
            let problem = state["policy"]["problems"][0].as_str()?.to_owned();
            names.iter().all(|name| problem.contains(name)).then_some(problem)
        })
        .await;
        assert_eq!(world.generation().await, generation, "{problem}");
        client.post(CHAT, &chat()).await.good();
    }
    world.change_policy(|policy| policy.quota()["perRequest"] = json!({"maxTokens": 10})).await;
    assert_eq!(world.allocator.state().await["policy"]["problems"], json!([]));
    let refused = wait::until("the new policy is in force", async || {
        let answer = client.post(CHAT, &chat()).await;
        (!answer.is_good()).then_some(answer)
    })
    .await;
    assert_eq!(refused.header("x-weir-reason"), Some("too_large"), "{}", refused.text());
}

// --- sidecars ---

#[tokio::test]
async fn what_killed_sidecars_held_is_back_within_a_second() {
    let limit = LimitConfig { concurrent_requests: Some(8), ..ample() };
    let mut world = World::start(quick(limit), 4, |_| {}).await;
    let clients: Vec<Client> =
        world.sidecars.iter().map(|sidecar| sidecar.client("openai")).collect();
    let body = chat();
    join_all(clients.iter().map(|client| client.post(CHAT, &body))).await;
    // Two pods take all slots, and do not let go.
    world.provider.arm(json!({"kind": "hang", "count": 8})).await;
    let held = clients[..2].iter().flat_map(|client| [client; 4]);
    let mut held = std::pin::pin!(join_all(held.map(|client| client.attempt(CHAT, &body))));
    let taken = wait::until("all slots are taken", async || {
        (world.provider.state().await.in_flight == 8).then_some(())
    });
    tokio::select! {
        _ = &mut held => panic!("an answer from a provider that hangs"),
        () = taken => {}
    }
    for sidecar in &mut world.sidecars[..2] {
        sidecar.kill().await;
    }
    let killed = Instant::now();
    let others = clients[2..].iter().flat_map(|client| [client; 4]);
    for answer in join_all(others.map(|client| client.post(CHAT, &body))).await {
        answer.good();
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(3), "eight calls on eight slots took {took:?}");
    wait::until("they are gone", async || (world.pods().await.len() == 2).then_some(())).await;
    assert_eq!(world.provider.refusals().await, 0);
}

#[tokio::test]
async fn half_of_the_sidecars_killed_leaves_the_whole_budget_to_the_others() {
    let mut world = World::start(quick(scarce()), 4, |_| {}).await;
    let clients = |world: &World, pods: std::ops::Range<usize>| -> Vec<Client> {
        world.sidecars[pods].iter().map(|sidecar| sidecar.client("openai")).collect()
    };
    let dying = Load::start(clients(&world, 0..2), 6, CHAT, &chat());
    let living = Load::start(clients(&world, 2..4), 6, CHAT, &chat());
    go_on(&dying, 20).await;
    for sidecar in &mut world.sidecars[..2] {
        sidecar.kill().await;
    }
    drop(dying);
    let killed = Instant::now();
    go_on(&living, 60).await;
    let rate = 60.0 / killed.elapsed().as_secs_f64();
    assert!(rate > 6.0, "{rate} a second of the ten that there are");
    assert_eq!(living.end().await, [""; 0]);
    assert_no_provider_429(&world).await;
}

#[tokio::test]
async fn a_sidecar_in_the_place_of_one_that_crashed_is_taken_and_one_beside_it_is_not() {
    let limit = LimitConfig { concurrent_requests: Some(1), ..ample() };
    let mut world = World::start(quick(limit), 1, |_| {}).await;
    let body = chat();
    // It crashes with the only slot in its hands.
    world.provider.arm(json!({"kind": "hang", "count": 1})).await;
    let client = world.sidecars[0].client("openai");
    tokio::select! {
        answer = client.attempt(CHAT, &body) => panic!("an answer: {answer:?}"),
        () = wait::until("the slot is taken", async || {
            (world.provider.state().await.in_flight == 1).then_some(())
        }) => {}
    }
    world.sidecars[0].kill().await;
    world.launch_sidecar("pod-0", &[]).ready().await;
    world.sidecars[1].client("openai").post(CHAT, &body).await.good();

    world.launch_sidecar("pod-0", &["--start-wait", "300ms"]).ready().await;
    let second = world.sidecars[2].client("openai").post(CHAT, &body).await;
    assert_eq!(second.status, 503, "one name, one process: {}", second.text());
    world.sidecars[1].client("openai").post(CHAT, &body).await.good();
}

// --- the provider ---

#[tokio::test]
async fn a_provider_that_is_down_or_answers_nonsense_is_told_in_its_own_shape() {
    let mut world = World::start(quick(ample()), 1, |_| {}).await;
    let address = world.provider.address;
    let clients = Which::ALL.map(|which| (which, world.sidecars[0].client(name_of(which))));
    world.provider.stop().await;
    for round in ["down", "nonsense"] {
        let nonsense = async {
            let listener = TcpListener::bind(address).await.expect("the port is free again");
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                drop(stream.write_all(b"220 mail.example ESMTP\r\n").await);
            }
        };
        let calls = async {
            for (which, client) in &clients {
                let (path, body) = request(*which);
                let answer = client.post(path, &body).await;
                assert_eq!(answer.status, 502, "{round}: {}", answer.text());
                let error = &answer.json()["error"];
                assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
            }
        };
        if round == "down" {
            calls.await;
        } else {
            tokio::select! {
                () = nonsense => {}
                () = calls => {}
            }
        }
    }
    world.provider = Provider::start_at(address, quick(ample())).await;
    for (which, client) in &clients {
        let (path, body) = request(*which);
        client.post(path, &body).await.good();
    }
    world.settle().await;
    world.end_sidecars().await;
}

fn request(which: Which) -> (&'static str, Value) {
    let mut body = chat();
    match which {
        Which::OpenAi => (CHAT, body),
        Which::Anthropic => {
            body["model"] = "claude-sonnet-4-6".into();
            ("/v1/messages", body)
        }
    }
}

#[tokio::test]
async fn a_storm_of_429s_is_passed_on_with_waits_that_sdks_can_live_with() {
    let world = World::start(quick(ample()), 1, |_| {}).await;
    let hints = ["x-should-retry", "retry-after", "retry-after-ms"];
    let exhausted = json!({"status": 429, "errorType": "insufficient_quota",
        "code": "insufficient_quota", "retryAfter": 7});
    for which in Which::ALL {
        let client = world.sidecars[0].client(name_of(which));
        let (path, body) = request(which);
        for (kind, expected) in [
            (json!({"rateLimit": {"waitMs": 2_000}}), [Some("true"), Some("2"), Some("2000")]),
            (json!({"rateLimit": {"waitMs": 90_000}}), [Some("true"), Some("30"), Some("30000")]),
            (json!({"status": exhausted}), [Some("false"), None, None]),
        ] {
            if which == Which::Anthropic && kind["status"].is_object() {
                // Its own words for it are tested with the adapter.
                continue;
            }
            world.provider.arm(json!({"kind": kind, "count": 3})).await;
            let before = world.provider.state().await.requests;
            for _ in 0..3 {
                let answer = client.post(path, &body).await;
                assert_eq!(answer.status, 429, "{}", answer.text());
                assert_eq!(hints.map(|name| answer.header(name)), expected, "{which:?} {kind}");
                assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
            }
            let sent = world.provider.state().await.requests - before;
            assert_eq!(sent, 3, "{kind}: each is sent once");
        }
        client.post(path, &body).await.good();
    }
    assert_eq!(world.sidecars[0].requests("provider_limited").await, 15);
}
