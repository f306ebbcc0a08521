//! Holds schema, CEL rules, Rust rules and defaults together.

use std::collections::BTreeSet;

use kube_cel::Validator;
use serde_json::{Value, json};

use super::*;
use crate::priority_class::LLMPriorityClass;
use crate::provider::LLMProvider;
use crate::quota::LLMQuota;

fn schema(kind: &str) -> Value {
    let crd = definitions::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .expect("the kind has a definition");
    let version = &crd.spec.versions[0];
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    serde_json::to_value(schema).expect("a schema is JSON")
}

fn provider() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LLMProvider",
        "metadata": {"name": "openai"},
        "spec": {
            "protocol": "OpenAI",
            "endpoint": "https://api.openai.com",
            "keys": [{"name": "a", "secretRef": {"name": "s", "key": "k"}}],
            "limits": [{"name": "gpt-4o", "models": ["*"], "requestsPerMinute": 600}],
        },
    })
}

fn quota() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LLMQuota",
        "metadata": {"namespace": "shop", "name": "chat"},
        "spec": {"budgets": [{"provider": "openai"}]},
    })
}

/// What the API server would say.
fn cel(object: &Value, old: Option<&Value>) -> BTreeSet<String> {
    let kind = object["kind"].as_str().expect("objects have kinds");
    match Validator::new().validate(&schema(kind), object, old) {
        Ok(()) => BTreeSet::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// What [`validate`] says.
fn rust(object: &Value) -> BTreeSet<String> {
    let object = object.clone();
    let violations = if object["kind"] == "LLMProvider" {
        validate::provider(&serde_json::from_value(object).expect("it fits its struct"))
    } else {
        validate::quota(&serde_json::from_value(object).expect("it fits its struct"))
    };
    violations.into_iter().map(|violation| violation.message).collect()
}

fn set(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, field) = pointer.rsplit_once('/').expect("pointers have slashes");
    object.pointer_mut(parent).expect("the parent is there")[field] = value;
    object
}

#[test]
fn cel_and_rust_say_the_same() {
    let (provider, quota) = (provider(), quota());
    let name = provider::NAME_MESSAGE;
    let long = "a".repeat(64);
    let at = |field: &str, value: Value| set(&provider, &format!("/spec/limits/0/{field}"), value);
    let entries = |value: Value| set(&quota, "/spec/budgets", value);
    for (object, expected) in [
        (provider.clone(), vec![]),
        (quota.clone(), vec![]),
        (set(&provider, "/metadata/name", json!("v1")), vec![provider::RESERVED_MESSAGE]),
        (set(&provider, "/metadata/name", json!(long)), vec![provider::RESERVED_MESSAGE]),
        (set(&provider, "/spec/keys/0/name", json!("A")), vec![name]),
        (set(&provider, "/spec/keys/0/name", json!("a-")), vec![name]),
        (at("name", json!("gpt-4.1")), vec![]),
        (at("name", json!("a/b")), vec![name]),
        (at("name", json!(".a")), vec![name]),
        (at("name", json!("a\nb")), vec![name]),
        (
            set(&provider, "/spec/limits", json!([{"name": "a", "models": ["*"]}])),
            vec![provider::FIGURES_MESSAGE],
        ),
        (at("burstPercent", json!(50)), vec![]),
        (at("window", json!("FixedWindow")), vec![]),
        (
            set(&at("burstPercent", json!(50)), "/spec/limits/0/window", json!("FixedWindow")),
            vec![provider::BURST_MESSAGE],
        ),
        (
            set(&at("burstPercent", json!(50)), "/spec/limits/0/window", json!("TokenBucket")),
            vec![],
        ),
        (at("floorDuration", json!("24h")), vec![]),
        (at("floorDuration", json!("0s")), vec![]),
        (at("floorDuration", json!("23h59m60s")), vec![]),
        (at("floorDuration", json!("24h1ms")), vec![provider::FLOOR_MESSAGE]),
        (at("floorDuration", json!("999999h")), vec![provider::FLOOR_MESSAGE]),
        (at("floorDuration", json!("1.5h")), vec![duration::MESSAGE]),
        (at("floorDuration", json!("1d")), vec![duration::MESSAGE]),
        (at("floorDuration", json!("30m1h")), vec![duration::MESSAGE]),
        (set(&quota, "/spec/queue", json!({"maxWait": "1h"})), vec![]),
        (set(&quota, "/spec/queue", json!({"maxWait": "500ms"})), vec![]),
        (set(&quota, "/spec/queue", json!({"maxWait": "1h1s"})), vec![crate::quota::WAIT_MESSAGE]),
        (set(&quota, "/spec/queue", json!({"maxWait": "10"})), vec![duration::MESSAGE]),
        (entries(json!([{"provider": "a"}, {"provider": "a", "limit": "x"}])), vec![]),
        (entries(json!([{"provider": "a"}, {"provider": "b"}])), vec![]),
        (
            entries(json!([{"provider": "a"}, {"provider": "a"}])),
            vec![crate::quota::BUDGETS_MESSAGE],
        ),
        (
            entries(json!([{"provider": "a", "limit": "x"}, {"provider": "a", "limit": "x"}])),
            vec![crate::quota::BUDGETS_MESSAGE],
        ),
    ] {
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(cel(&object, None), expected, "CEL: {object}");
        assert_eq!(rust(&object), expected, "Rust: {object}");
    }
}

#[test]
fn cel_and_rust_agree_on_every_dimension_of_guarantee_and_ceiling() {
    for dimension in crate::quota::PerMinute::DIMENSIONS {
        for (guaranteed, ceiling, is_sound) in [(1, 2, true), (2, 2, true), (3, 2, false)] {
            let entry = json!([{
                "provider": "a",
                "guaranteed": {dimension.name(): guaranteed},
                "ceiling": {dimension.name(): ceiling},
            }]);
            let object = set(&quota(), "/spec/budgets", entry);
            assert_eq!(cel(&object, None).is_empty(), is_sound, "{object}");
            assert_eq!(rust(&object), cel(&object, None), "{object}");
        }
    }
    let apart = json!([{
        "provider": "a",
        "guaranteed": {"requestsPerMinute": 5},
        "ceiling": {"tokensPerMinute": 2},
    }]);
    let object = set(&quota(), "/spec/budgets", apart);
    assert!(cel(&object, None).is_empty() && rust(&object).is_empty());
}

#[test]
fn cel_and_rust_agree_on_endpoints() {
    let (form, plain) = (Some(endpoint::FORM_MESSAGE), Some(endpoint::PLAIN_MESSAGE));
    for (text, expected) in [
        ("https://api.openai.com", None),
        ("https://api.openai.com/", None),
        ("https://API.example.com:8443/base/path", None),
        ("https://8.8.8.8", None),
        ("https://[2001:db8::1]:443/x", None),
        ("https://a", None),
        ("http://127.0.0.1:8000", None),
        ("http://127.9.9.9", None),
        ("http://10.1.2.3:80", None),
        ("http://172.16.0.1", None),
        ("http://172.31.255.255", None),
        ("http://192.168.1.1/x", None),
        ("http://[::1]:8000", None),
        ("http://[0:0:0:0:0:0:0:1]:1/x", None),
        ("http://[fd00::1]", None),
        ("http://[FC12:3::4]", None),
        ("http://10.255.249.199", None),
        ("http://10.0.0.1.svc", None),
        ("http://localhost:8000", None),
        ("http://vllm:8000", None),
        ("http://vllm.models.svc", None),
        ("http://vllm.models.svc.cluster.local:8000/", None),
        ("http://printer.local", None),
        ("http://api.openai.com", plain),
        ("http://8.8.8.8", plain),
        ("http://172.15.0.1", plain),
        ("http://172.32.0.1", plain),
        ("http://[fe00::1]", plain),
        ("http://[fc::1]", plain),
        ("http://11.0.0.1", plain),
        ("http://192.169.0.1", plain),
        ("http://169.254.169.254", plain),
        ("http://0.0.0.0", plain),
        ("http://[2001:db8::1]", plain),
        ("http://[fe80::1]", plain),
        ("http://10.evil.com", plain),
        ("http://127.0.0.1.evil.com", plain),
        ("http://localhost.evil.com", plain),
        ("http://svc.evil.com", plain),
        ("http://evilsvc.com", plain),
        ("ftp://api.openai.com", form),
        ("api.openai.com", form),
        ("HTTPS://api.openai.com", form),
        ("https://", form),
        ("https:///path", form),
        ("https://user:secret@api.openai.com", form),
        ("http://127.0.0.1@evil.com", form),
        ("https://api.openai.com?key=x", form),
        ("https://api.openai.com/x?key=x", form),
        ("https://api.openai.com/x#y", form),
        ("https://api.openai.com:", form),
        ("https://api.openai.com:x", form),
        ("https://api.openai.com:123456", form),
        ("https://api.open ai.com", form),
        ("https://api.openai.com/a b", form),
        (" https://api.openai.com", form),
        ("https://-a.com", form),
        ("https://a.com.", form),
        ("https://[::1", form),
        ("http://127.0.0.1\\evil.com", form),
    ] {
        let object = set(&provider(), "/spec/endpoint", json!(text));
        let rust = rust(&object);
        assert_eq!(rust.first().map(String::as_str), expected, "Rust: {text}");
        // On texts of another form, CEL may break its second rule as well.
        let cel = cel(&object, None);
        assert!(rust.is_subset(&cel) && rust.is_empty() == cel.is_empty(), "CEL: {text} {cel:?}");
    }
}

/// Texts that look like names and that resolvers or URL parsers read as addresses. Parsers differ
/// over them, so CEL is only held to refusing them.
#[test]
fn addresses_in_disguise_are_refused() {
    for text in [
        "http://134744072",
        "http://0x08080808",
        "http://010.8.8.8",
        "http://8.8.2056",
        "http://[::ffff:8.8.8.8]",
        "http://[::ffff:10.0.0.1]",
        "https://a.com:99999",
    ] {
        let object = set(&provider(), "/spec/endpoint", json!(text));
        assert!(!rust(&object).is_empty(), "{text}");
    }
}

#[test]
fn the_protocol_cannot_be_changed() {
    let old = provider();
    let new = set(&old, "/spec/protocol", json!("Anthropic"));
    assert_eq!(cel(&new, Some(&old)), BTreeSet::from([provider::IMMUTABLE_MESSAGE.to_owned()]));
    assert_eq!(cel(&old, Some(&old)), BTreeSet::new());
}

/// The directory checks what it knows; a keyword that it does not know would be checked in clusters
/// only.
#[test]
fn schemas_use_only_keywords_that_the_directory_checks() {
    const KNOWN: [&str; 21] = [
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "additionalProperties",
        "maxProperties",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
        // Said by others: the type, serde, or nothing at all.
        "format",
        "nullable",
        "default",
        "description",
        "title",
    ];
    for kind in ["LLMProvider", "LLMPriorityClass", "LLMQuota"] {
        walk(&schema(kind), kind, &mut |path, node| {
            for keyword in node.as_object().expect("schemas are objects").keys() {
                assert!(KNOWN.contains(&keyword.as_str()), "{path}: {keyword}");
            }
        });
    }
}

#[test]
fn every_field_has_a_description_and_every_list_and_text_a_bound() {
    for kind in ["LLMProvider", "LLMPriorityClass", "LLMQuota"] {
        walk(&schema(kind), kind, &mut |path, node| {
            // Entries of lists of texts, and labels, are described by what holds them.
            let is_entry = path.ends_with("[]") || path.ends_with("{}");
            let is_described = node["description"].as_str().is_some_and(|d| d.ends_with('.'));
            let ends_in_example = path == "LLMProvider";
            // Conditions are described by Kubernetes.
            let is_foreign = path.contains(".status.conditions");
            assert!(is_described || is_entry || ends_in_example || is_foreign, "{path}");
            if path.contains(".status") {
                // What people write is bounded; what the allocator writes is made of it.
                return;
            }
            match node["type"].as_str() {
                Some("array") => assert!(node["maxItems"].is_u64(), "{path}"),
                Some("string") if node.get("enum").is_none() && !path.ends_with("{}") => {
                    assert!(node["maxLength"].is_u64(), "{path}");
                }
                Some("integer") => {
                    assert!(node["minimum"].is_number() && node["maximum"].is_number(), "{path}");
                }
                _ => {}
            }
        });
    }
}

/// Calls `visit` for a schema and every schema in it.
fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), visit);
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[]"), visit);
    }
    if node["additionalProperties"].is_object() {
        walk(&node["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_structs() {
    let class = json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LLMPriorityClass",
        "metadata": {"name": "a"},
        "spec": {"value": 1},
    });
    let class: LLMPriorityClass = serde_json::from_value(class).expect("it fits");
    let provider: LLMProvider = serde_json::from_value(provider()).expect("it fits");
    let quota: LLMQuota = serde_json::from_value(quota()).expect("it fits");
    for (kind, object, expected) in [
        (
            "LLMProvider",
            serde_json::to_value(provider).expect("it is JSON"),
            vec![
                ("/spec/keys/0/weight", json!(1)),
                ("/spec/keys/0/models", json!([])),
                ("/spec/limits/0/floorPercent", json!(20)),
                ("/spec/limits/0/floorDuration", json!("1h")),
            ],
        ),
        (
            "LLMPriorityClass",
            serde_json::to_value(class).expect("it is JSON"),
            vec![
                ("/spec/minSharePercent", json!(2)),
                ("/spec/holdbackPercent", json!(0)),
                ("/spec/globalDefault", json!(false)),
            ],
        ),
        (
            "LLMQuota",
            serde_json::to_value(quota).expect("it is JSON"),
            vec![
                ("/spec/selector", json!({"matchLabels": {}})),
                ("/spec/selector/matchLabels", json!({})),
                ("/spec/permittedClasses", json!([])),
                ("/spec/weight", json!(1)),
                ("/spec/queue", json!({"maxWait": "10s", "maxRequests": 200})),
                ("/spec/queue/maxWait", json!("10s")),
                ("/spec/queue/maxRequests", json!(200)),
                ("/spec/perRequest", json!({})),
                ("/spec/onAllocatorLoss", json!("Floor")),
                ("/spec/mode", json!("Enforce")),
            ],
        ),
    ] {
        let schema = schema(kind);
        for (pointer, expected) in expected {
            assert_eq!(object.pointer(pointer), Some(&expected), "{kind} {pointer}");
            let in_schema = format!("{}/default", pointer.replace("/0/", "/items/"))
                .replace("/spec/", "/properties/spec/properties/")
                .replace("/items/", "/items/properties/");
            let in_schema = ["selector", "queue"].iter().fold(in_schema, |path, outer| {
                path.replace(&format!("/{outer}/m"), &format!("/{outer}/properties/m"))
            });
            assert_eq!(schema.pointer(&in_schema), Some(&expected), "{kind} {in_schema}");
        }
    }
}

