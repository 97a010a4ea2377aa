//! Which row of the data set a group visits.
//!
//! Invariant: a function of seed, group and rows alone; the shuffled orders kept here only save time.

use std::sync::{Arc, Mutex, PoisonError};

use octet_dataset::epoch_order;
use octet_proto::GroupIndex;

use crate::error::CoordinatorError;
use crate::plan::RunPlan;

/// How many epochs' orders are kept: groups of two may be out at once, near the end of the first.
const KEPT: usize = 2;

/// The rows of the data set as JSON, one a row, in the order of the file.
pub type Rows = Arc<Vec<String>>;

/// The data set, as leases hand it out.
#[derive(Debug)]
pub(crate) struct Examples {
    rows: Rows,
    seed: u64,
    orders: Mutex<Vec<(u64, Arc<Vec<usize>>)>>,
}

impl Examples {
    pub(crate) fn new(plan: &RunPlan, rows: Rows) -> Result<Self, CoordinatorError> {
        let found = rows.len() as u64;
        if found != plan.rows.get() {
            return Err(CoordinatorError::Rows { expected: plan.rows.get(), found });
        }
        Ok(Self { rows, seed: plan.seed, orders: Mutex::new(Vec::new()) })
    }

    /// The row that `group` visits.
    pub(crate) fn row(&self, group: GroupIndex) -> &str {
        let size = self.rows.len() as u64;
        let order = self.order(group.get() / size);
        // Both indexes are below the number of rows, of which there is at least one.
        &self.rows[order[(group.get() % size) as usize]]
    }

    /// At most `count` rows, evenly spread over the file.
    pub(crate) fn spread(&self, count: usize) -> Vec<String> {
        let (size, count) = (self.rows.len(), count.min(self.rows.len()));
        (0..count).map(|at| self.rows[at * size / count].clone()).collect()
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        // A poisoned cache is still a cache of pure values.
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(kept, _)| *kept == epoch) {
            return Arc::clone(order);
        }
        let order = Arc::new(epoch_order(self.seed, epoch, self.rows.len()));
        if orders.len() >= KEPT {
            orders.remove(0);
        }
        orders.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::num::NonZeroU64;

    use octet_dataset::example_for_group;
    use octet_proto::ConfigDigest;

    use super::*;

    #[test]
    fn every_group_visits_the_row_that_the_data_set_says() {
        let plan = RunPlan {
            run_id: "run".into(),
            config_digest: ConfigDigest::new("cafe"),
            seed: 7,
            steps: NonZeroU64::new(10).unwrap(),
            batch: NonZeroU64::new(4).unwrap(),
            lag: 0,
            rows: NonZeroU64::new(9).unwrap(),
        };
        let rows: Rows = Arc::new((0..9).map(|row| format!("row {row}")).collect());
        let examples = Examples::new(&plan, Arc::clone(&rows)).unwrap();
        // Back and forth over epochs, as a lease of an old group may do.
        for group in (0..40).chain([3, 39, 12, 0]) {
            let (_, index) = example_for_group(group, 7, 9).unwrap();
            assert_eq!(examples.row(GroupIndex(group)), rows[index]);
        }
        assert!(matches!(
            Examples::new(&plan, Arc::new(vec![String::new()])),
            Err(CoordinatorError::Rows { expected: 9, found: 1 })
        ));
    }
}
