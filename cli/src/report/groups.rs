//! A sample of the groups that a run learned from.
//!
//! Invariant: the same spool gives the same sample; groups whose prompt earned more when it was last visited come
//! first, the greatest fall before the others. What is not shown is counted.

use super::pairs::as_text;
use super::text::{MOST_DETAIL, MOST_NAME, MOST_PROMPT, MOST_TEXT, class, count, reward, shown};
use crate::evaluation::record::wanted;
use crate::recipe::Recipe;
use crate::rollouts::{Shown, ShownCompletion};
use anyhow::{Context, Result};
use octet_dataset::Example;
use octet_learner::group::ScoredGroup;
use octet_learner::spool::Spool;
use octet_policy::tokenizer::Tokenizer;
use octet_proto::GroupIndex;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// The sample.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Groups {
    /// Groups in the spool.
    pub all: String,
    /// Groups that are shown.
    pub shown: String,
    /// Of them, those that come first because their prompt earned more before.
    pub fallen: String,
    /// What the prompts want.
    pub behaviours: BTreeSet<String>,
    /// The verdicts on the completions shown.
    pub verdicts: BTreeSet<String>,
    /// The groups.
    pub items: Vec<Item>,
}

/// A group, shown.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// Its index in the run.
    pub group: u64,
    /// The step that learned from it, from 1.
    pub step: u64,
    /// What its prompt wants.
    pub behaviour: String,
    /// What was asked.
    pub request: String,
    /// The prompt as the policy saw it.
    pub prompt: String,
    /// The ground truth.
    pub wanted: String,
    /// Who sampled it, with which version, scored by which revision.
    pub worker: String,
    /// As above.
    pub version: u64,
    /// As above.
    pub revision: u64,
    /// Its mean reward, for people and for the script.
    pub mean: String,
    /// The change since the prompt was last visited.
    pub change: Option<String>,
    /// The step of that visit.
    pub since: Option<u64>,
    /// Whether nothing was learned from it.
    pub zero_variance: bool,
    /// Its completions.
    pub completions: Vec<Completion>,
    /// Completions that are not shown.
    pub more: usize,
}

/// A completion, shown.
#[derive(Clone, Debug, Serialize)]
pub struct Completion {
    /// Its index in the group.
    pub sample: u32,
    /// The text.
    pub text: String,
    /// Its reward.
    pub reward: String,
    /// The reward's class.
    pub class: &'static str,
    /// What it counts for.
    pub advantage: String,
    /// The verdict.
    pub verdict: String,
    /// Its detail.
    pub detail: String,
    /// Why it ended.
    pub finish: &'static str,
    /// Its length.
    pub tokens: usize,
    /// The mean log-probability of its tokens, in nats.
    pub logprob: String,
}

/// What is known of each group before the sample is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Visit {
    group: GroupIndex,
    mean: f64,
    /// The last visit of the same prompt: its group and mean reward.
    last: Option<(GroupIndex, f64)>,
}

impl Visit {
    fn change(&self) -> Option<f64> {
        self.last.map(|(_, mean)| self.mean - mean)
    }
}

/// Completions of a group that are shown.
const MOST_COMPLETIONS: usize = 16;
/// Most characters of all groups.
const MOST_CHARACTERS: usize = 6_000_000;

impl Groups {
    /// Reads the spool, and takes a sample of at most `most` groups.
    ///
    /// # Errors
    /// The spool cannot be read, or holds tokens that the tokenizer does not have.
    pub fn sample(
        spool: &Spool,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
        most: usize,
    ) -> Result<Self> {
        let visits = visits(spool)?;
        let (chosen, mut fallen) = choose(&visits, most);
        let (mut groups, mut room) = (Self::default(), MOST_CHARACTERS);
        for visit in chosen {
            let stored = spool.read(visit.group..visit.group.next())?;
            let Some(stored) = stored.first() else { continue };
            let item = Item::new(stored, &visit, recipe, tokenizer)?;
            match room.checked_sub(item.size()) {
                Some(left) => room = left,
                None => break,
            }
            groups.behaviours.insert(item.behaviour.clone());
            groups.verdicts.extend(item.completions.iter().map(|c| c.verdict.clone()));
            groups.items.push(item);
        }
        fallen = fallen.min(groups.items.len());
        groups.all = count(visits.len() as u64);
        groups.shown = count(groups.items.len() as u64);
        groups.fallen = count(fallen as u64);
        Ok(groups)
    }
}

/// All groups in order, each with the last visit of its prompt.
fn visits(spool: &Spool) -> Result<Vec<Visit>> {
    let mut last: HashMap<blake3::Hash, (GroupIndex, f64)> = HashMap::new();
    let mut visits = Vec::new();
    for group in spool.present(GroupIndex(0)..GroupIndex(u64::MAX))? {
        for stored in spool.read(group..group.next())? {
            let rewards = stored.rewards();
            let mean = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
            let prompt = blake3::hash(stored.example_json.as_bytes());
            visits.push(Visit { group, mean, last: last.insert(prompt, (group, mean)) });
        }
    }
    Ok(visits)
}

