//! Pods of every shape: each file of `fixtures` is a pod, the snapshot beside it what becomes of it.

mod server;
mod validate;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Namespace, Outcome, PullPolicy, Resources, Settings, inject};

#[test]
fn pods_of_every_shape_are_injected_refused_or_left_alone() {
    let sidecar = part("/spec/initContainers/0");
    let token = part("/spec/volumes/0");
    for (name, pod) in fixtures() {
        let text = match inject(&pod, Namespace::Injects, &settings()) {
            Outcome::Patched { mut pod, warnings } => {
                // What is the same in all of them stands in one of them.
                if name != "plain" {
                    for (list, part) in [("initContainers", &sidecar), ("volumes", &token)] {
                        let list = pod["spec"][list].as_array_mut().unwrap();
                        for entry in list.iter_mut().filter(|entry| *entry == part) {
                            *entry = json!("as in plain");
                        }
                    }
                }
                json!({"outcome": "patched", "warnings": warnings, "pod": pod})
            }
            Outcome::Untouched { reason, warnings } => {
                json!({"outcome": "untouched", "reason": reason, "warnings": warnings})
            }
            Outcome::Refused(violations) => {
                let lines: Vec<String> =
                    violations.iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
                json!({"outcome": "refused", "violations": lines})
            }
        };
        let text = serde_yaml::to_string(&text).unwrap();
        insta::with_settings!(
            { snapshot_path => "fixtures", prepend_module_to_snapshot => false, omit_expression => true },
            { insta::assert_snapshot!(name.as_str(), text) }
        );
    }
}

#[test]
fn a_second_pass_changes_nothing() {
    for (name, pod) in fixtures() {
        let Some(once) = injected(&pod, &settings()) else { continue };
        assert_eq!(injected(&once, &settings()).as_ref(), Some(&once), "{name}");
    }
}

#[test]
fn newer_settings_take_the_place_of_older_ones() {
    let newer = Settings {
        image: "registry.example/weir-sidecar:2".into(),
        ca: "another certificate".into(),
        version: "2.0.0".into(),
        resources: Resources::default(),
        ..settings()
    };
    for (name, pod) in fixtures() {
        let Some(once) = injected(&pod, &settings()) else { continue };
        assert_eq!(injected(&once, &newer), injected(&pod, &newer), "{name}");
    }
}

#[test]
fn the_patch_makes_the_injected_pod_of_the_one_that_came() {
    for (name, pod) in fixtures() {
        let Some(after) = injected(&pod, &settings()) else { continue };
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &json_patch::diff(&pod, &after)).unwrap();
        assert_eq!(patched, after, "{name}");
    }
}

#[test]
fn what_was_in_a_pod_stays_in_it() {
    for (name, pod) in fixtures() {
        let Some(after) = injected(&pod, &settings()) else { continue };
        for list in ["initContainers", "containers", "volumes"] {
            let entries = |pod: &Value| pod["spec"][list].as_array().cloned().unwrap_or_default();
            for before in entries(&pod) {
                if ["weir-sidecar", "weir-token"].iter().any(|ours| before["name"] == *ours) {
                    continue;
                }
                let after = entries(&after);
                let mut after =
                    after.iter().find(|it| it["name"] == before["name"]).unwrap().clone();
                let count = before["env"].as_array().map_or(0, Vec::len);
                if let Some(variables) = after["env"].as_array_mut() {
                    variables.truncate(count);
                }
                let mut before = before.clone();
                for pod in [&mut before, &mut after] {
                    let is_empty = pod["env"].as_array().is_none_or(Vec::is_empty);
                    if is_empty && let Some(fields) = pod.as_object_mut() {
                        fields.remove("env");
                    }
                }
                assert_eq!(after, before, "{name}");
            }
        }
    }
}

#[test]
fn a_pod_that_nobody_asks_for_stays_as_it_is() {
    let outcome = inject(&fixture("asked-by-the-namespace"), Namespace::IsSilent, &settings());
    assert_eq!(outcome, Outcome::Untouched { reason: "not asked for", warnings: Vec::new() });
    // Its own word counts in every namespace.
    let outcome = inject(&fixture("plain"), Namespace::IsSilent, &settings());
    assert!(matches!(outcome, Outcome::Patched { .. }));
}

#[test]
fn no_warning_is_longer_than_the_api_server_shows() {
    for (name, pod) in fixtures() {
        if let Outcome::Patched { warnings, .. } | Outcome::Untouched { warnings, .. } =
            inject(&pod, Namespace::Injects, &settings())
        {
            for warning in warnings {
                assert!(warning.len() <= 256, "{name}: {} bytes: {warning}", warning.len());
            }
        }
    }
}

/// The injected pod; `None` if it is none.
fn injected(pod: &Value, settings: &Settings) -> Option<Value> {
    match inject(pod, Namespace::Injects, settings) {
        Outcome::Patched { pod, .. } => Some(pod),
        _ => None,
    }
}

fn settings() -> Settings {
    let quantity = |text: &str| Some(text.parse().unwrap());
    Settings {
        image: "registry.example/weir-sidecar:1".into(),
        pull_policy: PullPolicy::IfNotPresent,
        resources: Resources {
            cpu_request: quantity("10m"),
            cpu_limit: None,
            memory_request: quantity("24Mi"),
            memory_limit: quantity("192Mi"),
        },
        allocator: "https://weir-allocator.weir-system.svc:7420".into(),
        ca: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
        version: "1.0.0".into(),
    }
}

/// A part of the plain pod with its sidecar.
fn part(pointer: &str) -> Value {
    let pod = injected(&fixture("plain"), &settings()).unwrap();
    pod.pointer(pointer).unwrap().clone()
}

fn fixture(name: &str) -> Value {
    let text = fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

fn fixtures() -> Vec<(String, Value)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let pods = files.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    let mut names: Vec<String> =
        pods.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fixture(&name))).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admission/fixtures")
}
