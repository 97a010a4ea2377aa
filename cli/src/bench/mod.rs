//! `octet bench`: how fast sampling, learning, publishing and a whole step are here, beside the machine's speed.
//!
//! Invariant: what is measured is the code that a run executes; what does not fit is refused before a weight is
//! allocated; standard output holds the findings and nothing else.

mod company;
mod learning;
mod machine;
mod products;
mod publish;
mod report;
mod room;
mod sampling;
mod settings;
mod shape;
mod step;
mod sweep;
mod synthetic;

use crate::screen;
use crate::train::progress::Screen;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use company::Company;
use indicatif::ProgressBar;
use machine::Machine;
use octet_learner::plan::{Place, available_memory};
use report::Findings;
use serde_json::{Map, Value, json};
use settings::Settings;
use shape::{Shape, Subject};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Measure this machine and octet on it: sampling, learning, publishing, and a whole step.
///
/// Every speed stands beside the machine's own f32 matrix-product speed and memory bandwidth, which are measured
/// first. Operations are counted as only the mathematics needs them: 2 a weight and token for sampling and 6 for
/// learning, a prompt once for all of its completions, and attention. Each part runs once to warm up and then
/// --repeats times; the median is shown. docs/performance.md says what the numbers mean.
///
/// Other programs spoil the numbers: a part that had company says so.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    octet bench                                           everything, on a small shape\n  \
    octet bench sampling --shape smollm2-135m --groups 8  decoding of 64 rows together\n  \
    octet bench learning --model assets/policy --json     your own model, for a program\n  \
    octet bench step --lag 1                              whether overlap helps here")]
pub struct BenchArgs {
    /// What to measure; everything where nothing is named.
    #[arg(value_enum)]
    what: Vec<Part>,
    /// A model's shape; its weights are random.
    #[arg(long, value_enum, default_value_t = Shape::Tiny)]
    shape: Shape,
    /// A model of your own instead, a Hugging Face directory.
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Prompts of a step.
    #[arg(long, default_value = "16")]
    groups: NonZeroUsize,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 8)]
    completions: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 192)]
    prompt: usize,
    /// Tokens of a completion. None ends earlier.
    #[arg(long, default_value_t = 64)]
    new: usize,
    /// Completions that are decoded together, at most (`workers.rows` of a recipe).
    #[arg(long, default_value_t = 128)]
    rows: usize,
    /// Tokens that are learned at once (`learner.micro_batch_tokens` of a recipe).
    #[arg(long, default_value = "8192")]
    micro_batch_tokens: NonZeroUsize,
    /// How many versions old the sampling policy of `step` is (`learner.lag` of a recipe).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=16))]
    lag: u64,
    /// Threads to compute with; all of the machine's without it.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Measured repetitions, after one to warm up.
    #[arg(long, default_value = "3")]
    repeats: NonZeroUsize,
    /// Seed of random weights and tokens.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print one JSON object a line: name, value, unit, conditions.
    #[arg(long)]
    json: bool,
}

/// The parts of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// f32 matrix products on one thread and on all, and the memory.
    Machine,
    /// Prefill and decode apart, and both as a worker does it.
    Sampling,
    /// One GRPO update of packed groups, and its matrix products alone.
    Learning,
    /// A version's weights over loopback gRPC: manifest, chunks, and the model again.
    Publish,
    /// A whole step through the services of `octet train`: sample, score, learn, commit, publish.
    Step,
    /// Learning over prompts of 64 to 2,048 tokens: measured against P + 8·C.
    Sweep,
}

/// What is measured, how much of it, and on which machine.
struct Bench {
    subject: Subject,
    settings: Settings,
    machine: Machine,
    screen: Screen,
}

/// Cores of other processes from which on a measurement is not to be trusted.
const COMPANY: f64 = 0.25;

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    let subject = match &args.model {
        Some(directory) => Subject::directory(directory)?,
        None => Subject::shape(args.shape)?,
    };
    let settings = args.settings()?;
    settings.check(&subject)?;
    let mut parts = args.what.clone();
    if parts.is_empty() {
        parts = Part::value_variants().to_vec();
    }
    parts.sort_unstable();
    parts.dedup();
    let screen = Screen::new();
    let count = subject.config.param_count();
    let mut bench = Bench { subject, settings, machine: Machine::default(), screen };
    bench.check_room(&parts)?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(settings.threads)
        .build_global()
        .context("starting the threads to compute with")?;

    let common = bench.common(count);
    if !args.json {
        screen::say(format_args!(
            "octet bench  {}: {count} parameters, f32, {} threads\n",
            bench.subject.name, settings.threads
        ));
    }
    let company = Company::watch();
    let bar = bench.begin("machine", 1);
    bench.machine = Machine::measure()?;
    bar.finish_and_clear();
    bench.show(bench.machine.findings(), &company, &common, args.json);
    for part in parts {
        let company = Company::watch();
        let found = match part {
            Part::Machine => continue,
            Part::Sampling => sampling::measure(&bench),
            Part::Learning => learning::measure(&bench),
            Part::Publish => publish::measure(&bench),
            Part::Step => step::measure(&bench),
            Part::Sweep => sweep::measure(&bench),
        };
        bench.show(found?, &company, &common, args.json);
    }
    Ok(())
}

