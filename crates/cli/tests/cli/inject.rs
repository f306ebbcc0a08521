//! `weir inject` as a person runs it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::command;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

/// Kinds of all sorts, written as people write them.
const MANIFESTS: &str = "\
# What the application needs.
apiVersion: v1
kind: ConfigMap
metadata: {name: chat}   # Left as it is.
data:
  on: yes
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: chat
  namespace: shop
spec:
  replicas: 2
  selector: {matchLabels: {app: chat}}
  template:
    metadata:
      labels: {app: chat}
    spec:
      containers:
      - name: app
        image: registry.example/chat:1
        args: ['on', \"0644\"]
        resources: {limits: {cpu: 1}}
        env:
        - {name: OPENAI_BASE_URL, value: https://gateway.example/v1}
      volumes:
      - name: files
        configMap: {name: chat, defaultMode: 0644}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: '@daily'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: report, image: registry.example/report:1}]
---
apiVersion: v1
kind: Pod
metadata:
  name: quiet
  annotations: {weir.dev/inject: 'false'}   # It declines.
spec:
  containers: [{name: app, image: registry.example/chat:1}]
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: chat}
- apiVersion: apps/v1
  kind: StatefulSet
  metadata: {name: store}
  spec:
    template:
      spec:
        hostNetwork: true
        containers: [{name: app, image: registry.example/store:1}]
- apiVersion: v1
  kind: Pod
  metadata: {name: one}
  spec:
    containers: [{name: app, image: registry.example/chat:1}]
";

