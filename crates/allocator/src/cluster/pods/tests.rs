use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;

/// The longest that anything lasts, by the policy.
const HOLD: Duration = Duration::from_secs(3_600);

fn pod(uid: &str, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "chat-0", "uid": uid, "labels": {"app": "chat"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn sidecar(phase: &str, state: Value) -> Value {
    let status = json!({
        "name": SIDECAR_CONTAINER, "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": state,
    });
    json!({"phase": phase, "initContainerStatuses": [status]})
}

fn running() -> Value {
    json!({"running": {}})
}

fn terminated(reason: &str) -> Value {
    json!({"terminated": {"exitCode": 0, "reason": reason}})
}

fn id(uid: &str) -> PodId {
    format!("shop/chat-0@{uid}").into()
}

fn known(pods: &Pods, event: Event<Pod>) -> Vec<PodChange> {
    pods.shared.write().apply(event, Instant::now())
}

#[test]
fn the_kubelets_word_on_the_last_run_is_an_end_and_nothing_else_is() {
    let waiting = |reason| json!({"waiting": {"reason": reason}});
    for (phase, state, expected) in [
        ("Running", running(), Life::MayRun),
        // It is restarted.
        ("Running", terminated("Error"), Life::MayRun),
        ("Running", waiting("CrashLoopBackOff"), Life::MayRun),
        ("Succeeded", terminated("Completed"), Life::Ended),
        ("Failed", terminated("Error"), Life::Ended),
        // The node is lost: nobody has seen an end.
        ("Failed", terminated(UNKNOWN_REASON), Life::MayRun),
        ("Failed", running(), Life::MayRun),
        ("Pending", waiting("ImagePullBackOff"), Life::NotStarted),
        ("Pending", waiting("PodInitializing"), Life::MayRun),
    ] {
        let told = format!("{phase} {state}");
        assert_eq!(life_of(&pod("1", sidecar(phase, state))), expected, "{told}");
    }
    let mut leaving = pod("1", sidecar("Running", terminated("Completed")));
    leaving.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(life_of(&leaving), Life::Ended);
    assert_eq!(life_of(&pod("1", json!({}))), Life::MayRun);
    // Its kubelet would not take it.
    let refused = json!({"phase": "Failed", "reason": "OutOfcpu"});
    assert_eq!(life_of(&pod("1", refused)), Life::NotStarted);
    let mut unbound = pod("1", json!({}));
    unbound.spec = None;
    assert_eq!(life_of(&unbound), Life::NotStarted);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanishes_without_word_stays_on_the_roster_until_its_floor_has_ended() {
    let pods = Pods::new();
    known(&pods, Event::Apply(pod("1", sidecar("Running", running()))));
    let changes = known(&pods, Event::Delete(pod("1", json!({}))));
    assert_eq!(changes, [PodChange::Vanished(id("1"))]);
    assert_eq!(pods.roster(HOLD), BTreeSet::from([id("1")]));
    // Other pods come and go meanwhile.
    tokio::time::advance(HOLD).await;
    known(&pods, Event::Delete(pod("other", json!({}))));
    assert_eq!(pods.roster(HOLD), BTreeSet::from([id("1")]));
    tokio::time::advance(CLOSED_WITHIN).await;
    assert!(pods.roster(HOLD).is_empty());
    // A policy may have promised it more.
    assert_eq!(pods.roster(2 * HOLD), BTreeSet::from([id("1")]));
    tokio::time::advance(VANISHED_MAX).await;
    known(&pods, Event::Delete(pod("other", json!({}))));
    assert!(pods.shared.read().vanished.is_empty());
}

#[test]
fn a_pod_whose_end_was_reported_leaves_the_roster_at_once() {
    let pods = Pods::new();
    known(&pods, Event::Apply(pod("1", sidecar("Running", running()))));
    let changes =
        known(&pods, Event::Apply(pod("1", sidecar("Succeeded", terminated("Completed")))));
    assert_eq!(changes, [PodChange::Ended(id("1"))]);
    assert!(pods.roster(HOLD).is_empty());
}

#[test]
fn another_pod_of_the_same_name_is_another_pod() {
    let pods = Pods::new();
    known(&pods, Event::Apply(pod("1", sidecar("Running", running()))));
    known(&pods, Event::Apply(pod("2", sidecar("Running", running()))));
    assert_eq!(pods.roster(HOLD), BTreeSet::from([id("1"), id("2")]));
    assert!(pods.get("shop", "chat-0", "1").is_none());
    assert!(pods.get("shop", "chat-0", "2").is_some());
}

#[test]
fn what_a_new_list_does_not_name_has_vanished() {
    let pods = Pods::new();
    for event in
        [Event::Init, Event::InitApply(pod("1", sidecar("Running", running()))), Event::InitDone]
    {
        known(&pods, event);
    }
    assert!(pods.shared.read().pods.is_complete());
    known(&pods, Event::Init);
    known(&pods, Event::InitDone);
    assert!(pods.get("shop", "chat-0", "1").is_none());
    assert_eq!(pods.roster(HOLD), BTreeSet::from([id("1")]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_so_new_that_the_watch_is_behind_is_waited_for() {
    let pods = Pods::new();
    let (found, ()) = tokio::join!(pods.find("shop", "chat-0", "1"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pods.apply(Event::Apply(pod("1", sidecar("Running", running()))));
    });
    assert_eq!(found.unwrap().labels["app"], "chat");
    assert!(pods.find("shop", "chat-0", "other").await.is_none());
}
