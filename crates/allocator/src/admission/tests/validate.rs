//! Custom resources under review: what is refused, what is only said.

use crds::compile::Objects;
use serde_json::{Value, json};

use crate::admission::{Change, Object, Verdict, validate};

#[test]
fn a_sound_object_is_allowed_in_silence() {
    for object in [class("interactive", 1_000, false), provider(10), quota("chat", json!({}))] {
        let verdict = validate(&made(&object), Some(&world()));
        assert_eq!(verdict, Verdict::default(), "{}", object.id());
    }
}

#[test]
fn an_error_is_refused_in_the_words_of_the_directory_source() {
    for (object, expected) in [
        (
            quota("chat", json!({"queue": {"maxWait": "2h"}})),
            "spec.queue.maxWait: maxWait is at most 1h",
        ),
        (
            quota("chat", json!({"budgets": [{"provider": "openai"}, {"provider": "openai"}]})),
            "spec.budgets: two entries name the same provider and limit: write them as one",
        ),
        (
            object(json!({
                "kind": "LLMProvider",
                "metadata": {"name": "openai"},
                "spec": {
                    "protocol": "OpenAI",
                    "endpoint": "https://api.openai.com",
                    "limits": [{"name": "all", "models": ["*"], "requestsPerMinute": 1}],
                },
            })),
            "spec.limits[0].requestsPerMinute: is too small: a request may take at most half of what \
             the limit holds at once, and that is less than 1; raise the figure or burstPercent",
        ),
        (
            // By name the first, but the second to be applied.
            class("alpha", 5, true),
            "spec.globalDefault: LLMPriorityClass standard is the global default already, and only \
             one can be: set its globalDefault to false first",
        ),
        (
            class("zeta", 5, true),
            "spec.globalDefault: LLMPriorityClass standard is the global default already, and only \
             one can be: set its globalDefault to false first",
        ),
    ] {
        let mut world = world();
        world.classes.push(parse(class_value("standard", 100, true)));
        let verdict = validate(&made(&object), Some(&world));
        let errors: Vec<String> =
            verdict.errors.iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
        assert_eq!(errors, [expected]);
        assert_eq!(verdict.warnings, [""; 0]);
    }
}

#[test]
fn what_is_referred_to_and_not_there_is_a_warning() {
    let spec = json!({
        "priorityClassName": "none",
        "budgets": [{"provider": "opnai"}, {"provider": "openai", "limit": "gpt-5"}],
    });
    let verdict = validate(&made(&quota("chat", spec)), Some(&world()));
    assert_eq!(verdict.errors, []);
    assert_eq!(
        verdict.warnings,
        [
            "spec.priorityClassName: there is no LLMPriorityClass none; the class default (0) is \
             used until there is",
            "spec.budgets[0].provider: there is no LLMProvider opnai; the entry is left out until \
             there is",
            "spec.budgets[1].limit: LLMProvider openai has no limit gpt-5 (it has all); the entry is \
             left out until it has",
        ]
    );
}

#[test]
fn overcommitment_is_said_to_whoever_brings_it_about() {
    let greedy = |name: &str| {
        let budget = json!({"provider": "openai", "guaranteed": {"requestsPerMinute": 60}});
        quota(name, json!({"selector": {"matchLabels": {"app": name}}, "budgets": [budget]}))
    };
    let mut world = world();
    world.quotas.push(the_quota(greedy("chat")));
    let said = "LLMProvider openai: spec.limits[0].requestsPerMinute: overcommitted: guarantees come \
                to 120, which is 20 more than the limit's 100 (shop/batch 60, shop/chat 60); until \
                they are lowered, those of higher classes come first";
    let verdict = validate(&made(&greedy("batch")), Some(&world));
    assert_eq!(verdict, Verdict { errors: Vec::new(), warnings: vec![said.into()] });
    // Who has no part in it hears nothing of it.
    world.quotas.push(the_quota(greedy("batch")));
    let verdict = validate(&made(&class("interactive", 1_000, false)), Some(&world));
    assert_eq!(verdict, Verdict::default());
    // The provider's author does.
    let after = provider(110);
    let verdict = validate(&changed(&provider(100), &after), Some(&world));
    assert_eq!(verdict.warnings.len(), 1, "{verdict:?}");
}

#[test]
fn a_provider_is_not_blamed_for_quotas_and_secrets_that_come_after_it() {
    let mut value = provider_value(100);
    value["spec"]["keys"] = json!([{"name": "a", "secretRef": {"name": "openai", "key": "key"}}]);
    let object = object(value);
    let empty = Objects::default();
    assert_eq!(validate(&made(&object), Some(&empty)), Verdict::default());
    // With a quota that leaves the limit out, and a Secret that is watched and not there.
    let mut world = world();
    world.providers = vec![the_provider(object.clone())];
    world.quotas[0].spec.budgets[0].limit = Some("other".into());
    let warnings = validate(&made(&object), Some(&world)).warnings;
    assert_eq!(
        warnings,
        [
            "spec.keys[0].secretRef: there is no Secret openai; the key is not used until that is \
             put right",
            "spec.limits[0]: no LLMQuota uses this limit; name it or its provider in the budgets of \
             one",
        ]
    );
}

