//! The webhooks as the API server calls them, without the network.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use crds::compile::Objects;
use json_patch::Patch;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower_service::Service as _;

use super::{fixture, injected, settings};
use crate::admission::{Webhook, router};

#[tokio::test]
async fn a_pod_is_answered_with_the_patch_that_injects_it() {
    for name in ["plain", "generated-name", "fields-of-a-newer-kubernetes", "empty-lists"] {
        let pod = fixture(name);
        let response = response(&router_of().0, "/inject", &pod_review("CREATE", &pod)).await;
        assert_eq!(response["allowed"], true, "{name}");
        assert_eq!(response["uid"], "7f3c");
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
        let patch: Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(Some(patched), injected(&pod, &settings()), "{name}");
    }
}

#[tokio::test]
async fn a_pod_that_stays_as_it_is_gets_no_patch() {
    let injected = injected(&fixture("plain"), &settings()).unwrap();
    for (operation, pod) in [
        ("CREATE", fixture("opted-out")),
        ("CREATE", injected),
        ("UPDATE", fixture("plain")),
        ("CREATE", fixture("host-network-in-a-namespace-that-injects")),
    ] {
        let response = response(&router_of().0, "/inject", &pod_review(operation, &pod)).await;
        assert_eq!(response["allowed"], true, "{pod}");
        assert_eq!(response.get("patch"), None, "{pod}");
        let is_told = pod["spec"]["hostNetwork"] == true && pod.get("metadata").is_none();
        assert_eq!(response.get("warnings").is_some(), is_told, "{pod}");
    }
}

#[tokio::test]
async fn a_refusal_names_object_field_and_what_to_do() {
    let pod = fixture("neither-true-nor-false");
    let answer = response(&router_of().0, "/inject", &pod_review("CREATE", &pod)).await;
    let message = "is \"yes\": write \"true\" to get a sidecar or \"false\" to get none";
    let field = "metadata.annotations[weir.dev/inject]";
    assert_eq!(
        answer,
        json!({
            "uid": "7f3c",
            "allowed": false,
            "status": {
                "status": "Failure",
                "code": 422,
                "reason": "Invalid",
                "message": format!("{field}: {message}"),
                "details": {
                    "name": "chat",
                    "kind": "Pod",
                    "causes": [
                        {"reason": "FieldValueInvalid", "message": message, "field": field},
                    ],
                },
            },
        })
    );
}

#[tokio::test]
async fn custom_resources_are_validated() {
    let quota = |provider: &str, wait: &str| {
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "LLMQuota",
            "metadata": {"name": "chat"},
            "spec": {"budgets": [{"provider": provider}], "queue": {"maxWait": wait}},
        })
    };
    let kind = ("weir.dev", "v1alpha1", "LLMQuota");
    let (router, _) = router_of();
    let lost = review(kind, "CREATE", Some(&quota("lost", "1s")), None);
    let answer = response(&router, "/validate", &lost).await;
    assert_eq!(answer["allowed"], true);
    let warning = "spec.budgets[0].provider: there is no LLMProvider lost; the entry is left out \
                   until there is";
    assert_eq!(answer["warnings"], json!([warning]));

    let long = review(kind, "CREATE", Some(&quota("lost", "2h")), None);
    let answer = response(&router, "/validate", &long).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["status"]["message"], "spec.queue.maxWait: maxWait is at most 1h");
    assert_eq!(answer["status"]["details"]["kind"], "LLMQuota");

    // A finalizer comes off what a newer version would refuse.
    let wrong = quota("lost", "2h");
    let same = review(kind, "UPDATE", Some(&wrong), Some(&wrong));
    assert_eq!(response(&router, "/validate", &same).await["allowed"], true);
    let gone = review(kind, "DELETE", None, Some(&wrong));
    assert_eq!(response(&router, "/validate", &gone).await["allowed"], true);
    let text = quota("lost", "1s").to_string().replace("\"1s\"", "1");
    let newer = review(kind, "CREATE", Some(&serde_json::from_str(&text).unwrap()), None);
    let answer = response(&router, "/validate", &newer).await;
    assert_eq!(answer["allowed"], false);
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("does not fit its kind: "), "{message}");
}

