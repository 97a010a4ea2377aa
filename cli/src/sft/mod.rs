//! `octet sft`: supervised fine-tuning on reference answers, the prompt masked.
//!
//! Invariant: the same model code, updates and checkpoints as reinforcement learning.

mod corpus;
mod fresh;
mod grow;
mod recipe;

use crate::train::progress::Screen;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use clap::Args;
use corpus::{Corpus, Lesson};
use octet_learner::adamw::{AdamW, Hyperparameters, TensorSpec};
use octet_learner::objective::sft;
use octet_learner::schedule::{Decay, Schedule};
use octet_learner::update::{Updater, micro_batches};
use octet_policy::config::Dtype;
use octet_policy::kernel::head::Shaping;
use octet_policy::model::Keep;
use octet_policy::policy::Policy;
use recipe::Recipe;
use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

/// Supervised fine-tuning: teach a policy the reference answers of a data set, or of generated drills.
#[derive(Args, Debug)]
pub struct SftArgs {
    /// The run's TOML file.
    recipe: PathBuf,
    /// Directory for the trained policy; `OUT/last` is replaced while training.
    #[arg(long)]
    out: PathBuf,
    /// Go on from `OUT/last`.
    #[arg(long)]
    resume: bool,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 200)]
    save_every: u64,
    /// Stop after this many steps of the recipe.
    #[arg(long)]
    until: Option<u64>,
}

/// Where a resumed run goes on.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default)]
struct Position {
    step: u64,
    sequences: u64,
    tokens: u64,
}

/// Runs the command.
pub fn run(args: &SftArgs) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let last = args.out.join("last");
    let mut position = Position::default();
    if args.resume {
        let path = last.join("octet/position.json");
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        position = serde_json::from_slice(&text)?;
    } else if last.exists() {
        bail!("{} exists: pass --resume to go on, or another --out", last.display());
    } else {
        std::fs::create_dir_all(&args.out)?;
    }
    let start = match (&recipe.model, &recipe.fresh) {
        _ if args.resume => last.clone(),
        (Some(model), None) => {
            let found = crate::model::locate(model)?;
            match recipe.layers {
                Some(layers) => {
                    let target = args.out.join("grown");
                    if target.exists() {
                        std::fs::remove_dir_all(&target)?;
                    }
                    grow::make(&found, layers, &target)?;
                    target
                }
                None => found,
            }
        }
        (None, Some(shape)) => {
            let target = args.out.join("fresh");
            if target.exists() {
                std::fs::remove_dir_all(&target)?;
            }
            fresh::make(&recipe, shape, &target)?;
            target
        }
        _ => bail!("{}: expected either `model` or [fresh]", args.recipe.display()),
    };
    let policy = Policy::load(&start, DType::F32, &Device::Cpu)?;
    if policy.model.lora().is_some() {
        bail!(
            "{start} is an adapter, expected a whole model: merge it first with `octet export {start} --out DIR`",
            start = start.display()
        );
    }
    train(&recipe, args, policy, position, &last)
}

fn train(
    recipe: &Recipe,
    args: &SftArgs,
    mut policy: Policy,
    mut position: Position,
    last: &Path,
) -> Result<()> {
    let o = &recipe.optimiser;
    let hyper = Hyperparameters {
        beta2: o.beta2,
        weight_decay: o.weight_decay,
        max_gradient_norm: Some(o.max_gradient_norm),
        muon: o.muon,
        ..Hyperparameters::default()
    };
    let total = recipe.steps();
    let decay = Decay::Cosine { floor: o.floor };
    let schedule = Schedule::new(o.learning_rate, o.warmup_steps, total, decay)?;
    let model = policy.model.clone();
    let mut updater = if position.step > 0 {
        let specs = model.params().specs().iter();
        let specs = specs.map(|s| TensorSpec { name: s.name.clone(), shape: s.shape.clone() });
        let optimiser =
            AdamW::read(&last.join("octet/optimiser.safetensors"), hyper, specs.collect())?;
        Updater::resume(model, Keep::Activations, optimiser)?
    } else {
        Updater::new(model, Keep::Activations, hyper)?
    };
    let screen = Screen::new();
    screen.line(&format!(
        "octet sft  {} parameters, vocabulary {}, steps {} to {total} → {}",
        policy.model.params().count(),
        policy.model.config().vocab_size,
        position.step,
        last.display()
    ));
    let end = args.until.unwrap_or(total).min(total);
    let batches = prefetch(recipe, &policy.directory, position, end)?;
    let mut log =
        std::fs::File::options().create(true).append(true).open(args.out.join("metrics.jsonl"))?;
    let bar = screen.bar("sft", end);
    let (mut started, mut since, mut loss_sum, mut loss_steps) = (Instant::now(), 0u64, 0.0, 0u32);
    let mut too_long = 0;
    for batch in batches {
        let (step, batch) = batch?;
        let sequences = batch.iter().map(|lesson| lesson.asked.len() as u64).sum::<u64>();
        let (batch, longer): (Vec<Lesson>, Vec<Lesson>) =
            batch.into_iter().partition(|lesson| lesson.fits(&policy));
        too_long += longer.len();
        let tokens: usize = batch.iter().map(Lesson::size).sum();
        let (loss, norm) = one_step(&mut updater, recipe, batch, schedule.learning_rate(step))?;
        position.step = step + 1;
        position.sequences += sequences;
        position.tokens += tokens as u64;
        since += tokens as u64;
        loss_sum += loss;
        loss_steps += 1;
        if position.step.is_multiple_of(20) || position.step == end {
            let line = serde_json::json!({
                "step": position.step, "loss": loss_sum / f64::from(loss_steps), "gradient_norm": norm,
                "learning_rate": schedule.learning_rate(step), "tokens": position.tokens,
                "tokens_per_second": since as f64 / started.elapsed().as_secs_f64(),
            });
            writeln!(log, "{line}")?;
            bar.set_position(position.step);
            bar.set_message(format!("loss {:.3}", loss_sum / f64::from(loss_steps)));
            if !screen.is_terminal() {
                screen.line(&line.to_string());
            }
            (started, since, loss_sum, loss_steps) = (Instant::now(), 0, 0.0, 0);
        }
        if position.step.is_multiple_of(args.save_every) || position.step == end {
            let begun = Instant::now();
            save(&mut policy, &updater, position, last)?;
            started += begun.elapsed();
        }
    }
    bar.finish_and_clear();
    if too_long > 0 {
        screen.line(&format!(
            "left out {too_long} sequences longer than the model's context of {} tokens",
            policy.model.config().max_position_embeddings
        ));
    }
    crate::screen::say(format_args!(
        "step {} of {total}, {} tokens\nweights      {}\npolicy       {policy}\n\n\
         try next     octet eval {policy} --show 5",
        position.step,
        position.tokens,
        policy.model.params().digest()?.to_hex(),
        policy = last.display(),
    ));
    Ok(())
}

