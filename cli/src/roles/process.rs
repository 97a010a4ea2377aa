//! A process of one role: its flags that all roles share, its logs, its signals, and its end.
//!
//! Invariant: after the first SIGTERM the process ends within `--drain`: with 0 when it drained, and else
//! with an error that says so.

use crate::network::NetworkArgs;
use crate::recipe::{QUICKSTART, Recipe};
use crate::train::basis::Basis;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use octet_runtime::CancellationToken;
use octet_runtime::net::{Exposure, Listener, bind};
use octet_runtime::shutdown;
use octet_runtime::telemetry::{self, LogFormat, LogOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Instrument;

/// How long what blocks a thread may take once all else has ended: loading, which nothing can interrupt.
const LEFT_BEHIND: Duration = Duration::from_millis(200);

/// The run that a role belongs to.
#[derive(Args, Clone, Debug)]
pub struct RecipeArgs {
    /// The run's recipe: the same for every role of the run.
    #[arg(default_value = QUICKSTART)]
    pub recipe: PathBuf,
    /// Override a key of the recipe, the same for every role, e.g. --set run.seed=2.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What every role has.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// A TOML file that gives flags, e.g. `listen = "127.0.0.1:50050"`. The command line and the environment win.
    #[arg(long, value_name = "FILE")]
    pub node_config: Option<PathBuf>,
    /// How log lines look on standard error; OCTET_LOG says what is logged.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: Format,
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl RecipeArgs {
    /// Loads what all nodes of the run agree on; nothing when the process shall stop meanwhile.
    ///
    /// # Errors
    /// Names the key, the file, or the row.
    pub async fn basis(&self, stop: &CancellationToken) -> Result<Option<Basis>> {
        let recipe = Recipe::resolve(&self.recipe, &self.set)?;
        blocking(stop, move || Basis::load(recipe)).await
    }
}

/// Runs what blocks on a thread of its own; nothing when the process shall stop meanwhile.
///
/// # Errors
/// Those of the work.
pub async fn blocking<T: Send + 'static>(
    stop: &CancellationToken,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        done = tokio::task::spawn_blocking(work) => done?.map(Some),
    }
}

/// Runs a role until it ends, or until a signal and the drain that follows it.
///
/// # Errors
/// Those of the role, or that it did not stop in time.
pub fn run<F>(
    role: &'static str,
    args: &NodeArgs,
    drain: Duration,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let format = match args.log_format {
        Format::Human => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    telemetry::init(&LogOptions { format, ..LogOptions::from_environment() })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let ended = runtime.block_on(async {
        let stop = shutdown::on_signal().context("listening for signals")?;
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            ended = work(stop.clone()) => ended,
            () = late => bail!(
                "the {role} did not stop within {drain:?} of the signal (--drain): what was committed is \
                 whole, what was under way is done again"
            ),
        }
    });
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

/// Enters everything that follows into the log with the run and the node's name.
pub async fn named<T>(
    role: &'static str,
    run: &str,
    node: &str,
    work: impl Future<Output = T>,
) -> T {
    work.instrument(tracing::info_span!("node", role, run, node)).await
}

/// Binds the port of a flag.
///
/// # Errors
/// Names the flag, and says what to do.
pub async fn listen(flag: &'static str, at: SocketAddr, exposure: &Exposure) -> Result<Listener> {
    bind(at, exposure.clone()).await.context(flag)
}

/// What others dial to reach a listener: what was said, or else its own address.
///
/// # Errors
/// It listens on all addresses, and none was said; or the one that was said cannot be dialled.
pub fn advertised(said: Option<&str>, at: &Listener, exposure: &Exposure) -> Result<String> {
    use octet_proto::transport::Address;
    let Some(said) = said else {
        if at.address().ip().is_unspecified() {
            bail!(
                "--listen {} is every address of this machine: say with --advertise which one the other \
                 nodes dial, for example --advertise {}",
                at.address(),
                at.endpoint_at("10.0.0.7")
            );
        }
        return Ok(at.endpoint());
    };
    let tls = matches!(exposure, Exposure::MutualTls(_));
    if Address::parse(said).context("--advertise")?.tls != tls {
        let expected = if tls { "https://, since this node has a certificate" } else { "http://" };
        bail!("--advertise {said}: expected an address that begins with {expected}");
    }
    Ok(said.to_owned())
}

/// What a client on this machine dials to reach a listener, also one that listens on all addresses.
pub fn from_here(at: &Listener) -> String {
    if at.address().ip().is_unspecified() { at.endpoint_at("localhost") } else { at.endpoint() }
}
