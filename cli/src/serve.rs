//! `octet serve`: a policy behind OpenAI's chat completions and SageMaker's container contract.
//!
//! Invariant: the port is had and the policy loaded before the server says that it serves; after the first signal it
//! ends within `--drain`, with 0 when nothing was cut off.

mod better;
mod page;
mod run;

use crate::{compute, screen};
use anyhow::{Context, Result, bail, ensure};
use better::Rule;
use candle_core::{DType, Device};
use clap::{Args, ValueEnum};
use octet_runtime::shutdown;
use octet_runtime::telemetry::{self, LogFormat, LogOptions};
use octet_serving::{Ended, Limits, Loaded, Server, Settings, follow};
use run::RunSource;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;

/// Serve a policy: OpenAI's /v1/chat/completions and /v1/models, SageMaker's /invocations and /ping, from one port.
///
/// Calls are read exactly as the reward reads them. The same request with the same seed gives the same completion,
/// whatever else is being served.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The policy, a Hugging Face directory. Without it: the run's, with --follow, or else the bundled one.
    #[arg(env = "OCTET_SERVE_MODEL")]
    model: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "OCTET_SERVE_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Answer other machines, in plain text.
    #[arg(long, env = "OCTET_INSECURE_NETWORK")]
    insecure_network: bool,
    /// Clients must show this key, as `authorization: Bearer KEY`.
    #[arg(long, env = "OCTET_SERVE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// What clients call the model; without it, the directory's name.
    #[arg(long, env = "OCTET_SERVE_NAME")]
    name: Option<String>,
    /// Let better checkpoints of a run take over as they are committed.
    #[arg(long, value_name = "RUN", env = "OCTET_SERVE_FOLLOW")]
    follow: Option<PathBuf>,
    /// Which checkpoint is better: one with more reward over its last steps, or any newer one.
    #[arg(long, value_name = "RULE", default_value = "reward")]
    follow_by: FollowBy,
    /// How often to look for one.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    follow_every: u64,
    /// Where to compute: cpu, or cuda:0 (a build with the feature `cuda`).
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The weights' type: f32, or bf16 on a GPU.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Completions that are decoded together.
    #[arg(long, default_value = "64")]
    rows: NonZeroUsize,
    /// Requests that may wait for room; one more is turned away with 429.
    #[arg(long, default_value = "128")]
    queue: NonZeroUsize,
    /// Most completions of one request.
    #[arg(long, default_value = "16")]
    completions: NonZeroUsize,
    /// Most tokens of a completion, and how many it gets that does not say.
    #[arg(long, default_value = "1024")]
    max_tokens: NonZeroUsize,
    /// Most bytes of a request.
    #[arg(long, default_value = "4194304")]
    max_body: NonZeroUsize,
    /// How long a request may take, its wait included.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// How long what is under way may take after a signal.
    #[arg(long, value_name = "SECONDS", env = "OCTET_SERVE_DRAIN", default_value_t = 25)]
    drain: u64,
    /// How log lines look on standard error; OCTET_LOG says what is logged.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    log_format: Format,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which checkpoint is better.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FollowBy {
    /// One whose last steps earned more.
    Reward,
    /// Any newer one.
    Newest,
}

/// Where the policy to begin with is, and which of the run's versions it is.
struct Begin {
    directory: PathBuf,
    version: Option<u64>,
    digest: Option<String>,
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> Result<()> {
    let format = match args.log_format {
        Format::Human => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    telemetry::init(&LogOptions { format, ..LogOptions::from_environment() })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("starting the async runtime")?;
    let ended = runtime.block_on(serve(args));
    // A prompt that is being rendered, which nothing can interrupt.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

async fn serve(args: &ServeArgs) -> Result<()> {
    let stop = shutdown::on_signal().context("listening for signals")?;
    let listener = listen(args.listen, args.insecure_network).await?;
    let dtype = compute::dtype(&args.dtype, &args.device)?;
    let device = compute::open(&args.device)?;
    let mut source = match &args.follow {
        Some(run) => Some(RunSource::open(run, args.follow_by.into(), &args.dtype)?),
        None => None,
    };
    let begin = begin(args.model.as_deref(), source.as_mut())?;
    let loaded = load(&begin, dtype, &device).await?;
    let settings = settings(args, &begin.directory)?;
    let banner = format!(
        "{} at http://{}/v1 (weights {})",
        settings.name,
        listener.local_addr().context("reading the port")?,
        loaded.fingerprint()
    );
    let server = Server::new(settings, loaded);
    if let Some(source) = source {
        let (desk, version, every) =
            (server.desk(), begin.version, Duration::from_secs(args.follow_every.max(1)));
        tokio::spawn(follow(desk, source, version, every, (dtype, device), stop.clone()));
    }
    screen::say(format_args!("serving {banner}"));
    match server.serve(listener, stop).await? {
        Ended::Drained => Ok(()),
        Ended::Cut(requests) => bail!(
            "{requests} requests were not finished within {} s of the signal (--drain); they were told so",
            args.drain
        ),
    }
}

async fn listen(at: SocketAddr, insecure: bool) -> Result<TcpListener> {
    ensure!(
        insecure || at.ip().to_canonical().is_loopback(),
        "--listen {at} can be reached from other machines, in plain text: listen on 127.0.0.1 behind a proxy that \
         does TLS, or allow it with --insecure-network"
    );
    let bound = TcpListener::bind(at).await;
    bound.with_context(|| format!("--listen {at}: choose another port (port 0 takes a free one)"))
}

/// Chooses what to begin with.
fn begin(model: Option<&Path>, source: Option<&mut RunSource>) -> Result<Begin> {
    if let Some(directory) = model {
        return Ok(Begin { directory: directory.into(), version: None, digest: None });
    }
    let Some(source) = source else {
        return Ok(Begin { directory: "assets/policy".into(), version: None, digest: None });
    };
    match octet_serving::Source::better(source, None) {
        Ok(Some(found)) => Ok(Begin {
            directory: found.directory,
            version: Some(found.version),
            digest: found.digest,
        }),
        // Nothing is committed yet: the policy that the run began with.
        Ok(None) => Ok(Begin { directory: source.start(), version: None, digest: None }),
        Err(why) => bail!("{why}"),
    }
}

async fn load(begin: &Begin, dtype: DType, device: &Device) -> Result<Loaded> {
    let (directory, digest, device) =
        (begin.directory.clone(), begin.digest.clone(), device.clone());
    let open = move || Loaded::open(&directory, dtype, &device, digest.as_deref());
    Ok(tokio::task::spawn_blocking(open).await??)
}

fn settings(args: &ServeArgs, directory: &Path) -> Result<Settings> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            // Of a run, its own name: those of its checkpoints change.
            let named = args.follow.as_deref().unwrap_or(directory);
            let named = std::path::absolute(named).context("finding the model's name")?;
            named.file_name().map_or_else(|| "policy".into(), |n| n.to_string_lossy().into_owned())
        }
    };
    let rows = args.rows.get();
    Ok(Settings {
        name,
        rows,
        queue: args.queue.get(),
        limits: Limits {
            completions: args.completions.get().min(rows),
            max_tokens: args.max_tokens.get(),
        },
        body: args.max_body.get(),
        timeout: Duration::from_secs(args.timeout),
        drain: Duration::from_secs(args.drain),
        key: args.api_key.clone(),
        page: page::text,
    })
}

impl From<FollowBy> for Rule {
    fn from(by: FollowBy) -> Self {
        match by {
            FollowBy::Reward => Self::Reward,
            FollowBy::Newest => Self::Newest,
        }
    }
}
