//! The policy directory, and the arguments.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::harness::{POLICY, RPM, Site, hello, replace, vector};

/// 6,000 a minute instead of 600.
fn larger() -> String {
    POLICY.replace("requestsPerMinute: 600", "requestsPerMinute: 6000")
}

/// A name that no field has.
fn broken() -> String {
    POLICY.replace("requestsPerMinute: 600", "requestsPerMinutes: 600")
}

const NAMED: [&str; 3] =
    ["policy.yaml:", "LLMProvider openai", "spec.limits[0].requestsPerMinutes"];

#[tokio::test]
async fn a_policy_that_is_broken_at_the_start_ends_the_program_with_every_problem() {
    let site = Site::new();
    site.write(&broken().replace("selector:", "selektor:"));
    let said = site.fail(&["--insecure-plaintext", "--listen", "127.0.0.1:0"]).await;
    for named in NAMED.into_iter().chain(["LLMQuota shop/chat", "spec.selektor"]) {
        assert!(said.contains(named), "{named}: {said}");
    }
    fs::remove_dir_all(site.policy()).unwrap();
    let said = site.fail(&["--insecure-plaintext", "--listen", "127.0.0.1:0"]).await;
    assert!(said.contains("policy directory") && said.contains("cannot be read"), "{said}");
}

#[tokio::test]
async fn a_broken_edit_leaves_the_last_good_policy_in_force_and_is_named() {
    let site = Site::new();
    let mut allocator = site.start().await;
    let (mut sidecar, policy) = allocator.join(hello("chat-1", 1)).await;
    assert_eq!(policy.generation, 1);

    site.write(&broken());
    let line = allocator.logged("requestsPerMinutes").await;
    for named in NAMED {
        assert!(line["problem"].as_str().unwrap().contains(named), "{line}");
    }
    let state = allocator.until(|state| state["policy"]["problems"][0].is_string()).await;
    assert_eq!(state["policy"]["generation"], 1);
    assert!((state["budgets"][RPM]["rate_per_second"].as_f64().unwrap() - 10.0).abs() < 1e-6);
    sidecar.draw(vector(&[(RPM, 1)])).await.unwrap();

    site.write(&larger());
    assert_eq!(sidecar.policy().await.generation, 2);
    let state = allocator.until(|state| state["policy"]["generation"] == 2).await;
    assert_eq!(state["policy"]["problems"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_file_that_is_replaced_or_whose_link_is_swapped_is_read_again() {
    let site = Site::new();
    let allocator = site.start().await;
    let (mut sidecar, _) = allocator.join(hello("chat-1", 1)).await;
    let file = site.policy().join("policy.yaml");
    replace(&file, &larger());
    assert_eq!(sidecar.policy().await.generation, 2);

    // As a mounted ConfigMap is: a link to a hidden directory, which is itself a link that is swapped.
    let version = |name: &str, text: &str| {
        fs::create_dir(site.policy().join(name)).unwrap();
        fs::write(site.policy().join(name).join("policy.yaml"), text).unwrap();
    };
    version("..1", &larger());
    symlink("..1", site.policy().join("..data")).unwrap();
    symlink("..data/policy.yaml", site.policy().join("link")).unwrap();
    fs::rename(site.policy().join("link"), &file).unwrap();
    version("..2", POLICY);
    symlink("..2", site.policy().join("..next")).unwrap();
    fs::rename(site.policy().join("..next"), site.policy().join("..data")).unwrap();
    assert_eq!(sidecar.policy().await.generation, 3);
    allocator
        .until(|state| state["budgets"][RPM]["rate_per_second"].as_f64().unwrap() < 11.0)
        .await;
}

#[tokio::test]
async fn an_edit_that_changes_nothing_makes_no_new_generation() {
    let site = Site::new();
    let mut allocator = site.start().await;
    site.write(&format!("# Only a remark.\n{POLICY}"));
    assert!(!allocator.stirs_within(Duration::from_millis(500)).await);
    assert_eq!(allocator.state().await["policy"]["generation"], 1);
}

#[tokio::test]
async fn plaintext_is_refused_where_others_could_hear_it() {
    let site = Site::new();
    let said = site.fail(&["--insecure-plaintext", "--listen", "0.0.0.0:0"]).await;
    assert!(said.contains("0.0.0.0:0 is not a loopback address"), "{said}");
    let said = site.fail(&["--listen", "127.0.0.1:0"]).await;
    assert!(said.contains("--insecure-plaintext"), "{said}");
}
