//! Runs named actors, and ends them in order.
//!
//! Invariants: what an actor's end means is declared once, by its [`Kind`]; the run's error is the
//! first root cause and never an echo of it; a shutdown goes stage by stage, each with a deadline,
//! and whoever is late is named.

use std::fmt;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

mod exit;
mod run;

#[cfg(test)]
mod tests;

pub use exit::{Decision, Exit, Failure, RunFailure};
use run::Actor;

/// What it means when an actor ends before it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work itself: when it quits, the run is done and everything else stops.
    Main,
    /// Must live as long as the run: when it ends in any way, the run fails.
    Essential,
    /// Is started again after a pause, however it ended; after so many failures in a row without
    /// having lived for a minute, the run fails.
    Restarted {
        /// The pauses.
        backoff: Backoff,
        /// How many failures in a row are too many.
        give_up_after: u32,
    },
    /// Has something to do and quits when it is done; failing fails the run.
    Transient,
}

/// What an actor is given when it starts.
#[derive(Clone, Debug)]
pub struct Context {
    /// Cancelled when the actor shall stop. It then drains and returns within its stage's deadline.
    pub stop: CancellationToken,
    /// How often it was started before.
    pub restarts: u32,
}

/// Actors to run together.
pub struct Supervisor {
    name: &'static str,
    actors: Vec<Actor>,
    deadlines: Vec<Duration>,
}

impl Supervisor {
    /// A supervisor with one shutdown stage of ten seconds.
    pub fn new(name: &'static str) -> Self {
        Self { name, actors: Vec::new(), deadlines: vec![Duration::from_secs(10)] }
    }

    /// Sets the shutdown stages, in the order in which they stop: how long the actors of each have.
    /// Who gives work away stops before who takes it, so that what is under way can be finished.
    ///
    /// # Panics
    /// Without any stage.
    #[must_use]
    pub fn stages(mut self, deadlines: impl IntoIterator<Item = Duration>) -> Self {
        self.deadlines = deadlines.into_iter().collect();
        assert!(!self.deadlines.is_empty(), "a supervisor needs at least one shutdown stage");
        self
    }

    /// Adds an actor. `start` makes its future, again for every restart. `stage` says when it stops;
    /// one past the last means the last.
    #[must_use]
    pub fn actor<S, F, E>(
        mut self,
        name: impl Into<String>,
        kind: Kind,
        stage: usize,
        mut start: S,
    ) -> Self
    where
        S: FnMut(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let start = Box::new(move |context: Context| {
            let future = start(context);
            let boxed: run::ActorFuture = Box::pin(async move { future.await.map_err(Into::into) });
            boxed
        });
        self.actors.push(Actor { name: name.into(), kind, stage, start });
        self
    }

    /// Runs all actors until the main one quits, one ends the run, or `shutdown` is cancelled; then
    /// stops them stage by stage. Dropping the future ends every actor at once.
    ///
    /// # Errors
    /// The first root cause among the actors' exits, or the actors that did not stop in time.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunFailure> {
        run::run(self, shutdown).await
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actors: Vec<&str> = self.actors.iter().map(|actor| actor.name.as_str()).collect();
        f.debug_struct("Supervisor").field("name", &self.name).field("actors", &actors).finish()
    }
}
