//! The one writer of the spool.
//!
//! Invariant: it stores whatever is queued in one transaction, and answers only after that is
//! durable; what could not be stored is answered as a broken connection, so that it is sent again.

use super::{Answer, BATCH_GROUPS, accepted, refused};
use crate::board::Board;
use crate::error::LearnerError;
use crate::group::ScoredGroup;
use crate::spool::{Receipt, Spool, SpoolError, Stored};
use crate::thread::Place;
use octet_proto::error::with_causes;
use octet_proto::{GroupIndex, LeaseEpoch};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::Mailbox;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::OwnedPermit;
use tonic::Status;

/// A checked group, and where its receipt goes.
pub(crate) struct Delivery {
    pub group: ScoredGroup,
    pub receipt: OwnedPermit<Answer>,
}

/// The actor that owns the spool for writing.
pub(crate) struct Writer {
    pub spool: Spool,
    pub mailbox: Mailbox<Delivery>,
    pub board: Arc<Board>,
    pub place: Place,
    /// Whether a group that is sampled twice must be the same to the bit. Where it need not, the first stays.
    pub exact: bool,
}

impl Writer {
    /// Stores until `stop`, and then what was already taken in.
    pub async fn run(self, stop: CancellationToken) -> Result<(), LearnerError> {
        let Self { mut spool, mut mailbox, board, place, exact } = self;
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => {
                    mailbox.close();
                    mailbox.receive().await
                }
                first = mailbox.receive() => first,
            };
            let Some(first) = first else { return Ok(()) };
            let mut deliveries = vec![first];
            while deliveries.len() < BATCH_GROUPS
                && let Some(next) = mailbox.try_receive()
            {
                deliveries.push(next);
            }
            spool = store(spool, deliveries, &board, (place, exact)).await?;
        }
    }
}

async fn store(
    spool: Spool,
    deliveries: Vec<Delivery>,
    board: &Board,
    (place, exact): (Place, bool),
) -> Result<Spool, LearnerError> {
    let (groups, receipts): (Vec<_>, Vec<_>) =
        deliveries.into_iter().map(|delivery| (delivery.group, delivery.receipt)).unzip();
    for group in &groups {
        let (index, worker) = (group.group.get(), group.worker.as_str());
        tracing::debug!(group = index, worker, version = group.policy_version.get(), "storing");
    }
    let (spool, leases, stored) = append(spool, groups, place).await?;
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            let text = with_causes(&error);
            for receipt in receipts {
                receipt.send(Err(Status::unavailable(text.clone())));
            }
            return Err(error.into());
        }
    };
    let durable = leases.iter().zip(&stored).filter(|(_, stored)| stored.is_ok());
    let durable: Vec<_> = durable.map(|(lease, _)| *lease).collect();
    board.inventory.send_if_modified(|inventory| inventory.add(durable));
    let mut impure = None;
    for (((index, _), receipt), stored) in leases.into_iter().zip(receipts).zip(stored) {
        receipt.send(Ok(match stored {
            Ok(stored) => accepted(index.get(), stored == Stored::Duplicate),
            Err(error) if !exact && error.is_of_completions() => {
                tracing::warn!(%error, "the first delivery stays");
                accepted(index.get(), true)
            }
            Err(error) => {
                let answer = refused(index.get(), "impure-duplicate", &error);
                impure.get_or_insert(error);
                answer
            }
        }));
    }
    impure.map_or(Ok(spool), |error| Err(error.into()))
}

type Appended = (Spool, Vec<(GroupIndex, LeaseEpoch)>, Result<Vec<Receipt>, SpoolError>);

async fn append(
    mut spool: Spool,
    groups: Vec<ScoredGroup>,
    place: Place,
) -> Result<Appended, LearnerError> {
    let storing = place.run("octet-spool", Duration::ZERO, move || {
        let stored = spool.append(&groups);
        (spool, groups.iter().map(|group| (group.group, group.lease_epoch)).collect(), stored)
    });
    storing.await
}
