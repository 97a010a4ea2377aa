//! `octet reward serve`: one replica of a reward.
//!
//! Invariant: the first line on standard output says where it answers, when it does.

use super::source::SourceArgs;
use crate::network::NetworkArgs;
use anyhow::{Context, Result};
use clap::Args;
use octet_reward_service::ServiceSettings;
use octet_runtime::net::bind;
use octet_runtime::shutdown;
use octet_runtime::telemetry::{self, LogOptions};
use std::net::SocketAddr;
use std::time::Duration;

/// Serve a reward over gRPC until Ctrl-C, for `octet reward swap` or a run's configuration to name.
#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    #[command(flatten)]
    network: NetworkArgs,
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> Result<()> {
    telemetry::init(&LogOptions::from_environment())?;
    let function = args.source.open(false)?;
    let exposure = args.network.exposure()?;
    let settings = ServiceSettings {
        threads: args.source.processes(),
        // The function's own limit kills it; this one is for what it cannot see.
        score_timeout: args.source.time_limit().saturating_add(Duration::from_secs(90)),
        ..ServiceSettings::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(async {
        let stop = shutdown::on_signal().context("listening for Ctrl-C")?;
        let listener = bind(args.listen, exposure).await?;
        crate::screen::say(format_args!(
            "{} serves {} with digest {}",
            listener.endpoint(),
            function.name(),
            function.digest()
        ));
        octet_reward_service::serve(listener, function, settings, stop).await?;
        Ok(())
    })
}
