//! Takes scored groups in: checked, durable, then acknowledged.
//!
//! Invariants: a receipt says *accepted* only after the group is on the disk. What waits is bounded
//! everywhere: a stream has at most [`IN_FLIGHT`] groups without a receipt, the writer's mailbox holds
//! [`MAILBOX`], and one transaction takes at most [`BATCH_GROUPS`]. An impure duplicate ends the run.

mod rules;
mod writer;

pub use rules::{Refusal, Rules};
pub(crate) use writer::{Delivery, Writer};

use crate::board::Board;
use octet_proto::learner::{
    Accepted, DeliveryOutcome, DeliveryReceipt, LearnerService, Refused, ScoredGroup as Message,
};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::Address;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Groups of one stream that may be without a receipt.
pub const IN_FLIGHT: usize = 32;
/// Groups that may wait for the writer.
pub const MAILBOX: usize = 64;
/// Groups that one transaction stores, at most.
pub const BATCH_GROUPS: usize = 64;
/// How long a stream waits for room with the writer before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One receipt, or what ends a stream.
pub(crate) type Answer = Result<DeliveryReceipt, Status>;

/// The service, as tonic calls it.
#[derive(Clone)]
pub(crate) struct Intake {
    pub rules: Rules,
    pub board: Arc<Board>,
    pub writer: Address<Delivery>,
    pub stop: CancellationToken,
}

/// The receipt for a group that is in the spool.
pub(crate) fn accepted(group: u64, duplicate: bool) -> DeliveryReceipt {
    DeliveryReceipt { group, outcome: Some(DeliveryOutcome::Accepted(Accepted { duplicate })) }
}

/// The receipt for a group that is not.
pub(crate) fn refused(group: u64, kind: &str, message: &dyn fmt::Display) -> DeliveryReceipt {
    let refused = Refused { kind: kind.to_owned(), message: message.to_string() };
    DeliveryReceipt { group, outcome: Some(DeliveryOutcome::Refused(refused)) }
}

impl Intake {
    /// Reads one stream until it ends, is cut, or the learner stops. Groups that were taken in get
    /// their receipts after that too; the answer ends with the last of them.
    async fn read(self, mut incoming: Streaming<Message>, receipts: mpsc::Sender<Answer>) {
        loop {
            // Who does not read receipts is not read from.
            let permit = tokio::select! {
                () = self.stop.cancelled() => return,
                permit = receipts.clone().reserve_owned() => match permit {
                    Ok(permit) => permit,
                    Err(_gone) => return,
                },
            };
            let message = tokio::select! {
                () = self.stop.cancelled() => return,
                message = incoming.message() => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return,
                    Err(status) => {
                        tracing::debug!(%status, "a delivery stream was cut");
                        // Whoever sent what cannot be read is told so, if it is still there.
                        permit.send(Err(status));
                        return;
                    }
                },
            };
            let group = message.group;
            match self.rules.admit(message, self.board.committed()) {
                Err(refusal) => {
                    tracing::warn!(group, kind = refusal.kind(), "refused a group: {refusal}");
                    permit.send(Ok(refused(group, refusal.kind(), &refusal)));
                }
                Ok(group) => {
                    let delivery = Delivery { group, receipt: permit };
                    if let Err(back) = self.writer.send(delivery, PATIENCE).await {
                        let status = Status::unavailable(back.why.to_string());
                        back.message.receipt.send(Err(status));
                        return;
                    }
                }
            }
        }
    }
}

#[tonic::async_trait]
impl LearnerService for Intake {
    type DeliverStream = ReceiverStream<Answer>;

    async fn deliver(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let (receipts, answers) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(self.clone().read(request.into_inner(), receipts));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
