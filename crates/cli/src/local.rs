//! `weir run`: an allocator and one sidecar on a person's own machine, in front of real providers.

mod exports;
mod mirror;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use service::signals::Signals;
use tokio::time::{Instant, sleep};

use crate::child::{self, Child};
use crate::local::exports::Export;
use crate::local::mirror::Mirror;
use crate::output::{Output, tell};
use crate::{INTERRUPTED, port};

/// Run Weir in front of a real provider, on this machine.
///
/// Reads what the provider allows from a directory of YAML files, starts an allocator and one sidecar,
/// and prints the variables that point SDKs at it. Applications need no other change: their own key
/// passes through, unless the directory holds keys. Edit the files while it runs; they are read again.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The directory with the policy: kinds LLMProvider, LLMPriorityClass, LLMQuota and Secret, in
    /// *.yaml and *.yml files. Without an LLMQuota that matches, everything may be used.
    #[arg(long, env = "WEIR_POLICY", value_name = "DIR")]
    policy: PathBuf,

    /// Where applications connect.
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7410")]
    listen: SocketAddr,

    /// Where the sidecar serves /metrics, /config and /ready.
    #[arg(long, env = "WEIR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:7411")]
    admin: SocketAddr,

    /// Where what must survive a restart is kept, such as use per day. Default: weir in
    /// XDG_STATE_HOME, or in .local/state of the home directory.
    #[arg(long, env = "WEIR_STATE", value_name = "DIR")]
    state: Option<PathBuf>,

    /// The namespace whose LLMQuotas apply.
    #[arg(long, env = "WEIR_NAMESPACE", value_name = "NS", default_value = "default")]
    namespace: String,

    /// Labels for the selectors of LLMQuotas.
    #[arg(long, env = "WEIR_LABELS", value_name = "K=V,...", default_value = "")]
    labels: String,

    /// How the variables are printed.
    #[arg(long, env = "WEIR_OUTPUT", value_enum, default_value_t)]
    output: Output,
}

/// A program that is started again when it ends.
struct Kept {
    name: &'static str,
    arguments: Vec<OsString>,
    admin: SocketAddr,
    log: PathBuf,
    child: Child,
    started: Instant,
    backoff: Duration,
}

