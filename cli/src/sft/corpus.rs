//! Batches of prompts and reference answers, as token ids.
//!
//! Invariant: the batch of a step is a pure function of the recipe and the step.

use super::recipe::Recipe;
use anyhow::{Context, Result};
use octet_dataset::{ColdStart, Drill, Example, epoch_order, load, reference_answer};
use octet_policy::layout::GroupTokens;
use octet_policy::policy::Policy;
use octet_policy::source::Source;
use octet_policy::template::ChatTemplate;
use octet_policy::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::path::Path;

/// Sequences computed behind one system message.
const SHARED: usize = 8;

/// The source of batches.
pub struct Corpus {
    recipe: Recipe,
    excluded: Vec<Example>,
    data: Vec<Option<Vec<Example>>>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end: u32,
}

/// Sequences with a common beginning, and what of the rest is prompt.
pub struct Lesson {
    /// The common part of the prompts, and per sequence what is left of its prompt, then its answer.
    pub tokens: GroupTokens,
    /// Tokens at the front of each suffix that are prompt, and carry no loss.
    pub asked: Vec<usize>,
}

/// A conversation and its answer.
struct Pair {
    messages: Vec<Value>,
    tools: Vec<Value>,
    answer: String,
}

impl Corpus {
    /// Loads what the recipe names; the tokenizer and template are those of the policy in a directory or file.
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
        let source = Source::open(directory)?;
        let tokenizer = source.tokenizer()?;
        let end = tokenizer.require("<|im_end|>", "the end of an answer")?;
        let template = source.template()?;
        Ok(Self { recipe: recipe.clone(), excluded, data, tokenizer, template, end })
    }

    /// The batch of a step; `first` is the number of sequences before it.
    pub fn batch(&self, step: u64, first: u64) -> Result<Vec<Lesson>> {
        let (at, progress) = self.recipe.stage_of(step).context("a step after the last stage")?;
        let stage = &self.recipe.stage[at];
        let count = stage.sequences.unwrap_or(self.recipe.batch.sequences) as u64;
        let mut pairs: Vec<Pair> = match &self.data[at] {
            Some(rows) => (first..first + count).map(|i| self.row(rows, i)).collect(),
            None => {
                let corpus = ColdStart::new(stage.corpus(self.recipe.seed, progress));
                let corpus = corpus.excluding(&self.excluded);
                (first..first + count).map(|i| Pair::from(corpus.drill(i))).collect()
            }
        };
        // Prompts with the same system message share its tokens.
        pairs.sort_by(|a, b| a.system().cmp(&b.system()));
        let mut lessons = Vec::new();
        for alike in pairs.chunk_by(|a, b| a.system() == b.system()) {
            let together = if alike[0].system().is_some() { SHARED } else { 1 };
            for pairs in alike.chunks(together) {
                lessons.push(self.lesson(pairs)?);
            }
        }
        Ok(lessons)
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

    fn lesson(&self, pairs: &[Pair]) -> Result<Lesson> {
        let mut prompts = Vec::with_capacity(pairs.len());
        let mut answers = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let tools = (!pair.tools.is_empty()).then_some(pair.tools.as_slice());
            let prompt = self.template.render(&pair.messages, tools, true, &Map::new())?;
            prompts.push(self.tokenizer.encode(&prompt)?);
            let mut answer = self.tokenizer.encode(&pair.answer)?;
            answer.push(self.end);
            answers.push(answer);
        }
        let common = common_prefix(&prompts);
        let prefix = prompts[0][..common].to_vec();
        let asked = prompts.iter().map(|prompt| prompt.len() - common).collect();
        let suffixes = prompts
            .iter()
            .zip(answers)
            .map(|(prompt, answer)| [&prompt[common..], &answer].concat())
            .collect();
        Ok(Lesson { tokens: GroupTokens { prefix, suffixes }, asked })
    }
}

impl Lesson {
    /// Tokens that carry loss.
    pub fn answer_tokens(&self) -> usize {
        self.tokens.suffixes.iter().map(Vec::len).sum::<usize>() - self.asked.iter().sum::<usize>()
    }

    /// Tokens that are computed.
    pub fn size(&self) -> usize {
        self.tokens.prefix.len() + self.tokens.suffixes.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether every sequence fits the model's context.
    pub fn fits(&self, policy: &Policy) -> bool {
        let longest = self.tokens.suffixes.iter().map(Vec::len).max().unwrap_or(0);
        self.tokens.prefix.len() + longest <= policy.model.config().max_position_embeddings
    }

    /// Which suffix tokens carry loss, in the order of the learner's predictions.
    pub fn answered(&self) -> impl Iterator<Item = bool> {
        let suffixes = self.tokens.suffixes.iter().zip(&self.asked);
        suffixes.flat_map(|(suffix, &asked)| (0..suffix.len()).map(move |at| at >= asked))
    }
}

/// Tokens that all prompts begin with.
fn common_prefix(prompts: &[Vec<u32>]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    rest.iter().fold(first.len(), |common, prompt| {
        let same = first[..common].iter().zip(prompt).take_while(|(a, b)| a == b).count();
        same.min(common)
    })
}

impl Pair {
    fn system(&self) -> Option<&str> {
        let first = self.messages.first()?;
        let is_system = first.get("role").and_then(Value::as_str) == Some("system");
        is_system.then(|| first.get("content").and_then(Value::as_str)).flatten()
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
