//! What trivial policies would earn, as a run writes it down: the lines that a policy has to be above.
//!
//! Invariant: what is written is what was shown when the run began, of the data sets and the reward that it began
//! with; a reward that took over later is not part of it.

use octet_dataset::Example;
use octet_reward_service::RewardFunction;
use octet_reward_service::trivial::{Row, TrivialTable, table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file of a run directory.
pub const TRIVIAL_FILE: &str = "trivial.json";

/// What trivial policies would earn in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trivial {
    /// The reward function that the run began with.
    pub function: String,
    /// On the rows that are trained on.
    pub train: Vec<Earned>,
    /// On the held-out rows; none where evaluation is disabled.
    pub held_out: Vec<Earned>,
}

/// What one of them would earn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Earned {
    /// What it does.
    pub policy: String,
    /// On all rows.
    #[serde(flatten)]
    pub all: Earning,
    /// By what the rows want.
    pub by_behavior: BTreeMap<String, Earning>,
}

/// A mean reward, and how often it is the full one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Earning {
    /// Mean reward.
    pub reward: f64,
    /// Share with the most that the function gives.
    pub accuracy: f64,
}

impl Trivial {
    /// Of a table on the training rows, which was shown, and the held-out rows.
    pub fn new(train: &TrivialTable, held_out: &[Example], function: &dyn RewardFunction) -> Self {
        let held_out = match held_out {
            [] => Vec::new(),
            rows => earned(&table(rows, function)),
        };
        Self { function: function.name().to_owned(), train: earned(train), held_out }
    }
}

fn earned(table: &TrivialTable) -> Vec<Earned> {
    let of = |row: &Row| Earned {
        policy: row.policy.name().to_owned(),
        all: Earning { reward: row.mean_reward, accuracy: row.accuracy },
        by_behavior: row
            .by_behaviour
            .iter()
            .map(|(behaviour, score)| {
                let earning = Earning { reward: score.mean_reward(), accuracy: score.accuracy() };
                (behaviour.name().to_owned(), earning)
            })
            .collect(),
    };
    table.rows.iter().map(of).collect()
}