/// A program that ends at once is started again after half a second, then one, two, up to:
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// What has run for so long is taken for sound again.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// How often it is looked whether files have changed: a new policy is in force within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Example, policy/openai.yaml:
  apiVersion: weir.dev/v1alpha1
  kind: LLMProvider
  metadata: {name: openai}
  spec:
    protocol: OpenAI
    endpoint: https://api.openai.com
    limits:
    - {name: gpt-4o, models: [\"gpt-4o*\"], requestsPerMinute: 500, tokensPerMinute: 30000}

  weir run --policy policy
  export OPENAI_BASE_URL=http://127.0.0.1:7410/openai/v1";

/// Runs until a signal comes.
pub(crate) async fn run(args: Args, mut signals: Signals) -> anyhow::Result<ExitCode> {
    // What is dropped at a signal has started processes; they are stopped in order below.
    let mut kept = Vec::new();
    let outcome = tokio::select! {
        failed = serve(&args, &mut kept) => failed,
        _ = signals.recv() => Ok(ExitCode::from(INTERRUPTED)),
    };
    if !kept.is_empty() {
        tell("Ending.");
    }
    signals
        .unless_interrupted(async {
            while let Some(Kept { child, .. }) = kept.pop() {
                child.stop().await;
            }
        })
        .await;
    outcome
}

/// Starts what is needed into `kept`, and keeps it running. Never ends well.
async fn serve(args: &Args, kept: &mut Vec<Kept>) -> anyhow::Result<ExitCode> {
    let labels = labels(&args.labels)?;
    let state = state_directory(args.state.as_deref())?;
    std::fs::create_dir_all(&state)
        .with_context(|| format!("state directory {} cannot be made", state.display()))?;
    let mut mirror =
        Mirror::new(&args.policy, &state.join("policy-links"), &args.namespace, labels)?;
    mirror.is_stale();
    let policy = mirror.refresh()?;
    if policy.providers.is_empty() {
        bail!("{} holds no LLMProvider: see the example in weir run --help", args.policy.display());
    }
    let (allocator, page) = (port::free()?, port::free()?);
    kept.push(
        Kept::start(
            "allocator",
            allocator_arguments(&mirror, &state, allocator, page),
            page,
            &state,
        )
        .await?,
    );
    kept.push(
        Kept::start("sidecar", sidecar_arguments(args, allocator), args.admin, &state).await?,
    );
    let exports: Vec<Export> =
        policy.providers.values().map(|provider| Export::new(provider, args.listen)).collect();
    exports::print(&exports, args.output)?;
    tell(&format!(
        "Serving on http://{}; what is used on http://{page}/; metrics on http://{}/metrics; logs in {}. \
         Ctrl-C ends it.",
        args.listen,
        args.admin,
        state.display()
    ));
    let [allocator, sidecar] = &mut kept[..] else { bail!("two programs were started") };
    tokio::select! {
        never = allocator.keep() => never,
        never = sidecar.keep() => never,
        never = look(&mut mirror) => never,
    }
}

/// Keeps the mirror as the policy's directory is, and says what is wrong with it.
async fn look(mirror: &mut Mirror) -> anyhow::Result<ExitCode> {
    let mut is_sound = true;
    loop {
        sleep(LOOK_EVERY).await;
        if !mirror.is_stale() {
            continue;
        }
        let was_sound = std::mem::replace(&mut is_sound, true);
        match mirror.refresh() {
            Err(error) => {
                is_sound = false;
                tell(&format!("{error}\nThe policy from before stays in force."));
            }
            Ok(_) if was_sound => tell("The policy has changed, and is in force."),
            Ok(_) => tell("The policy is sound again, and in force."),
        }
    }
}

// === impl Kept ===

impl Kept {
    async fn start(
        name: &'static str,
        arguments: Vec<OsString>,
        admin: SocketAddr,
        state: &Path,
    ) -> Result<Kept, child::Error> {
        let log = state.join(format!("{name}.log"));
        // Each start has a log of its own; the one before is kept.
        let _ = std::fs::rename(&log, state.join(format!("{name}.log.before")));
        let mut child = Child::start(name, &arguments, &log)?;
        child.ready(admin).await?;
        let (started, backoff) = (Instant::now(), FIRST_BACKOFF);
        Ok(Kept { name, arguments, admin, log, child, started, backoff })
    }

    /// Starts it again whenever it ends.
    async fn keep(&mut self) -> anyhow::Result<ExitCode> {
        loop {
            let failed = self.child.failed().await;
            if self.started.elapsed() > SOUND_AFTER {
                self.backoff = FIRST_BACKOFF;
            }
            tell(&format!("{failed}\nStarting it again in {:?}.", self.backoff));
            sleep(self.backoff).await;
            self.backoff = self.backoff.saturating_mul(2).min(LONGEST_BACKOFF);
            self.started = Instant::now();
            self.child = Child::start(self.name, &self.arguments, &self.log)?;
            if self.child.ready(self.admin).await.is_ok() {
                tell(&format!("The {} is back.", self.name));
            }
        }
    }
}

fn allocator_arguments(
    mirror: &Mirror,
    state: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "allocator".into(),
        "--insecure-plaintext".into(),
        format!("--listen={listen}").into(),
        format!("--admin={admin}").into(),
    ];
    for (flag, path) in [("--policy", mirror.directory()), ("--state", &state.join("allocator"))] {
        arguments.extend([flag.into(), path.into()]);
    }
    arguments
}

fn sidecar_arguments(args: &Args, allocator: SocketAddr) -> Vec<OsString> {
    let pod = format!("{}-{}", "weir-run", std::process::id());
    [
        "sidecar".to_owned(),
        format!("--allocator=http://{allocator}"),
        format!("--namespace={}", args.namespace),
        format!("--pod={pod}"),
        format!("--labels={}", args.labels),
        format!("--listen={}", args.listen),
        format!("--admin={}", args.admin),
    ]
    .map(OsString::from)
    .into()
}

/// Where state is kept: as asked, or where the XDG base directory specification puts it.
fn state_directory(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".local/state"));
    asked
        .map(Path::to_owned)
        .or_else(|| Some(variable("XDG_STATE_HOME").or_else(home)?.join("weir")))
        .context("there is no home directory: say with --state where state is kept")
}

fn labels(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("--labels: `{pair}` is not key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}
