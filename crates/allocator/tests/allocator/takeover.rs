//! One allocator after another, on one state directory.

use std::fs;
use std::time::Duration;

use quota::message::{Epoch, Reason, Report, ToAllocator, ToPod};
use tokio::time::{Instant, timeout};
use wire::{FromAllocator, Hello};

use crate::harness::{POLICY, Process, RPD, RPM, Site, hello, vector};

#[tokio::test]
async fn a_successor_of_a_killed_allocator_takes_over_at_once_by_epoch_and_challenge() {
    let site = Site::new();
    let first = site.start().await;
    let (mut sidecar, _) = first.join(hello("chat-1", 1)).await;
    let lease = sidecar.lease().await;
    first.kill().await;

    let began = Instant::now();
    let second = site.start().await;
    let mut sidecar = second.connect(sidecar.again(Epoch(1))).await;
    assert_eq!(sidecar.welcome(Some(&lease)).await, Epoch(2));
    sidecar.draw(vector(&[(RPM, 1)])).await.unwrap();
    // A quiet period would be the length of a lease.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let renewed = sidecar.lease().await;
    assert_eq!(renewed.epoch, Epoch(2));
    second.until(|state| state["learning"] == false).await;
}

#[tokio::test]
async fn a_successor_learns_until_every_pod_on_record_has_spoken_or_ended() {
    let site = Site::new();
    let first = site.start().await;
    let mut dying = Process::start();
    let (mut here, _) = first.join(hello("here", 1)).await;
    let (_, _) = first.join(Hello { pid: Some(dying.pid()), ..hello("dying", 2) }).await;
    here.draw(vector(&[(RPM, 1)])).await.unwrap();
    first.kill().await;

    let second = site.start().await;
    let mut here = second.connect(here.again(Epoch(1))).await;
    here.welcome(None).await;
    second.until(|state| state["pods"]["shop/here"]["connected"] == true).await;
    assert_eq!(second.state().await["learning"], true);
    dying.kill().await;
    second.until(|state| state["learning"] == false).await;
    here.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_pod_whose_process_ended_with_its_allocator_keeps_nobody_waiting() {
    let site = Site::new();
    let first = site.start().await;
    let mut process = Process::start();
    let (mut sidecar, _) =
        first.join(Hello { pid: Some(process.pid()), ..hello("chat-1", 1) }).await;
    sidecar.lease().await;
    first.kill().await;
    process.kill().await;
    let second = site.start().await;
    assert_eq!(second.state().await["learning"], false);
    let (mut new, _) = second.join(hello("chat-1", 2)).await;
    new.draw(vector(&[(RPM, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_second_allocator_waits_for_the_first_and_says_so() {
    let site = Site::new();
    let first = site.start().await;
    let mut second = site.launch();
    let line = second.logged("waiting for its end").await;
    assert_eq!(line["holder"], site.record()["leader"]);
    assert!(!second.stirs_within(Duration::from_millis(300)).await);
    first.kill().await;
    let second = second.serving().await;
    assert_eq!(second.state().await["epoch"], 2);
}

#[tokio::test]
async fn what_was_granted_of_a_day_stays_granted_after_a_restart() {
    let site = Site::new();
    let mut granted = 0;
    for boot in 1..=3 {
        let allocator = site.start().await;
        let (mut sidecar, _) = allocator.join(hello("chat-1", boot)).await;
        // A third of the day's hundred each, until nothing is left.
        loop {
            match sidecar.draw(vector(&[(RPD, 1)])).await {
                Ok(_) => granted += 1,
                Err(denial) => {
                    assert_eq!(denial.reason, Reason::Exhausted, "{denial:?}");
                    break;
                }
            }
            if granted >= 34 * boot {
                break;
            }
        }
        // The process of the test is the sidecar's too, and goes on: end it by its word.
        sidecar.send(ToAllocator::Bye(Report::default())).await;
        while sidecar.next().await.is_some() {}
        allocator.kill().await;
    }
    // A crash costs at most what was marked and not granted: 1 % of the day each.
    assert!((97..=100).contains(&granted), "{granted}");
}

#[tokio::test]
async fn a_state_directory_older_than_what_a_sidecar_has_seen_stops_granting() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut known, _) = allocator.join(hello("known", 1)).await;
    let seen = Hello { highest_epoch_seen: Epoch(40), ..hello("seen-more", 1) };
    let mut stranger = allocator.connect(seen).await;
    stranger.policy().await;
    let state = allocator.until(|state| state["epoch"] == 41).await;
    assert_eq!(state["learning"], true);
    assert_eq!(site.record()["epoch"], 41);
    // Neither is challenged, let alone granted anything, before earlier leases have ended.
    let is_later = |message| match message {
        FromAllocator::Lease(ToPod::Lease(lease)) if lease.epoch == Epoch(1) => None,
        later => Some(later),
    };
    for sidecar in [&mut stranger, &mut known] {
        let heard = timeout(Duration::from_millis(700), sidecar.find(is_later)).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

#[tokio::test]
async fn a_sidecar_that_has_our_epoch_from_elsewhere_is_noticed() {
    let site = Site::new();
    let allocator = site.start().await;
    let elsewhere = Hello { highest_epoch_seen: Epoch(1), ..hello("chat-1", 1) };
    let _sidecar = allocator.connect(elsewhere).await;
    allocator.until(|state| state["epoch"] == 2).await;
    let metrics = allocator.get("/metrics").await;
    assert!(metrics.contains("weir_allocator_epochs_raised_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_a_quiet_period_not_the_limit() {
    let site = Site::new();
    site.start().await.kill().await;
    fs::write(site.state().join("state.json"), "{").unwrap();
    let allocator = site.start().await;
    assert_eq!(allocator.state().await["learning"], true);
    let mut sidecar = allocator.connect(hello("chat-1", 1)).await;
    sidecar.policy().await;
    let heard = timeout(Duration::from_millis(700), sidecar.next()).await;
    assert!(heard.is_err(), "{heard:?}");
    assert!(site.state().join("state.json.unreadable").exists());
}

#[tokio::test]
async fn a_policy_may_change_between_two_allocators() {
    let site = Site::new();
    let first = site.start().await;
    let (sidecar, _) = first.join(hello("chat-1", 1)).await;
    first.kill().await;
    site.write(&POLICY.replace("name: gpt,", "name: gpt4,"));
    let second = site.start().await;
    let mut sidecar = second.connect(sidecar.again(Epoch(1))).await;
    sidecar.welcome(None).await;
    sidecar.draw(vector(&[("openai/gpt4/requestsPerMinute", 1)])).await.unwrap();
}