/// One update; returns the mean loss of an answer token and the gradient's norm.
fn one_step(
    updater: &mut Updater,
    recipe: &Recipe,
    batch: Vec<Lesson>,
    learning_rate: f64,
) -> Result<(f64, f64)> {
    let sizes: Vec<usize> = batch.iter().map(Lesson::size).collect();
    let total: usize = batch.iter().map(Lesson::answer_tokens).sum();
    let total = NonZeroU64::new(total as u64).context("a batch without answers")?;
    let mut loss = 0.0;
    let answered: Vec<Vec<bool>> = batch.iter().map(|l| l.answered().collect()).collect();
    let groups: Vec<_> = batch.into_iter().map(|lesson| lesson.tokens).collect();
    for run in micro_batches(&sizes, recipe.batch.micro_batch_tokens) {
        let answered = answered[run.clone()].concat();
        updater.accumulate(&groups[run], Shaping::default(), |learned| {
            let carries = || learned.logprobs.iter().zip(&answered);
            let logprobs: Vec<f32> =
                carries().filter(|(_, answered)| **answered).map(|(&p, _)| p).collect();
            let all = sft(&logprobs, total).map_err(candle_core::Error::wrap)?;
            loss += all.loss;
            let mut slopes = all.gradient.into_iter();
            Ok(answered
                .iter()
                .map(|&answered| if answered { slopes.next().unwrap_or(0.0) } else { 0.0 })
                .collect())
        })?;
    }
    Ok((loss, updater.apply(learning_rate)?.gradient_norm))
}

/// A step's index and its batch.
type Step = (u64, Vec<Lesson>);

/// Batches are made on a thread of their own, a few ahead.
fn prefetch(
    recipe: &Recipe,
    directory: &Path,
    position: Position,
    end: u64,
) -> Result<Receiver<Result<Step>>> {
    let corpus = Corpus::new(recipe, directory)?;
    let (send, receive) = sync_channel(4);
    let mut first = position.sequences;
    std::thread::Builder::new().name("sft-batches".into()).spawn(move || {
        for step in position.step..end {
            let batch = corpus.batch(step, first).map(|batch| (step, batch));
            first += corpus.sequences(step);
            // A send fails when the training ended early; there is nobody left to tell.
            if send.send(batch).is_err() {
                break;
            }
        }
    })?;
    Ok(receive)
}

fn save(policy: &mut Policy, updater: &Updater, position: Position, last: &Path) -> Result<()> {
    use octet_policy::files::StagedDir;
    let next = last.with_extension("next");
    if next.exists() {
        std::fs::remove_dir_all(&next)?;
    }
    let staged = StagedDir::create(&next)?;
    policy.save_into(&staged, Dtype::F32)?;
    let state = staged.path().join("octet");
    std::fs::create_dir(&state)?;
    updater.optimiser().write(&state.join("optimiser.safetensors"))?;
    std::fs::write(state.join("position.json"), serde_json::to_vec(&position)?)?;
    staged.commit()?;
    let old = last.with_extension("old");
    if last.exists() {
        std::fs::rename(last, &old)?;
    }
    std::fs::rename(&next, last)?;
    if old.exists() {
        std::fs::remove_dir_all(&old)?;
    }
    policy.directory = last.into();
    Ok(())
}
