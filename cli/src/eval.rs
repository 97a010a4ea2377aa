//! `octet eval`: the table of a run's last screen, for any policies and data set, and the report behind it.

use crate::evaluation::markdown::{markdown, p_value, share};
use crate::evaluation::study::{Setting, Study};
use crate::evaluation::suite::Suite;
use crate::evaluation::{Outcome, TOO_LONG, charts, evaluate, prompt_of, table::Report};
use crate::train::progress::Screen;
use crate::{compute, model};
use anyhow::{Context, Result, bail};
use clap::Args;
use octet_dataset::{Example, load};
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampling;
use octet_reward_service::by_name;
use std::path::{Path, PathBuf};

/// Score policies on a data set: accuracy and mean reward with 95 % intervals, by behaviour; in groups and side by
/// side where a report is asked for.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The policies: Hugging Face directories, GGUF files, or names on the hub (OWNER/NAME[@REVISION]); each is
    /// compared with the first.
    #[arg(default_value = "assets/policy", value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The same, for those who expect an option.
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "models")]
    named: Vec<PathBuf>,
    /// The data set, JSON lines; with --suite, also the folder of the benchmark's own files.
    #[arg(long, default_value = "assets/data/held-out.jsonl")]
    data: PathBuf,
    /// Judge as a public benchmark does: its verdicts, its categories, its totals.
    #[arg(long, value_enum, requires = "data", conflicts_with = "function")]
    suite: Option<Suite>,
    /// The reward function: tool-call, aws-compat or bfcl. [default: tool-call]
    #[arg(long)]
    function: Option<String>,
    /// 0 takes the most likely token, always.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Completions of each row; several need a temperature.
    #[arg(long, visible_alias = "completions", default_value_t = 1)]
    samples: usize,
    /// Most tokens of a completion. [default: 128, with --suite 512]
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Seed of the sampling and of the intervals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only so many rows.
    #[arg(long)]
    rows: Option<usize>,
    /// Where to compute: cpu, or cuda:0 (a build with the feature `cuda`).
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The weights' type: f32, or bf16 on a GPU.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Print the long report: groups, confusion, pass@k, comparisons.
    #[arg(long)]
    report: bool,
    /// Write the long report as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write all numbers as JSON; `-` prints them instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the groups, pass@k and the confusion into this folder, as SVG and PNG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Show this many answers of each policy, wrong ones first.
    #[arg(long, default_value_t = 0)]
    show: usize,
}

impl EvalArgs {
    fn models(&self) -> &[PathBuf] {
        if self.named.is_empty() { &self.models } else { &self.named }
    }

