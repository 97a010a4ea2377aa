//! A coordinator that believes the learner, and can be made to forget it or to turn it away.

use super::STEPS;
use octet_proto::auth::{Demand, JoinToken};
use octet_proto::coordinator::{
    CoordinatorService, GetStatusRequest, GetStatusResponse, HeartbeatRequest, HeartbeatResponse,
    LeaseRequest, LeaseResponse, RegisterLearnerRequest, RegisterLearnerResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest, ReleaseResponse,
    ReportProgressRequest, ReportProgressResponse, coordinator_server,
};
use octet_proto::error::ERROR_KIND;
use octet_proto::transport::{KeepAlive, server};
use octet_runtime::CancellationToken;
use octet_runtime::net::{self, Exposure, bind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub registered: u64,
    pub committed: u64,
    pub spooled: BTreeSet<u64>,
    pub learned_tokens: u64,
}

#[derive(Debug, Default)]
pub struct Scripted {
    pub progress: watch::Sender<Progress>,
    pub registrations: Mutex<Vec<RegisterLearnerRequest>>,
    /// The kind that the next report is answered with, once.
    pub answer: Mutex<Option<&'static str>>,
    pub waits: Mutex<BTreeSet<String>>,
}

struct Grpc(Arc<Scripted>);

impl Scripted {
    /// Serves for as long as the test's runtime lives.
    pub async fn start() -> (Arc<Self>, String) {
        let scripted = Arc::new(Self::default());
        let listener = bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).await.unwrap();
        let endpoint = listener.endpoint();
        let router = server(KeepAlive::default()).add_service(InterceptedService::new(
            coordinator_server(Grpc(scripted.clone())),
            Demand::new(JoinToken::new(super::TOKEN), "coordinator"),
        ));
        let never = CancellationToken::new();
        tokio::spawn(net::serve("scripted", router, listener.incoming(), never, Duration::ZERO));
        (scripted, endpoint)
    }
}

fn refusal(kind: &'static str) -> Status {
    let mut status = Status::not_found(format!("scripted: {kind}"));
    status.metadata_mut().insert(ERROR_KIND, kind.parse().unwrap());
    status
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl CoordinatorService for Grpc {
    async fn register_learner(
        &self,
        request: Request<RegisterLearnerRequest>,
    ) -> Answer<RegisterLearnerResponse> {
        let request = request.into_inner();
        assert_eq!(request.config_digest, "c0ffee");
        self.0.registrations.lock().unwrap().push(request.clone());
        self.0.progress.send_modify(|progress| {
            progress.registered += 1;
            progress.committed = request.committed_steps;
            progress.spooled = request.spooled_groups.into_iter().collect();
        });
        let learner_id = self.0.progress.borrow().registered;
        Ok(Response::new(RegisterLearnerResponse {
            run_id: "scripted".to_owned(),
            learner_id,
            heartbeat_ms: 50,
        }))
    }

    async fn report_progress(
        &self,
        request: Request<ReportProgressRequest>,
    ) -> Answer<ReportProgressResponse> {
        let request = request.into_inner();
        if let Some(kind) = self.0.answer.lock().unwrap().take() {
            return Err(refusal(kind));
        }
        let names = request.waits.into_iter().map(|wait| wait.name);
        self.0.waits.lock().unwrap().extend(names);
        self.0.progress.send_modify(|progress| {
            progress.committed = progress.committed.max(request.committed_steps);
            progress.spooled.extend(request.spooled_groups);
            progress.learned_tokens = request.learned_tokens;
        });
        let run_complete = request.committed_steps == STEPS;
        Ok(Response::new(ReportProgressResponse { run_complete, broadcast: None }))
    }

    async fn register_worker(
        &self,
        _: Request<RegisterWorkerRequest>,
    ) -> Answer<RegisterWorkerResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn lease(&self, _: Request<LeaseRequest>) -> Answer<LeaseResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        Err(Status::unimplemented("scripted"))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        Err(Status::unimplemented("scripted"))
    }
}
