//! A reward service that scores by the text, with scripted misfortunes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use octet_proto::CONTRACT_VERSION;
use octet_proto::reward::{
    DescribeRequest, DescribeResponse, RewardService, ScoreFailure, ScoreOutcome, ScoreRequest,
    ScoreResponse, Scored,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub const DIGEST: &str = "reward-a";

/// What a completion is worth.
pub fn worth(group: u64, text: &str) -> f64 {
    ((group + text.len() as u64) % 9) as f64 / 8.0
}

#[derive(Clone, Default)]
pub struct Reward {
    pub book: Arc<Mutex<Book>>,
}

#[derive(Default)]
pub struct Book {
    /// How often each sample was asked for.
    pub asked: BTreeMap<(u64, u32), u32>,
    /// The next stream breaks after so many answers, what was asked beyond them unanswered.
    pub break_after: Option<usize>,
    /// Each question fails so often first, retryably.
    pub fail_first: u32,
    /// This sample of every group never gets a reward.
    pub fail_sample: Option<u32>,
    /// Answers nothing.
    pub mute: bool,
}

impl Reward {
    pub fn asked(&self) -> u32 {
        self.book.lock().unwrap().asked.values().sum()
    }

    /// None when the stream shall break.
    fn answer(
        &self,
        request: &ScoreRequest,
        limit: &mut Option<usize>,
    ) -> Option<Option<ScoreOutcome>> {
        let mut book = self.book.lock().unwrap();
        let key = (request.group, request.sample);
        let times = book.asked.entry(key).or_default();
        *times += 1;
        let times = *times;
        if book.mute {
            return Some(None);
        }
        match limit {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        let failure = |kind: &str, retryable| {
            let message = "as scripted".to_owned();
            Some(Some(ScoreOutcome::Failure(ScoreFailure {
                kind: kind.to_owned(),
                message,
                retryable,
            })))
        };
        if book.fail_sample == Some(request.sample) {
            return failure("threw", false);
        }
        if times <= book.fail_first {
            return failure("timed-out", true);
        }
        let reward = worth(request.group, &request.completion);
        Some(Some(ScoreOutcome::Scored(Scored {
            reward,
            verdict: "scripted".to_owned(),
            detail: request.completion.clone(),
        })))
    }
}

#[tonic::async_trait]
impl RewardService for Reward {
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(DescribeResponse {
            name: "scripted".to_owned(),
            contract_version: CONTRACT_VERSION,
            digest: DIGEST.to_owned(),
            min_reward: 0.0,
            max_reward: 1.0,
            max_in_flight: 4,
        }))
    }

    type ScoreStream = ReceiverStream<Result<ScoreResponse, Status>>;

    async fn score(
        &self,
        request: Request<Streaming<ScoreRequest>>,
    ) -> Result<Response<Self::ScoreStream>, Status> {
        let (mut requests, reward) = (request.into_inner(), self.clone());
        let mut limit = self.book.lock().unwrap().break_after.take();
        let (answers, sending) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match reward.answer(&request, &mut limit) {
                    Some(Some(outcome)) => {
                        let response = ScoreResponse { id: request.id, outcome: Some(outcome) };
                        let _gone = answers.send(Ok(response)).await;
                    }
                    Some(None) => {}
                    None => {
                        let _gone = answers.send(Err(Status::unavailable("draining"))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(sending)))
    }
}
