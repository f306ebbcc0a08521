//! Long outages of what allocators live by, and the end of sidecars, under the load of [`crate::load`].

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "figures are what the test is for")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_tests::course::Course;
use cluster_tests::kubectl::Kubectl;
use cluster_tests::part::Part;
use cluster_tests::process::Process;
use cluster_tests::wait;

use crate::load::{Load, RPM, THREADS};

/// Leases run out in it, and floors are what is left.
const AWAY: Duration = Duration::from_secs(120);
/// For whatever has to start again, on a busy machine.
const BACK: Duration = Duration::from_secs(120);
/// What is promised for growth after an outage, and what a busy machine may add.
const GROWN: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(10);
/// Who does not know what is promised waits for T1 twice: for whoever led, and for pods that nobody names.
const FORGOTTEN: Duration = Duration::from_secs(150);
/// What is watched after an outage.
const AFTER: Duration = Duration::from_secs(40);
/// Floors are a fifth of the budget: two requests in a second. Without them this gap would be as long as
/// the outage less the time of a lease.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// One span in which use can be called full.
const SPAN: Duration = Duration::from_secs(2);
/// A kubelet restarts a container at once when it ends for the first time.
const RESTARTED: Duration = Duration::from_secs(60);

#[test]
fn an_outage_of_minutes_admits_nothing_too_much_and_ends_when_it_ends() {
    // Nothing else can be stopped like that.
    if !Part::are_ours() {
        return;
    }
    let load = Load::start();
    sidecars_killed(&load);
    api_server_away(&load);
    scaled_to_none(&load);
    old_lease(&load);
}

/// A sidecar of each class is killed on its node: what was in flight there fails, and nothing else.
fn sidecars_killed(load: &Load) {
    let exceptions = |pod: &str| {
        let log = load.applications[0].kubectl(&["logs", pod, "--container=app"]).succeeds();
        log.lines().filter(|line| line.starts_with("exception ")).count()
    };
    let pods: Vec<String> = load.applications.iter().map(|it| it.pods().remove(0)).collect();
    let recorder = load.provider.record();
    for pod in &pods {
        Process::with(&format!("WEIR_SIDECAR_POD={pod}")).signal("-KILL");
        let restarts = "--output=jsonpath={.status.initContainerStatuses[0].restartCount}";
        let restarts = load.applications[0].kubectl(&["get", "pod", pod, restarts]);
        wait::within(RESTARTED, "the kubelet restarts the sidecar", || {
            restarts.attempt().filter(|count| count == "1")
        });
    }
    sleep(AFTER);
    let truth = recorder.finish().truth();
    let failed: Vec<usize> = pods.iter().map(|pod| exceptions(pod)).collect();
    println!("a sidecar of each class killed: {truth:?}; calls that failed: {failed:?}");
    assert_eq!(truth.refused, 0);
    // Each caller has one in flight.
    assert!(failed.iter().all(|&failed| failed <= THREADS as usize), "{failed:?}");
    assert!(truth.settled >= 0.9 * truth.on_offer, "{truth:?}");
}

/// The leader stops by itself; active pods go from lease to floor, and back when it is there again.
fn api_server_away(load: &Load) {
    let epoch = load.weir.epoch();
    let (recorder, start) = (load.provider.record(), Instant::now());
    Part("kube-apiserver").stop();
    sleep(AWAY);
    Part("kube-apiserver").start();
    wait::within(BACK, "the API server is back", || {
        Kubectl::new(&["get", "--raw", "/readyz"]).attempt()
    });
    let back = Instant::now();
    wait::within(BACK, "somebody leads again", || (load.weir.epoch() > epoch).then_some(()));
    println!("led {:.1?} after the API server was ready", back.elapsed());
    sleep(AFTER);
    let course = recorder.finish();
    judge("the API server", &course.between(start, back), &course.between(back, Instant::now()));
}

/// There is no allocator at all.
fn scaled_to_none(load: &Load) {
    load.weir.end_allocators();
    let (recorder, start) = (load.provider.record(), Instant::now());
    sleep(AWAY);
    load.weir.scale(2);
    let ready = "--output=jsonpath={.status.readyReplicas}";
    let ready = load.weir.kubectl(&["get", "deployment", "weir-allocator", ready]);
    wait::within(BACK, "an allocator is Ready", || {
        ready.attempt().filter(|count| !count.is_empty())
    });
    let back = Instant::now();
    sleep(AFTER);
    let course = recorder.finish();
    judge("allocators", &course.between(start, back), &course.between(back, Instant::now()));
}

/// What must hold while something is away, and once it is back.
fn judge(what: &str, away: &Course, after: &Course) {
    let (truth, gap) = (away.truth(), away.longest_gap());
    println!("without {what}: {truth:?}, the longest gap {gap:.1?}, in spans of 10 s:");
    println!("{:?}", away.per(Duration::from_secs(10)));
    #[expect(clippy::cast_precision_loss, reason = "a small figure")]
    let full = RPM as f64 / 60.0 * SPAN.as_secs_f64();
    let grown = after.reaches(0.9 * full, SPAN);
    println!("then: {:?}, used fully from {grown:.1?} on, in spans of 5 s:", after.truth());
    println!("{:?}", after.per(Duration::from_secs(5)));
    assert_eq!((truth.refused, after.truth().refused), (0, 0));
    assert!(gap <= LONGEST_GAP, "nothing was sent for {gap:?}");
    assert!(grown.is_some_and(|grown| grown <= GROWN + SLACK), "{grown:?}");
}

/// A Lease of an earlier leader is put in the place of the present one's.
fn old_lease(load: &Load) {
    let mut old = load.weir.lease();
    let epoch = load.weir.epoch();
    let leader = load.weir.leader();
    Process::with(&format!("WEIR_ALLOCATOR_POD={leader}")).signal("-KILL");
    wait::within(BACK, "somebody leads again", || (load.weir.epoch() > epoch).then_some(()));
    let led = load.weir.epoch();
    load.recovered(BACK);
    let recorder = load.provider.record();
    // The leader writes it every two seconds; whoever restores a copy is quicker once.
    wait::within(BACK, "the old copy is written", || {
        let version = load.weir.lease()["metadata"]["resourceVersion"].clone();
        old["metadata"]["resourceVersion"] = version;
        let replace = load.weir.kubectl(&["replace", "--filename", "-"]);
        replace.with_input(&old.to_string()).attempt()
    });
    let start = Instant::now();
    wait::within(BACK, "an epoch above is taken", || (load.weir.epoch() > led).then_some(()));
    println!("an epoch above was taken after {:.1?}", start.elapsed());
    sleep(FORGOTTEN);
    let course = recorder.finish();
    println!("with an old Lease: {:?}, in spans of 10 s:", course.truth());
    println!(
        "{:?}, the longest gap {:.1?}",
        course.per(Duration::from_secs(10)),
        course.longest_gap()
    );
    assert_eq!(course.truth().refused, 0);
    assert!(course.longest_gap() <= LONGEST_GAP);
    // What was promised under the lost epochs counts until T2: no other test must begin with that.
    load.weir.uninstall();
    load.weir.kubectl(&["delete", "lease", "weir-allocator"]).succeeds();
}
