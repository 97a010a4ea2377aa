//! A learner that publishes weights and takes groups, with scripted misfortunes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use octet_proto::learner::{
    Accepted, DeliveryOutcome, DeliveryReceipt, LearnerService, Refused, ScoredGroup,
};
use octet_proto::weights::{
    GetChunksRequest, GetManifestRequest, WeightsChunk, WeightsManifest, WeightsService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::model::ModelDirectory;

/// Small, so that a tensor has many.
pub const CHUNK: usize = 1000;

#[derive(Clone)]
pub struct Learner {
    pub book: Arc<Mutex<Book>>,
}

#[derive(Default)]
pub struct Book {
    versions: BTreeMap<u64, (WeightsManifest, Vec<u8>)>,
    /// The offsets that chunks were asked from.
    pub asked: Vec<u64>,
    /// The next stream of chunks breaks when it gets there.
    pub cut_at: Option<usize>,
    /// Streams of chunks go silent when they get there.
    pub silent_at: Option<usize>,
    /// So many streams of chunks have this byte wrong.
    pub corrupt: Option<(usize, u32)>,
    received: Vec<ScoredGroup>,
    accepted: BTreeSet<u64>,
    /// So many streams of groups break, each without a receipt for the group that it received.
    pub cut_deliveries: u32,
    /// Refuses this group with this kind.
    pub refuse: Option<(u64, &'static str)>,
    /// Never answers.
    pub mute: bool,
}

impl Learner {
    pub fn new(model: &ModelDirectory) -> Self {
        let learner = Self { book: Arc::default() };
        learner.publish(model, 0);
        learner
    }

    pub fn publish(&self, model: &ModelDirectory, version: u64) {
        self.book.lock().unwrap().versions.insert(version, model.publish(version));
    }

    /// Publishes a version of a name that it is not.
    pub fn forge(&self, model: &ModelDirectory, version: u64, as_version: u64) {
        let (manifest, bytes) = model.publish(version);
        let forged = WeightsManifest { version: as_version, ..manifest };
        self.book.lock().unwrap().versions.insert(as_version, (forged, bytes));
    }

    pub fn manifest(&self, version: u64) -> WeightsManifest {
        self.book.lock().unwrap().versions[&version].0.clone()
    }

    pub fn received(&self) -> Vec<ScoredGroup> {
        self.book.lock().unwrap().received.clone()
    }

    pub fn accepted(&self) -> BTreeSet<u64> {
        self.book.lock().unwrap().accepted.clone()
    }

    /// The receipt; none when the stream shall break.
    fn take(&self, group: ScoredGroup) -> Option<Option<DeliveryReceipt>> {
        let mut book = self.book.lock().unwrap();
        let index = group.group;
        book.received.push(group);
        if book.mute {
            return Some(None);
        }
        if book.cut_deliveries > 0 {
            book.cut_deliveries -= 1;
            return None;
        }
        let outcome = match book.refuse {
            Some((refused, kind)) if refused == index => DeliveryOutcome::Refused(Refused {
                kind: kind.to_owned(),
                message: "as scripted".to_owned(),
            }),
            _ => {
                let duplicate = !book.accepted.insert(index);
                DeliveryOutcome::Accepted(Accepted { duplicate })
            }
        };
        Some(Some(DeliveryReceipt { group: index, outcome: Some(outcome) }))
    }
}

#[tonic::async_trait]
impl LearnerService for Learner {
    type DeliverStream = ReceiverStream<Result<DeliveryReceipt, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<ScoredGroup>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let (mut groups, learner) = (request.into_inner(), self.clone());
        let (receipts, sending) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(group)) = groups.message().await {
                match learner.take(group) {
                    Some(Some(receipt)) => {
                        let _gone = receipts.send(Ok(receipt)).await;
                    }
                    Some(None) => {}
                    None => {
                        let _gone = receipts.send(Err(Status::aborted("the wire broke"))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(sending)))
    }
}

#[tonic::async_trait]
impl WeightsService for Learner {
    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<WeightsManifest>, Status> {
        let book = self.book.lock().unwrap();
        let version = request.into_inner().version;
        let found = book.versions.get(&version);
        let found = found.ok_or_else(|| Status::not_found("not published"))?;
        Ok(Response::new(found.0.clone()))
    }

    type GetChunksStream = Pin<Box<dyn Stream<Item = Result<WeightsChunk, Status>> + Send>>;

    async fn get_chunks(
        &self,
        request: Request<GetChunksRequest>,
    ) -> Result<Response<Self::GetChunksStream>, Status> {
        let GetChunksRequest { version, offset } = request.into_inner();
        let mut book = self.book.lock().unwrap();
        book.asked.push(offset);
        let mut bytes = book.versions[&version].1.clone();
        if let Some((at, times)) = &mut book.corrupt
            && *times > 0
        {
            *times -= 1;
            bytes[*at] ^= 1;
        }
        let mut chunks = Vec::new();
        let mut at = offset as usize;
        while at < bytes.len() {
            let end = (at + CHUNK).min(bytes.len());
            if book.silent_at.is_some_and(|silent| at <= silent && silent < end) {
                let chunks = futures::stream::iter(chunks).chain(futures::stream::pending());
                return Ok(Response::new(Box::pin(chunks)));
            }
            if book.cut_at.is_some_and(|cut| at <= cut && cut < end) {
                book.cut_at = None;
                chunks.push(Err(Status::unavailable("the wire broke")));
                break;
            }
            let data = bytes[at..end].to_vec().into();
            chunks.push(Ok(WeightsChunk { offset: at as u64, data }));
            at = end;
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}
