//! A reward service for the network's tests: answers after a pause, and streams as long as it is fed.
#![allow(dead_code, reason = "each test file uses its part")]

use std::pin::Pin;
use std::time::Duration;

use octet_proto::reward::{
    DescribeRequest, DescribeResponse, RewardService, ScoreOutcome, ScoreRequest, ScoreResponse,
    Scored, reward_server,
};
use octet_proto::transport::{KeepAlive, server};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

pub struct Echo {
    pub pause: Duration,
}

pub fn router(pause: Duration) -> Router {
    server(KeepAlive::default()).add_service(reward_server(Echo { pause }))
}

pub fn request(id: u64) -> ScoreRequest {
    ScoreRequest { id, ..ScoreRequest::default() }
}

#[tonic::async_trait]
impl RewardService for Echo {
    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        tokio::time::sleep(self.pause).await;
        Ok(Response::new(DescribeResponse { name: "echo".into(), ..DescribeResponse::default() }))
    }

    type ScoreStream = Pin<Box<dyn Stream<Item = Result<ScoreResponse, Status>> + Send>>;

    async fn score(
        &self,
        requests: Request<Streaming<ScoreRequest>>,
    ) -> Result<Response<Self::ScoreStream>, Status> {
        let scored = requests.into_inner().map(|request| {
            let reward = request?.id;
            let outcome =
                Some(ScoreOutcome::Scored(Scored { reward: reward as f64, ..Scored::default() }));
            Ok(ScoreResponse { id: reward, outcome })
        });
        Ok(Response::new(Box::pin(scored)))
    }
}