#[test]
fn templates_get_a_sidecar_and_everything_else_stays_as_it_is_written() {
    let output = inject(MANIFESTS, &[]);
    let (text, said) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (before, _) = MANIFESTS.split_once("---\n").unwrap();
    assert!(text.starts_with(before), "{text}");
    assert!(text.contains("'false'}   # It declines.\nspec:\n  containers: [{"), "{text}");

    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    assert_eq!(documents.len(), 5, "{text}");
    for (document, way, injected) in [
        (1, "/spec/template", true),
        (2, "/spec/jobTemplate/spec/template", true),
        (3, "", false),
        (4, "/items/1/spec/template", false),
        (4, "/items/2", true),
    ] {
        let template = documents[document].pointer(way).unwrap();
        let first = template.pointer("/spec/initContainers/0/name");
        assert_eq!(first.is_some_and(|name| name == "weir-sidecar"), injected, "{template}");
    }
    let template = &documents[1]["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["weir.dev/sidecar"], "true");
    let sidecar = &template["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "localhost/weir-sidecar:dev");
    assert_eq!(sidecar["env"][0]["value"], "https://weir-allocator.weir-system.svc:7420");
    assert_eq!(sidecar["env"][1]["value"], CERTIFICATE);
    assert_eq!(template["spec"]["volumes"][0]["configMap"]["defaultMode"], 0o644);
    assert_eq!(template["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1");
    // Quoted for readers of YAML 1.1, and in the order in which it was written.
    assert!(text.contains("        args:\n        - \"on\"\n        - \"0644\"\n"), "{text}");
    assert!(text.contains("spec:\n  replicas: 2\n  selector:\n"), "{text}");

    for line in [
        "standard input: document 2: Deployment shop/chat: injected",
        "standard input: document 2: Deployment shop/chat: warning: container app sets \
         OPENAI_BASE_URL itself",
        "standard input: document 3: CronJob report: injected",
        "standard input: document 4: Pod quiet: left as it is (opted out)",
        "standard input: document 5: StatefulSet store: warning: no sidecar in this pod: \
         spec.hostNetwork",
        "standard input: document 5: Pod one: injected",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

#[test]
fn a_second_pass_changes_nothing() {
    let once = stdout(&inject(MANIFESTS, &[]));
    assert_eq!(stdout(&inject(&once, &[])), once);
    let newer = stdout(&inject(&once, &["--sidecar-image", "registry.example/weir-sidecar:2"]));
    assert_eq!(
        newer,
        once.replace("localhost/weir-sidecar:dev", "registry.example/weir-sidecar:2")
    );
}

#[test]
fn what_cannot_be_injected_is_named_by_file_document_and_object() {
    let pod = |annotations: &str| {
        format!(
            "kind: Pod\napiVersion: v1\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n"
        )
    };
    for (text, words) in [
        (
            format!("---\nkind: A\n---\n{}", pod("weir.dev/inject: 'yes'")),
            "standard input: document 2: Pod a: metadata.annotations[weir.dev/inject]: is \"yes\": \
             write \"true\" to get a sidecar or \"false\" to get none",
        ),
        (
            "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: a}\nspec: {template: {metadata: \
             {annotations: {weir.dev/sidecar-cpu-limit: x}}}}\n"
                .to_owned(),
            "document 1: Deployment a: spec.template.metadata.annotations[weir.dev/sidecar-cpu-limit]: \
             is \"x\", which is no quantity: write for example \"500m\"",
        ),
        (
            "kind: Job\napiVersion: batch/v1\nmetadata: {generateName: a-}\n".to_owned(),
            "document 1: Job a-: spec.template is missing",
        ),
        (
            "kind: Pod\napiVersion: v1\nspec: {hostNetwork: 'on'}\n".to_owned(),
            "spec: cannot be read: invalid type: string \"on\", expected a boolean",
        ),
        ("a: 1\n---\nb: [\n".to_owned(), "document 2, line 4: is not YAML: "),
    ] {
        let output = inject(&text, &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{words} in {said}");
        assert_eq!(stdout(&output), "", "{said}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_before_anything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    fs::write(&key, format!("{CERTIFICATE}-----BEGIN EC {} KEY-----\n", "PRIVATE")).unwrap();
    let none = directory.path().join("none.pem");
    fs::write(&none, "MIIB\n").unwrap();
    let sound = certificate(directory.path());
    let text = |path: &Path| path.display().to_string();
    for (ca, flags, words) in [
        (text(&key), &[][..], "holds a private key"),
        (text(&none), &[], "holds no certificate in PEM"),
        ("missing.pem".into(), &[], "missing.pem cannot be read"),
        (sound.clone(), &["--allocator", "weir:7420"], "is no URL such as https://"),
        (sound.clone(), &["--sidecar-cpu-request", "half"], "is no quantity such as 50m"),
        (
            sound,
            &["--sidecar-memory-request", "1Gi"],
            "memory request 1Gi is above its limit 192Mi",
        ),
    ] {
        let arguments = [&["inject", "-f", "-", "--ca-file", ca.as_str()], flags].concat();
        let output = command(&arguments).output().unwrap();
        let said = stderr(&output);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[test]
fn several_files_become_one_and_one_without_pods_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let ca = certificate(directory.path());
    let files = ["a.yaml", "b.json"].map(|name| directory.path().join(name).display().to_string());
    fs::write(&files[0], "kind: A").unwrap();
    fs::write(&files[1], "{\"kind\": \"B\"}\n").unwrap();
    let arguments = ["inject", "-f", &files[0], "--filename", &files[1], "--ca-file", &ca];
    let output = command(&arguments).output().unwrap();
    assert_eq!(stdout(&output), "kind: A\n---\n{\"kind\": \"B\"}\n");
    assert!(stderr(&output).contains("Nothing was injected"), "{}", stderr(&output));
}

/// Injects what stands on standard input.
fn inject(text: &str, flags: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("there is room");
    let ca = certificate(directory.path());
    let arguments = [&["inject", "-f", "-", "--ca-file", &ca], flags].concat();
    let mut weir = command(&arguments).stdin(Stdio::piped()).spawn().expect("weir was built");
    let mut stdin = weir.stdin.take().expect("it is a pipe");
    stdin.write_all(text.as_bytes()).expect("weir reads it");
    drop(stdin);
    weir.wait_with_output().expect("it ends")
}

fn certificate(directory: &Path) -> String {
    let path = directory.join("ca.pem");
    fs::write(&path, CERTIFICATE).expect("there is room");
    path.display().to_string()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it prints text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