#[test]
fn a_change_beside_the_spec_is_never_refused() {
    let wrong = quota("chat", json!({"queue": {"maxWait": "2h"}}));
    assert_eq!(validate(&changed(&wrong, &wrong), Some(&world())), Verdict::default());
    let right = quota("chat", json!({}));
    assert_eq!(validate(&changed(&right, &wrong), Some(&world())).errors.len(), 1);
}

#[test]
fn before_the_objects_are_known_only_the_object_itself_is_looked_at() {
    let lost = quota("chat", json!({"budgets": [{"provider": "opnai"}]}));
    assert_eq!(validate(&made(&lost), None), Verdict::default());
    let wrong = quota("chat", json!({"queue": {"maxWait": "2h"}}));
    assert_eq!(validate(&made(&wrong), None).errors.len(), 1);
}

#[test]
fn whoever_deletes_what_is_in_use_is_told_by_whom() {
    let mut world = world();
    for name in ["a", "b", "c"] {
        world.quotas.push(the_quota(quota(name, json!({}))));
    }
    for (object, expected) in [
        (
            provider(100),
            &[
                "in use by LLMQuota shop/standing, LLMQuota shop/a, LLMQuota shop/b and 1 more: their \
               pods get no answers from it until there is one of this name",
            ][..],
        ),
        (class("interactive", 1_000, false), &[]),
        (quota("a", json!({})), &[]),
    ] {
        let verdict = validate(&Change::Deleted(object), Some(&world));
        assert_eq!(verdict.warnings, expected);
        assert_eq!(verdict.errors, []);
    }
    world.quotas[0].spec.permitted_classes = vec!["interactive".into()];
    let verdict = validate(&Change::Deleted(class("interactive", 1_000, false)), Some(&world));
    assert_eq!(
        verdict.warnings,
        [
            "in use by LLMQuota shop/standing: their requests have the default class until there is one \
          of this name"
        ]
    );
}

fn made(object: &Object) -> Change {
    Change::Applied { object: object.clone(), before: None }
}

fn changed(before: &Object, after: &Object) -> Change {
    Change::Applied { object: after.clone(), before: Some(Box::new(before.clone())) }
}

/// A provider, and a quota that uses all of it.
fn world() -> Objects {
    let standing = json!({"selector": {"matchLabels": {"app": "standing"}}});
    Objects {
        providers: vec![the_provider(provider(100))],
        quotas: vec![the_quota(quota("standing", standing))],
        ..Objects::default()
    }
}

fn provider(requests: u64) -> Object {
    object(provider_value(requests))
}

fn provider_value(requests: u64) -> Value {
    json!({
        "kind": "LLMProvider",
        "metadata": {"name": "openai"},
        "spec": {
            "protocol": "OpenAI",
            "endpoint": "https://api.openai.com",
            "limits": [{"name": "all", "models": ["*"], "requestsPerMinute": requests}],
        },
    })
}

fn class(name: &str, value: i32, global_default: bool) -> Object {
    object(class_value(name, value, global_default))
}

fn class_value(name: &str, value: i32, global_default: bool) -> Value {
    json!({
        "kind": "LLMPriorityClass",
        "metadata": {"name": name},
        "spec": {"value": value, "globalDefault": global_default},
    })
}

/// A quota of its own pods, with these fields in its spec.
fn quota(name: &str, fields: Value) -> Object {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": name}},
        "budgets": [{"provider": "openai"}],
    });
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    object(json!({
        "kind": "LLMQuota",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }))
}

fn object(value: Value) -> Object {
    match value["kind"].as_str() {
        Some("LLMProvider") => Object::Provider(parse(value)),
        Some("LLMPriorityClass") => Object::Class(parse(value)),
        _ => Object::Quota(parse(value)),
    }
}

fn parse<K: serde::de::DeserializeOwned>(mut value: Value) -> K {
    value["apiVersion"] = json!("weir.dev/v1alpha1");
    serde_json::from_value(value).unwrap()
}

fn the_provider(object: Object) -> crds::provider::LLMProvider {
    let Object::Provider(provider) = object else { unreachable!("it is one") };
    provider
}

fn the_quota(object: Object) -> crds::quota::LLMQuota {
    let Object::Quota(quota) = object else { unreachable!("it is one") };
    quota
}