#[test]
fn objects_survive_a_round_trip() {
    let full = json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LLMQuota",
        "metadata": {"namespace": "shop", "name": "chat"},
        "spec": {
            "selector": {"matchLabels": {"app": "chat"}},
            "priorityClassName": "interactive",
            "permittedClasses": ["batch"],
            "weight": 3,
            "budgets": [{
                "provider": "openai",
                "limit": "gpt-4o",
                "guaranteed": {"requestsPerMinute": 1, "inputTokensPerMinute": 2},
                "ceiling": {"tokensPerMinute": 3, "outputTokensPerMinute": 4},
            }],
            "queue": {"maxWait": "1s", "maxRequests": 0},
            "perRequest": {"maxTokens": 5},
            "onAllocatorLoss": "Open",
            "mode": "Off",
        },
    });
    let read: LLMQuota = serde_json::from_value(full.clone()).expect("it fits");
    assert_eq!(serde_json::to_value(&read).expect("it is JSON"), full);
    // What an object becomes on its way through the API server is read as the same object.
    for text in [provider(), quota()] {
        let kind = text["kind"].clone();
        if kind == "LLMProvider" {
            let once: LLMProvider = serde_json::from_value(text).expect("it fits");
            let again = serde_json::to_value(&once).expect("it is JSON");
            assert_eq!(serde_json::from_value::<LLMProvider>(again).expect("it fits"), once);
        } else {
            let once: LLMQuota = serde_json::from_value(text).expect("it fits");
            let again = serde_json::to_value(&once).expect("it is JSON");
            assert_eq!(serde_json::from_value::<LLMQuota>(again).expect("it fits"), once);
        }
    }
}