/// At most a quarter of the sample are the greatest falls; the others lie evenly over the run, the newest first.
fn choose(visits: &[Visit], most: usize) -> (Vec<Visit>, usize) {
    let mut fallen: Vec<Visit> =
        visits.iter().filter(|visit| visit.change().is_some_and(|c| c < 0.0)).copied().collect();
    fallen.sort_by(|one, other| {
        let change = |visit: &Visit| visit.change().unwrap_or_default();
        change(one).total_cmp(&change(other)).then(other.group.cmp(&one.group))
    });
    fallen.truncate(most.div_ceil(4));
    let taken: BTreeSet<GroupIndex> = fallen.iter().map(|visit| visit.group).collect();
    let others: Vec<&Visit> = visits.iter().filter(|v| !taken.contains(&v.group)).collect();
    let wanted = (most - fallen.len()).min(others.len());
    // The newest is always there, and the first where more than one is.
    let at = |i: usize| match wanted {
        1 => others.len() - 1,
        _ => i * (others.len() - 1) / (wanted - 1),
    };
    let count = fallen.len();
    let mut chosen = fallen;
    chosen.extend((0..wanted).rev().map(|i| *others[at(i)]));
    (chosen, count)
}

impl Item {
    fn new(
        stored: &ScoredGroup,
        visit: &Visit,
        recipe: &Recipe,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let group = Shown::new(stored, recipe, tokenizer)?;
        let example = Example::from_json(&stored.example_json)
            .with_context(|| format!("the example of group {}", stored.group))?;
        let step = |group: GroupIndex| group.step(recipe.learner.batch).get() + 1;
        let completions = group.completions.iter().take(MOST_COMPLETIONS).map(Completion::new);
        Ok(Self {
            group: group.group,
            step: step(visit.group),
            behaviour: example.behaviour().name().to_owned(),
            request: shown(&group.request, MOST_TEXT),
            prompt: shown(&group.prompt, MOST_PROMPT),
            wanted: shown(&as_text(wanted(&example)), MOST_TEXT),
            worker: shown(&group.worker, MOST_NAME),
            version: group.policy_version,
            revision: group.reward_revision,
            mean: reward(visit.mean),
            change: visit.change().map(|change| format!("{change:+.3}")),
            since: visit.last.map(|(group, _)| step(group)),
            zero_variance: group.zero_variance,
            completions: completions.collect(),
            more: group.completions.len().saturating_sub(MOST_COMPLETIONS),
        })
    }

    fn size(&self) -> usize {
        let each = self.completions.iter().map(|c| c.text.len() + c.detail.len() + 300);
        each.sum::<usize>() + self.prompt.len() + self.request.len() + self.wanted.len() + 800
    }
}

impl Completion {
    fn new(completion: &ShownCompletion) -> Self {
        let tokens = completion.logprobs.len();
        Self {
            sample: completion.sample,
            text: shown(&completion.text, MOST_TEXT),
            reward: reward(completion.reward),
            class: class(completion.reward),
            advantage: match (completion.advantage, completion.picked) {
                (Some(advantage), _) => format!("advantage {advantage:+.2}"),
                (None, picked) => picked.unwrap_or("not picked").to_owned(),
            },
            verdict: shown(&completion.verdict, MOST_NAME),
            detail: shown(&completion.detail, MOST_DETAIL),
            finish: completion.finish,
            tokens,
            // Less than half of a hundredth is shown as 0, without a sign.
            logprob: format!("{:.2}", completion.logprob / tokens.max(1) as f64)
                .replace("-0.00", "0.00"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(group: u64, mean: f64, last: Option<f64>) -> Visit {
        let last = last.map(|mean| (GroupIndex(group / 2), mean));
        Visit { group: GroupIndex(group), mean, last }
    }

    fn indices(visits: &[Visit], most: usize) -> (Vec<u64>, usize) {
        let (chosen, fallen) = choose(visits, most);
        (chosen.iter().map(|visit| visit.group.get()).collect(), fallen)
    }

    #[test]
    fn falls_come_first_and_the_others_lie_evenly_over_the_run() {
        let mut visits: Vec<Visit> = (0..101).map(|group| visit(group, 0.5, None)).collect();
        visits[60] = visit(60, 0.25, Some(0.5));
        visits[70] = visit(70, 0.0, Some(1.0));
        visits[80] = visit(80, 1.0, Some(0.0));
        visits[90] = visit(90, 0.5, Some(0.5));
        assert_eq!(indices(&visits, 8), (vec![70, 60, 100, 80, 58, 39, 19, 0], 2));
        assert_eq!(indices(&visits, 2), (vec![70, 100], 1));
        assert_eq!(indices(&visits, 1000).0.len(), 101);
        assert_eq!(indices(&visits, 0), (vec![], 0));
        assert_eq!(indices(&[], 10), (vec![], 0));
        assert_eq!(indices(&visits[..1], 10), (vec![0], 0));
    }
}
