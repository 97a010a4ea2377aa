//! A coordinator that leases what it is told to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use octet_proto::coordinator::{
    CoordinatorService, GetStatusRequest, GetStatusResponse, HeartbeatRequest, HeartbeatResponse,
    Lease, LeaseRef, LeaseRequest, LeaseResponse, RegisterLearnerRequest, RegisterLearnerResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest, ReleaseResponse,
    ReportProgressRequest, ReportProgressResponse, VersionSources,
};
use octet_proto::error::ERROR_KIND;
use tokio::time::{Instant, sleep};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::learner::Learner;

pub const TOKEN: &str = "open sesame";

#[derive(Clone)]
pub struct Coordinator {
    pub book: Arc<Mutex<Book>>,
    learner_at: String,
    learner: Learner,
}

#[derive(Default)]
pub struct Book {
    pub open: VecDeque<Lease>,
    /// The run is complete once the learner has these.
    pub groups: BTreeSet<u64>,
    /// Whether the run can be complete.
    pub endless: bool,
    pub registered: u64,
    pub beats: Vec<HeartbeatRequest>,
    pub released: Vec<LeaseRef>,
    pub left: u64,
    /// Revoked with the next heartbeat.
    pub revoke: Vec<LeaseRef>,
    pub newest_version: u64,
    /// Where to fetch versions.
    pub sources: Vec<VersionSources>,
    /// The registration that is known.
    known: Option<u64>,
}

impl Coordinator {
    pub fn new(learner_at: String, learner: Learner) -> Self {
        Self { book: Arc::default(), learner_at, learner }
    }

    pub fn offer(&self, lease: Lease) {
        let mut book = self.book.lock().unwrap();
        book.groups.insert(lease.group);
        book.open.push_back(lease);
    }

    /// As after a restart.
    pub fn forget(&self) {
        self.book.lock().unwrap().known = None;
    }

    pub fn endless(&self) {
        self.book.lock().unwrap().endless = true;
    }

    fn check(&self, id: u64) -> Result<(), Status> {
        if self.book.lock().unwrap().known == Some(id) {
            return Ok(());
        }
        Err(named(Status::not_found("register again"), "unknown-worker"))
    }

    fn complete(&self) -> bool {
        let book = self.book.lock().unwrap();
        let accepted = self.learner.accepted();
        !book.endless && book.groups.iter().all(|group| accepted.contains(group))
    }
}

pub fn named(mut status: Status, kind: &'static str) -> Status {
    status.metadata_mut().insert(ERROR_KIND, MetadataValue::from_static(kind));
    status
}

#[tonic::async_trait]
impl CoordinatorService for Coordinator {
    async fn register_worker(
        &self,
        _: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        let mut book = self.book.lock().unwrap();
        book.registered += 1;
        book.known = Some(book.registered);
        Ok(Response::new(RegisterWorkerResponse {
            run_id: "run".to_owned(),
            worker_id: book.registered,
            lease_ms: 400,
            heartbeat_ms: 20,
            learner_endpoint: self.learner_at.clone(),
        }))
    }

    async fn lease(
        &self,
        request: Request<LeaseRequest>,
    ) -> Result<Response<LeaseResponse>, Status> {
        let request = request.into_inner();
        let until = Instant::now() + Duration::from_millis(request.wait_ms.into());
        loop {
            self.check(request.worker_id)?;
            let complete = self.complete();
            let leases: Vec<Lease> = {
                let mut book = self.book.lock().unwrap();
                let count = book.open.len().min(request.want as usize);
                book.open.drain(..count).collect()
            };
            if complete || !leases.is_empty() || Instant::now() >= until {
                let waiting_for = if leases.is_empty() { "steps" } else { "" }.to_owned();
                let run_complete = complete && leases.is_empty();
                let sources = self.book.lock().unwrap().sources.clone();
                let answer = LeaseResponse { leases, run_complete, waiting_for, sources };
                return Ok(Response::new(answer));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        self.check(request.worker_id)?;
        let run_complete = self.complete();
        let mut book = self.book.lock().unwrap();
        book.beats.push(request);
        Ok(Response::new(HeartbeatResponse {
            broadcast: None,
            revoked: std::mem::take(&mut book.revoke),
            newest_version: book.newest_version,
            learner_endpoint: self.learner_at.clone(),
            run_complete,
            sources: book.sources.clone(),
        }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let request = request.into_inner();
        let mut book = self.book.lock().unwrap();
        book.released.extend(request.leases);
        book.left += u64::from(request.leaving);
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn register_learner(
        &self,
        _: Request<RegisterLearnerRequest>,
    ) -> Result<Response<RegisterLearnerResponse>, Status> {
        Err(Status::unimplemented("not a worker's call"))
    }

    async fn report_progress(
        &self,
        _: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        Err(Status::unimplemented("not a worker's call"))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("not a worker's call"))
    }
}
