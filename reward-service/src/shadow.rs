//! How a candidate reward ranks what the active one has scored: what a swap would change.
//!
//! Group-relative advantages see the order and the spread of rewards within a group, so agreement is
//! measured there and not over the whole run.
//!
//! Invariant: pure and symmetric: exchanging the two rewards exchanges their means and changes no measure of
//! agreement. A completion that the candidate gives no reward for counts as 0.0, as it would in the run, and
//! is counted.

use std::collections::BTreeMap;
use std::fmt;

use octet_dataset::Behaviour;

use crate::parse::excerpt;

#[cfg(test)]
mod tests;

/// How many completions are shown where the two differ most.
const SHOWN: usize = 8;

/// A completion with both rewards.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadowed {
    /// Its text.
    pub text: String,
    /// What the run has it with: reward and verdict.
    pub active: (f64, String),
    /// What the candidate says: reward and verdict, or why there is none.
    pub candidate: Result<(f64, String), String>,
}

/// A group with both rewards of each completion.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowGroup {
    /// Its index.
    pub group: u64,
    /// What its example wants.
    pub behaviour: Behaviour,
    /// Its completions, by sample.
    pub completions: Vec<Shadowed>,
}

/// Means of both rewards over some completions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Means {
    /// How many completions.
    pub count: usize,
    /// The active reward's sum.
    pub active: f64,
    /// The candidate's sum.
    pub candidate: f64,
}

/// A completion that the two see differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispute {
    /// Its group.
    pub group: u64,
    /// Its sample.
    pub sample: usize,
    /// What the example wants.
    pub behaviour: Behaviour,
    /// The completion.
    pub completion: Shadowed,
}

/// What a swap would change; prints as a page.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowReport {
    /// Groups compared.
    pub groups: usize,
    /// Groups in which both rewards tell completions apart: only there can order be compared.
    pub ranked: usize,
    /// Mean of Kendall's tau-b over them.
    pub kendall: Option<f64>,
    /// Mean of Spearman's rho over them.
    pub spearman: Option<f64>,
    /// Groups whose best completions have none in common.
    pub best_changed: usize,
    /// Groups that only the active reward tells apart: a swap loses their gradient.
    pub lost: usize,
    /// Groups that only the candidate tells apart: a swap gains their gradient.
    pub gained: usize,
    /// Means over all completions.
    pub overall: Means,
    /// Means by behaviour.
    pub by_behaviour: BTreeMap<Behaviour, Means>,
    /// How often the candidate gave no reward, by kind.
    pub failures: BTreeMap<String, usize>,
    /// Where the two differ most, the largest difference first.
    pub disputes: Vec<Dispute>,
}

impl Shadowed {
    /// The candidate's reward as the run would count it.
    pub fn candidate_reward(&self) -> f64 {
        self.candidate.as_ref().map_or(0.0, |(reward, _)| *reward)
    }

    fn difference(&self) -> f64 {
        (self.candidate_reward() - self.active.0).abs()
    }
}

impl Means {
    fn add(&mut self, completion: &Shadowed) {
        self.count += 1;
        self.active += completion.active.0;
        self.candidate += completion.candidate_reward();
    }

    /// The candidate's mean less the active one's; 0 of nothing.
    pub fn difference(&self) -> f64 {
        (self.candidate - self.active) / self.count.max(1) as f64
    }
}

/// Kendall's tau-b of two equally long lists; `None` when one has no order.
pub fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mut agreeing, mut ordered_a, mut ordered_b) = (0i64, 0i64, 0i64);
    let sign = |x: f64, y: f64| x.partial_cmp(&y).map_or(0, |order| order as i64);
    for i in 0..a.len() {
        for j in 0..i {
            let (x, y) = (sign(a[i], a[j]), sign(b[i], b[j]));
            agreeing += x * y;
            ordered_a += x.abs();
            ordered_b += y.abs();
        }
    }
    let scale = ((ordered_a as f64) * (ordered_b as f64)).sqrt();
    (scale > 0.0).then(|| agreeing as f64 / scale)
}

/// Spearman's rho, ties having their mean rank; `None` when one list has no order.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let middle = (a.len() as f64 + 1.0) / 2.0;
    let moment = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - middle) * (y - middle)).sum()
    };
    let scale = (moment(&a, &a) * moment(&b, &b)).sqrt();
    (scale > 0.0).then(|| moment(&a, &b) / scale)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let equal = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|value| below(*value) + (equal(*value) + 1.0) / 2.0).collect()
}

/// The completions with the highest reward.
fn best(rewards: &[f64]) -> Vec<usize> {
    let most = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (0..rewards.len()).filter(|sample| rewards[*sample] == most).collect()
}

