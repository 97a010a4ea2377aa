//! A member's side: follows orders, one thing at a time, each within its deadline.
//!
//! Invariants: a communicator is aborted before another one is formed; an order of an epoch that is
//! older than one that was heard of is not followed; an epoch that failed here is never entered again.

use std::time::Duration;

use crate::words::{Epoch, Order, Orders, Place, State, UniqueId};

/// What is to be done with the transport, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the communicator up, at once and whatever it is doing.
    Abort,
    /// Draw an identifier.
    Name,
    /// Begin to form the communicator.
    Form(Place),
    /// Begin to broadcast, or to receive, a version.
    Broadcast(u64),
}

/// What became of what was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The identifier.
    Named(UniqueId),
    /// The communicator is up, or the version is there.
    Done,
    /// The transport reports a fault.
    Failed,
}

/// A member.
#[derive(Clone, Debug, Default)]
pub struct Player {
    state: State,
    doing: Option<Doing>,
}

#[derive(Clone, Copy, Debug)]
struct Doing {
    what: What,
    epoch: Epoch,
    until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Naming,
    Forming,
    Broadcasting(u64),
}

impl Player {
    /// What to tell the convener.
    pub fn state(&self) -> State {
        self.state
    }

    /// When what is being done is given up; nothing is waited for without such a time.
    pub fn deadline(&self) -> Option<Duration> {
        self.doing.map(|doing| doing.until)
    }

    /// What that is, for a person.
    pub fn doing(&self) -> Option<String> {
        self.doing.map(|Doing { what, epoch, .. }| match what {
            What::Naming => format!("epoch {epoch}: draw an identifier"),
            What::Forming => format!("epoch {epoch}: form the communicator"),
            What::Broadcasting(version) => format!("epoch {epoch}: broadcast version {version}"),
        })
    }

    /// The library has taken on what was asked of it: what is left depends on the others as well.
    pub fn begun(&mut self) {
        self.state.begun = match self.doing {
            Some(Doing { what: What::Forming, epoch, .. }) => Some((epoch, None)),
            Some(Doing { what: What::Broadcasting(version), epoch, .. }) => {
                Some((epoch, Some(version)))
            }
            _ => self.state.begun,
        };
    }

    /// A version is there that was not broadcast.
    pub fn holds(&mut self, version: u64) {
        self.state.holds = self.state.holds.max(Some(version));
    }

    /// Takes orders.
    pub fn order(&mut self, now: Duration, orders: &Orders) -> Vec<Action> {
        let until = now + orders.within;
        match orders.order {
            Order::Stand => self.stand(),
            Order::Name(epoch) => {
                let named = self.state.named.is_some_and(|(named, _)| named == epoch);
                let naming = self.is_doing(What::Naming, epoch);
                if !self.enter(epoch) || named || naming {
                    return Vec::new();
                }
                let mut actions = self.stand();
                self.doing = Some(Doing { what: What::Naming, epoch, until });
                actions.push(Action::Name);
                actions
            }
            Order::Sit(place) => self.sit(place, until),
            Order::Send(place, version) => {
                let epoch = place.epoch;
                let seated = self.state.seated == Some(epoch) && self.doing.is_none();
                if !self.enter(epoch) || !seated || self.state.done == Some((epoch, version)) {
                    return Vec::new();
                }
                self.doing = Some(Doing { what: What::Broadcasting(version), epoch, until });
                vec![Action::Broadcast(version)]
            }
        }
    }

    /// Learns what became of what it is doing.
    pub fn outcome(&mut self, outcome: Outcome) -> Vec<Action> {
        let Some(doing) = self.doing else {
            // A communicator that breaks while it is idle.
            return if outcome == Outcome::Failed { self.fail() } else { Vec::new() };
        };
        match (outcome, doing.what) {
            (Outcome::Failed, _) => return self.fail(),
            (Outcome::Named(id), What::Naming) => self.state.named = Some((doing.epoch, id)),
            (Outcome::Done, What::Forming) => self.state.seated = Some(doing.epoch),
            (Outcome::Done, What::Broadcasting(version)) => {
                self.state.done = Some((doing.epoch, version));
                self.holds(version);
            }
            // Of something that was given up meanwhile.
            (Outcome::Named(_) | Outcome::Done, _) => return Vec::new(),
        }
        self.doing = None;
        Vec::new()
    }

    /// Lets time pass: what is not done by its deadline is given up.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        match self.doing {
            Some(doing) if doing.until <= now => self.fail(),
            _ => Vec::new(),
        }
    }

    fn sit(&mut self, place: Place, until: Duration) -> Vec<Action> {
        let epoch = place.epoch;
        let there = self.state.seated == Some(epoch) || self.is_doing(What::Forming, epoch);
        if !self.enter(epoch) || there {
            return Vec::new();
        }
        let mut actions = self.stand();
        self.doing = Some(Doing { what: What::Forming, epoch, until });
        actions.push(Action::Form(place));
        actions
    }

    /// Whether orders of this epoch count.
    fn enter(&mut self, epoch: Epoch) -> bool {
        self.state.heard = self.state.heard.max(epoch);
        epoch == self.state.heard && self.state.failed != Some(epoch)
    }

    fn is_doing(&self, what: What, epoch: Epoch) -> bool {
        self.doing.is_some_and(|doing| doing.what == what && doing.epoch == epoch)
    }

    /// Gives up what there is.
    fn stand(&mut self) -> Vec<Action> {
        let forming = self.doing.take().is_some_and(|doing| doing.what != What::Naming);
        let seated = self.state.seated.take().is_some();
        if forming || seated { vec![Action::Abort] } else { Vec::new() }
    }

    fn fail(&mut self) -> Vec<Action> {
        let epoch = self.doing.map(|doing| doing.epoch).or(self.state.seated);
        self.state.failed = epoch.or(self.state.failed);
        self.stand()
    }
}