#[tokio::test]
async fn what_is_no_review_is_answered_with_why() {
    let (router, _) = router_of();
    let secret =
        r#"{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": "s3"}"#;
    let old = pod_review("CREATE", &fixture("plain")).replace("k8s.io/v1\"", "k8s.io/v1beta1\"");
    let node = review(("", "v1", "Node"), "CREATE", Some(&json!({"metadata": {}})), None);
    let empty = review(("", "v1", "Pod"), "CREATE", None, None);
    let large = " ".repeat(8 << 20);
    for (path, body, status, words) in [
        ("/inject", "", 400, "is no AdmissionReview"),
        ("/inject", secret, 400, "line 1"),
        ("/inject", old.as_str(), 400, "admission.k8s.io/v1"),
        ("/inject", node.as_str(), 400, "this path reviews pods, not Node"),
        ("/inject", empty.as_str(), 400, "the request has no object"),
        ("/inject", large.as_str(), 413, "7340032 bytes"),
        ("/validate", node.as_str(), 400, "LLMProvider, LLMPriorityClass and LLMQuota, not Node"),
        ("/other", "", 404, ""),
    ] {
        let (code, text) = post(&router, path, body.to_owned()).await;
        assert_eq!(code.as_u16(), status, "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
        assert!(!text.contains("s3"), "{text}");
    }
    let got = send(&router, Method::GET, "/inject", String::new()).await;
    assert_eq!(got.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn without_settings_the_failure_policy_decides() {
    let webhook = Webhook::new(&mut Registry::default(), || None, || None);
    let body = pod_review("CREATE", &fixture("plain"));
    let (code, text) = post(&router(webhook), "/inject", body).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "the settings of sidecars are not known yet\n");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let (router, _) = router_of();
    let never =
        Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
    let request = Request::post("/inject").body(never).unwrap();
    let response = router.clone().call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn reviews_are_counted() {
    let (router, registry) = router_of();
    for name in ["plain", "plain", "opted-out", "host-network"] {
        response(&router, "/inject", &pod_review("CREATE", &fixture(name))).await;
    }
    post(&router, "/validate", String::new()).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (webhook, outcome, count) in [
        ("inject", "patched", 2),
        ("inject", "allowed", 1),
        ("inject", "refused", 1),
        ("validate", "failed", 1),
    ] {
        let series = format!("webhook=\"{webhook}\",outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&format!("allocator_admission_reviews_total{{{series}")), "{text}");
    }
}

fn router_of() -> (Router, Registry) {
    let mut registry = Registry::default();
    let (settings, objects) = (Arc::new(settings()), Arc::new(Objects::default()));
    let webhook =
        Webhook::new(&mut registry, move || Some(settings.clone()), move || Some(objects.clone()));
    (router(webhook), registry)
}

fn pod_review(operation: &str, pod: &Value) -> String {
    review(("", "v1", "Pod"), operation, Some(pod), None)
}

fn review(
    (group, version, kind): (&str, &str, &str),
    operation: &str,
    object: Option<&Value>,
    before: Option<&Value>,
) -> String {
    let name = object.or(before).and_then(|object| object["metadata"]["name"].as_str());
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "7f3c",
            "kind": {"group": group, "version": version, "kind": kind},
            "resource": {"group": group, "version": version, "resource": "any"},
            "name": name.unwrap_or("chat"),
            "namespace": "shop",
            "operation": operation,
            "userInfo": {"username": "somebody"},
            "object": object,
            "oldObject": before,
            "dryRun": false,
        },
    })
    .to_string()
}

/// The response in the review that is answered.
async fn response(router: &Router, path: &str, body: &str) -> Value {
    let (code, text) = post(router, path, body.to_owned()).await;
    assert_eq!(code, StatusCode::OK, "{text}");
    let review: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    review["response"].clone()
}

async fn post(router: &Router, path: &str, body: String) -> (StatusCode, String) {
    send(router, Method::POST, path, body).await
}

async fn send(router: &Router, method: Method, path: &str, body: String) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let response = router.clone().call(request).await.unwrap();
    let code = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}
