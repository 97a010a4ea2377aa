//! Which of a run's checkpoints should be served.
//!
//! Invariant: a function of what the run has written; with equal reward the newer one is better, and what serves is
//! left for nothing worse.

use std::collections::BTreeMap;

/// A step's reward says little by itself; the mean of so many says more.
pub const SMOOTHED_OVER: u64 = 8;

/// Which checkpoint is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One whose last [`SMOOTHED_OVER`] steps earned more.
    Reward,
    /// Any newer one.
    Newest,
}

/// The best of the checkpoints that are on the disk, if it is better than the one that serves. `rewards` are the mean
/// rewards by step; a step without one is never chosen by reward.
pub fn better(
    rule: Rule,
    rewards: &BTreeMap<u64, f64>,
    on_disk: &[u64],
    serving: Option<u64>,
) -> Option<u64> {
    let value = |step: u64| match rule {
        Rule::Reward => smoothed(rewards, step),
        Rule::Newest => Some(0.0),
    };
    let valued = on_disk.iter().filter_map(|step| Some((value(*step)?, *step)));
    let best = valued.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
    let than_serving = match serving {
        None => true,
        Some(step) if step == best.1 => false,
        // One that is not among the run's records any more has nothing to say for itself.
        Some(step) => {
            value(step).is_none_or(|now| best.0 > now || (best.0 == now && best.1 > step))
        }
    };
    than_serving.then_some(best.1)
}

/// Mean reward of the last steps up to this one.
fn smoothed(rewards: &BTreeMap<u64, f64>, step: u64) -> Option<f64> {
    rewards.get(&step)?;
    let from = (step + 1).saturating_sub(SMOOTHED_OVER);
    let (sum, count) =
        rewards.range(from..=step).fold((0.0, 0u32), |(sum, count), (_, r)| (sum + r, count + 1));
    Some(sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rewards(values: &[f64]) -> BTreeMap<u64, f64> {
        (1..).zip(values.iter().copied()).collect()
    }

    #[test]
    fn a_lucky_step_is_not_better_and_a_better_run_of_steps_is() {
        let mut all = vec![0.5; 16];
        all[15] = 0.4;
        // The mean over steps 9 to 16 is below that of 8 to 15.
        assert_eq!(better(Rule::Reward, &rewards(&all), &[16], Some(15)), None);
        all[15] = 0.6;
        assert_eq!(better(Rule::Reward, &rewards(&all), &[15, 16], Some(15)), Some(16));
        // One step that earns much lifts the mean, eight that earn little lower it again.
        all.extend([0.1; 8]);
        assert_eq!(better(Rule::Reward, &rewards(&all), &[23, 24], Some(16)), None);
    }

    #[test]
    fn of_equals_the_newer_one_serves() {
        let all = rewards(&[0.5, 0.5, 0.5]);
        assert_eq!(better(Rule::Reward, &all, &[1, 2, 3], None), Some(3));
        assert_eq!(better(Rule::Reward, &all, &[2, 3], Some(2)), Some(3));
        assert_eq!(better(Rule::Reward, &all, &[2, 3], Some(3)), None, "it serves already");
        assert_eq!(better(Rule::Reward, &all, &[2], Some(3)), None);
    }

    #[test]
    fn newest_needs_no_reward() {
        let none = BTreeMap::new();
        assert_eq!(better(Rule::Newest, &none, &[4, 9], Some(4)), Some(9));
        assert_eq!(better(Rule::Newest, &none, &[4], Some(9)), None);
        assert_eq!(better(Rule::Reward, &none, &[4, 9], None), None, "nothing is known of them");
        assert_eq!(better(Rule::Newest, &none, &[], None), None);
    }
}
