//! What is left out or has no effect, and the whole of what a person is told.

use quota::policy::Name;

use super::{PROVIDER, QUOTA, class, compiled, join, quota, warnings, with};

#[test]
fn what_refers_to_nothing_is_left_out_with_a_warning() {
    let quota = quota(
        "chat",
        "priorityClassName: hihg, permittedClasses: [low, lwo], budgets: [{provider: opnai}, \
         {provider: openai, limit: gpt-5}, {provider: openai, guaranteed: {inputTokensPerMinute: 1}}]",
    );
    let text = join(&[PROVIDER, &quota, &class("low", 7, ", globalDefault: true")]);
    assert_eq!(
        warnings(&text),
        [
            "p.yaml:16: LLMQuota shop/chat: spec.budgets[0].provider: there is no LLMProvider opnai; \
             the entry is left out until there is",
            "p.yaml:16: LLMQuota shop/chat: spec.budgets[1].limit: LLMProvider openai has no limit \
             gpt-5 (it has gpt-4o); the entry is left out until it has",
            "p.yaml:16: LLMQuota shop/chat: spec.budgets[2].guaranteed.inputTokensPerMinute: has no \
             effect: no limit of LLMProvider openai has inputTokensPerMinute",
            "p.yaml:16: LLMQuota shop/chat: spec.permittedClasses[1]: there is no LLMPriorityClass \
             lwo; it is left out until there is",
            "p.yaml:16: LLMQuota shop/chat: spec.priorityClassName: there is no LLMPriorityClass \
             hihg; the class low (7) is used until there is",
        ]
    );
    let policy = compiled(&text).policy;
    assert_eq!(&*policy.quotas[0].class, "low");
    assert_eq!(policy.quotas[0].permitted, [Name::from("low")]);
    assert_eq!(policy.quotas[0].uses.len(), 1);
}

#[test]
fn without_a_global_default_an_unknown_class_has_the_value_0() {
    let text =
        join(&[PROVIDER, &quota("chat", "priorityClassName: a, budgets: [{provider: openai}]")]);
    assert_eq!(
        warnings(&text),
        [
            "p.yaml:16: LLMQuota shop/chat: spec.priorityClassName: there is no LLMPriorityClass a; the \
          class default (0) is used until there is"
        ]
    );
}

#[test]
fn a_key_without_its_secret_is_never_used_and_does_not_let_the_applications_own_pass() {
    let keys = "  keys:\n  - {name: a, secretRef: {name: none, key: k}}\n  \
                - {name: b, secretRef: {name: s, key: none}}\n  \
                - {name: c, secretRef: {name: s, key: bad}}\n  limits:";
    let provider = with(PROVIDER, "  limits:", keys);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {bad: 'sk abc'}\n";
    let text = join(&[&provider, QUOTA, secret]);
    assert_eq!(
        warnings(&text),
        [
            "p.yaml:8: LLMProvider openai: spec.keys[0].secretRef: there is no Secret none; the key \
             is not used until that is put right",
            "p.yaml:9: LLMProvider openai: spec.keys[1].secretRef: Secret s has no entry none; the \
             key is not used until that is put right",
            "p.yaml:10: LLMProvider openai: spec.keys[2].secretRef: the entry bad of Secret s cannot \
             be a key: it is empty, or holds characters that no HTTP header carries; the key is not \
             used until that is put right",
        ]
    );
    let policy = compiled(&text).policy;
    assert_eq!(policy.providers["openai"].keys.len(), 3);
    assert_eq!(policy.providers["openai"].keys_of("gpt-4o").count(), 0);
}

/// The YAML of a quota's budgets with a guarantee.
fn guaranteed(rpm: u32) -> String {
    format!("budgets: [{{provider: openai, guaranteed: {{requestsPerMinute: {rpm}}}}}]")
}

/// The same for pods of one application.
fn guaranteed_to(app: &str, rpm: u32) -> String {
    format!("selector: {{matchLabels: {{app: {app}}}}}, {}", guaranteed(rpm))
}

#[test]
fn guarantees_above_a_limit_are_a_warning_with_the_numbers() {
    let text = |b| {
        let quotas = [quota("a", &guaranteed_to("a", 401)), quota("b", &guaranteed_to("b", b))];
        join(&[PROVIDER, &quotas[0], &quotas[1]])
    };
    assert_eq!(
        warnings(&text(200)),
        ["p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: overcommitted: \
             guarantees come to 601, which is 1 more than the limit's 600 (shop/a 401, shop/b 200); \
             until they are lowered, those of higher classes come first"]
    );
    // Exactly all of it is not too much, although a rate per second rounds.
    assert!(warnings(&text(199)).is_empty());
}

#[test]
fn a_quota_that_applies_to_no_pod_says_which_wins_and_why() {
    let (a, b) = (quota("a", &guaranteed(1)), quota("b", &guaranteed(1)));
    assert_eq!(
        warnings(&join(&[PROVIDER, &b, &a])),
        ["p.yaml:16: LLMQuota shop/b: spec.selector: applies to no pod: LLMQuota shop/a matches \
             the same pods and wins because its name comes first; change a selector or a class"]
    );
    // A quota of a higher class hides a narrower one.
    let all = quota("all", &format!("priorityClassName: high, {}", guaranteed(1)));
    let narrow = quota("a", &guaranteed_to("a", 1));
    assert_eq!(
        warnings(&join(&[PROVIDER, &all, &narrow, &class("high", 10, "")])),
        ["p.yaml:21: LLMQuota shop/a: spec.selector: applies to no pod: LLMQuota shop/all \
             matches the same pods and wins because its class high (10) is above default (0); \
             change a selector or a class"]
    );
    // In the same class the narrower one wins, and both apply.
    let (all, narrow) = (quota("all", &guaranteed(1)), quota("a", &guaranteed_to("a", 1)));
    assert!(warnings(&join(&[PROVIDER, &all, &narrow])).is_empty());
}

#[test]
fn what_has_no_effect_or_an_odd_one_is_a_warning() {
    let versioned = with(PROVIDER, "api.openai.com", "api.openai.com/v1/");
    let classes = [class("a", 1, ", minSharePercent: 60"), class("b", 2, ", minSharePercent: 41")];
    for (text, expected) in [
        (
            PROVIDER,
            "p.yaml:8: LLMProvider openai: spec.limits[0]: no LLMQuota uses this limit; name it or \
             its provider in the budgets of one",
        ),
        (
            &join(&[&versioned, QUOTA]),
            "p.yaml:6: LLMProvider openai: spec.endpoint: ends in /v1, and so does the base URL that \
             most applications are given: calls would go to /v1/v1/...; leave the /v1 out unless \
             your applications do",
        ),
        (
            &join(&[&classes[0], &classes[1]]),
            "p.yaml:4: LLMPriorityClass a: spec.minSharePercent: the minimum shares of all classes \
             come to 101 percent, 1 more than there is; lower this one, the largest",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
            "p.yaml:2: kind: kind ConfigMap of v1 is not read here; LLMPriorityClass, LLMProvider, \
             LLMQuota and Secret are",
        ),
    ] {
        assert_eq!(warnings(text), [expected]);
    }
}
