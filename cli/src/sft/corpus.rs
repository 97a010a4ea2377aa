//! Batches of prompts and reference answers, as token ids.
//!
//! Invariant: the batch of a step is a pure function of the recipe and the step.

use super::recipe::Recipe;
use anyhow::{Context, Result};
use octet_dataset::{ColdStart, Drill, Example, epoch_order, load, reference_answer};
use octet_policy::layout::GroupTokens;
use octet_policy::policy::Policy;
use octet_policy::template::ChatTemplate;
use octet_policy::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::path::Path;

/// The source of batches.
pub struct Corpus {
    recipe: Recipe,
    excluded: Vec<Example>,
    data: Vec<Option<Vec<Example>>>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end: u32,
}

/// A conversation and its answer.
struct Pair {
    messages: Vec<Value>,
    tools: Vec<Value>,
    answer: String,
}

impl Corpus {
    /// Loads what the recipe names; the tokenizer and template are those of a policy directory.
    pub fn new(recipe: &Recipe, directory: &Path) -> Result<Self> {
        let mut excluded = Vec::new();
        for path in &recipe.exclude {
            excluded.extend(load(path)?);
        }
        let data = recipe
            .stage
            .iter()
            .map(|stage| stage.data.as_ref().map(load).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let tokenizer = Tokenizer::from_dir(directory)?;
        let end = tokenizer.require("<|im_end|>", "the end of an answer")?;
        let template = ChatTemplate::from_dir(directory)?;
        Ok(Self { recipe: recipe.clone(), excluded, data, tokenizer, template, end })
    }

    /// The batch of a step: each sequence a prompt and one suffix, its answer with the end token.
    pub fn batch(&self, step: u64, first: u64) -> Result<Vec<GroupTokens>> {
        let (at, progress) = self.recipe.stage_of(step).context("a step after the last stage")?;
        let stage = &self.recipe.stage[at];
        let count = stage.sequences.unwrap_or(self.recipe.batch.sequences) as u64;
        let pairs: Vec<Pair> = match &self.data[at] {
            Some(rows) => (first..first + count).map(|i| self.row(rows, i)).collect(),
            None => {
                let corpus = ColdStart::new(stage.corpus(self.recipe.seed, progress));
                let corpus = corpus.excluding(&self.excluded);
                (first..first + count).map(|i| Pair::from(corpus.drill(i))).collect()
            }
        };
        pairs.iter().map(|pair| self.tokens(pair)).collect()
    }

    /// Sequences of a step.
    pub fn sequences(&self, step: u64) -> u64 {
        let stage = self.recipe.stage_of(step).map(|(at, _)| &self.recipe.stage[at]);
        let own = stage.and_then(|s| s.sequences);
        own.unwrap_or(self.recipe.batch.sequences) as u64
    }

    fn row(&self, rows: &[Example], index: u64) -> Pair {
        let n = rows.len() as u64;
        let order = epoch_order(self.recipe.seed, index / n, rows.len());
        let example = &rows[order[(index % n) as usize]];
        Pair {
            messages: example.prompt.iter().map(|m| Value::Object(m.json().clone())).collect(),
            tools: example.tools.clone(),
            answer: reference_answer(example, index),
        }
    }

    fn tokens(&self, pair: &Pair) -> Result<GroupTokens> {
        let tools = (!pair.tools.is_empty()).then_some(pair.tools.as_slice());
        let prompt = self.template.render(&pair.messages, tools, true, &Map::new())?;
        let mut answer = self.tokenizer.encode(&pair.answer)?;
        answer.push(self.end);
        Ok(GroupTokens { prefix: self.tokenizer.encode(&prompt)?, suffixes: vec![answer] })
    }
}

impl From<Drill> for Pair {
    fn from(drill: Drill) -> Self {
        Self {
            messages: drill.messages.iter().map(|m| Value::Object(m.json().clone())).collect(),
            tools: drill.tools,
            answer: drill.answer,
        }
    }
}

/// The text of a drill, prompt and answer, as the policy will see it: what a vocabulary is learned from.
pub fn text(template: &ChatTemplate, drill: Drill) -> Result<String> {
    let pair = Pair::from(drill);
    let tools = (!pair.tools.is_empty()).then_some(pair.tools.as_slice());
    let prompt = template.render(&pair.messages, tools, true, &Map::new())?;
    Ok(prompt + &pair.answer)
}

/// Tokens of a batch that carry loss.
pub fn answer_tokens(batch: &[GroupTokens]) -> usize {
    batch.iter().flat_map(|g| &g.suffixes).map(Vec::len).sum()
}

/// Tokens of one sequence.
pub fn size(group: &GroupTokens) -> usize {
    group.prefix.len() + group.suffixes.iter().map(Vec::len).sum::<usize>()
}

/// Whether a prompt and its answer fit the model's context.
pub fn fits(policy: &Policy, group: &GroupTokens) -> bool {
    size(group) <= policy.model.config().max_position_embeddings
}
