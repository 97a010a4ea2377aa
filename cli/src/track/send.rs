//! `octet track send`: brings a tracker up to a run that is over, was killed, or was never tracked.
//!
//! Invariant: what the server has already is not shown twice there, so it may be asked for again at any time.

use super::{facts, report, targets};
use crate::screen;
use crate::train::directory::{Identity, RunDirectory};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use octet_runtime::telemetry::{self, LogOptions};
use octet_tracking::journal::{Journal, Target};
use octet_tracking::tensorboard::EventFile;
use octet_tracking::{EventFiles, Names, Sender, Targets, collect};
use std::path::PathBuf;
use std::time::Duration;

/// Send what is tracked of a run to MLflow or TensorBoard.
#[derive(Args, Debug)]
pub struct TrackArgs {
    #[command(subcommand)]
    command: TrackCommand,
}

#[derive(Subcommand, Debug)]
enum TrackCommand {
    Send(SendArgs),
}

/// Send what the server does not have yet: after it was down, or for a run that was not tracked.
///
/// It reads the run's directory and its journal, and goes on where the last acknowledgement was. What the server has
/// is not shown there twice.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  octet track send runs/quickstart                                      to where its recipe says
  octet track send runs/quickstart --mlflow http://127.0.0.1:5000       to another server, or for the first time
  octet track send runs/quickstart --tensorboard                        write event files of it

MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, say who is writing.")]
struct SendArgs {
    /// The run's directory.
    run: PathBuf,
    /// The MLflow server, or `env` for MLFLOW_TRACKING_URI; without it, the recipe's.
    #[arg(long, value_name = "URL|env")]
    mlflow: Option<String>,
    /// The experiment there; without it, the recipe's.
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// What the run is called there; without it, as the recipe says, or its directory.
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
    /// Write event files for TensorBoard, into the run or below DIR.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    tensorboard: Option<Option<PathBuf>>,
    /// Whose names the metrics have: trl, verl or octet; without it, as the recipe says.
    #[arg(long, value_name = "NAMES")]
    names: Option<String>,
    /// Send everything again, into a new run: for one that was deleted there.
    #[arg(long)]
    anew: bool,
    /// Seconds to try for.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u64,
}

/// Runs the command.
pub fn run(args: &TrackArgs) -> Result<()> {
    let TrackCommand::Send(args) = &args.command;
    send(args)
}

fn send(args: &SendArgs) -> Result<()> {
    let mut options = LogOptions::from_environment();
    options.filter.get_or_insert_with(|| "warn".into());
    telemetry::init(&options)?;
    let directory = RunDirectory::at(&args.run);
    let mut recipe = directory.recipe()?;
    let identity: Identity = directory.read("run.json")?.with_context(|| {
        format!("{} is not a run directory: it has no run.json", args.run.display())
    })?;
    let config = &mut recipe.tracking;
    config.mlflow = args.mlflow.clone().or(config.mlflow.take());
    if let Some(experiment) = &args.experiment {
        config.experiment.clone_from(experiment);
    }
    config.run_name = args.run_name.clone().or(config.run_name.take());
    if let Some(folder) = &args.tensorboard {
        config.tensorboard = match folder {
            Some(folder) => EventFiles::Below(folder.clone()),
            None => EventFiles::InRun(true),
        };
    }
    if let Some(names) = &args.names {
        config.names = match names.as_str() {
            "trl" => Names::Trl,
            "verl" => Names::Verl,
            "octet" => Names::Octet,
            other => bail!("--names {other}: expected trl, verl or octet"),
        };
    }
    if !config.is_on() {
        bail!(
            "{} does not say where its run is tracked: name a server with --mlflow URL, or ask for event files \
             with --tensorboard",
            directory.join("config.toml").display()
        );
    }
    let Targets { mlflow, tensorboard, names } = targets(config, &directory)?;
    let facts = facts(&recipe, &identity, &directory)?;
    let (run_id, name) = (facts.run_id.clone(), facts.name.clone());
    let mut journal = Journal::open(directory.path(), &run_id)?;
    collect(directory.path(), facts, &mut journal)?;
    if let Some(folder) = tensorboard {
        EventFile::open(&folder, &run_id, names, &journal)?;
        screen::say(format_args!("tensorboard  {}", folder.display()));
    }
    let Some(settings) = mlflow else { return Ok(()) };
    let target = Target { url: settings.base.clone(), experiment: settings.experiment.clone() };
    if args.anew {
        journal.forget(&target, &run_id)?;
    } else {
        journal.retry_files(&target)?;
    }
    let sender = Sender::start(settings, names, directory.path(), (&run_id, &name))?;
    sender.nudge();
    let delivery = sender.drain(Duration::from_secs(args.within))?;
    let complete = report(&delivery, directory.path());
    anyhow::ensure!(complete, "{} does not have all of the run", delivery.url);
    Ok(())
}
