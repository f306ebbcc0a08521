//! The README's words, done as they are written but for ports: those of a test are its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tests::allocator::Allocator;
use tests::client::Client;
use tests::policy::replace;
use tests::port;
use tests::process::Process;
use tests::program::Program;
use tests::provider::{Provider, ample, quick};
use tests::sdk::Sdk;
use tests::wait;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("there is a README")
}

/// The fenced texts of the README in a language.
fn fenced(language: &str) -> Vec<String> {
    let readme = readme();
    let fences = readme.split("```").skip(1).step_by(2);
    fences.filter_map(|fence| Some(fence.strip_prefix(language)?.trim().to_owned())).collect()
}

/// What it tells people to give to `weir`.
fn commands() -> Vec<Vec<String>> {
    let fences = fenced("sh\n");
    let lines = fences.iter().flat_map(|fence| fence.lines());
    let arguments = lines.filter_map(|line| {
        ["cargo run --release --bin weir -- ", "./target/release/weir "]
            .iter()
            .find_map(|start| line.strip_prefix(start))
    });
    arguments.map(|words| words.split_whitespace().map(str::to_owned).collect()).collect()
}

/// The one that begins so.
fn command(name: &str) -> Vec<String> {
    let commands = commands();
    let found = commands.into_iter().find(|words| words[0] == name);
    found.unwrap_or_else(|| panic!("the README has no `weir {name}`"))
}

#[tokio::test]
async fn the_first_screen_has_the_two_commands_and_every_command_is_one() {
    let first_screen = readme().lines().take(50).collect::<Vec<_>>().join("\n");
    for words in ["cargo run --release --bin weir -- demo", "cargo xtask test", "You need"] {
        assert!(first_screen.contains(words), "the first screen lacks `{words}`");
    }
    for words in commands() {
        let mut weir = Command::new(Program::Weir.path());
        let output = weir.args(&words).arg("--help").output().await.expect("it starts");
        assert!(output.status.success(), "weir {words:?} is no command");
    }
}

#[tokio::test]
async fn weir_run_puts_any_compatible_server_behind_the_exported_variable() {
    let provider = Provider::start(quick(ample())).await;
    let folder = tempfile::tempdir().expect("a directory");
    let written = root().join("manifests/local/policy.yaml");
    let written = fs::read_to_string(written).expect("the README names it");
    let endpoint = format!("http://{}", provider.address);
    let policy = written.replace("http://127.0.0.1:8000", &endpoint);
    assert_ne!(policy, written, "it is for a server on port 8000");
    let directory = folder.path().join("policy");
    replace(&directory, &policy);

    let (listen, admin, state) = (port::free(), port::free(), folder.path().join("state"));
    let (text, state) = (directory.display().to_string(), state.display().to_string());
    let words = command("run").into_iter();
    let words = words.map(|word| if word == "manifests/local" { text.clone() } else { word });
    let (listen_text, admin_text) = (listen.to_string(), admin.to_string());
    let ports = ["--listen", &listen_text, "--admin", &admin_text, "--state", &state];
    let words = words.chain(ports.map(str::to_owned));
    let mut weir = Process::start(Program::Weir, "run", words, folder.path());
    weir.ready(admin).await;

    let told = fenced("sh\n").into_iter().find(|fence| fence.starts_with("export "));
    let told = told.expect("the line that is printed").replace("127.0.0.1:7410", &listen_text);
    wait::until("it says what to export", async || {
        weir.log().lines().any(|line| line == told).then_some(())
    })
    .await;
    assert_eq!(told, format!("export OPENAI_BASE_URL=http://{listen}/openai/v1"));
    let answer = Sdk::Python.run("hello", listen, true, &[]).await;
    assert_eq!(answer.as_str().map(|text| text.split(' ').count()), Some(8), "{answer}");

    replace(&directory, &policy.replace("requestsPerMinute: 60", "requestsPerMinute: many"));
    wait::until("the mistake is named", async || {
        let names = ["policy.yaml", "LLMProvider openai", "requestsPerMinute"];
        let log = weir.log();
        names.iter().all(|name| log.contains(name)).then_some(())
    })
    .await;
    let client = Client::new(listen, "/openai");
    let body = json!({"model": "any", "messages": [{"role": "user", "content": "Hi!"}]});
    client.post("/v1/chat/completions", &body).await.good();
    assert_eq!(weir.stop().await.code(), Some(130));
}

#[tokio::test]
async fn the_emulator_answers_an_application_without_a_key_of_its_own() {
    let (listen, admin) = (port::free(), port::free());
    let folder = tempfile::tempdir().expect("a directory");
    let (listen_text, admin_text) = (listen.to_string(), admin.to_string());
    let ports = ["--listen", &listen_text, "--admin", &admin_text].map(str::to_owned);
    let words = command("emulator").into_iter().chain(ports);
    let mut weir = Process::start(Program::Weir, "emulator", words, folder.path());
    weir.ready(admin).await;
    let answer = Sdk::Python.run("hello", listen, false, &[]).await;
    assert!(answer.is_string(), "{answer}");
    assert!(weir.stop().await.success());
}

#[tokio::test]
async fn every_policy_that_is_shown_is_sound() {
    let shown = fenced("yaml\n").into_iter().map(|text| ("README.md".to_owned(), text));
    let folders = ["manifests/local", "manifests/samples"].map(|folder| {
        let files = fs::read_dir(root().join(folder)).expect("a folder of the README");
        let texts = files.map(|file| fs::read_to_string(file.expect("a file").path()));
        let texts: Vec<String> = texts.map(|text| text.expect("YAML")).collect();
        (folder.to_owned(), texts.join("\n---\n"))
    });
    for (name, policy) in shown.chain(folders) {
        let folder = tempfile::tempdir().expect("a directory");
        let mut allocator = Allocator::new(folder.path());
        replace(&allocator.policy, &policy);
        allocator.start().await;
        let state = allocator.state().await;
        assert_eq!(state["policy"]["problems"], json!([]), "{name}");
        assert_eq!(state["policy"]["warnings"], json!([]), "{name}");
    }
}
