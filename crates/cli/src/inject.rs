//! `weir inject`: manifests in, the same manifests with sidecars out, for people who want no webhook.
//!
//! What becomes of a pod template is decided by the webhook's own function; this command only finds
//! the templates and leaves everything else as it is written.

mod manifest;
mod normal;
mod text;
mod yaml;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use allocator::admission::{Settings, SidecarArgs};
use anyhow::{Context, bail, ensure};

use crate::inject::manifest::Manifest;
use crate::output::{self, tell};

/// Put Weir's sidecar into manifests.
///
/// Reads YAML or JSON with any number of documents, gives every Pod, and every pod template of a
/// Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob, the sidecar that Weir's webhook
/// would give it, and prints the result. A pod with the annotation weir.dev/inject: "false" stays as it
/// is, and so does every other document. Changed documents lose their comments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file of manifests, or - for standard input. May be given more than once.
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,

    /// The certificates that the allocator's own is checked against, in PEM.
    #[arg(long, env = "WEIR_CA_FILE", value_name = "FILE")]
    ca_file: PathBuf,

    /// Where the allocator is.
    #[arg(
        long,
        env = "WEIR_ALLOCATOR",
        value_name = "URL",
        default_value = "https://weir-allocator.weir-system.svc:7420"
    )]
    allocator: String,

    #[command(flatten)]
    sidecar: SidecarArgs,
}

const EXAMPLES: &str = "\
Examples:
  kubectl get validatingwebhookconfiguration weir-policy \\
    -o jsonpath='{.webhooks[0].clientConfig.caBundle}' | base64 -d > weir-ca.pem
  weir inject -f app.yaml --ca-file weir-ca.pem | kubectl apply -f -
  helm template chat ./chart | kubectl weir inject -f - --ca-file weir-ca.pem > chat.yaml";

/// More than a cluster's worth of manifests.
const MAX_BYTES: u64 = 32 << 20;

/// Prints the manifests with sidecars.
pub(crate) fn inject(args: &Args) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let mut written = String::new();
    let (mut errors, mut injected) = (Vec::new(), 0);
    for file in &args.filename {
        let (name, text) = read(file)?;
        for manifest in Manifest::split(&name, &text) {
            match manifest.inject(&settings) {
                Ok(outcome) => {
                    outcome.notes.iter().for_each(|note| tell(note));
                    injected += outcome.injected;
                    text::append(&mut written, &outcome.text);
                }
                Err(found) => errors.extend(found),
            }
        }
    }
    if !errors.is_empty() {
        bail!("nothing was written:\n  {}", errors.join("\n  "));
    }
    if injected == 0 {
        tell("Nothing was injected: there is no pod or pod template in it that could be.");
    }
    output::print(written.trim_end_matches('\n'))?;
    Ok(())
}

fn settings(args: &Args) -> anyhow::Result<Settings> {
    ensure!(
        args.allocator.starts_with("https://"),
        "--allocator {} is no URL such as https://weir-allocator.weir-system.svc:7420",
        args.allocator
    );
    let (name, ca) = read(&args.ca_file)?;
    ensure!(
        ca.contains("-----BEGIN CERTIFICATE-----"),
        "--ca-file {name} holds no certificate in PEM; `weir inject --help` says how to get it"
    );
    ensure!(
        !ca.contains("PRIVATE KEY-----"),
        "--ca-file {name} holds a private key, which would stand in every manifest: give the \
         certificates alone"
    );
    Ok(args.sidecar.settings(args.allocator.clone(), ca)?)
}

/// A file's name for messages, and its text.
fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    let read = if is_stdin {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    let read = read.with_context(|| format!("{name} cannot be read"))?;
    ensure!(read as u64 <= MAX_BYTES, "{name} has more than {MAX_BYTES} bytes: split it");
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{name} is not UTF-8"))?;
    Ok((name, text))
}
