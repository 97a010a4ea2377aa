//! The gRPC service: checks who speaks, asks the actor, answers.
//!
//! Invariant: whoever calls has shown the join token before it gets here; a node that registers has an
//! address that can be dialled, and its other calls are let in by the id that registration gave.

use std::sync::Arc;
use std::time::Duration;

use octet_proto::WorkerId;
use octet_proto::coordinator::{
    CoordinatorService, GetStatusRequest, GetStatusResponse, HeartbeatRequest, HeartbeatResponse,
    LeaseRequest, LeaseResponse, RegisterLearnerRequest, RegisterLearnerResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest, ReleaseResponse,
    ReportProgressRequest, ReportProgressResponse,
};
use octet_proto::transport::Address as Dialled;
use octet_runtime::mailbox::Address;
use tonic::{Request, Response, Status};

use super::actor::{Answer, Command};
use super::wire;
use crate::error::CoordinatorError;
use crate::examples::Examples;
use crate::machine::{LearnerId, Offer};
use crate::plan::Timing;

/// The longest that a lease request is parked; below every client's request timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long an answer may take beyond what the caller asked to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service, as tonic calls it.
pub(crate) struct Grpc {
    address: Address<Command>,
    examples: Arc<Examples>,
    run_id: String,
    timing: Timing,
}

impl Grpc {
    pub(crate) fn new(
        address: Address<Command>,
        examples: Arc<Examples>,
        run_id: String,
        timing: Timing,
    ) -> Self {
        Self { address, examples, run_id, timing }
    }

    async fn ask<T>(
        &self,
        within: Duration,
        question: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, CoordinatorError> {
        Ok(self.address.ask(within, question).await??)
    }
}

/// Refuses an address that nobody could dial.
pub(crate) fn check_address(field: &'static str, address: &str) -> Result<(), CoordinatorError> {
    Dialled::parse(address).map(drop).map_err(|source| CoordinatorError::Address { field, source })
}

#[tonic::async_trait]
impl CoordinatorService for Grpc {
    async fn register_worker(
        &self,
        request: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        let request = request.into_inner();
        if !request.weights_endpoint.is_empty() {
            check_address("weights_endpoint", &request.weights_endpoint)?;
        }
        let join = wire::worker_join(request);
        let (id, learner_endpoint) =
            self.ask(PATIENCE, |reply| Command::RegisterWorker { join, reply }).await?;
        Ok(Response::new(RegisterWorkerResponse {
            run_id: self.run_id.clone(),
            worker_id: id.get(),
            lease_ms: wire::millis(self.timing.lease),
            heartbeat_ms: wire::millis(self.timing.heartbeat),
            learner_endpoint,
        }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> Result<Response<LeaseResponse>, Status> {
        let LeaseRequest { worker_id, want, wait_ms } = request.into_inner();
        let wait = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
        let (worker, want) = (WorkerId(worker_id), want.into());
        let question = |reply| Command::Lease { worker, want, wait, reply };
        let answer = match self.ask(wait + PATIENCE, question).await? {
            Offer::Grants(grants) => LeaseResponse {
                sources: grants.sources.into_iter().map(wire::sources).collect(),
                leases: grants
                    .leases
                    .into_iter()
                    .map(|grant| {
                        let row = self.examples.row(grant.key.group);
                        wire::lease(grant, row)
                    })
                    .collect(),
                ..LeaseResponse::default()
            },
            Offer::Complete => LeaseResponse { run_complete: true, ..LeaseResponse::default() },
            Offer::Nothing(why) => {
                LeaseResponse { waiting_for: why.to_string(), ..LeaseResponse::default() }
            }
        };
        Ok(Response::new(answer))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let said = request.broadcast.as_ref().and_then(wire::said);
        let (worker, beat) = (WorkerId(request.worker_id), wire::beat(request));
        let question = |reply| Command::Heartbeat { worker, beat, said, reply };
        let (pulse, learner_endpoint, told) = self.ask(PATIENCE, question).await?;
        Ok(Response::new(HeartbeatResponse {
            revoked: pulse.revoked.into_iter().map(wire::lease_ref).collect(),
            newest_version: pulse.newest_version.get(),
            learner_endpoint,
            run_complete: pulse.complete,
            sources: pulse.sources.into_iter().map(wire::sources).collect(),
            broadcast: told.as_ref().map(wire::told),
        }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let ReleaseRequest { worker_id, leases, leaving } = request.into_inner();
        let (worker, leases) = (WorkerId(worker_id), wire::lease_keys(leases));
        self.ask(PATIENCE, |reply| Command::Release { worker, leases, leaving, reply }).await?;
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn register_learner(
        &self,
        request: Request<RegisterLearnerRequest>,
    ) -> Result<Response<RegisterLearnerResponse>, Status> {
        let request = request.into_inner();
        check_address("endpoint", &request.endpoint)?;
        let join = wire::learner_join(request);
        let id = self.ask(PATIENCE, |reply| Command::RegisterLearner { join, reply }).await?;
        Ok(Response::new(RegisterLearnerResponse {
            run_id: self.run_id.clone(),
            learner_id: id.0,
            heartbeat_ms: wire::millis(self.timing.heartbeat),
        }))
    }

    async fn report_progress(
        &self,
        request: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        let request = request.into_inner();
        let said = request.broadcast.as_ref().and_then(wire::said);
        let (learner, report) = (LearnerId(request.learner_id), wire::learner_report(request));
        let question = |reply| Command::Report { learner, report, said, reply };
        let (run_complete, told) = self.ask(PATIENCE, question).await?;
        let broadcast = told.as_ref().map(wire::told);
        Ok(Response::new(ReportProgressResponse { run_complete, broadcast }))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let asked = self.address.ask(PATIENCE, |reply| Command::Status { reply }).await;
        Ok(Response::new(wire::status(asked.map_err(CoordinatorError::from)?)))
    }
}