impl BenchArgs {
    fn settings(&self) -> Result<Settings> {
        let all = std::thread::available_parallelism().context("counting the machine's cores")?;
        Ok(Settings {
            groups: self.groups,
            completions: self.completions,
            prompt: self.prompt,
            new: self.new,
            rows: self.rows,
            micro_batch_tokens: self.micro_batch_tokens,
            lag: self.lag,
            repeats: self.repeats.get(),
            threads: self.threads.unwrap_or(all).get(),
            seed: self.seed,
        })
    }
}

impl Bench {
    /// Refuses parts that do not fit into memory.
    fn check_room(&self, parts: &[Part]) -> Result<()> {
        let (free, name) = (available_memory(), self.subject.name.as_str());
        let (config, s) = (&self.subject.config, &self.settings);
        let plan = |what: &str, settings: &Settings| {
            learning::plan(self, settings)
                .with_context(|| format!("{what} of {name} in f32 does not fit"))
        };
        for part in parts {
            match part {
                Part::Machine => {}
                Part::Sampling => {
                    room::check("sampling with", name, room::sampling(config, s), free)?;
                }
                Part::Publish => room::check("publishing", name, room::publishing(config), free)?,
                Part::Learning => drop(plan("learning", s)?),
                Part::Step => {
                    let learner = plan("a step", s)?.peak(Place::Host);
                    let worker = room::sampling(config, s);
                    room::check("a whole step with", name, learner + worker, free)?;
                }
                Part::Sweep => {
                    if let Some(prompt) = sweep::longest(self) {
                        plan("the sweep", &sweep::settings(s, prompt))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A bar on a terminal, a line elsewhere: nobody shall wonder whether it goes on.
    fn begin(&self, part: &str, length: u64) -> ProgressBar {
        if !self.screen.is_terminal() {
            self.screen.line(&format!("measuring {part} …"));
        }
        self.screen.bar(part, length)
    }

    /// The conditions of every reading.
    fn common(&self, parameters: usize) -> Map<String, Value> {
        let all = json!({
            "model": self.subject.name,
            "parameters": parameters,
            "dtype": "f32",
            "threads": self.settings.threads,
            "repeats": self.settings.repeats,
            "seed": self.settings.seed,
            "octet": env!("CARGO_PKG_VERSION"),
        });
        match all {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Prints what a part found.
    fn show(
        &self,
        mut found: Findings,
        company: &Company,
        common: &Map<String, Value>,
        json: bool,
    ) {
        let others = company.others();
        found.condition("others_cores", others.map_or(Value::Null, |cores| json!(cores)));
        if json {
            found.lines(common).iter().for_each(screen::say);
        } else {
            screen::say(format_args!("{found}\n"));
        }
        if let Some(cores) = others.filter(|cores| *cores >= COMPANY) {
            self.screen.line(&format!(
                "other processes used {cores:.1} cores meanwhile: the numbers above are too low; measure again \
                 when the machine is quiet"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Little work.
    pub fn settings() -> Settings {
        Settings {
            groups: NonZeroUsize::MIN.saturating_add(2),
            completions: 4,
            prompt: 12,
            new: 5,
            rows: 8,
            micro_batch_tokens: NonZeroUsize::MIN.saturating_add(63),
            lag: 0,
            repeats: 1,
            threads: 1,
            seed: 3,
        }
    }

    #[test]
    fn work_that_cannot_be_measured_is_refused_by_its_flag() {
        let subject = Subject::shape(Shape::Tiny).unwrap();
        let s = settings();
        s.check(&subject).unwrap();
        for (bad, flag) in [
            (Settings { completions: 1, ..s }, "--completions"),
            (Settings { new: 2, ..s }, "--new"),
            (Settings { prompt: 0, ..s }, "--prompt"),
            (Settings { prompt: 4096, ..s }, "at most 4096"),
            (Settings { rows: 3, ..s }, "--rows"),
        ] {
            let error = bad.check(&subject).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
