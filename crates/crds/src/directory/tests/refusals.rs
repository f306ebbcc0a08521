//! Each bad document, and the whole of what a person is told.

use super::{PROVIDER, QUOTA, class, errors, with};

const BUDGET: &str = "  - provider: openai\n";

fn refused(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        assert_eq!(errors(text), [*expected], "{text}");
    }
}

fn provider(old: &str, new: &str) -> String {
    with(PROVIDER, old, new)
}

fn quota(old: &str, new: &str) -> String {
    with(QUOTA, old, new)
}

#[test]
fn a_document_that_is_no_object_is_refused() {
    refused(&[
        (
            "kind: [".into(),
            "p.yaml:2: is not YAML that can be read: did not find expected node content",
        ),
        ("- a\n".into(), "p.yaml:1: must be an object with a kind"),
        ("kind: LLMQuota\n".into(), "p.yaml:1: apiVersion or kind is missing, or no text"),
        (provider("v1alpha1", "v1"), "p.yaml:1: apiVersion: must be weir.dev/v1alpha1"),
    ]);
}

#[test]
fn bad_metadata_is_refused() {
    refused(&[
        (provider("{name: openai}", "{}"), "p.yaml:3: LLMProvider: metadata.name: is missing"),
        (
            provider("name: openai", "name: 1"),
            "p.yaml:3: LLMProvider: metadata.name: must be a text: put it in quotes",
        ),
        (
            provider("name: openai", "name: Open_AI"),
            "p.yaml:3: LLMProvider Open_AI: metadata.name: must consist of at most 253 lower-case letters, digits, - and ., and begin and end with a letter or digit",
        ),
        (
            provider("name: openai", "name: openai, namespace: shop"),
            "p.yaml:3: LLMProvider openai: metadata.namespace: remove it: LLMProvider has no namespace",
        ),
        (
            quota("namespace: shop", "namespce: shop"),
            "p.yaml:3: LLMQuota default/chat: metadata.namespce: unknown field; the fields here are name, namespace, labels, annotations",
        ),
        (
            quota("namespace: shop", "namespace: a.b"),
            "p.yaml:3: LLMQuota a.b/chat: metadata.namespace: must consist of at most 63 lower-case letters, digits and -, and begin and end with a letter or digit",
        ),
        (
            provider("name: openai", "name: v1"),
            "p.yaml:1: LLMProvider v1: an LLMProvider's name is the first path segment on the sidecar: choose one of at most 63 characters, other than v1, which is taken",
        ),
    ]);
}

