//! The gRPC service of whoever runs the run: looks at its rewards and swaps them.
//!
//! Invariant: whoever calls has shown the run's join token before it gets here, and no address is bound that
//! could not be dialled.

use std::sync::Arc;
use std::time::Duration;

use octet_proto::RevisionNumber;
use octet_proto::admin::{
    CoordinatorAdminService, GetRewardsRequest, GetRewardsResponse, RollbackRewardRequest,
    SwapRewardRequest, SwapRewardResponse,
};
use octet_runtime::mailbox::Address;
use tonic::{Request, Response, Status};

use super::actor::{Answer, Command};
use super::grpc::check_address;
use super::wire;
use crate::error::CoordinatorError;
use crate::examples::Examples;
use crate::machine::{Bound, Reward, Snapshot};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most rows that are sent for probing.
const MOST_ROWS: usize = 64;

/// The service, as tonic calls it.
pub(crate) struct Admin {
    address: Address<Command>,
    examples: Arc<Examples>,
}

impl Admin {
    pub(crate) fn new(address: Address<Command>, examples: Arc<Examples>) -> Self {
        Self { address, examples }
    }

    async fn status(&self) -> Result<Snapshot, CoordinatorError> {
        Ok(self.address.ask(PATIENCE, |reply| Command::Status { reply }).await?)
    }

    async fn bind(
        &self,
        question: impl FnOnce(Answer<Bound>) -> Command,
    ) -> Result<SwapRewardResponse, CoordinatorError> {
        let bound = self.address.ask(PATIENCE, question).await??;
        let revisions = self.status().await?.revisions;
        let revision = revisions.into_iter().find(|(known, _)| known.number == bound.number);
        Ok(SwapRewardResponse {
            revision: revision.map(|(revision, _)| wire::revision(revision)),
            from_step: bound.from_step.get(),
            superseded: bound.superseded.iter().map(|number| number.get()).collect(),
        })
    }
}

fn known(newest: u64) -> Option<RevisionNumber> {
    (newest > 0).then_some(RevisionNumber(newest))
}

#[tonic::async_trait]
impl CoordinatorAdminService for Admin {
    async fn get_rewards(
        &self,
        request: Request<GetRewardsRequest>,
    ) -> Result<Response<GetRewardsResponse>, Status> {
        let rows = (request.into_inner().rows as usize).min(MOST_ROWS);
        let snapshot = self.status().await?;
        Ok(Response::new(GetRewardsResponse {
            run_id: snapshot.run_id,
            total_steps: snapshot.total_steps,
            committed_steps: snapshot.committed_steps,
            rewards: snapshot.rewards.into_iter().map(wire::binding).collect(),
            rows: self.examples.spread(rows),
        }))
    }

    async fn swap_reward(
        &self,
        request: Request<SwapRewardRequest>,
    ) -> Result<Response<SwapRewardResponse>, Status> {
        let SwapRewardRequest { name, digest, endpoints, newest_known } = request.into_inner();
        for endpoint in &endpoints {
            check_address("endpoints", endpoint)?;
        }
        let (reward, newest_known) = (Reward { name, digest, endpoints }, known(newest_known));
        let swap = |reply| Command::Swap { reward, newest_known, reply };
        Ok(Response::new(self.bind(swap).await?))
    }

    async fn rollback_reward(
        &self,
        request: Request<RollbackRewardRequest>,
    ) -> Result<Response<SwapRewardResponse>, Status> {
        let RollbackRewardRequest { to_revision, newest_known } = request.into_inner();
        let (to, newest_known) = (known(to_revision), known(newest_known));
        let rollback = |reply| Command::Rollback { to, newest_known, reply };
        Ok(Response::new(self.bind(rollback).await?))
    }
}