#[test]
fn kinds_have_short_names_a_category_and_columns() {
    let rows: Vec<(String, String, Vec<String>, Vec<String>)> = definitions::all()
        .into_iter()
        .map(|crd| {
            let names = crd.spec.names;
            assert_eq!(names.categories, Some(vec!["weir".to_owned()]));
            let columns = crd.spec.versions[0].additional_printer_columns.clone();
            let columns = columns.unwrap_or_default().into_iter().map(|c| c.name).collect();
            (names.plural, crd.spec.scope, names.short_names.unwrap_or_default(), columns)
        })
        .collect();
    let row = |plural: &str, scope: &str, short: &str, columns: &[&str]| {
        let columns = columns.iter().map(|c| (*c).to_owned()).collect();
        (plural.to_owned(), scope.to_owned(), vec![short.to_owned()], columns)
    };
    assert_eq!(
        rows,
        [
            row(
                "llmproviders",
                "Cluster",
                "llmp",
                &[
                    "Protocol",
                    "Endpoint",
                    "Used",
                    "Of",
                    "Quotas",
                    "Throttled",
                    "Ready",
                    "Limits",
                    "Age"
                ]
            ),
            row(
                "llmpriorityclasses",
                "Cluster",
                "llmpc",
                &["Value", "Quotas", "Ready", "Default", "Description", "Age"]
            ),
            row(
                "llmquotas",
                "Namespaced",
                "llmq",
                &[
                    "Class",
                    "Pods",
                    "Used",
                    "Of",
                    "Waiting",
                    "Throttled",
                    "Ready",
                    "Weight",
                    "Mode",
                    "Refused",
                    "Age"
                ]
            ),
        ]
    );
}

#[test]
fn the_definitions_in_manifests_and_chart_are_those_of_the_structs() {
    for (folder, mut generated) in [
        ("manifests/crds", definitions::files()),
        ("charts/weir/templates/crds", definitions::templates()),
    ] {
        let path = format!("{}/../../{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut committed: Vec<String> = std::fs::read_dir(&path)
            .expect("the folder is there")
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .collect();
        committed.sort();
        generated.sort();
        assert_eq!(committed, generated.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        for (name, text) in generated {
            let there = std::fs::read_to_string(format!("{path}/{name}")).expect("it can be read");
            assert!(there == text, "{folder}/{name} is not as the structs: run `cargo xtask gen`");
        }
    }
}
