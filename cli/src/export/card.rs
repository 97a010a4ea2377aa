//! The model card: README.md with the front matter that the hub reads.
//!
//! Invariant: every number in it is one that the run wrote down; paths of this machine are not told, only the names
//! and digests of files.

use super::origin::{Origin, Run};
use crate::evaluation::table::{Report, Score};
use anyhow::Result;
use octet_policy::config::Dtype;
use octet_policy::lora::Target;
use octet_policy::policy::Policy;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// What a card is made of.
pub struct Card<'a> {
    /// What the model is called.
    pub name: &'a str,
    /// Where it comes from.
    pub origin: &'a Origin,
    /// The policy.
    pub policy: &'a Policy,
    /// The type that its weights are written in.
    pub dtype: Dtype,
    /// BLAKE3 of its weights as they were loaded, hex; of an adapted one, of the adapter.
    pub digest: &'a str,
    /// What the adapter belongs to, where the adapter alone is given away.
    pub base: Option<&'a str>,
}

impl Card<'_> {
    /// The whole file.
    ///
    /// # Errors
    /// Never, as far as is known: writing to memory does not fail.
    pub fn text(&self) -> Result<String> {
        let mut text = String::from("---\n");
        for (key, value) in self.front() {
            // JSON is YAML.
            writeln!(text, "{key}: {value}")?;
        }
        writeln!(text, "---\n\n# {}\n", self.name)?;
        let config = self.policy.model.config();
        let elements: usize = config.tensor_specs().iter().map(|spec| spec.len()).sum();
        let trained = match &self.origin.run {
            Some(_) => {
                ", trained for tool calling with reinforcement learning from verifiable rewards by octet"
            }
            None => ", written by octet; no record of a training lies beside it",
        };
        let adapter = match (self.base, self.policy.model.lora()) {
            (Some(base), Some(lora)) => {
                format!("A LoRA adapter of rank {} for `{base}`, a", lora.rank)
            }
            _ => "A".to_owned(),
        };
        writeln!(
            text,
            "{adapter} {} model of {:.1} million parameters with a context of {} tokens{trained}.\n",
            config.architecture.model_type(),
            elements as f64 / 1e6,
            config.max_position_embeddings
        )?;
        if let Some(run) = &self.origin.run {
            evaluation(&mut text, run)?;
            training(&mut text, run)?;
        }
        self.weights(&mut text)?;
        self.usage(&mut text)?;
        Ok(text)
    }

    fn front(&self) -> Vec<(&'static str, Value)> {
        let library = if self.base.is_some() { "peft" } else { "transformers" };
        let mut front = vec![
            ("library_name", json!(library)),
            ("pipeline_tag", json!("text-generation")),
            ("tags", json!(["tool-calling", "rlvr", "grpo", "octet"])),
        ];
        let Some(run) = &self.origin.run else {
            front.extend(self.base.map(|base| ("base_model", json!(base))));
            return front;
        };
        front[2].1 = json!(["tool-calling", "rlvr", run.recipe.learner.objective.name(), "octet"]);
        let base = file_name(&run.recipe.model.path);
        front.push(("base_model", json!(self.base.unwrap_or(&base))));
        front.push(("datasets", json!([file_name(&run.recipe.data.train)])));
        if let Some(after) = &run.after {
            let metric = |kind: &str, name: &str, value: f64| {
                // Six digits, so that 0.8433333333333334 does not look like a measurement.
                json!({ "type": kind, "name": name, "value": (value * 1e6).round() / 1e6 })
            };
            let results = json!([{
                "task": { "type": "text-generation", "name": "Tool calling" },
                "dataset": { "type": "custom", "name": file_name(&run.recipe.data.held_out) },
                "metrics": [
                    metric("accuracy", "Share of full reward", after.all.accuracy),
                    metric("reward", "Mean reward", after.all.reward),
                ],
            }]);
            front.push(("model-index", json!([{ "name": self.name, "results": results }])));
        }
        front
    }

    fn weights(&self, text: &mut String) -> Result<()> {
        writeln!(text, "## Weights\n")?;
        let rounded = match (self.dtype, self.policy.model.config().dtype) {
            (Dtype::Bf16, None | Some(Dtype::F32)) => {
                ", rounded to nearest (ties to even) from the float32 that were trained"
            }
            _ => "",
        };
        writeln!(text, "- type: {}{rounded}", self.dtype.name())?;
        let of = match (self.base, self.policy.model.lora()) {
            (None, None) => "the weights as they were trained",
            (None, Some(_)) => "the adapter as it was trained, before it was merged into its base",
            (Some(_), _) => "the adapter as it was trained",
        };
        writeln!(text, "- BLAKE3 of {of}: `{}`\n", self.digest)?;
        Ok(())
    }

    fn usage(&self, text: &mut String) -> Result<()> {
        let name = self.name;
        if let Some(base) = self.base {
            writeln!(
                text,
                "## Use\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
                 model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"{base}\"), \"{name}\")\n```\n\n\
                 ```sh\noctet serve {name}\n```"
            )?;
            return Ok(());
        }
        writeln!(
            text,
            "## Use\n\nThe chat template takes `tools` and writes calls as `<tool_call>` blocks.\n\n\
             ```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             tokenizer = AutoTokenizer.from_pretrained(\"{name}\")\n\
             model = AutoModelForCausalLM.from_pretrained(\"{name}\")\n```\n\n\
             ```sh\noctet serve {name}\n\
             vllm serve {name} --enable-auto-tool-choice --tool-call-parser hermes\n```"
        )?;
        Ok(())
    }
}

