//! The front desk: takes a request in, gives it a place in the queue or turns it away, and knows which policy serves.
//!
//! Invariants: a request belongs to one policy from its first token to its last; what it is answered with depends on
//! it, its seed and that policy, not on what else is in the batch. No more wait than the queue holds.

use crate::answer::Head;
use crate::answering::{Answering, Ending};
use crate::choice::{Choice, Reading};
use crate::counters::{Counters, Numbers};
use crate::engine::{Job, Progress};
use crate::error::Refusal;
use crate::loaded::{Loaded, Prompt};
use crate::request::{ChatRequest, Limits, ToolChoice};
use octet_policy::sampler::{GroupRequest, Guide, Manner, Sampling};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::{Address, MailboxError};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

/// Makes the page of metrics from the numbers.
pub type Page = fn(&Numbers) -> Result<String, String>;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the model is called.
    pub name: String,
    /// Completions decoded together, at most.
    pub rows: usize,
    /// Requests that wait, at most.
    pub queue: usize,
    /// What one request may ask for.
    pub limits: Limits,
    /// Bytes of a body, at most.
    pub body: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long what is under way may take once the server shall stop.
    pub drain: Duration,
    /// What clients must show; nothing where anybody is served.
    pub key: Option<String>,
    /// Writes the metrics.
    pub page: Page,
}

/// The desk. Handlers share it.
pub struct Desk {
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<Counters>,
    /// Completions that are being answered.
    pub(crate) open: TaskTracker,
    /// No more requests are taken.
    pub(crate) closing: CancellationToken,
    current: RwLock<Arc<Loaded>>,
    engine: Address<Job>,
    next: AtomicU64,
    /// Draws the seeds of requests that have none, and what makes ids this server's own.
    drawn: RandomState,
    /// Bodies that are read and prompts that are rendered at once.
    preparing: Semaphore,
}

