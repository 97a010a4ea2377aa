//! Drives a player on a transport.
//!
//! Invariant: no call into the transport waits for another member; what does is begun and then asked
//! after, so that a deadline is kept whatever the others do.

use std::time::Duration;

use crate::player::{Action, Outcome, Player};
use crate::words::{Orders, Place, State, UniqueId};

/// What carries a broadcast. It has at most one communicator.
pub trait Transport {
    /// Draws an identifier.
    ///
    /// # Errors
    /// The library cannot.
    fn unique_id(&mut self) -> Result<UniqueId, Fault>;

    /// Begins to form a communicator.
    ///
    /// # Errors
    /// The library refuses.
    fn form(&mut self, place: &Place) -> Result<(), Fault>;

    /// Begins to broadcast a version from rank 0, or to receive it.
    ///
    /// # Errors
    /// The library refuses, or the version is not there to be sent.
    fn broadcast(&mut self, version: u64) -> Result<(), Fault>;

    /// How far that is.
    ///
    /// # Errors
    /// The communicator is broken.
    fn poll(&mut self) -> Result<Progress, Fault>;

    /// Gives the communicator up at once, also in the middle of something.
    fn abort(&mut self);
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        (**self).unique_id()
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        (**self).form(place)
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        (**self).broadcast(version)
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        (**self).poll()
    }

    fn abort(&mut self) {
        (**self).abort();
    }
}

/// How far a transport is with what was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Busy,
    /// Nothing is under way any more.
    Idle,
}

/// What went wrong in a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct Fault {
    /// What was being done.
    pub doing: &'static str,
    /// What the library says.
    pub problem: String,
}

/// A player with its transport.
#[derive(Debug)]
pub struct Seat<T> {
    player: Player,
    transport: T,
    /// Whether something was begun whose end is not known.
    begun: bool,
    last_fault: Option<Fault>,
}

impl<T: Transport> Seat<T> {
    /// A member that takes part in nothing so far.
    pub fn new(transport: T) -> Self {
        Self { player: Player::default(), transport, begun: false, last_fault: None }
    }

    /// What to tell the convener.
    pub fn state(&self) -> State {
        self.player.state()
    }

    /// When this member gives up what it waits for.
    pub fn deadline(&self) -> Option<Duration> {
        self.player.deadline()
    }

    /// What that is, for a person.
    pub fn doing(&self) -> Option<String> {
        self.player.doing()
    }

    /// The last fault of the transport, for `status`.
    pub fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    /// The transport.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// A version is there that was not broadcast: learned here, or fetched.
    pub fn holds(&mut self, version: u64) {
        self.player.holds(version);
    }

    /// Takes orders.
    pub fn order(&mut self, now: Duration, orders: &Orders) {
        let actions = self.player.order(now, orders);
        self.act(actions);
    }

    /// Asks after what is under way, and gives it up when its time has come. Call it often.
    pub fn poll(&mut self, now: Duration) {
        let idle = !self.begun && self.player.state().seated.is_none();
        if !idle {
            match self.transport.poll() {
                Ok(Progress::Busy) => {}
                Ok(Progress::Idle) if self.begun => self.ended(Outcome::Done),
                Ok(Progress::Idle) => {}
                Err(fault) => self.failed(fault),
            }
        }
        let actions = self.player.tick(now);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let begun = match action {
                Action::Abort => {
                    self.transport.abort();
                    self.begun = false;
                    continue;
                }
                Action::Name => match self.transport.unique_id() {
                    Ok(id) => {
                        self.ended(Outcome::Named(id));
                        continue;
                    }
                    Err(fault) => Err(fault),
                },
                Action::Form(place) => self.transport.form(&place),
                Action::Broadcast(version) => self.transport.broadcast(version),
            };
            match begun {
                Ok(()) => {
                    self.begun = true;
                    self.player.begun();
                }
                Err(fault) => self.failed(fault),
            }
        }
    }

    fn ended(&mut self, outcome: Outcome) {
        self.begun = false;
        let actions = self.player.outcome(outcome);
        self.act(actions);
    }

    fn failed(&mut self, fault: Fault) {
        self.last_fault = Some(fault);
        self.ended(Outcome::Failed);
    }
}
