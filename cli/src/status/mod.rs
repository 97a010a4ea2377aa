//! `octet status`: what every node of a run does, holds, and waits for.
//!
//! Invariant: it only asks; whatever it shows comes from one answer of the coordinator, or from two for speeds.

mod text;
mod view;

use crate::reach::{RunArgs, block_on};
use crate::screen;
use anyhow::{Context, Result};
use clap::Args;
use octet_proto::coordinator::{
    CoordinatorClient, GetStatusRequest, GetStatusResponse, coordinator_client,
};
use octet_proto::transport::ClientOptions;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use view::View;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show a run: how far it is, what every node does and holds, and for everything that waits what for, since
/// when and until when.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  octet status --run runs/first
  octet status --coordinator http://10.0.0.5:50050 --join-token TOKEN --watch
  octet status --run runs/first --json | jq '.waits'")]
pub struct StatusArgs {
    /// Look again and again.
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks, which speeds are measured over; 0 looks once and measures none.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// A look at a run.
struct Look {
    at: Instant,
    status: GetStatusResponse,
}

/// Runs the command.
pub fn run(args: &StatusArgs) -> Result<()> {
    let interval = Duration::try_from_secs_f64(args.interval)
        .with_context(|| format!("--interval: expected seconds, found {}", args.interval))?;
    block_on(async {
        let options = ClientOptions { request_timeout: Some(PATIENCE), ..ClientOptions::default() };
        let reached = args.run.dial(&options)?;
        let mut client = coordinator_client(reached.line);
        let mut earlier = Some(look(&mut client, &reached.coordinator).await?);
        if interval.is_zero() && !args.watch {
            if let Some(only) = &earlier {
                show(args, None, only)?;
            }
            return Ok(());
        }
        loop {
            tokio::time::sleep(interval.max(Duration::from_millis(100))).await;
            match look(&mut client, &reached.coordinator).await {
                Ok(now) => {
                    show(args, earlier.as_ref(), &now)?;
                    earlier = Some(now);
                }
                Err(error) if args.watch => {
                    // A coordinator that is started again has counted nothing yet.
                    earlier = None;
                    screen::complain(&error);
                }
                Err(error) => return Err(error),
            }
            if !args.watch {
                return Ok(());
            }
        }
    })
}

async fn look(client: &mut CoordinatorClient, coordinator: &str) -> Result<Look> {
    let answer = client.get_status(GetStatusRequest {}).await.map_err(|status| {
        let why = octet_proto::error::describe(&status);
        anyhow::anyhow!(
            "{coordinator}: asking for the run's status: {why}: is the coordinator running there?"
        )
    })?;
    Ok(Look { at: Instant::now(), status: answer.into_inner() })
}

fn show(args: &StatusArgs, earlier: Option<&Look>, now: &Look) -> Result<()> {
    let before = earlier.map(|look| (&look.status, now.at.duration_since(look.at)));
    let view = View::new(&now.status, before);
    if args.json {
        screen::say(serde_json::to_string(&view)?);
        return Ok(());
    }
    // On a terminal the new look takes the place of the old one.
    let clear = if args.watch && std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    screen::say(format_args!("{clear}{view}"));
    Ok(())
}