impl Desk {
    pub(crate) fn new(
        settings: Settings,
        loaded: Loaded,
        engine: Address<Job>,
        counters: Arc<Counters>,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            settings,
            counters,
            open: TaskTracker::new(),
            closing: CancellationToken::new(),
            current: RwLock::new(Arc::new(loaded)),
            engine,
            next: AtomicU64::new(0),
            drawn: RandomState::new(),
            preparing: Semaphore::new(threads),
        }
    }

    /// The policy that new requests are sampled with.
    pub fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets another policy take over. Requests under way keep theirs.
    pub fn swap(&self, loaded: Loaded) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        self.counters.swapped();
    }

    /// The numbers now.
    pub fn numbers(&self) -> Numbers {
        let numbers = self.counters.numbers();
        let waiting = numbers.waiting + self.engine.gauge().depth();
        let (model, weights) = (self.settings.name.clone(), self.current().digest().to_owned());
        Numbers { waiting, waiting_most: self.settings.queue, model, weights, ..numbers }
    }

    /// Whether requests are taken.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn takes(&self) -> Result<(), Refusal> {
        if self.closing.is_cancelled() { Err(Refusal::Stopping) } else { Ok(()) }
    }

    /// Takes a body in; what comes back is under way, and counts as one answer whatever becomes of it.
    ///
    /// # Errors
    /// Why it is turned away.
    pub(crate) async fn take(
        self: &Arc<Self>,
        body: Vec<u8>,
        mut ending: Ending,
    ) -> Result<(ChatRequest, Answering), Refusal> {
        let deadline = ending.since + self.settings.timeout;
        let late = |_| Refusal::Late(self.settings.timeout);
        let prepared = async {
            // Where there is no room, nothing is made ready for it.
            if self.engine.gauge().depth() >= self.settings.queue {
                return Err(self.busy(self.settings.queue));
            }
            let Ok(_permit) = self.preparing.acquire().await else { return Err(Refusal::Stopping) };
            let desk = Arc::clone(self);
            let prepare = tokio::task::spawn_blocking(move || desk.prepare(&body));
            prepare.await.map_err(|error| Refusal::Failed(error.to_string()))?
        };
        let prepared = timeout_at(deadline, prepared).await.map_err(late).flatten();
        let queued = prepared.and_then(|(request, loaded, prompt)| {
            let (progress, enough, seed) = self.queue(&request, &loaded, &prompt)?;
            Ok((request, loaded, prompt, progress, enough, seed))
        });
        let (request, loaded, prompt, progress, enough, id) = match queued {
            Ok(queued) => queued,
            Err(refusal) => {
                ending.with(refusal.status().as_u16());
                return Err(refusal);
            }
        };
        let reading = match request.choice {
            ToolChoice::None => Reading::Plain,
            _ => Reading::Calls { forced: prompt.forced, parallel: request.parallel },
        };
        let noted = request.likeliest.is_some();
        let choice = || Choice::new(request.stops.clone(), reading.clone(), noted);
        let answering = Answering {
            head: self.head(id, &loaded, request.include_usage),
            choices: (0..request.completions).map(|_| choice()).collect(),
            prompt_tokens: prompt.tokens.len(),
            loaded,
            progress,
            enough,
            noted,
            ending,
            timeout: self.settings.timeout,
        };
        Ok((request, answering))
    }

    /// Reads a body and makes its prompt.
    fn prepare(&self, body: &[u8]) -> Result<(ChatRequest, Arc<Loaded>, Prompt), Refusal> {
        let request = ChatRequest::read(body, self.settings.limits)?;
        let served = &self.settings.name;
        if let Some(found) = request.model.as_ref().filter(|model| *model != served) {
            let (found, served) = (octet_calls::excerpt(found), served.clone());
            return Err(Refusal::Model { found, served });
        }
        let loaded = self.current();
        let prompt = loaded.prompt(&request)?;
        Ok((request, loaded, prompt))
    }

    /// Sends a request to the engine; returns where its tokens appear, and its number.
    #[expect(clippy::type_complexity, reason = "three things that go different ways at once")]
    fn queue(
        &self,
        request: &ChatRequest,
        loaded: &Loaded,
        prompt: &Prompt,
    ) -> Result<(watch::Receiver<Progress>, Arc<[AtomicBool]>, u64), Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sampling = Sampling {
            seed: request.seed.unwrap_or_else(|| self.drawn.hash_one(("seed", number))),
            completions: request.completions,
            shaping: request.shaping,
            max_tokens: request.max_tokens.unwrap_or(self.settings.limits.max_tokens),
            stop_tokens: loaded.stops().to_vec(),
        };
        let guide = prompt.guidance.clone().map(|guidance| Arc::new(guidance) as Arc<dyn Guide>);
        let (progress, reader) = watch::channel(Progress::default());
        let enough: Arc<[AtomicBool]> = sampling_flags(request.completions);
        let job = Job {
            request: GroupRequest {
                group: number,
                prompt: prompt.tokens.clone(),
                model: Arc::clone(loaded.model()),
            },
            // The same stream for all: a request's numbers depend on its seed and not on when it came.
            manner: Manner {
                sampling: Arc::new(sampling),
                stream: 0,
                alternatives: request.likeliest,
                guide,
            },
            progress,
            enough: Arc::clone(&enough),
            since: std::time::Instant::now(),
        };
        match self.engine.try_send(job).map_err(|undelivered| undelivered.why) {
            Ok(()) => Ok((reader, enough, number)),
            Err(MailboxError::Full { capacity, .. }) => Err(self.busy(capacity)),
            Err(_) => Err(Refusal::Stopping),
        }
    }

    fn busy(&self, waiting: usize) -> Refusal {
        Refusal::Busy { waiting, after: self.counters.retry_after(waiting) }
    }

    fn head(&self, number: u64, loaded: &Loaded, usage: bool) -> Head {
        let own = [0, 1].map(|part| self.drawn.hash_one(("id", number, part)));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Head {
            id: format!("chatcmpl-{:016x}{:08x}", own[0], own[1] as u32),
            created: now.as_secs(),
            model: self.settings.name.clone(),
            fingerprint: loaded.fingerprint(),
            usage,
        }
    }

    /// Begins to count an answer.
    pub(crate) fn begin(&self) -> Ending {
        Ending {
            counters: Arc::clone(&self.counters),
            since: Instant::now(),
            status: None,
            _open: self.open.token(),
        }
    }
}

fn sampling_flags(count: usize) -> Arc<[AtomicBool]> {
    (0..count).map(|_| AtomicBool::new(false)).collect()
}
