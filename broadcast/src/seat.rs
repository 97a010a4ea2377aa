//! Drives a player on a transport.
//!
//! Invariants: each call into the transport is known to the guard, if there is one, with the time at which it
//! is to be given up; what the guard had to abort has failed, whatever the call says of itself. What the player
//! decided is known before the transport is asked to do it, since an abort may take as long as other members like.

use std::collections::VecDeque;
use std::time::Duration;

use crate::guard::Guard;
use crate::player::{Action, Outcome, Player};
use crate::transport::{Fault, Progress, Transport};
use crate::words::{Orders, State};

/// A player with its transport.
#[derive(Debug)]
pub struct Seat<T> {
    player: Player,
    transport: T,
    guard: Option<Guard>,
    /// Whether something was begun whose end is not known.
    begun: bool,
    /// What the player decided and the transport was not asked to do yet.
    next: VecDeque<Action>,
    last_fault: Option<Fault>,
}

impl<T: Transport> Seat<T> {
    /// A member that takes part in nothing so far.
    pub fn new(transport: T) -> Self {
        let player = Player::default();
        Self {
            player,
            transport,
            guard: None,
            begun: false,
            next: VecDeque::new(),
            last_fault: None,
        }
    }

    /// The same, watched.
    pub(crate) fn guarded(transport: T, guard: Guard) -> Self {
        Self { guard: Some(guard), ..Self::new(transport) }
    }

    /// Whether a call into the transport was given up, and with it this thread.
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::has_given_up)
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

    /// Takes orders and does what follows.
    pub fn order(&mut self, now: Duration, orders: &Orders) {
        self.heed(now, orders);
        while self.act() {}
    }

    /// Asks after what is under way, and gives it up when its time has come. Call it often.
    pub fn poll(&mut self, now: Duration) {
        self.ask(now);
        while self.act() {}
    }

    /// Takes orders; what follows is done by [`Seat::act`].
    pub(crate) fn heed(&mut self, now: Duration, orders: &Orders) {
        self.next.extend(self.player.order(now, orders));
    }

    /// Asks after what is under way; what follows is done by [`Seat::act`].
    pub(crate) fn ask(&mut self, now: Duration) {
        let idle = !self.begun && self.player.state().seated.is_none();
        if !idle {
            match self.call("poll", T::poll) {
                Ok(Progress::Busy) => {}
                Ok(Progress::Idle) if self.begun => self.ended(Outcome::Done),
                Ok(Progress::Idle) => {}
                Err(fault) => self.failed(fault),
            }
        }
        self.next.extend(self.player.tick(now));
    }

    /// Does one thing that was decided; whether there was one.
    pub(crate) fn act(&mut self) -> bool {
        let Some(action) = self.next.pop_front() else { return false };
        let begun = match action {
            Action::Abort => {
                self.begun = false;
                let aborted = self.call("abort", |transport| {
                    transport.abort();
                    Ok(())
                });
                if let Err(fault) = aborted {
                    self.last_fault = Some(fault);
                }
                return true;
            }
            Action::Name => match self.call("draw an identifier", T::unique_id) {
                Ok(id) => {
                    self.ended(Outcome::Named(id));
                    return true;
                }
                Err(fault) => Err(fault),
            },
            Action::Form(place) => self.call("form", |transport| transport.form(&place)),
            Action::Broadcast(version) => {
                self.call("broadcast", |transport| transport.broadcast(version))
            }
        };
        match begun {
            Ok(()) => {
                self.begun = true;
                self.player.begun();
            }
            Err(fault) => self.failed(fault),
        }
        true
    }

    fn call<R>(
        &mut self,
        doing: &'static str,
        call: impl FnOnce(&mut T) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Some(guard) = &self.guard else { return call(&mut self.transport) };
        guard.enter(doing, self.player.deadline());
        let result = call(&mut self.transport);
        match guard.leave() {
            Some(fault) => Err(fault),
            None => result,
        }
    }

    fn ended(&mut self, outcome: Outcome) {
        self.begun = false;
        self.next.extend(self.player.outcome(outcome));
    }

    fn failed(&mut self, fault: Fault) {
        self.last_fault = Some(fault);
        self.ended(Outcome::Failed);
    }
}
