//! Weir without helm: `kubectl apply -k`, as the README offers it.

#![expect(clippy::disallowed_methods, reason = "a cluster has no clock but the machine's")]
#![expect(clippy::print_stdout, reason = "what is left out is said")]

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use cluster_tests::application::Application;
use cluster_tests::kubectl::{Kubectl, workspace_root};
use cluster_tests::namespace::Namespace;
use cluster_tests::part::Part;
use cluster_tests::provider::Provider;
use cluster_tests::wait;
use cluster_tests::weir::Weir;
use serde_json::Value;

const ANSWERED: Duration = Duration::from_secs(120);

/// A kustomization over `manifests` for images that are here, as its head tells how to make one.
struct Overlay(PathBuf);

impl Overlay {
    fn write() -> Overlay {
        let folder = std::env::temp_dir().join(format!("weir-manifests-{}", std::process::id()));
        let copy = folder.join("manifests");
        fs::create_dir_all(copy.join("crds")).expect("there is a folder for what is temporary");
        let manifests = workspace_root().join("manifests");
        for part in ["", "crds"] {
            let entries = fs::read_dir(manifests.join(part)).expect("it is there").flatten();
            for file in entries.filter(|entry| entry.path().is_file()) {
                let to = copy.join(part).join(file.file_name());
                fs::copy(file.path(), to).expect("it can be copied");
            }
        }
        let overlay = format!(
            "resources: [manifests]
images:
- {{name: localhost/weir-allocator, newTag: dev}}
patches:
- target: {{kind: Deployment, name: weir-allocator}}
  patch: |
    - {{op: replace, path: {}, value: --sidecar-image=localhost/weir-sidecar:dev}}
",
            sidecar_image(&copy.join("weir.yaml"))
        );
        fs::write(folder.join("kustomization.yaml"), overlay).expect("it can be written");
        Overlay(folder)
    }

    fn kubectl(&self, verb: &str) -> Kubectl {
        let folder = self.0.to_str().expect("its path is text");
        Kubectl::new(&[verb, "--kustomize", folder])
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // A test that has failed must not leave what other tests would install by helm.
        if std::thread::panicking() {
            let _gone = self.kubectl("delete").attempt();
        }
        // It is temporary anyway.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// For so long a usual CoreDNS goes on believing that a Service is not there, which was taken away.
const RESOLVERS_FORGET: Duration = Duration::from_secs(30);

/// Where the Deployment says which image sidecars have.
fn sidecar_image(manifest: &PathBuf) -> String {
    let text = fs::read_to_string(manifest).expect("it is there");
    let documents = text.split("\n---\n").filter_map(|it| serde_yaml::from_str::<Value>(it).ok());
    let deployment = documents.into_iter().find(|it| it["kind"] == "Deployment");
    let deployment = deployment.expect("there is a Deployment");
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    let mut arguments = arguments.expect("it has arguments").iter();
    let is_it = |it: &Value| it.as_str().is_some_and(|it| it.starts_with("--sidecar-image="));
    let index = arguments.position(is_it).expect("one of them is the image");
    format!("/spec/template/spec/containers/0/args/{index}")
}

#[test]
fn the_manifests_alone_give_an_application_answers_and_take_all_away_again() {
    if !Part::are_ours() {
        println!("LEFT OUT: it would take away the definitions, with all that is somebody else's");
        return;
    }
    Weir::uninstall_if_there();
    let overlay = Overlay::write();
    overlay.kubectl("apply").succeeds();
    Weir.leader();
    sleep(RESOLVERS_FORGET);

    let provider = Provider::start("manifests-provider", 500);
    let namespace = Namespace::new("manifests");
    let policy = format!(
        "apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {{name: manifests}}
spec:
  protocol: OpenAI
  endpoint: {}
  limits: [{{name: all, models: ['*'], requestsPerMinute: 500}}]
---
apiVersion: weir.dev/v1alpha1
kind: LLMQuota
metadata: {{name: chat, namespace: manifests}}
spec:
  selector: {{matchLabels: {{app: chat}}}}
  budgets: [{{provider: manifests}}]
",
        provider.endpoint()
    );
    Kubectl::apply(&policy).succeeds();
    let chat = Application {
        namespace: namespace.name().to_owned(),
        name: "chat".to_owned(),
        replicas: 2,
        threads: 1,
        pause: Duration::from_millis(500),
        inject: true,
    };
    chat.apply();
    chat.rolled_out();
    let log = wait::within(ANSWERED, "both pods get answers", || {
        let log = chat.logs();
        (log.matches("first answer").count() == 2).then_some(log)
    });
    assert!(!log.contains("exception "), "{log}");
    assert_eq!(provider.truth().refused, 0);
    drop(chat);

    overlay.kubectl("delete").succeeds();
    for gone in ["namespace/weir-system", "crd/llmquotas.weir.dev"] {
        let error = Kubectl::new(&["get", gone]).fails();
        assert!(error.contains("NotFound"), "{error}");
    }
}
