//! `weir` as a person runs it: its own process, its exit codes, what it prints, what it leaves behind.

#[path = "cli/inject.rs"]
mod inject;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// For what takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PROVIDER: &str = "\
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: local}
spec:
  protocol: OpenAICompatible
  endpoint: http://ENDPOINT
  limits:
  - {name: all, models: ['*'], requestsPerMinute: 600, window: TokenBucket}
";

#[test]
fn help_is_for_newcomers_and_what_makes_no_sense_is_a_usage_error() {
    for (arguments, code, words) in [
        (&["--help"][..], 0, "weir demo "),
        (&["demo", "--help"], 0, "Examples:"),
        (&["run", "--help"], 0, "kind: LLMProvider"),
        (&["emulator", "--help"], 0, "Examples:"),
        (&["inject", "--help"], 0, "caBundle"),
        (&["inject", "-f", "-"], 2, "--ca-file"),
        (&[], 2, "Start here:"),
        (&["demo", "--sidecars", "0"], 2, "1..=64"),
        (&["demo", "--overload", "a lot"], 2, "is no number"),
        (&["demo", "--duration", "10ms"], 2, "is not between"),
        (&["run"], 2, "--policy"),
        (&["frobnicate"], 2, "frobnicate"),
    ] {
        let output = weir(arguments);
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn the_hidden_programs_are_not_in_the_help_and_are_there() {
    let help = weir(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    for program in ["sidecar", "allocator"] {
        assert!(!help.contains(&format!("  {program} ")), "{help}");
        assert_eq!(weir(&[program, "--help"]).status.code(), Some(0));
    }
}

#[test]
fn version_says_which_protocol_it_speaks() {
    let output = weir(&["version", "--output", "json"]);
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(version["version"].is_string());
    assert!(version["protocol"].as_u64().unwrap() >= 1);
    let table = weir(&["version"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("protocol"));
}

#[test]
fn a_short_demo_prints_the_json_that_others_read() {
    let output = weir(&["demo", "--duration", "4s", "--sidecars", "3", "--output", "json"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("Making ") && log.contains("of 4 s"), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["direct", "static", "weir"]);
    for run in runs {
        for field in
            ["provider_429", "provider_admitted", "budget", "utilisation", "bound_share", "jain"]
        {
            assert!(run[field].as_f64().is_some_and(|value| value >= 0.0), "{field} of {run}");
        }
        for class in ["interactive", "standard", "batch"] {
            for field in ["answered", "refused"] {
                assert!(run["classes"][class][field].is_u64(), "{field} of {class} of {run}");
            }
            for field in ["wait_ms_p50", "wait_ms_p99"] {
                let value = &run["classes"][class][field];
                assert!(value.is_number() || value.is_null(), "{field} of {class} of {run}");
            }
        }
    }
    assert_eq!(runs[2]["provider_429"], 0, "{report}");
    assert!(runs[2]["classes"]["interactive"]["answered"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["long_enough"], false);
}

#[test]
fn a_signal_ends_a_demo_and_leaves_no_child() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let mut demo = start(&["demo", "--sidecars", "2", "--duration", "1m"]);
        let stderr = BufReader::new(demo.stderr.take().unwrap());
        let mut lines = stderr.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Making ")), "the demo did not begin");
        let children = children_of(demo.id());
        assert_eq!(children.len(), 3 + 1 + 2, "emulators, allocator, sidecars");
        kill_process(pid(demo.id()), signal).unwrap();
        assert_eq!(demo.wait().unwrap().code(), code);
        assert_gone(&children);
    }
}

#[test]
fn a_policy_with_a_mistake_is_named_by_file_line_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy");
    fs::create_dir(&policy).unwrap();
    let state = directory.path().join("state").display().to_string();
    let arguments = ["run", "--policy", policy.to_str().unwrap(), "--state", &state];
    for (text, words) in [
        (None, "holds no *.yaml"),
        (
            Some(PROVIDER.replace("600", "many")),
            "provider.yaml:8: LLMProvider local: spec.limits[0]",
        ),
        (Some(PROVIDER.replace("http://ENDPOINT", "http://example.com")), "spec.endpoint"),
        (Some("kind: [".to_owned()), "is not YAML"),
    ] {
        if let Some(text) = &text {
            fs::write(policy.join("provider.yaml"), text).unwrap();
        }
        let output = weir(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{text:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn run_serves_an_endpoint_through_mistakes_and_crashes_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (endpoint, emulator_admin) = (free(), free());
    let flags = [format!("--listen={endpoint}"), format!("--admin={emulator_admin}")];
    let mut emulator = start(&["emulator", "--latency-ms=1", &flags[0], &flags[1]]);
    let policy = directory.path().join("policy");
    fs::create_dir(&policy).unwrap();
    let text = PROVIDER.replace("ENDPOINT", &endpoint.to_string());
    fs::write(policy.join("provider.yaml"), &text).unwrap();
    let (listen, admin) = (free(), free());
    let flags = [
        format!("--policy={}", policy.display()),
        format!("--state={}", directory.path().join("state").display()),
        format!("--listen={listen}"),
        format!("--admin={admin}"),
    ];
    let mut run = start(&["run", &flags[0], &flags[1], &flags[2], &flags[3]]);
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, format!("export OPENAI_BASE_URL=http://{listen}/local/v1\n"));

    until(|| TcpStream::connect(endpoint).is_ok());
    let body = r#"{"model":"any","messages":[{"role":"user","content":"hello"}],"max_tokens":8}"#;
    let answer = post(listen, "/local/v1/chat/completions", body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"total_tokens\":"), "{answer}");

    let stderr = BufReader::new(run.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    let mut is_told = |words: &str| lines.any(|line| line.contains(words));
    fs::write(policy.join("provider.yaml"), text.replace("600", "many")).unwrap();
    assert!(is_told("spec.limits[0]") && is_told("from before stays in force"));
    fs::write(policy.join("provider.yaml"), text.replace("600", "900")).unwrap();
    assert!(is_told("sound again"));

    let children = children_of(run.id());
    assert_eq!(children.len(), 2, "allocator and sidecar");
    for child in &children {
        kill_process(pid(*child), Signal::KILL).unwrap();
        assert!(is_told("Starting it again") && is_told("is back"));
    }
    assert!(post(listen, "/local/v1/chat/completions", body).starts_with("HTTP/1.1 200"));

    let children = children_of(run.id());
    assert_eq!(children.len(), 2, "allocator and sidecar");
    kill_process(pid(run.id()), Signal::INT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_gone(&children);
    kill_process(pid(emulator.id()), Signal::INT).unwrap();
    assert_eq!(emulator.wait().unwrap().code(), Some(130));
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn weir(arguments: &[&str]) -> Output {
    command(arguments).output().expect("weir was built")
}

fn start(arguments: &[&str]) -> Child {
    command(arguments).spawn().expect("weir was built")
}

fn pid(id: u32) -> Pid {
    let id = i32::try_from(id).expect("process ids are small");
    Pid::from_raw(id).expect("0 is no process of ours")
}

/// The processes whose parent is `id`.
fn children_of(id: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("this test is for Linux");
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|child| parent_of(*child) == Some(id)).collect()
}

/// From `/proc/<id>/stat`: the second field after the name, which stands in brackets.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn assert_gone(children: &BTreeSet<u32>) {
    until(|| children.iter().all(|child| test_kill_process(pid(*child)).is_err()));
}

fn until(mut done: impl FnMut() -> bool) {
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes have no clock that could be paused"
    )]
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "this took too long");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A port that nobody uses, and that outgoing connections do not get soon.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("it is bound")
}

fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer any\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}
