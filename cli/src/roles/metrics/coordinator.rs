//! What the coordinator counts: the run as a whole, and every node of it.

use super::{Filled, Page, Source};
use octet_coordinator::machine::{State, Wait};
use octet_coordinator::{Handle, Snapshot};

impl Source for Handle {
    fn page(&self) -> Filled<'_> {
        Box::pin(async move { self.status().await.map(fill).map_err(|error| error.to_string()) })
    }
}

fn fill(run: Snapshot) -> Page {
    let mut page = Page::default();
    let digest = run.config_digest.as_str();
    page.gauge("octet_run_info", "The run and its configuration.")
        .set(&[("run", &run.run_id), ("config_digest", digest)], 1);
    page.gauge("octet_run_steps", "Steps of the run.").is(run.total_steps);
    page.gauge("octet_steps_committed", "Steps that are committed.").is(run.committed_steps);
    let groups =
        [("open", run.open_groups), ("leased", run.leased_groups), ("spooled", run.spooled_groups)];
    for (state, count) in groups {
        page.gauge("octet_groups", "Groups of the steps that may be sampled, by state.")
            .set(&[("state", state)], count);
    }
    page.gauge("octet_workers", "Workers that are registered.").is(run.workers.len());
    for worker in &run.workers {
        let id = worker.id.to_string();
        let labels = [("worker", worker.name.as_str()), ("id", id.as_str())];
        page.gauge("octet_leases", "Leases that a worker holds.").set(&labels, worker.leases);
        page.counter("octet_sampled_tokens", "Tokens that a worker sampled.")
            .set(&labels, worker.sampled_tokens);
        page.counter("octet_delivered_groups", "Groups of a worker that the learner confirmed.")
            .set(&labels, worker.delivered_groups);
        let newest = worker.versions.iter().map(|version| version.get()).max().unwrap_or(0);
        page.gauge("octet_policy_version", "The newest policy version that a worker holds.")
            .set(&labels, newest);
        page.gauge("octet_silent_seconds", "Since a node was last heard of.")
            .set(&[("node", &worker.name)], worker.seen_ago.as_secs_f64());
        waits(&mut page, &worker.name, &worker.waits);
        for queue in &worker.queues {
            page.queue(&[("node", &worker.name)], &queue.name, queue.depth, queue.room);
        }
    }
    if let Some(learner) = &run.learner {
        let node = [("node", "learner")];
        page.gauge("octet_learner_connected", "Whether the learner reports.")
            .is(u64::from(learner.connected));
        page.counter("octet_learned_tokens", "Tokens that the learner learned.")
            .is(learner.learned_tokens);
        page.gauge("octet_silent_seconds", "Since a node was last heard of.")
            .set(&node, learner.seen_ago.as_secs_f64());
        waits(&mut page, "learner", &learner.waits);
        for queue in &learner.queues {
            page.queue(&node, &queue.name, queue.depth, queue.room);
        }
    }
    for queue in &run.queues {
        page.queue(&[("node", "coordinator")], &queue.name, queue.depth, queue.room);
    }
    waits(&mut page, "run", &run.waits);
    let spreading = run.spreading;
    page.counter("octet_weights_spreads", "Policy versions that came to every worker.")
        .is(spreading.versions);
    page.counter(
        "octet_weights_spread_seconds",
        "From the ends of their steps until their last worker held them.",
    )
    .is(spreading.time.as_secs_f64());
    page.counter("octet_weights_spread_bytes", "Their bytes, once each.").is(spreading.bytes);
    for spread in &run.weights {
        let version = spread.published.version.to_string();
        let labels = [("version", version.as_str())];
        page.gauge("octet_weights_bytes", "Bytes of a policy version.")
            .set(&labels, spread.published.bytes);
        page.gauge("octet_weights_holders", "Workers that hold a version, or a newer one.")
            .set(&labels, spread.holders);
    }
    if let Some(broadcast) = &run.broadcast {
        page.gauge("octet_broadcast_epoch", "The membership of broadcasts that counts.")
            .is(broadcast.epoch.0);
        page.gauge("octet_broadcast_members", "Members of the communicator.")
            .is(broadcast.roster.len());
        page.counter("octet_broadcasts", "Policy versions that a whole communicator received.")
            .is(broadcast.broadcasts);
        page.counter("octet_broadcast_evictions", "Members that an epoch ended without.")
            .is(broadcast.evicted);
    }
    for binding in &run.rewards {
        let number = binding.revision.number.to_string();
        let state = match binding.state {
            State::Scheduled => "scheduled",
            State::Active => "active",
            State::Draining => "draining",
            State::Idle => "idle",
            State::Superseded => "superseded",
        };
        let labels =
            [("revision", number.as_str()), ("name", &binding.revision.name), ("state", state)];
        page.gauge("octet_reward_leased_groups", "Leased groups that a revision rewards.")
            .set(&labels, binding.leased_groups);
    }
    page
}

fn waits(page: &mut Page, node: &str, waits: &[Wait]) {
    let named = waits.iter().map(|wait| (wait.name.clone(), wait.since_ago.as_secs_f64()));
    page.named_waits(&[("node", node)], named);
}