fn evaluation(text: &mut String, run: &Run) -> Result<()> {
    let held_out = file_name(&run.recipe.data.held_out);
    writeln!(text, "## Evaluation\n")?;
    if !run.recipe.evaluation.enabled || run.before.is_none() && run.after.is_none() {
        writeln!(text, "None was made in this run.\n")?;
        return Ok(());
    }
    let temperature = run.recipe.evaluation.temperature;
    let how = if temperature > 0.0 {
        format!("temperature {temperature}")
    } else {
        "the most likely token always taken".to_owned()
    };
    writeln!(
        text,
        "On `{held_out}`, which was not trained on, scored by `{}`, {how}. Accuracy is the share of completions \
         with full reward, with 95 % intervals.\n",
        file_name(Path::new(&run.recipe.reward.function))
    )?;
    writeln!(
        text,
        "| | completions | accuracy before | accuracy after | reward before | reward after |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    let rows = run.after.as_ref().or(run.before.as_ref()).into_iter().flat_map(named);
    for (name, score) in rows {
        let of = |report: &Option<Report>| {
            let found =
                report.as_ref().and_then(|r| named(r).into_iter().find(|(n, _)| *n == name));
            found.map(|(_, score)| (accuracy(score), format!("{:.3}", score.reward)))
        };
        let missing = || ("not measured".to_owned(), "not measured".to_owned());
        let (before, after) = (of(&run.before), of(&run.after));
        let (before, after) = (before.unwrap_or_else(missing), after.unwrap_or_else(missing));
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            score.completions, before.0, after.0, before.1, after.1
        )?;
    }
    if run.after.is_none() {
        writeln!(
            text,
            "\nThese weights were not evaluated: they are of step {} of {}.",
            run.state.committed_steps, run.identity.total_steps
        )?;
    }
    writeln!(text)?;
    Ok(())
}

/// The scores of a report by what is wanted, all together last.
fn named(report: &Report) -> Vec<(&str, &Score)> {
    let by = report.by_behavior.iter().map(|(name, score)| (name.as_str(), score));
    by.chain([("all", &report.all)]).collect()
}

fn accuracy(score: &Score) -> String {
    let [low, high] = score.accuracy_interval.map(|share| 100.0 * share);
    format!("{:.1} % [{low:.1}, {high:.1}]", 100.0 * score.accuracy)
}

fn training(text: &mut String, run: &Run) -> Result<()> {
    let (recipe, state) = (&run.recipe, &run.state);
    let learner = &recipe.learner;
    writeln!(text, "## Training\n")?;
    let trained = match &recipe.policy.lora {
        None => "all weights".to_owned(),
        Some(lora) => {
            let targets: Vec<&str> = lora.targets.iter().map(Target::name).collect();
            format!(
                "an adapter of rank {}, alpha {}, of {}",
                lora.rank,
                lora.alpha,
                targets.join(", ")
            )
        }
    };
    let rows: [(&str, String); 14] = [
        (
            "method",
            format!(
                "{}{}, {} completions per prompt",
                learner.objective.name(),
                learner.beta.map_or_else(String::new, |beta| format!(" with β {beta}")),
                recipe.sampling.completions
            ),
        ),
        ("started from", format!("`{}`", file_name(&recipe.model.path))),
        ("trained", trained),
        ("data", data(&recipe.data.train)),
        ("reward", format!("`{}`", file_name(Path::new(&recipe.reward.function)))),
        ("steps", format!("{} of {}", state.committed_steps, run.identity.total_steps)),
        ("prompts per step", learner.batch.to_string()),
        ("lag", format!("{} versions", learner.lag)),
        (
            "learning rate",
            format!("{:e}, {:?} schedule", learner.learning_rate, learner.schedule).to_lowercase(),
        ),
        ("KL coefficient", learner.kl_beta.to_string()),
        (
            "sampling",
            format!(
                "temperature {}, top-p {}, at most {} tokens",
                recipe.sampling.temperature, recipe.sampling.top_p, recipe.sampling.max_tokens
            ),
        ),
        ("seed", recipe.run.seed.to_string()),
        (
            "mean reward of the last step's completions",
            format!("{:.3}", state.metrics.rollout.reward_mean),
        ),
        ("octet", run.identity.octet.clone()),
    ];
    writeln!(text, "| | |\n|---|---|")?;
    for (what, value) in rows {
        writeln!(text, "| {what} | {value} |")?;
    }
    writeln!(
        text,
        "\nConfiguration digest `{}`. The same configuration, data and start give these weights again, bit for bit, \
         on the CPU.\n",
        run.identity.config_digest
    )?;
    Ok(())
}

/// A data set by its name and, while it is still there, its digest.
fn data(path: &Path) -> String {
    let name = file_name(path);
    match std::fs::read(path) {
        Ok(bytes) => format!("`{name}`, BLAKE3 `{}`", blake3::hash(&bytes).to_hex()),
        Err(_) => format!("`{name}`"),
    }
}

/// The last part of a path; what is no path is left as it is.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
