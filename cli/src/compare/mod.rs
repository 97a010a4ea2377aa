//! `octet compare`: several recipes over several seeds, one run after the other, and what came of them side by side.
//!
//! Invariant: everything that can be found wrong with any of the runs is found before the first begins. A run is that
//! of `octet train` with the same recipe and seed, bit for bit; whether it was done before, stopped and gone on with,
//! or done now changes nothing in the tables but the times.

mod drawing;
mod held_out;
mod numbers;
mod plan;
mod report;

use crate::evaluation::Outcome;
use crate::screen;
use crate::track;
use crate::train::progress::Screen;
use crate::train::setup::Setup;
use crate::train::summary::Summary;
use crate::train::whole::{Onlooker, Run, log};
use anyhow::{Context, Result};
use clap::Args;
use held_out::Yardstick;
use numbers::{Contest, RunNumbers};
use octet_policy::policy::Policy;
use octet_runtime::{CancellationToken, shutdown};
use plan::{Entry, Plan, State};
use std::path::PathBuf;
use std::time::Instant;

/// Compare ways to train: every recipe with every seed, one run after the other, then one table of all on the same
/// held-out rows.
///
/// A run that is complete in the output directory is not done again, and one that was stopped goes on: after a stop, give
/// the same command. Each run is a run directory of its own, as `octet train` makes it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  GRPO, DPO and rejection sampling on the quickstart, over three seeds:
    octet compare recipes/quickstart.toml recipes/quickstart-dpo.toml recipes/quickstart-sft.toml

  What would be run, and whether it can be:
    octet compare recipes/quickstart.toml recipes/quickstart-dpo.toml --plan

  A quick look, with two steps each:
    octet compare recipes/quickstart*.toml --seeds 1,2 --set run.steps=2 --rows 20 --out runs/look")]
pub struct CompareArgs {
    /// The recipes; each has a run.name of its own.
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
    /// The seeds of each recipe's runs.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Override a key of every recipe, e.g. --set run.epochs=1.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the runs and the comparison go.
    #[arg(long, value_name = "DIR", default_value = "runs/compare")]
    out: PathBuf,
    /// Score on the first so many held-out rows only.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Check all recipes, show the runs and how far each is, and stop there.
    #[arg(long)]
    plan: bool,
}

/// Runs the command.
pub fn run(args: &CompareArgs) -> Result<()> {
    let plan = Plan::new(args)?;
    if args.plan {
        screen::say(plan);
        return Ok(());
    }
    std::fs::create_dir_all(&plan.out).with_context(|| format!("making {}", plan.out.display()))?;
    let screen = Screen::new();
    log(&screen, plan.out.join("log.jsonl"))?;
    screen.line(&plan.to_string());
    let listening = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    // A signal while a run trains is the run's; one that comes between runs, or while one is scored, is seen here.
    let stop =
        listening.block_on(async { shutdown::on_signal() }).context("listening for Ctrl-C")?;
    let mut referee = Referee { plan: &plan, screen: &screen, stop, scored: None };
    let Some(runs) = referee.all()? else {
        screen.line("stopped; give the same command to go on");
        return Ok(());
    };
    let contest = Contest::new(&plan, runs);
    report::write(&plan, &contest)?;
    screen::say(report::markdown(&contest));
    screen::say(format_args!(
        "compare.md, compare.json, compare.png and the runs are in {}",
        plan.out.display()
    ));
    Ok(())
}

/// Sees all runs through.
struct Referee<'a> {
    plan: &'a Plan,
    screen: &'a Screen,
    stop: CancellationToken,
    /// The outcomes of the final policy of the run that has just ended.
    scored: Option<Vec<Outcome>>,
}

/// Looks on at one run.
struct Scorer<'a> {
    yardstick: &'a Yardstick,
    screen: &'a Screen,
    entry: &'a Entry,
    start: &'a [Outcome],
    scored: &'a mut Option<Vec<Outcome>>,
}

