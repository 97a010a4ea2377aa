//! What a reward service counts.

use super::{Filled, Page, Source};
use octet_reward_service::{Meter, RewardFunction};
use std::sync::Arc;

/// A service's numbers, and what it serves.
pub struct RewardPage {
    /// What is counted.
    pub meter: Meter,
    /// What is served.
    pub function: Arc<dyn RewardFunction>,
}

impl Source for RewardPage {
    fn page(&self) -> Filled<'_> {
        Box::pin(async move { Ok(self.fill()) })
    }
}

impl RewardPage {
    fn fill(&self) -> Page {
        let (mut page, load) = (Page::default(), self.meter.load());
        let digest = self.function.digest();
        page.gauge("octet_reward_info", "What is served.")
            .set(&[("reward", self.function.name()), ("digest", &digest)], 1);
        page.counter("octet_reward_scored", "Completions that were given a reward.")
            .is(load.scored);
        for (kind, count) in &load.failures {
            page.counter("octet_reward_failed", "Completions that were given none, by failure.")
                .set(&[("kind", kind)], *count);
        }
        page.gauge("octet_reward_open", "Completions that were read and are not answered.")
            .is(load.open);
        page.histogram("octet_reward_latency_seconds", "From a completion to its answer.")
            .classes(load.time.as_secs_f64(), load.classes);
        page
    }
}
