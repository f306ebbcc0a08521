//! `kubectl`, against the cluster that `KUBECONFIG` names.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// One call of it, in the workspace's root: files are named as a person in there would.
#[derive(Clone, Debug, Default)]
pub struct Kubectl {
    arguments: Vec<String>,
    input: Option<String>,
}

/// Of one request to the API server; commands that wait have limits of their own.
const REQUEST_TIMEOUT: &str = "--request-timeout=60s";

// === impl Kubectl ===

impl Kubectl {
    /// `kubectl` with these arguments.
    pub fn new(arguments: &[&str]) -> Kubectl {
        let mut own: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        // `exec` and `logs --follow` are requests too, and theirs may take long.
        if !["exec", "logs", "wait", "rollout"].iter().any(|long| arguments.contains(long)) {
            own.insert(0, REQUEST_TIMEOUT.to_owned());
        }
        Kubectl { arguments: own, input: None }
    }

    /// `kubectl apply` of what a file or folder below the workspace's root says.
    pub fn apply_file(path: &str) -> Kubectl {
        Kubectl::new(&["apply", "--filename", path])
    }

    /// `kubectl apply` of this YAML.
    pub fn apply(yaml: &str) -> Kubectl {
        Kubectl::new(&["apply", "--filename", "-"]).with_input(yaml)
    }

    /// The same with this on its standard input.
    pub fn with_input(mut self, text: &str) -> Kubectl {
        self.input = Some(text.to_owned());
        self
    }

    /// What it prints; it must succeed.
    pub fn succeeds(&self) -> String {
        let (output, error) = self.run();
        assert!(output.status.success(), "kubectl {:?}: {error}", self.arguments);
        String::from_utf8(output.stdout).expect("kubectl prints text")
    }

    /// What it says on stderr; it must fail.
    pub fn fails(&self) -> String {
        let (output, error) = self.run();
        assert!(!output.status.success(), "kubectl {:?} was to fail", self.arguments);
        error
    }

    /// What it says on stderr, whether it succeeds or not.
    pub fn said(&self) -> String {
        self.run().1
    }

    /// What it prints, if it succeeds.
    pub fn attempt(&self) -> Option<String> {
        let (output, _) = self.run();
        let printed = output.status.success().then_some(output.stdout)?;
        String::from_utf8(printed).ok()
    }

    /// The object or list that it prints with `--output=json`.
    pub fn json(mut self) -> Value {
        self.arguments.push("--output=json".to_owned());
        serde_json::from_str(&self.succeeds()).expect("kubectl prints JSON")
    }

    /// The process, for what runs on beside a test: `logs --follow`, `port-forward`.
    pub fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(&self.arguments).current_dir(workspace_root()).stdin(Stdio::null());
        command
    }

    fn run(&self) -> (Output, String) {
        let mut command = self.command();
        if self.input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl can be started");
        if let Some(input) = &self.input {
            let mut stdin = child.stdin.take().expect("it was piped");
            stdin.write_all(input.as_bytes()).expect("kubectl reads its input");
        }
        let output = child.wait_with_output().expect("kubectl can be waited for");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, error)
    }
}

/// Where the manifests are.
pub fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
