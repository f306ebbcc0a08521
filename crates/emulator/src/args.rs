//! The flags of `weir emulator`, and the configuration that they make.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use crate::config::{Config, Headers, LimitConfig, Window};
use crate::error::Error;
use crate::server::serve;

/// Emulate OpenAI and Anthropic with their limits, so that an application can be tested against real
/// 429s without a key.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where both providers are served.
    #[arg(long, env = "WEIR_EMULATOR_LISTEN", default_value = "127.0.0.1:7430")]
    pub listen: SocketAddr,
    /// Where `/__emu/state`, `/__emu/config`, `/__emu/fault` and `/__emu/reset` are.
    #[arg(long, env = "WEIR_EMULATOR_ADMIN", default_value = "127.0.0.1:7431")]
    pub admin: SocketAddr,
    /// A configuration in JSON; the flags below change what it says.
    #[arg(long, env = "WEIR_EMULATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How limits per minute are enforced.
    #[arg(long, env = "WEIR_EMULATOR_LIMITER", value_enum)]
    pub limiter: Option<Window>,
    /// Requests per minute. Any of these figures replaces all limits by one over all models.
    #[arg(long, env = "WEIR_EMULATOR_RPM", value_name = "N")]
    pub rpm: Option<u64>,
    /// Input and output tokens per minute.
    #[arg(long, env = "WEIR_EMULATOR_TPM", value_name = "N")]
    pub tpm: Option<u64>,
    /// Input tokens per minute.
    #[arg(long, env = "WEIR_EMULATOR_ITPM", value_name = "N")]
    pub itpm: Option<u64>,
    /// Output tokens per minute.
    #[arg(long, env = "WEIR_EMULATOR_OTPM", value_name = "N")]
    pub otpm: Option<u64>,
    /// Requests per day.
    #[arg(long, env = "WEIR_EMULATOR_RPD", value_name = "N")]
    pub rpd: Option<u64>,
    /// Input and output tokens per day.
    #[arg(long, env = "WEIR_EMULATOR_TPD", value_name = "N")]
    pub tpd: Option<u64>,
    /// Requests in flight at once.
    #[arg(long, env = "WEIR_EMULATOR_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<u64>,
    /// What a token bucket holds, in percent of a minute's worth.
    #[arg(long, env = "WEIR_EMULATOR_BURST_PERCENT", value_name = "PERCENT")]
    pub burst_percent: Option<u32>,
    /// The length of a fixed window; limits per minute are scaled to it.
    #[arg(long, env = "WEIR_EMULATOR_WINDOW_SECONDS", value_name = "SECONDS")]
    pub window_seconds: Option<u64>,
    /// How far after the full minute a fixed window begins.
    #[arg(long, env = "WEIR_EMULATOR_WINDOW_PHASE_MS", value_name = "MS")]
    pub window_phase_ms: Option<u64>,
    /// Send no rate-limit headers, so that clients cannot see when a window ends.
    #[arg(long, env = "WEIR_EMULATOR_HIDE_RESET")]
    pub hide_reset: bool,
    /// Whether refused requests are charged to limits on requests, as OpenAI is believed to do.
    #[arg(long, env = "WEIR_EMULATOR_COUNT_REJECTED", value_name = "BOOL")]
    pub count_rejected: Option<bool>,
    /// The median time to the first token.
    #[arg(long, env = "WEIR_EMULATOR_LATENCY_MS", value_name = "MS")]
    pub latency_ms: Option<u64>,
    /// The speed after the first token; 0 for at once.
    #[arg(long, env = "WEIR_EMULATOR_TOKENS_PER_SECOND", value_name = "N")]
    pub tokens_per_second: Option<u32>,
    /// The median length of an answer.
    #[arg(long, env = "WEIR_EMULATOR_OUTPUT_TOKENS", value_name = "N")]
    pub output_tokens: Option<u64>,
    /// Decides all that is drawn at random.
    #[arg(long, env = "WEIR_EMULATOR_SEED", value_name = "N")]
    pub seed: Option<u64>,
    /// Append a line of JSON for each call to a file.
    #[arg(long, env = "WEIR_EMULATOR_JOURNAL", value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Answer fixed bytes at once and without limits, for benchmarks.
    #[arg(long, env = "WEIR_EMULATOR_PREPARED")]
    pub prepared: bool,
}

/// Binds the addresses of `args` and serves until `shutdown`.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let config = args.config()?;
    let (listener, admin) = (bind(args.listen).await?, bind(args.admin).await?);
    serve(config, listener, admin, shutdown).await
}

// === impl Args ===

impl Args {
    /// The configuration that the file and the flags make together.
    pub fn config(&self) -> Result<Config, Error> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), load)?;
        let only = LimitConfig {
            requests_per_minute: self.rpm,
            tokens_per_minute: self.tpm,
            input_tokens_per_minute: self.itpm,
            output_tokens_per_minute: self.otpm,
            requests_per_day: self.rpd,
            tokens_per_day: self.tpd,
            concurrent_requests: self.concurrency,
            ..LimitConfig::default()
        };
        if only.has_figures() {
            config.openai = vec![only.clone()];
            config.anthropic = vec![only];
        }
        let default = self.hide_reset.then_some(Window::FixedWindow);
        for limit in config.openai.iter_mut().chain(&mut config.anthropic) {
            limit.window = self.limiter.or(default).unwrap_or(limit.window);
            limit.burst_percent = self.burst_percent.unwrap_or(limit.burst_percent);
            limit.window_seconds = self.window_seconds.unwrap_or(limit.window_seconds);
            limit.window_phase_ms = self.window_phase_ms.unwrap_or(limit.window_phase_ms);
        }
        if self.hide_reset {
            config.headers = Headers::NoLimits;
        }
        let latency = &mut config.latency;
        latency.first_token_ms = self.latency_ms.unwrap_or(latency.first_token_ms);
        latency.tokens_per_second = self.tokens_per_second.unwrap_or(latency.tokens_per_second);
        config.output.tokens = self.output_tokens.unwrap_or(config.output.tokens);
        config.seed = self.seed.unwrap_or(config.seed);
        config.count_rejected = self.count_rejected.or(config.count_rejected);
        config.journal = self.journal.clone().or(config.journal);
        config.prepared |= self.prepared;
        config.validated()
    }
}

fn load(path: &Path) -> Result<Config, Error> {
    let problem = |source| Error::File { path: path.to_owned(), source };
    let text = fs::read(path).map_err(problem)?;
    serde_json::from_slice(&text).map_err(|error| problem(io::Error::other(error)))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
