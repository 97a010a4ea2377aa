//! Bounded, named, typed mailboxes between actors.
//!
//! Invariant: no sender waits without a deadline, and a message that was not delivered is handed
//! back, so that nothing is lost by being late.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::wait::after;

#[cfg(test)]
mod tests;

/// Makes a mailbox for `capacity` messages, and the first address of it.
///
/// # Panics
/// With a capacity of 0: such a mailbox could never take a message.
pub fn mailbox<T>(name: impl Into<Arc<str>>, capacity: usize) -> (Address<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let name = name.into();
    (Address { name: Arc::clone(&name), sender }, Mailbox { name, receiver })
}

/// Where an actor receives. Dropping it turns every sender away.
pub struct Mailbox<T> {
    name: Arc<str>,
    receiver: mpsc::Receiver<T>,
}

/// Where to send to an actor. Clones send to the same mailbox.
pub struct Address<T> {
    name: Arc<str>,
    sender: mpsc::Sender<T>,
}

/// The asking side's end of an answer; see [`Address::ask`].
pub struct Reply<R>(oneshot::Sender<R>);

/// Reads how full a mailbox is, without keeping it open.
#[derive(Clone)]
pub struct Gauge {
    name: Arc<str>,
    capacity: usize,
    depth: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// Why a message was not delivered or not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// The actor does not keep up.
    #[error(
        "mailbox `{mailbox}` was full ({capacity} messages) for {waited:.1?}: \
         its actor does not keep up or hangs"
    )]
    Full {
        /// The mailbox's name.
        mailbox: Arc<str>,
        /// How many messages it holds.
        capacity: usize,
        /// How long the sender waited.
        waited: Duration,
    },
    /// The actor has ended.
    #[error("mailbox `{mailbox}` is closed: its actor has ended")]
    Closed {
        /// The mailbox's name.
        mailbox: Arc<str>,
    },
    /// The actor took the question and did not answer in time.
    #[error("mailbox `{mailbox}` gave no answer within {waited:.1?}")]
    NoAnswer {
        /// The mailbox's name.
        mailbox: Arc<str>,
        /// How long the asker waited, from the start of sending.
        waited: Duration,
    },
    /// The actor took the question and let it go, which it does when it ends.
    #[error("mailbox `{mailbox}` dropped the question: its actor has ended")]
    Dropped {
        /// The mailbox's name.
        mailbox: Arc<str>,
    },
}

impl MailboxError {
    /// Whether the other actor has ended, so that this error is a consequence of that one's end.
    pub const fn is_consequence(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Dropped { .. })
    }
}

/// A message that comes back because it could not be delivered.
#[derive(PartialEq, Eq)]
pub struct Undelivered<T> {
    /// The message, whole.
    pub message: T,
    /// Why it came back.
    pub why: MailboxError,
}

impl<T> Address<T> {
    /// Delivers `message`, waiting at most `within` for room.
    ///
    /// # Errors
    /// The message comes back when there was no room in time, or when the actor has ended.
    pub async fn send(&self, message: T, within: Duration) -> Result<(), Undelivered<T>> {
        let started = Instant::now();
        match timeout_at(after(started, within), self.sender.reserve()).await {
            Ok(Ok(permit)) => {
                permit.send(message);
                Ok(())
            }
            Ok(Err(_closed)) => Err(Undelivered { message, why: self.closed_error() }),
            Err(_late) => Err(Undelivered { message, why: self.full_error(started.elapsed()) }),
        }
    }

    /// Delivers `message` if there is room now.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full, or when the actor has ended.
    pub fn try_send(&self, message: T) -> Result<(), Undelivered<T>> {
        self.sender.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message) => {
                Undelivered { message, why: self.full_error(Duration::ZERO) }
            }
            mpsc::error::TrySendError::Closed(message) => {
                Undelivered { message, why: self.closed_error() }
            }
        })
    }

    /// Sends what `question` makes of a [`Reply`], and waits for the answer; `within` covers both.
    ///
    /// # Errors
    /// There was no room or no answer in time, or the actor has ended.
    pub async fn ask<R>(
        &self,
        within: Duration,
        question: impl FnOnce(Reply<R>) -> T,
    ) -> Result<R, MailboxError> {
        let started = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.send(question(Reply(reply)), within).await?;
        match timeout_at(after(started, within), answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(MailboxError::Dropped { mailbox: Arc::clone(&self.name) }),
            Err(_late) => Err(MailboxError::NoAnswer {
                mailbox: Arc::clone(&self.name),
                waited: started.elapsed(),
            }),
        }
    }

    /// The mailbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Completes when the actor has ended.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Reads how full the mailbox is.
    pub fn gauge(&self) -> Gauge
    where
        T: Send + 'static,
    {
        // Weak: a gauge in the status must not keep an actor waiting for its last sender.
        let sender = self.sender.downgrade();
        Gauge {
            name: Arc::clone(&self.name),
            capacity: self.sender.max_capacity(),
            depth: Arc::new(move || {
                sender.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity())
            }),
        }
    }

    fn full_error(&self, waited: Duration) -> MailboxError {
        let capacity = self.sender.max_capacity();
        MailboxError::Full { mailbox: Arc::clone(&self.name), capacity, waited }
    }

    fn closed_error(&self) -> MailboxError {
        MailboxError::Closed { mailbox: Arc::clone(&self.name) }
    }
}

impl<T> Mailbox<T> {
    /// The next message; none when every address is gone, or after [`Mailbox::close`] when all that
    /// had been sent is received.
    pub async fn receive(&mut self) -> Option<T> {
        self.receiver.recv().await
    }

    /// The next message if there is one now.
    pub fn try_receive(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Takes no more messages; what is inside can still be received. The first half of a drain.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// The mailbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<R> Reply<R> {
    /// Answers. One who no longer waits gets nothing, which is not the answerer's concern.
    pub fn send(self, answer: R) {
        let _no_longer_waiting = self.0.send(answer);
    }

    /// Whether nobody waits for the answer any more, so that work on it can stop.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl Gauge {
    /// A gauge of something else that is counted: a queue that is no mailbox.
    pub fn new(
        name: impl Into<Arc<str>>,
        capacity: usize,
        depth: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), capacity, depth: Arc::new(depth) }
    }

    /// The mailbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many messages it holds at most.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many messages wait in it now; 0 once it is closed.
    pub fn depth(&self) -> usize {
        (self.depth)()
    }
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), sender: self.sender.clone() }
    }
}

impl<T> fmt::Debug for Address<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("mailbox", &self.name).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gauge({} {}/{})", self.name, self.depth(), self.capacity)
    }
}

impl<T> fmt::Debug for Undelivered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<T> From<Undelivered<T>> for MailboxError {
    fn from(undelivered: Undelivered<T>) -> Self {
        undelivered.why
    }
}
