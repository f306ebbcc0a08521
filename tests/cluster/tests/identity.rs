//! Who a pod is, and what it gets: by its own token, and by nothing else.

#![expect(clippy::print_stdout, reason = "what is left out is said")]

use std::time::Duration;

use cluster_tests::kubectl::Kubectl;
use cluster_tests::namespace::Namespace;
use cluster_tests::token::{Life, Signer};
use cluster_tests::wait;
use cluster_tests::weir::Weir;
use serde_json::{Value, json};

const KEY: &str = "the-key-that-nobody-may-see";
const TOLD: Duration = Duration::from_secs(120);

/// A pod that runs a sidecar by hand, with a token from wherever `volume` has it.
fn pod(namespace: &Namespace, name: &str, volume: &Value) -> Value {
    let ca = Weir.kubectl(&["get", "secret", "weir-ca", "--output=json"]).json();
    let ca = ca["data"]["ca.crt"].as_str().expect("there is an authority").to_owned();
    let of_pod = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let container = json!({
        "name": "weir-sidecar",
        "image": "localhost/weir-sidecar:dev",
        "imagePullPolicy": "Never",
        "env": [
            {"name": "WEIR_SIDECAR_ALLOCATOR", "value": "https://weir-allocator.weir-system.svc:7420"},
            {"name": "WEIR_SIDECAR_CA", "value": decoded(&ca)},
            {"name": "WEIR_SIDECAR_TOKEN_FILE", "value": "/var/run/secrets/weir.dev/token"},
            {"name": "WEIR_SIDECAR_ADMIN", "value": "0.0.0.0:7411"},
            {"name": "WEIR_SIDECAR_NAMESPACE", "valueFrom": of_pod("metadata.namespace")},
            {"name": "WEIR_SIDECAR_POD", "valueFrom": of_pod("metadata.name")},
            {"name": "WEIR_SIDECAR_POD_UID", "valueFrom": of_pod("metadata.uid")},
        ],
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/weir.dev"}],
    });
    let mut volume = volume.clone();
    volume["name"] = json!("token");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace.name(),
            "labels": {"app": name, "weir.dev/sidecar": "true"},
            "annotations": {"weir.dev/inject": "false"},
        },
        "spec": {
            "containers": [container],
            "volumes": [volume],
            "terminationGracePeriodSeconds": 1,
        },
    })
}

fn decoded(base64: &str) -> String {
    let text = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$0\" | base64 -d", base64])
        .output()
        .expect("there is a base64");
    String::from_utf8(text.stdout).expect("PEM is text")
}

fn projected(audience: &str) -> Value {
    let token = json!({"audience": audience, "path": "token", "expirationSeconds": 3600});
    json!({"projected": {"sources": [{"serviceAccountToken": token}]}})
}

/// A Secret that holds `token`, as a volume.
fn secret(namespace: &Namespace, name: &str, token: &str) -> Value {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace.name()},
        "stringData": {"token": token},
    });
    Kubectl::apply(&secret.to_string()).succeeds();
    json!({"secret": {"secretName": name}})
}

/// Waits until the pod's sidecar says `words`.
fn says(namespace: &Namespace, pod: &str, words: &str) -> String {
    let logs = namespace.kubectl(&["logs", pod]);
    wait::within(TOLD, words, || logs.attempt().filter(|log| log.contains(words)))
}

/// Waits for the Event that tells of the pod's refusal, and returns what it says.
fn event(namespace: &Namespace, pod: &str) -> String {
    let about = format!("--field-selector=involvedObject.name={pod},reason=SidecarRefused");
    let notes = "--output=jsonpath={.items[*].message}";
    let events = namespace.kubectl(&["get", "events", &about, notes]);
    wait::within(TOLD, "there is an Event", || {
        events.attempt().filter(|notes| !notes.trim().is_empty())
    })
}

/// A token of the pod as the API server makes it, for the audience `weir`.
fn token(namespace: &Namespace, pod: &str) -> String {
    let pod = format!("--bound-object-name={pod}");
    let bound = ["--bound-object-kind=Pod", &pod, "--audience=weir"];
    namespace.kubectl(&[&["create", "token", "default"][..], &bound].concat()).succeeds()
}

/// The sessions that the leader has refused because of the sidecar's identity.
fn refused_for_identity(weir: Weir) -> u64 {
    let metrics = metrics(weir);
    let is_it = |line: &&str| {
        line.starts_with("weir_allocator_refused_sessions_total{")
            && line.contains("reason=\"identity\"")
    };
    let line = metrics.lines().find(is_it);
    let count = line.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count);
    count.map_or(0, |count| count.parse().expect("it is a number"))
}

