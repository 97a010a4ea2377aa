//! The supervisor's loop: start, restart, and stop stage by stage.
//!
//! Invariant: when the loop has ended no actor runs any more, except code that blocks its thread,
//! which nothing can end and which is named as overdue.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::exit::{Decision, Exit, Failure, RunFailure};
use super::{Context, Kind, Supervisor};

/// An actor that lived this long has recovered: its failures are counted from 0 again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

pub(super) type ActorFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

pub(super) struct Actor {
    pub name: String,
    pub kind: Kind,
    pub stage: usize,
    pub start: Box<dyn FnMut(Context) -> ActorFuture + Send>,
}

/// The actors while they run. Actors are known by their index in `actors`.
struct Running {
    supervisor: &'static str,
    actors: Vec<Actor>,
    tasks: JoinSet<Exit>,
    by_task: HashMap<Id, (usize, AbortHandle)>,
    /// One token for each stage.
    stops: Vec<CancellationToken>,
    lives: Vec<Life>,
    bad_exits: Vec<(String, Exit)>,
}

#[derive(Clone, Copy)]
struct Life {
    restarts: u32,
    failures: u32,
    started: Instant,
    restart_at: Option<Instant>,
}

pub(super) async fn run(
    supervisor: Supervisor,
    shutdown: CancellationToken,
) -> Result<(), RunFailure> {
    let mut running =
        Running::start(supervisor.name, supervisor.actors, supervisor.deadlines.len());
    running.until_it_ends(&shutdown).await;
    let overdue = running.stop(&supervisor.deadlines).await;
    RunFailure::of(running.bad_exits, overdue).map_or(Ok(()), Err)
}

impl Running {
    fn start(supervisor: &'static str, actors: Vec<Actor>, stages: usize) -> Self {
        let life = Life { restarts: 0, failures: 0, started: Instant::now(), restart_at: None };
        let count = actors.len();
        let mut running = Self {
            supervisor,
            actors,
            tasks: JoinSet::new(),
            by_task: HashMap::new(),
            stops: (0..stages).map(|_| CancellationToken::new()).collect(),
            lives: vec![life; count],
            bad_exits: Vec::new(),
        };
        (0..count).for_each(|index| running.start_actor(index));
        running
    }

    fn stage(&self, index: usize) -> usize {
        self.actors[index].stage.min(self.stops.len() - 1)
    }

    fn start_actor(&mut self, index: usize) {
        let stop = self.stops[self.stage(index)].clone();
        let life = &mut self.lives[index];
        life.started = Instant::now();
        life.restart_at = None;
        let context = Context { stop: stop.clone(), restarts: life.restarts };
        let future = (self.actors[index].start)(context);
        let acting = async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => Exit::Cancelled,
                Ok(Ok(())) => Exit::Quit,
                Ok(Err(failure)) => Exit::Failed(failure),
                Err(payload) => Exit::panicked(payload.as_ref()),
            }
        };
        // So that every line of an actor says whose it is.
        let task = self.tasks.spawn(acting.in_current_span());
        self.by_task.insert(task.id(), (index, task));
    }

    /// Until the run is done, has failed, or shall stop.
    async fn until_it_ends(&mut self, shutdown: &CancellationToken) {
        loop {
            let restart = self.next_restart();
            if self.tasks.is_empty() && restart.is_none() {
                return;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(ended) = self.tasks.join_next_with_id() => {
                    let (index, exit) = self.ended(ended);
                    if self.decide(index, exit) {
                        return;
                    }
                }
                () = sleep_until(restart.map_or_else(Instant::now, |(at, _)| at)),
                    if restart.is_some() =>
                {
                    if let Some((_, index)) = restart {
                        self.lives[index].restarts += 1;
                        self.start_actor(index);
                    }
                }
            }
        }
    }

    fn next_restart(&self) -> Option<(Instant, usize)> {
        let lives = self.lives.iter().enumerate();
        lives.filter_map(|(index, life)| life.restart_at.map(|at| (at, index))).min()
    }

    fn ended(&mut self, ended: Result<(Id, Exit), JoinError>) -> (usize, Exit) {
        let (task, exit) = match ended {
            Ok(ended) => ended,
            // A panic is caught inside the task, so what is left is a task that was aborted.
            Err(error) => (error.id(), Exit::Aborted),
        };
        let (index, _) = self.by_task.remove(&task).expect("every task is entered when started");
        (index, exit)
    }

    /// Acts on an exit before the shutdown. True when the run is over.
    fn decide(&mut self, index: usize, exit: Exit) -> bool {
        let (actor, life) = (&self.actors[index], &mut self.lives[index]);
        if life.started.elapsed() >= RECOVERED_AFTER {
            life.failures = 0;
        }
        life.failures += 1;
        let decision = actor.kind.after(&exit, life.failures);
        match (decision, actor.kind) {
            (Decision::Restart, Kind::Restarted { backoff, .. }) => {
                let pause = backoff.delay(life.failures - 1);
                life.restart_at = Some(Instant::now() + pause);
                tracing::warn!(
                    supervisor = self.supervisor,
                    actor = actor.name,
                    ?pause,
                    failures = life.failures,
                    "actor {exit}; starting it again"
                );
                false
            }
            (Decision::Fail | Decision::Restart, _) => {
                self.bad_exits.push((actor.name.clone(), exit));
                true
            }
            (Decision::Finish, _) => true,
            (Decision::GoOn, _) => {
                tracing::debug!(supervisor = self.supervisor, actor = actor.name, "actor is done");
                false
            }
        }
    }

    /// Stops all actors, stage by stage. Returns those that were late.
    async fn stop(&mut self, deadlines: &[Duration]) -> Vec<String> {
        let mut overdue = Vec::new();
        for (stage, within) in deadlines.iter().enumerate() {
            self.stops[stage].cancel();
            let deadline = crate::wait::after(Instant::now(), *within);
            while self.living(stage).next().is_some() {
                match timeout_at(deadline, self.tasks.join_next_with_id()).await {
                    Ok(Some(ended)) => self.note_while_stopping(ended),
                    Ok(None) => break,
                    Err(_late) => {
                        // Ended by force now: the next stage must not get work from it any more.
                        let late = self.living(stage).inspect(|(_, task)| task.abort());
                        let mut late: Vec<usize> = late.map(|(index, _)| *index).collect();
                        late.sort_unstable();
                        overdue.extend(late.iter().map(|index| self.actors[*index].name.clone()));
                        break;
                    }
                }
            }
        }
        // What was aborted drops its sockets and files before the caller goes on. Only code that
        // blocks its thread does not, and cannot be waited for.
        let grace = Instant::now() + Duration::from_millis(200);
        while let Ok(Some(ended)) = timeout_at(grace, self.tasks.join_next_with_id()).await {
            self.note_while_stopping(ended);
        }
        overdue
    }

    fn living(&self, stage: usize) -> impl Iterator<Item = &(usize, AbortHandle)> {
        self.by_task.values().filter(move |(index, _)| self.stage(*index) == stage)
    }

    fn note_while_stopping(&mut self, ended: Result<(Id, Exit), JoinError>) {
        let (index, exit) = self.ended(ended);
        let actor = &self.actors[index];
        match exit {
            Exit::Failed(_) | Exit::Panicked(_) => {
                tracing::debug!(
                    supervisor = self.supervisor,
                    actor = actor.name,
                    "while stopping: actor {exit}"
                );
                self.bad_exits.push((actor.name.clone(), exit));
            }
            Exit::Quit | Exit::Cancelled | Exit::Aborted => {}
        }
    }
}