impl Onlooker for Scorer<'_> {
    fn evaluate(&mut self, when: &str, policy: &Policy) -> Result<Option<Vec<Outcome>>> {
        if when == "before" {
            return Ok(Some(self.start.to_vec()));
        }
        let outcomes = self.yardstick.score(self.screen, when, policy)?;
        self.yardstick.keep(&self.entry.directory.join(held_out::FILE), &outcomes)?;
        *self.scored = Some(outcomes.clone());
        Ok(Some(outcomes))
    }

    fn done(&mut self, summary: &Summary) {
        let after = summary.after.as_ref().map_or(0.0, |report| report.all.accuracy);
        self.screen.line(&format!(
            "{}: accuracy {:.1} % after {} steps",
            self.entry,
            100.0 * after,
            summary.steps
        ));
    }
}

impl Referee<'_> {
    /// The numbers of all runs; none where it was stopped before.
    fn all(&mut self) -> Result<Option<Vec<RunNumbers>>> {
        let (begin, mut trained) = (Instant::now(), 0_u32);
        let mut runs = Vec::with_capacity(self.plan.entries.len());
        let open = |entry: &&Entry| !matches!(entry.state, State::Complete { .. });
        for (at, entry) in self.plan.entries.iter().enumerate() {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let left = self.plan.entries[at..].iter().filter(open).count();
            let about = match trained {
                0 => String::new(),
                done => {
                    let each = begin.elapsed().as_secs_f64() / f64::from(done);
                    format!(", about {:.0} min left", each * left as f64 / 60.0)
                }
            };
            let count = self.plan.entries.len();
            self.screen.line(&format!(
                "run {} of {count}: {entry}, {}{about}",
                at + 1,
                entry.state
            ));
            let Some(numbers) = self.one(entry)? else { return Ok(None) };
            trained += u32::from(open(&entry));
            runs.push(numbers);
        }
        Ok(Some(runs))
    }

    /// One run, from wherever it is to its numbers.
    fn one(&mut self, entry: &Entry) -> Result<Option<RunNumbers>> {
        let start = self.start(entry)?;
        if self.stop.is_cancelled() {
            return Ok(None);
        }
        let yardstick = &self.plan.yardstick;
        let file = entry.directory.join(held_out::FILE);
        let after = match &entry.state {
            State::Complete { policy } => match yardstick.kept(&file)? {
                Some(outcomes) => outcomes,
                None => {
                    let policy = entry.load(policy)?;
                    let outcomes = yardstick.score(self.screen, "after", &policy)?;
                    yardstick.keep(&file, &outcomes)?;
                    outcomes
                }
            },
            State::Begun | State::New => {
                if !self.train(entry, &start)? {
                    return Ok(None);
                }
                self.scored.take().context("the run has ended without being scored")?
            }
        };
        RunNumbers::read(entry, start, after).map(Some)
    }

    /// The outcomes of the policy that the run begins with.
    fn start(&self, entry: &Entry) -> Result<Vec<Outcome>> {
        let yardstick = &self.plan.yardstick;
        let file = self.plan.out.join(format!("start-{}.json", &entry.start[..12]));
        if let Some(outcomes) = yardstick.kept(&file)? {
            return Ok(outcomes);
        }
        let policy = entry.load(&entry.model)?;
        let outcomes = yardstick.score(self.screen, "start", &policy)?;
        yardstick.keep(&file, &outcomes)?;
        Ok(outcomes)
    }

    /// The run itself; false where it was stopped.
    fn train(&mut self, entry: &Entry, start: &[Outcome]) -> Result<bool> {
        let begin = Instant::now();
        let targets = track::targets(&entry.recipe.tracking, &entry.directory)?;
        let setup = Setup::new(entry.recipe.clone(), &entry.directory)?;
        let identity = entry.directory.take(&setup.basis.recipe, &setup.identity)?;
        let run = Run {
            setup: &setup,
            identity: &identity,
            directory: &entry.directory,
            screen: self.screen,
            begin,
            stop: &self.stop,
        };
        let mut scorer = Scorer {
            yardstick: &self.plan.yardstick,
            screen: self.screen,
            entry,
            start,
            scored: &mut self.scored,
        };
        run.complete(targets, &mut scorer)
    }
}
