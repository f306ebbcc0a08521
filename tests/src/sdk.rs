//! The official SDKs, unchanged, as `cargo xtask sdk` installs them: a script runs in a process of its
//! own and prints one JSON document.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::program::target_folder;

/// A language with its SDKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// `openai` and `anthropic` from PyPI.
    Python,
    /// `openai` and `@anthropic-ai/sdk` from npm.
    Node,
}

/// An SDK needs seconds for its start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

// === impl Sdk ===

impl Sdk {
    /// Both.
    pub const ALL: [Sdk; 2] = [Sdk::Python, Sdk::Node];

    /// Runs `tests/sdk/<script>` against what serves at `address`: a sidecar with providers `openai`
    /// and `anthropic` in its paths, or a provider itself where `in_path` is false.
    pub async fn run(
        self,
        script: &str,
        address: SocketAddr,
        in_path: bool,
        arguments: &[&str],
    ) -> Value {
        let base = |name: &str| match in_path {
            true => format!("http://{address}/{name}"),
            false => format!("http://{address}"),
        };
        let (mut command, text) = self.command(script);
        let mut child = command
            .args(arguments)
            .env("OPENAI_BASE_URL", format!("{}/v1", base("openai")))
            .env("ANTHROPIC_BASE_URL", base("anthropic"))
            .env("OPENAI_API_KEY", "key")
            .env("ANTHROPIC_API_KEY", "key")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask sdk` first"));
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(text.as_bytes()).await.expect("it reads its script");
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("{script} ({self:?}) hangs")).expect("an end");
        let (said, errors) = (text_of(&output.stdout), text_of(&output.stderr));
        assert!(output.status.success(), "{script} ({self:?}) failed:\n{said}\n{errors}");
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON:\n{said}\n{errors}"))
    }

    /// The interpreter, which reads the script from its stdin, and the script.
    fn command(self, script: &str) -> (Command, String) {
        let (installed, extension) = (target_folder().join("sdk"), self.extension());
        let file = format!("{script}.{extension}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk").join(&file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut command = match self {
            Sdk::Python => Command::new(installed.join("python/bin/python")),
            Sdk::Node => Command::new("node"),
        };
        if self == Sdk::Node {
            // Packages are found from the working directory.
            command.arg("--input-type=module").current_dir(installed.join("node"));
        }
        command.arg("-");
        (command, text)
    }

    const fn extension(self) -> &'static str {
        match self {
            Sdk::Python => "py",
            Sdk::Node => "mjs",
        }
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
