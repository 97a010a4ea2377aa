//! Delivers scored groups to the learner until it says that it has them.
//!
//! Invariants: a group is kept until its receipt; on a new stream everything without a receipt is
//! sent again; what the learner refuses is a named error or is told, and never silently dropped.

mod outbox;
#[cfg(test)]
mod tests;

use octet_proto::GroupIndex;
use octet_proto::auth::is_unwelcome;
use octet_proto::error::describe;
use octet_proto::learner::{DeliveryOutcome, DeliveryReceipt, ScoredGroup, learner_client};
use octet_runtime::CancellationToken;
use octet_runtime::backoff::{Attempts, Backoff};
use octet_runtime::mailbox::{Address, Mailbox};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use outbox::Outbox;

use crate::error::WorkerError;
use crate::groups::Event;
use crate::peer::Learner;

/// How long news of a receipt may wait for room.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many groups may be handed to the transport beyond what it has sent.
const AHEAD: usize = 4;

/// What became of a delivered group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The learner has it on disk.
    Accepted {
        /// It had it before.
        duplicate: bool,
    },
    /// The learner has no use for it: it went back to an earlier step, or the run goes on without it.
    Unwanted {
        /// The refusal's stable name.
        kind: String,
        /// The learner's words.
        message: String,
    },
}

/// The actor's parts, before it runs.
pub(crate) struct Delivery {
    pub inbox: Mailbox<ScoredGroup>,
    pub events: Address<Event>,
    pub learner: Learner,
    /// How long a delivery may stay without a receipt.
    pub patience: Duration,
}

/// The actor while it runs.
struct Running {
    parts: Delivery,
    outbox: Outbox,
    attempts: Attempts,
}

impl Delivery {
    /// Delivers until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let attempts = Backoff::quick(self.learner.seed()).attempts();
        let mut running = Running { parts: self, outbox: Outbox::default(), attempts };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = running.deliver() => ended,
        }
    }
}

impl Running {
    /// Until nobody can give it groups any more.
    async fn deliver(&mut self) -> Result<(), WorkerError> {
        loop {
            // A stream is opened with its first group: a server may not answer before it is asked.
            while self.outbox.is_empty() {
                match self.parts.inbox.receive().await {
                    Some(group) => self.outbox.put(group),
                    None => return Ok(()),
                }
            }
            match self.stream().await? {
                Some(refused) if is_unwelcome(&refused) => {
                    return Err(WorkerError::TurnedAway {
                        peer: self.parts.learner.address(),
                        message: refused.message().to_owned(),
                    });
                }
                Some(broken) => {
                    let delay = self.attempts.next_delay();
                    let (learner, groups) = (self.parts.learner.address(), self.outbox.len());
                    let error = &describe(&broken);
                    // A stream with nothing on it ends when the learner does, and nothing is lost.
                    if groups == 0 {
                        tracing::debug!(learner, error, "the stream ended with nothing on it");
                    } else {
                        tracing::warn!(
                            learner,
                            groups,
                            error,
                            ?delay,
                            "delivery interrupted; all without a receipt are sent again"
                        );
                    }
                    sleep(delay).await;
                }
                None => return Ok(()),
            }
        }
    }

    /// One stream, from its opening until it breaks; none when the worker needs no more.
    async fn stream(&mut self) -> Result<Option<Status>, WorkerError> {
        let mut client = learner_client(self.parts.learner.channel().await?);
        self.outbox.rewind();
        let (groups, sending) = mpsc::channel(AHEAD);
        // The answer may begin only with the first receipt, so groups must flow before it.
        let opening = client.deliver(ReceiverStream::new(sending));
        tokio::pin!(opening);
        let mut receipts: Option<Streaming<DeliveryReceipt>> = None;
        loop {
            let overdue = self.outbox.oldest().map(|since| since + self.parts.patience);
            tokio::select! {
                biased;
                opened = &mut opening, if receipts.is_none() => match opened {
                    Ok(opened) => receipts = Some(opened.into_inner()),
                    Err(status) => return Ok(Some(status)),
                },
                receipt = next(&mut receipts) => match receipt {
                    Ok(Some(receipt)) => self.on_receipt(receipt).await?,
                    Ok(None) => return Ok(Some(Status::unavailable("the learner ended the stream"))),
                    Err(status) => return Ok(Some(status)),
                },
                room = groups.reserve(), if self.outbox.has_unsent() => match room {
                    Ok(room) => {
                        if let Some(group) = self.outbox.send(Instant::now()) {
                            room.send(group);
                        }
                    }
                    Err(_closed) => return Ok(Some(Status::unavailable("the stream takes no more groups"))),
                },
                group = self.parts.inbox.receive() => match group {
                    Some(group) => self.outbox.put(group),
                    None => return Ok(None),
                },
                () = self.parts.learner.moved() => {
                    return Ok(Some(Status::unavailable("the learner has another address now")));
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    let patience = self.parts.patience;
                    let late = format!("expected a receipt within {patience:?}, found none");
                    return Ok(Some(Status::deadline_exceeded(late)));
                }
            }
        }
    }

    async fn on_receipt(&mut self, receipt: DeliveryReceipt) -> Result<(), WorkerError> {
        self.attempts.reset();
        let group = GroupIndex(receipt.group);
        let Some(outcome) = receipt.outcome else {
            let message = "expected a receipt with an outcome, found none".to_owned();
            return Err(WorkerError::Refused { group, kind: "no-outcome".to_owned(), message });
        };
        let receipt = match outcome {
            DeliveryOutcome::Accepted(accepted) => {
                Receipt::Accepted { duplicate: accepted.duplicate }
            }
            DeliveryOutcome::Refused(refused) => match refused.kind.as_str() {
                "wrong-version" | "unknown-group" => {
                    Receipt::Unwanted { kind: refused.kind, message: refused.message }
                }
                "impure-duplicate" => {
                    return Err(WorkerError::Impure { group, message: refused.message });
                }
                _ => {
                    let (kind, message) = (refused.kind, refused.message);
                    return Err(WorkerError::Refused { group, kind, message });
                }
            },
        };
        if self.outbox.remove(group) {
            self.parts.events.send(Event::Receipt { group, receipt }, PATIENCE).await?;
        }
        Ok(())
    }
}

async fn next(
    receipts: &mut Option<Streaming<DeliveryReceipt>>,
) -> Result<Option<DeliveryReceipt>, Status> {
    match receipts {
        Some(receipts) => receipts.message().await,
        None => std::future::pending().await,
    }
}
