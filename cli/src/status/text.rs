//! A run's status as a screen.

use super::view::{Broadcast, Eviction, RUN, Reward, View, WaitOf, Weights, Worker};
use octet_learner::plan::Bytes;
use std::fmt;

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "run {}, {} of {} steps committed",
            self.run, self.committed_steps, self.total_steps
        )?;
        let groups = self.groups;
        write!(
            f,
            "\ngroups     {} open, {} leased, {} spooled",
            groups.open, groups.leased, groups.spooled
        )?;
        if let Some(speed) = &self.throughput {
            write!(
                f,
                "\nspeed      {:.0} tokens/s sampled, {:.0} tokens/s learned, over {:.1} s",
                speed.sampled_tokens_per_second, speed.learned_tokens_per_second, speed.seconds
            )?;
        }
        match &self.learner {
            None => write!(f, "\nlearner    none has registered")?,
            Some(learner) => write!(
                f,
                "\nlearner    {} {}, gives out versions {}, heard of {:.1} s ago",
                learner.endpoint,
                if learner.connected { "is connected" } else { "is silent" },
                numbers(&learner.versions),
                learner.silent_seconds
            )?,
        }
        workers(f, &self.workers)?;
        rewards(f, &self.rewards)?;
        weights(f, &self.weights)?;
        if let Some(known) = &self.broadcast {
            broadcast(f, known)?;
        }
        let full: Vec<String> = self
            .queues
            .iter()
            .filter(|queue| queue.depth > 0)
            .map(|q| format!("{} of {}: {} of {}", q.queue, q.node, q.depth, q.room))
            .collect();
        let full = match full.is_empty() {
            true => "nothing".to_owned(),
            false => full.join("\n           "),
        };
        write!(f, "\n\nqueued     {full}")?;
        waits(f, &self.waits)
    }
}

fn workers(f: &mut fmt::Formatter<'_>, workers: &[Worker]) -> fmt::Result {
    write!(
        f,
        "\n\n{:28} {:>12} {:>8} {:>9} {:>9} {:>9}",
        "worker", "versions", "leases", "delivered", "tokens/s", "heard of"
    )?;
    for worker in workers {
        let speed = worker.sampled_tokens_per_second;
        write!(
            f,
            "\n{:28} {:>12} {:>8} {:>9} {:>9} {:>7.1} s",
            worker.name,
            numbers(&worker.versions),
            format!("{}/{}", worker.leases, 2 * worker.capacity),
            worker.delivered_groups,
            speed.map_or("-".to_owned(), |speed| format!("{speed:.0}")),
            worker.silent_seconds
        )?;
    }
    if workers.is_empty() {
        write!(f, "\nnone is registered")?;
    }
    Ok(())
}

fn rewards(f: &mut fmt::Formatter<'_>, rewards: &[Reward]) -> fmt::Result {
    write!(
        f,
        "\n\n{:28} {:>12} {:>10} {:>8} {:>10}  answers at",
        "reward", "steps", "state", "leases", "unanswered"
    )?;
    for reward in rewards {
        let steps = match reward.from_step == reward.until_step {
            true => "none".to_owned(),
            false => format!("{} to {}", reward.from_step, reward.until_step - 1),
        };
        write!(
            f,
            "\n{:28} {steps:>12} {:>10} {:>8} {:>10}  {}",
            format!("{} ({})", reward.revision, reward.name),
            reward.state,
            reward.leased_groups,
            reward.unanswered,
            reward.endpoints.join(", ")
        )?;
    }
    Ok(())
}

fn weights(f: &mut fmt::Formatter<'_>, weights: &[Weights]) -> fmt::Result {
    let mut margin = "\n\nweights    ";
    for version in weights {
        let spread = match version.spread_seconds {
            Some(seconds) => format!("at all workers {seconds:.2} s after its step"),
            None => format!("{:.1} s after its step", version.published_seconds_ago),
        };
        write!(
            f,
            "{margin}version {}, {}: held by {} of {} workers, {spread}",
            version.version,
            Bytes(version.bytes),
            version.holders,
            version.workers
        )?;
        margin = "\n           ";
    }
    Ok(())
}

fn broadcast(f: &mut fmt::Formatter<'_>, known: &Broadcast) -> fmt::Result {
    write!(f, "\n\nbroadcast  epoch {}, {}", known.epoch, known.phase)?;
    if let Some(version) = known.version {
        write!(f, " version {version}")?;
    }
    write!(f, " for {:.1} s", known.since)?;
    if let Some(until) = known.until {
        write!(f, ", given up in {until:.1} s")?;
    }
    let roster = match known.roster.is_empty() {
        true => "nobody".to_owned(),
        false => known.roster.join(", "),
    };
    write!(f, ": {roster}")?;
    write!(
        f,
        "\n           {} versions came to all, {} left out",
        known.broadcasts, known.evicted
    )?;
    for Eviction { epoch, member, why, seconds_ago, .. } in &known.evictions {
        write!(f, "\n           {member} in epoch {epoch}, {seconds_ago:.0} s ago: {why}")?;
    }
    Ok(())
}

fn waits(f: &mut fmt::Formatter<'_>, waits: &[WaitOf]) -> fmt::Result {
    write!(f, "\n\n{:28} {:18} {:>9} {:>9}  what for", "who waits", "for", "since", "until")?;
    for wait in waits {
        write!(
            f,
            "\n{:28} {:18} {:>7.1} s {:>9}  {}",
            wait.node,
            wait.wait,
            wait.since,
            match wait.until {
                Some(until) => format!("{until:.1} s"),
                None if wait.node == RUN => "-".to_owned(),
                None => "overdue".to_owned(),
            },
            wait.detail
        )?;
    }
    if waits.is_empty() {
        write!(f, "\nnobody")?;
    }
    Ok(())
}

fn numbers(versions: &[u64]) -> String {
    match versions {
        [] => "none".to_owned(),
        all => all.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}
