//! `octet`: reinforcement learning from verifiable rewards for tool calling, in one binary.

mod data;
mod evaluation;
mod screen;
mod sft;

use anyhow::Result;
use clap::{Parser, Subcommand};
use octet_policy::sampler::Sampling;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "octet", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Data(data::DataArgs),
    Sft(sft::SftArgs),
    /// Quick evaluation.
    Eval {
        model: std::path::PathBuf,
        #[arg(long)]
        data: Option<std::path::PathBuf>,
        #[arg(long, default_value_t = 100)]
        rows: usize,
        #[arg(long, default_value_t = 0.0)]
        temperature: f32,
        #[arg(long)]
        show: bool,
        #[arg(long)]
        train: bool,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Data(args) => data::run(&args),
        Command::Sft(args) => sft::run(&args),
        Command::Eval { model, data, rows, temperature, show, train } => {
            let policy = octet_policy::policy::Policy::load(
                &model,
                candle_core::DType::F32,
                &candle_core::Device::Cpu,
            )?;
            let split =
                if train { octet_dataset::Split::Train } else { octet_dataset::Split::HeldOut };
            let rows = match data {
                Some(path) => octet_dataset::load(path)?,
                None => octet_dataset::generate(&octet_dataset::Spec { seed: 1, rows, split }),
            };
            let sampling = Sampling {
                seed: 1,
                completions: 1,
                shaping: octet_policy::kernel::head::Shaping { temperature, ..Default::default() },
                max_tokens: 96,
                stop_tokens: policy.stop_tokens(),
            };
            let f = octet_reward_service::by_name("tool-call")?;
            let start = std::time::Instant::now();
            let out = evaluation::evaluate(&policy, &rows, &*f, sampling, |_| ())?;
            for (k, v) in evaluation::summary(&out) {
                eprintln!("{k:10} n {:4} accuracy {:.3} reward {:.3}", v.0, v.1, v.2);
            }
            let mut verdicts = std::collections::BTreeMap::new();
            for o in &out {
                *verdicts.entry((o.behaviour.name(), o.verdict.clone())).or_insert(0) += 1;
            }
            eprintln!("{verdicts:?} {:?}", start.elapsed());
            if show {
                for o in out.iter().take(40) {
                    eprintln!(
                        "--- {} [{}]\n  {}\n  want {}\n  got  {}",
                        o.verdict,
                        o.behaviour.name(),
                        rows[o.row].request(),
                        octet_dataset::reference_answer(&rows[o.row], 1).replace('\n', " "),
                        o.completion.replace('\n', " ")
                    );
                }
            }
            Ok(())
        }
    }
}