impl ShadowReport {
    /// Compares the two rewards of every group.
    pub fn new(groups: &[ShadowGroup]) -> Self {
        let mut report = Self {
            groups: groups.len(),
            ranked: 0,
            kendall: None,
            spearman: None,
            best_changed: 0,
            lost: 0,
            gained: 0,
            overall: Means::default(),
            by_behaviour: BTreeMap::new(),
            failures: BTreeMap::new(),
            disputes: Vec::new(),
        };
        let (mut taus, mut rhos) = (0.0, 0.0);
        for group in groups {
            let active: Vec<f64> = group.completions.iter().map(|c| c.active.0).collect();
            let candidate: Vec<f64> =
                group.completions.iter().map(Shadowed::candidate_reward).collect();
            if let (Some(tau), Some(rho)) =
                (kendall(&active, &candidate), spearman(&active, &candidate))
            {
                report.ranked += 1;
                taus += tau;
                rhos += rho;
            }
            let told_apart = |rewards: &[f64]| rewards.windows(2).any(|pair| pair[0] != pair[1]);
            match (told_apart(&active), told_apart(&candidate)) {
                (true, false) => report.lost += 1,
                (false, true) => report.gained += 1,
                _ => {}
            }
            let (was, is) = (best(&active), best(&candidate));
            report.best_changed += usize::from(!was.iter().any(|sample| is.contains(sample)));
            report.take_completions(group);
        }
        let mean = |sum: f64| (report.ranked > 0).then(|| sum / report.ranked as f64);
        (report.kendall, report.spearman) = (mean(taus), mean(rhos));
        report
            .disputes
            .sort_by(|a, b| b.completion.difference().total_cmp(&a.completion.difference()));
        report.disputes.truncate(SHOWN);
        report
    }

    fn take_completions(&mut self, group: &ShadowGroup) {
        for (sample, completion) in group.completions.iter().enumerate() {
            self.overall.add(completion);
            self.by_behaviour.entry(group.behaviour).or_default().add(completion);
            if let Err(found) = &completion.candidate {
                let kind = found.split(':').next().unwrap_or_default().to_owned();
                *self.failures.entry(kind).or_default() += 1;
            }
            if completion.difference() > 0.0 || completion.candidate.is_err() {
                let (group, behaviour) = (group.group, group.behaviour);
                self.disputes.push(Dispute {
                    group,
                    sample,
                    behaviour,
                    completion: completion.clone(),
                });
            }
        }
    }
}

impl fmt::Display for ShadowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: usize| 100.0 * part as f64 / self.groups.max(1) as f64;
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.3}"));
        writeln!(f, "groups          {} with {} completions", self.groups, self.overall.count)?;
        writeln!(
            f,
            "rank agreement  Kendall {}, Spearman {}, in the {} groups that both tell apart",
            shown(self.kendall),
            shown(self.spearman),
            self.ranked
        )?;
        writeln!(
            f,
            "best changes    in {} groups ({:.1}%)",
            self.best_changed,
            share(self.best_changed)
        )?;
        writeln!(
            f,
            "signal          {} groups gained, {} lost (only one of the two tells their completions apart)",
            self.gained, self.lost
        )?;
        for (kind, count) in &self.failures {
            writeln!(f, "no reward       {count} × {kind}, counted as 0.0")?;
        }
        writeln!(
            f,
            "\n{:10}  {:>11}  {:>7}  {:>9}  {:>10}",
            "behaviour", "completions", "active", "candidate", "difference"
        )?;
        let rows = self.by_behaviour.iter().map(|(behaviour, means)| (behaviour.name(), means));
        for (name, means) in rows.chain([("all", &self.overall)]) {
            let count = means.count.max(1) as f64;
            let (active, candidate) = (means.active / count, means.candidate / count);
            let difference = means.difference();
            writeln!(
                f,
                "{name:10}  {:>11}  {active:>7.3}  {candidate:>9.3}  {difference:>+10.3}",
                means.count
            )?;
        }
        if self.disputes.is_empty() {
            return write!(f, "\nthe two agree on every completion");
        }
        write!(f, "\nwhere they differ most")?;
        for dispute in &self.disputes {
            let Dispute { group, sample, behaviour, completion } = dispute;
            let (active, verdict) = &completion.active;
            write!(
                f,
                "\ngroup {group}, sample {sample} ({behaviour}): active {active:.3} {verdict}, "
            )?;
            match &completion.candidate {
                Ok((reward, verdict)) => write!(f, "candidate {reward:.3} {verdict}")?,
                Err(found) => write!(f, "candidate none: {}", excerpt(found))?,
            }
            write!(f, "\n      {:?}", excerpt(&completion.text))?;
        }
        Ok(())
    }
}
