//! Tracking a run: what is told of it, where, and `octet track`.
//!
//! Invariant: what is wrong with `[tracking]` is said before the run begins; after that nothing about tracking ends
//! it.

mod send;

pub use send::{TrackArgs, run};

use crate::recipe::Recipe;
use crate::screen;
use crate::train::directory::{Identity, RunDirectory};
use anyhow::Result;
use octet_tracking::event::Status;
use octet_tracking::{Config, Delivery, Facts, Targets, Tracker, flatten};
use std::path::Path;
use std::time::Duration;

/// How long a run that was stopped or failed waits: somebody wants it to end.
const AT_A_STOP: Duration = Duration::from_secs(5);

/// A run, tracked or not.
pub struct Tracked {
    tracker: Option<Tracker>,
    patience: Duration,
    directory: RunDirectory,
}

/// Where a run is to be shown.
///
/// # Errors
/// A key of `[tracking]` or a variable that does not hold.
pub fn targets(config: &Config, directory: &RunDirectory) -> Result<Targets> {
    let mlflow = config.server(|name| std::env::var(name).ok())?;
    let tensorboard = config.tensorboard.folder(directory.path(), &directory.name());
    Ok(Targets { mlflow, tensorboard, names: config.names })
}

/// What is told of a run besides what it writes to its directory.
///
/// # Errors
/// The recipe has no JSON form.
pub fn facts(recipe: &Recipe, identity: &Identity, directory: &RunDirectory) -> Result<Facts> {
    let mut config = serde_json::to_value(recipe)?;
    if let Some(sections) = config.as_object_mut() {
        sections.remove("tracking");
    }
    let place = std::path::absolute(directory.path());
    let place = place.as_deref().unwrap_or(directory.path());
    let machine = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let tags = [
        ("octet.run_id", identity.run_id.clone()),
        ("octet.config_digest", identity.config_digest.to_string()),
        ("octet.version", identity.octet.clone()),
        ("octet.steps", identity.total_steps.to_string()),
        ("octet.model", recipe.model.path.display().to_string()),
        ("octet.device", recipe.model.device.clone()),
        ("octet.machine", machine),
        ("octet.run_directory", place.display().to_string()),
    ];
    Ok(Facts {
        run_id: identity.run_id.clone(),
        name: recipe.tracking.run_name.clone().unwrap_or_else(|| directory.name()),
        params: flatten::params(&config),
        tags: tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        steps: identity.total_steps,
    })
}

impl Tracked {
    /// Begins to track a run whose directory is there, or goes on with it.
    ///
    /// # Errors
    /// The journal or an event file cannot be written.
    pub fn begin(
        recipe: &Recipe,
        identity: &Identity,
        directory: &RunDirectory,
        targets: Targets,
    ) -> Result<Self> {
        let patience = recipe.tracking.patience;
        let tracker = match recipe.tracking.is_on() {
            true => {
                let facts = facts(recipe, identity, directory)?;
                Some(Tracker::begin(directory.path(), facts, targets)?)
            }
            false => None,
        };
        Ok(Self { tracker, patience, directory: directory.clone() })
    }

    /// The run has ended so: waits for the server, no longer than `tracking.patience`, and says what came of it.
    pub fn finish(self, status: Status) {
        let Some(tracker) = self.tracker else { return };
        let within = match status {
            Status::Finished => self.patience,
            _ => self.patience.min(AT_A_STOP),
        };
        match tracker.finish(status, within) {
            Ok(Some(delivery)) => {
                report(&delivery, self.directory.path());
            }
            Ok(None) => {}
            Err(waited) => screen::note(&format!(
                "tracking: the run directory did not answer within {waited:.0?}; {}",
                remedy(self.directory.path())
            )),
        }
    }
}

/// Says what a server has; whether that is everything.
fn report(delivery: &Delivery, run: &Path) -> bool {
    let Delivery { url, page, refused, undelivered } = delivery;
    for (what, reason) in refused {
        screen::note(&format!("tracking: {url} does not have {what}: it {reason}"));
    }
    let Some(left) = undelivered else {
        screen::say(format_args!("tracking     {}", page.as_ref().unwrap_or(url)));
        return refused.is_empty();
    };
    let reason = match &left.reason {
        Some(reason) => format!("it {reason}"),
        None => "it was not done with them".into(),
    };
    screen::note(&format!(
        "tracking: {} records are not at {url} after {:.1?}: {reason}. They are in {}; {}",
        left.records,
        left.waited,
        run.join(octet_tracking::journal::JOURNAL_FILE).display(),
        remedy(run)
    ));
    false
}

fn remedy(run: &Path) -> String {
    format!("send them with `octet track send {}`", run.display())
}