fn metrics(weir: Weir) -> String {
    let leader = weir.leader();
    let path = format!("/api/v1/namespaces/weir-system/pods/{leader}:7421/proxy/metrics");
    Kubectl::new(&["get", "--raw", &path]).succeeds()
}

#[test]
fn a_token_that_has_expired_is_refused_and_one_that_differs_in_nothing_else_is_not() {
    let Some(signer) = Signer::of_cluster() else {
        println!("LEFT OUT: the key that signs this cluster's tokens is not ours");
        return;
    };
    let weir = Weir::install();
    let namespace = Namespace::new("expired");
    let before = refused_for_identity(weir);
    const HOUR: i64 = 3600;
    for (name, life) in
        [("late", Life { from: -2 * HOUR, to: -HOUR }), ("in-time", Life { from: -HOUR, to: HOUR })]
    {
        // It waits for its volume: its token can only be made when there is a pod.
        let volume = json!({"secret": {"secretName": name}});
        Kubectl::apply(&pod(&namespace, name, &volume).to_string()).succeeds();
        secret(&namespace, name, &signer.copy(&token(&namespace, name), life));
    }
    let log = says(&namespace, "late", "the API server does not accept the token");
    assert!(log.contains("token has expired"), "{log}");
    let note = event(&namespace, "late");
    assert!(note.contains("token has expired"), "{note}");
    assert!(refused_for_identity(weir) > before);
    says(&namespace, "in-time", "no quota matches this pod");
}

#[test]
fn a_pod_gets_what_its_own_token_proves_and_is_told_why_it_gets_nothing() {
    let weir = Weir::install();
    let namespace = Namespace::new("identity");
    let policy = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: identity, namespace: weir-system}}
stringData: {{key: {KEY}}}
---
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {{name: identity}}
spec:
  protocol: OpenAI
  endpoint: https://api.openai.com
  keys: [{{name: key, secretRef: {{name: identity, key: key}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{name: entitled, namespace: identity}}
spec:
  selector: {{matchLabels: {{app: entitled}}}}
  budgets: [{{provider: identity}}]
"
    );
    Kubectl::apply(&policy).succeeds();
    let own = projected("weir");
    Kubectl::apply(&pod(&namespace, "entitled", &own).to_string()).succeeds();
    Kubectl::apply(&pod(&namespace, "without-quota", &own).to_string()).succeeds();
    let logs = [says(&namespace, "entitled", "welcomed by an allocator")];

    // Of the wrong audience, of another pod, and none at all.
    let stolen = token(&namespace, "entitled");
    for (name, volume, words) in [
        ("other-audience", projected("vault"), "the API server does not accept the token"),
        ("thief", secret(&namespace, "stolen", stolen.trim()), "its token is of identity/entitled"),
        ("nobody", secret(&namespace, "empty", ""), "no token"),
        ("forger", secret(&namespace, "forged", "not.a.token"), "does not accept the token"),
    ] {
        Kubectl::apply(&pod(&namespace, name, &volume).to_string()).succeeds();
        says(&namespace, name, words);
        event(&namespace, name);
    }
    let none = says(&namespace, "without-quota", "no quota matches this pod");
    assert!(refused_for_identity(weir) > 0);
    let metrics = metrics(weir);

    // The key is in nothing that anybody can look at.
    let config = |pod: &str| {
        let path = format!("/api/v1/namespaces/identity/pods/{pod}:7411/proxy/config");
        Kubectl::new(&["get", "--raw", &path]).succeeds()
    };
    let shown = [config("entitled"), config("without-quota"), config("thief")];
    assert!(shown[0].contains(r#""providers":[{"name":"identity""#), "{shown:?}");
    assert!(shown[1..].iter().all(|shown| shown.contains(r#""providers":[]"#)), "{shown:?}");
    let yaml = namespace.kubectl(&["get", "pods,llmquota,events", "--output=yaml"]).succeeds();
    let allocators = ["logs", "--selector=app.kubernetes.io/component=allocator", "--tail=-1"];
    let allocators = weir.kubectl(&allocators).succeeds();
    for text in logs.iter().chain(&shown).chain([&none, &yaml, &allocators, &metrics]) {
        assert!(!text.contains(KEY), "the key is shown");
    }
    Kubectl::new(&["delete", "llmprovider", "identity"]).succeeds();
}