#[test]
fn what_does_not_fit_the_schema_of_a_provider_is_refused() {
    refused(&[
        (
            provider("spec:", "data: 1\nspec:"),
            "p.yaml:4: LLMProvider openai: data: unknown field; the fields here are apiVersion, kind, metadata, spec",
        ),
        (
            provider("  protocol: OpenAI\n", ""),
            "p.yaml:5: LLMProvider openai: spec.protocol: is missing",
        ),
        (
            provider("protocol: OpenAI", "protocol: openai"),
            "p.yaml:5: LLMProvider openai: spec.protocol: must be one of OpenAI, Anthropic, OpenAICompatible",
        ),
        (
            provider("requestsPerMinute: 600", "requestsPerMinut: 600"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinut: unknown field; the fields here are burstPercent, concurrentRequests, floorDuration, floorPercent, inputTokensPerMinute, models, name, outputTokensPerMinute, requestsPerDay, requestsPerMinute, tokensPerDay, tokensPerMinute, window",
        ),
        (
            provider("600", "many"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: must be a whole number, not a text",
        ),
        (
            provider("600", "0.5"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: must be a whole number, not a fraction",
        ),
        (
            provider("600", "0"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: must be 1 or more",
        ),
        (
            provider("600", "-1"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: must be 1 or more",
        ),
        (
            provider("600", "1000000000001"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: must be 1000000000000 or less",
        ),
        (
            provider("[gpt-4o*]", "[]"),
            "p.yaml:9: LLMProvider openai: spec.limits[0].models: needs at least 1 entry",
        ),
        (
            provider("[gpt-4o*]", "[a, a]"),
            "p.yaml:9: LLMProvider openai: spec.limits[0].models[1]: a stands in the list twice",
        ),
        (
            provider("[gpt-4o*]", "['']"),
            "p.yaml:9: LLMProvider openai: spec.limits[0].models[0]: must not be empty",
        ),
        (
            provider("[gpt-4o*]", "gpt-4o"),
            "p.yaml:9: LLMProvider openai: spec.limits[0].models: must be a list, not a text",
        ),
        (
            provider("name: gpt-4o\n", "name: GPT/4o\n"),
            "p.yaml:8: LLMProvider openai: spec.limits[0].name: may hold lower-case letters, digits, - and . only, and must begin and end with a letter or digit",
        ),
    ]);
}

#[test]
fn what_does_not_fit_the_schema_of_a_quota_or_class_is_refused() {
    refused(&[
        (
            quota(BUDGET, "  - {}\n"),
            "p.yaml:6: LLMQuota shop/chat: spec.budgets[0].provider: is missing",
        ),
        (
            quota("spec:\n  budgets:\n  - provider: openai\n", ""),
            "p.yaml:1: LLMQuota shop/chat: spec: is missing",
        ),
        (
            quota("spec:\n  budgets:\n  - provider: openai\n", "spec:\n"),
            "p.yaml:4: LLMQuota shop/chat: spec: must be an object, not empty",
        ),
        (
            quota("spec:\n", "spec:\n  selector: {matchLabels: {app.kubernetes.io/name: 1}}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.selector.matchLabels[app.kubernetes.io/name]: must be a text, not a number: put it in quotes",
        ),
        (
            quota("spec:\n", "spec:\n  selector: {matchLabels: {app: }}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.selector.matchLabels.app: must be a text, not empty",
        ),
        (
            quota("spec:\n", "spec:\n  spend: {perDay: '40'}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.spend: unknown field; the fields here are budgets, mode, onAllocatorLoss, perRequest, permittedClasses, priorityClassName, queue, selector, weight",
        ),
        (
            quota("spec:\n", "spec:\n  mode: enforce\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.mode: must be one of Off, Shadow, Enforce",
        ),
        (
            quota("spec:\n", "spec:\n  weight: 1001\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.weight: must be 1000 or less",
        ),
        (
            class("a", 1, ", minSharePercent: 101"),
            "p.yaml:4: LLMPriorityClass a: spec.minSharePercent: must be 100 or less",
        ),
        (
            class("a", 1, ", globalDefault: 'yes'"),
            "p.yaml:4: LLMPriorityClass a: spec.globalDefault: must be true or false, not a text",
        ),
    ]);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    refused(&[
        (
            provider("https://api.openai.com", "ftp://x"),
            "p.yaml:6: LLMProvider openai: spec.endpoint: must be https://HOST[:PORT][/PATH] (or http:// for an address on this machine or a private network), without user, query and fragment, and with a port of at most 65535",
        ),
        (
            provider("https:", "http:"),
            "p.yaml:6: LLMProvider openai: spec.endpoint: http:// would send keys and prompts over the network in plain text: use https://, or an address that is loopback, private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7), localhost, a name without a dot, or one that ends in .svc, .svc.cluster.local or .local",
        ),
        (
            provider("    requestsPerMinute: 600\n    tokensPerMinute: 60000\n", ""),
            "p.yaml:8: LLMProvider openai: spec.limits[0]: a limit needs at least one figure, for example requestsPerMinute",
        ),
        (
            provider("requestsPerMinute: 600", "burstPercent: 9\n    window: FixedWindow"),
            "p.yaml:8: LLMProvider openai: spec.limits[0]: burstPercent shapes a token bucket: remove it, or set window to TokenBucket",
        ),
        (
            provider("requestsPerMinute: 600", "floorDuration: 1.5h"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].floorDuration: is not a duration: write whole numbers with the units h, m, s, ms in this order, as in 1h, 90s, 1h30m or 500ms",
        ),
        (
            provider("requestsPerMinute: 600", "floorDuration: 25h"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].floorDuration: floorDuration is at most 24h",
        ),
        (
            provider("requestsPerMinute: 600", "requestsPerMinute: 1"),
            "p.yaml:10: LLMProvider openai: spec.limits[0].requestsPerMinute: is too small: a request may take at most half of what the limit holds at once, and that is less than 1; raise the figure or burstPercent",
        ),
        (
            quota("spec:\n", "spec:\n  queue: {maxWait: 10}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.queue.maxWait: must be a text, not a number: put it in quotes",
        ),
        (
            quota("spec:\n", "spec:\n  queue: {maxWait: '10'}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.queue.maxWait: is not a duration: write whole numbers with the units h, m, s, ms in this order, as in 1h, 90s, 1h30m or 500ms",
        ),
        (
            quota("spec:\n", "spec:\n  queue: {maxWait: 61m}\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.queue.maxWait: maxWait is at most 1h",
        ),
        (
            quota(BUDGET, "  - provider: openai\n  - provider: openai\n"),
            "p.yaml:5: LLMQuota shop/chat: spec.budgets: two entries name the same provider and limit: write them as one",
        ),
        (
            quota(
                BUDGET,
                "  - provider: openai\n    guaranteed: {tokensPerMinute: 2}\n    ceiling: {tokensPerMinute: 1}\n",
            ),
            "p.yaml:6: LLMQuota shop/chat: spec.budgets[0]: a guarantee is above its ceiling: raise the ceiling or lower the guarantee",
        ),
        (
            quota(
                BUDGET,
                "  - provider: openai\n    guaranteed: {tokensPerMinute: 2}\n  - provider: openai\n    limit: a\n    ceiling: {tokensPerMinute: 1}\n",
            ),
            "p.yaml:8: LLMQuota shop/chat: spec.budgets[1]: a guarantee is above its ceiling: raise the ceiling or lower the guarantee",
        ),
    ]);
}

#[test]
fn a_bad_secret_is_refused() {
    refused(&[
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: sk-abc}\n".into(),
            "p.yaml:4: Secret s: data.k: is not base64: encode it, or write it as it is under stringData",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: 1}\n".into(),
            "p.yaml:4: Secret s: stringData.k: must be a text: put it in quotes",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: sk-abc\n".into(),
            "p.yaml:4: Secret s: data: must be an object",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringdata: {k: v}\n".into(),
            "p.yaml:4: Secret s: stringdata: unknown field; the fields here are apiVersion, kind, metadata, type, data, stringData, immutable",
        ),
    ]);
}