    fn prints_json(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    fn wants_study(&self) -> bool {
        let files = [&self.markdown, &self.json, &self.plots];
        self.report
            || self.suite.is_some()
            || self.models().len() > 1
            || files.iter().any(|file| file.is_some())
    }

    fn sampling(&self, policy: &Policy) -> Sampling {
        let most = if self.suite.is_some() { 512 } else { 128 };
        Sampling {
            seed: self.seed,
            completions: self.samples,
            shaping: Shaping { temperature: self.temperature, ..Shaping::default() },
            max_tokens: self.max_tokens.unwrap_or(most),
            stop_tokens: policy.stop_tokens(),
        }
    }
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    if args.samples == 0 || (args.samples > 1 && args.temperature <= 0.0) {
        bail!(
            "expected --samples 1, or more with a --temperature above 0, found --samples {} --temperature {}: without \
             a temperature all completions of a row are the same",
            args.samples,
            args.temperature
        );
    }
    let mut rows = match args.suite {
        Some(suite) => suite.rows(&args.data)?,
        None => load(&args.data)?,
    };
    rows.truncate(args.rows.unwrap_or(usize::MAX));
    let asked = args.function.as_deref().unwrap_or("tool-call");
    let function = by_name(match args.suite {
        Some(suite) => suite.function(),
        None => asked,
    })?;
    let dtype = compute::dtype(&args.dtype, &args.device)?;
    let device = compute::open(&args.device)?;
    let mut lengths: Vec<usize> = Vec::new();
    let mut found: Vec<(String, Vec<Outcome>)> = Vec::new();
    for model in args.models() {
        let policy = model::load(model, dtype, &device)?;
        model::check_tools(model, &policy.template, &rows)?;
        if args.wants_study() && lengths.is_empty() {
            let length = |row: &Example| -> Result<usize> { Ok(prompt_of(&policy, row)?.len()) };
            lengths = rows.iter().map(length).collect::<Result<_>>()?;
        }
        let bar = Screen::new().bar("evaluating", (rows.len() * args.samples) as u64);
        let sampling = args.sampling(&policy);
        let progress = |n: usize| bar.set_position(n as u64);
        let outcomes = evaluate(&policy, &rows, &*function, sampling, progress)?;
        bar.finish_and_clear();
        let too_long = outcomes.iter().filter(|outcome| outcome.verdict == TOO_LONG).count();
        if too_long > 0 {
            crate::screen::note(&format!(
                "{}: {} rows count as wrong, since their prompts do not fit the model's context",
                model.display(),
                too_long / args.samples
            ));
        }
        found.push((model.display().to_string(), outcomes));
    }
    let study = args.wants_study().then(|| {
        let setting = Setting {
            data: args.data.display().to_string(),
            suite: args.suite.map(|suite| suite.name().to_owned()),
            function: function.name().to_owned(),
            rows: rows.len(),
            samples: args.samples,
            temperature: args.temperature,
            seed: args.seed,
        };
        Study::new(setting, &rows, &lengths, &found)
    });
    if let Some(study) = &study {
        write(args, study)?;
    }
    if args.prints_json() {
        return Ok(());
    }
    match &study {
        Some(study) if args.report => crate::screen::say(markdown(study)),
        _ => say_tables(&found, study.as_ref()),
    }
    for (_, outcomes) in &mut found {
        outcomes.sort_by(|a, b| a.reward.total_cmp(&b.reward));
        outcomes.iter().take(args.show).for_each(|outcome| say_answer(outcome, &rows));
    }
    Ok(())
}

/// Writes the files that were asked for.
fn write(args: &EvalArgs, study: &Study) -> Result<()> {
    let into = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    };
    if let Some(path) = &args.markdown {
        into(path, markdown(study))?;
    }
    match &args.json {
        Some(_) if args.prints_json() => crate::screen::say(serde_json::to_string(study)?),
        Some(path) => into(path, serde_json::to_string_pretty(study)? + "\n")?,
        None => {}
    }
    if let Some(directory) = &args.plots {
        charts::write(directory, study)?;
    }
    Ok(())
}

/// The short screen: each policy's table, the suite's totals, and each against the first.
fn say_tables(found: &[(String, Vec<Outcome>)], study: Option<&Study>) {
    for (i, (model, outcomes)) in found.iter().enumerate() {
        if found.len() > 1 {
            crate::screen::say(model);
        }
        crate::screen::say(Report::new(outcomes));
        for score in study.iter().flat_map(|study| &study.models[i].suite) {
            crate::screen::say(format_args!("{:36}{:.2}%", score.name, 100.0 * score.accuracy));
        }
        let categories = study.iter().filter(|study| study.setting.suite.is_some());
        let facets = categories.flat_map(|study| &study.models[i].facets);
        for (category, numbers) in facets.filter(|f| f.key == "category").flat_map(|f| &f.groups) {
            crate::screen::say(format_args!("  {category:34}{}", share(numbers.accuracy)));
        }
    }
    for comparison in study.iter().flat_map(|study| &study.comparisons) {
        let (Some(change), Some(p)) = (comparison.accuracy, comparison.p) else { continue };
        let [low, high] = change.change.interval.map(|end| 100.0 * end);
        crate::screen::say(format_args!(
            "{} against {}: accuracy {:+.1} points [{low:+.1}, {high:+.1}], p = {}",
            comparison.model,
            found[0].0,
            100.0 * change.change.value,
            p_value(p)
        ));
    }
}

fn say_answer(outcome: &Outcome, rows: &[Example]) {
    crate::screen::say(format_args!(
        "row {} [{}] {} {:.1}\n  asked  {}\n  wrote  {}",
        outcome.row + 1,
        outcome.behaviour.name(),
        outcome.verdict,
        outcome.reward,
        rows[outcome.row].request().replace('\n', " "),
        outcome.completion.replace('\n', " "),
    ));
}
