//! `octet eval`: the table of a run's last screen, for any policy and data set.

use crate::compute;
use crate::evaluation::{evaluate, table::Report};
use crate::train::progress::Screen;
use anyhow::Result;
use clap::Args;
use octet_dataset::load;
use octet_policy::kernel::head::Shaping;
use octet_policy::policy::Policy;
use octet_policy::sampler::Sampling;
use octet_reward_service::by_name;
use std::path::PathBuf;

/// Score a policy on a data set: accuracy and mean reward with 95 % intervals, by behaviour.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The policy, a Hugging Face directory.
    #[arg(default_value = "assets/policy")]
    model: PathBuf,
    /// The data set, JSON lines.
    #[arg(long, default_value = "assets/data/held-out.jsonl")]
    data: PathBuf,
    /// The reward function: tool-call or aws-compat.
    #[arg(long, default_value = "tool-call")]
    function: String,
    /// 0 takes the most likely token, always.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Completions of each row.
    #[arg(long, default_value_t = 1)]
    completions: usize,
    /// Most tokens of a completion.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Seed of the sampling.
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
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Show this many answers, wrong ones first.
    #[arg(long, default_value_t = 0)]
    show: usize,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    let mut rows = load(&args.data)?;
    rows.truncate(args.rows.unwrap_or(usize::MAX));
    let function = by_name(&args.function)?;
    let dtype = compute::dtype(&args.dtype, &args.device)?;
    let policy = Policy::load(&args.model, dtype, &compute::open(&args.device)?)?;
    let sampling = Sampling {
        seed: args.seed,
        completions: args.completions,
        shaping: Shaping { temperature: args.temperature, ..Shaping::default() },
        max_tokens: args.max_tokens,
        stop_tokens: policy.stop_tokens(),
    };
    let bar = Screen::new().bar("evaluating", (rows.len() * args.completions) as u64);
    let mut outcomes =
        evaluate(&policy, &rows, &*function, sampling, |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();
    let report = Report::new(&outcomes);
    if args.json {
        crate::screen::say(serde_json::to_string(&report)?);
        return Ok(());
    }
    crate::screen::say(&report);
    outcomes.sort_by(|a, b| a.reward.total_cmp(&b.reward));
    for o in outcomes.iter().take(args.show) {
        crate::screen::say(format_args!(
            "row {} [{}] {} {:.1}\n  asked  {}\n  wrote  {}",
            o.row + 1,
            o.behaviour.name(),
            o.verdict,
            o.reward,
            rows[o.row].request().replace('\n', " "),
            o.completion.replace('\n', " "),
        ));
    }
    Ok(())
}
