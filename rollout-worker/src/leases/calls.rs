//! Calls to the coordinator, each a task of its own.
//!
//! Invariant: a call ends within its deadline, and its answer says whose registration it was for.

use octet_proto::coordinator::{
    CoordinatorClient, HeartbeatRequest, HeartbeatResponse, LeaseRef, LeaseRequest, LeaseResponse,
    RegisterWorkerRequest, RegisterWorkerResponse, ReleaseRequest,
};
use octet_proto::error::error_kind;
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};
use tonic::{Response, Status};

/// How long a call may take beyond what it asks to wait for.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// What a call brought.
#[derive(Debug)]
pub(super) enum Answer {
    Registered(Result<RegisterWorkerResponse, Status>),
    Leased(u64, Result<LeaseResponse, Status>),
    Beaten(u64, Result<HeartbeatResponse, Status>),
    Released(u64, Result<(), Status>),
}

/// The calls under way; dropping them ends them.
#[derive(Debug)]
pub(super) struct Calls {
    client: CoordinatorClient,
    under_way: JoinSet<Answer>,
}

impl Calls {
    pub(super) fn new(client: CoordinatorClient) -> Self {
        Self { client, under_way: JoinSet::new() }
    }

    /// The next answer; none while nothing is under way.
    pub(super) async fn next(&mut self) -> Option<Result<Answer, tokio::task::JoinError>> {
        self.under_way.join_next().await
    }

    pub(super) fn register(&mut self, request: RegisterWorkerRequest) {
        let mut client = self.client.clone();
        self.under_way.spawn(async move {
            Answer::Registered(within(CALL, client.register_worker(request)).await)
        });
    }

    pub(super) fn lease(&mut self, worker_id: u64, want: u32, wait: Duration) {
        let mut client = self.client.clone();
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = LeaseRequest { worker_id, want, wait_ms };
        self.under_way.spawn(async move {
            Answer::Leased(worker_id, within(wait + CALL, client.lease(request)).await)
        });
    }

    pub(super) fn heartbeat(&mut self, request: HeartbeatRequest, patience: Duration) {
        let mut client = self.client.clone();
        self.under_way.spawn(async move {
            let id = request.worker_id;
            Answer::Beaten(id, within(patience, client.heartbeat(request)).await)
        });
    }

    pub(super) fn release(&mut self, worker_id: u64, leases: Vec<LeaseRef>) {
        let mut client = self.client.clone();
        let request = ReleaseRequest { worker_id, leases, leaving: false };
        self.under_way.spawn(async move {
            let released = within(CALL, client.release(request)).await;
            Answer::Released(worker_id, released.map(drop))
        });
    }

    /// Leaves for good, within `patience`; all other calls end.
    pub(super) async fn leave(mut self, worker_id: u64, patience: Duration) -> Result<(), Status> {
        self.under_way.abort_all();
        let request = ReleaseRequest { worker_id, leases: Vec::new(), leaving: true };
        within(patience, self.client.release(request)).await.map(drop)
    }
}

/// Whether the coordinator has forgotten this registration.
pub(super) fn is_forgotten(status: &Status) -> bool {
    error_kind(status) == Some("unknown-worker")
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(patience, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_late) => Err(Status::unavailable(format!("no answer within {patience:?}"))),
    }
}
