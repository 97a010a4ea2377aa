//! The engine: sampling on a thread of its own, where a new request joins the batch that is being decoded.
//!
//! Invariants: a request waits in the mailbox, which is bounded, until there is room for all of its completions, and
//! then to its end in the batch; the thread never waits for whoever reads. Between two steps it lets go of requests
//! that nobody waits for any more.

use crate::counters::Counters;
use crate::error::Refusal;
use octet_policy::sampler::{
    Completion, Finish, GroupRequest, Manner, Sampler, Sampling, TokenNote,
};
use octet_runtime::CancellationToken;
use octet_runtime::mailbox::Mailbox;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{oneshot, watch};

/// A request on its way to the sampler.
pub(crate) struct Job {
    /// Its prompt, its name, and the weights that it is sampled with.
    pub request: GroupRequest,
    /// How it is sampled.
    pub manner: Manner,
    /// Where its tokens appear.
    pub progress: watch::Sender<Progress>,
    /// Set by whoever reads, for each completion that needs no more tokens.
    pub enough: Arc<[AtomicBool]>,
    /// When it was sent.
    pub since: Instant,
}

/// What there is of a request's completions; it grows.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Each completion.
    pub samples: Vec<Sampled>,
    /// Why there will be no more.
    pub failed: Option<Refusal>,
}

/// What there is of one completion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampled {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// A note on each, where they are taken.
    pub notes: Vec<TokenNote>,
    /// How it ended.
    pub finish: Option<Finish>,
}

/// The engine's parts, before it runs.
pub(crate) struct Engine {
    pub inbox: Mailbox<Job>,
    pub counters: Arc<Counters>,
    /// Completions decoded together, at most.
    pub rows: usize,
}

/// A request in the batch, with how many of its completions are open.
struct Running {
    job: Job,
    open: usize,
}

struct Batch {
    sampler: Sampler,
    running: BTreeMap<u64, Running>,
    counters: Arc<Counters>,
    /// Tokens that were counted.
    counted: u64,
}

/// The thread has panicked, which its hook has printed.
#[derive(Debug, thiserror::Error)]
#[error("the engine's thread ended: its panic was printed above")]
pub struct EngineLost;

impl Engine {
    /// Runs the thread until `stop`; what is under way then is told so.
    ///
    /// # Errors
    /// The thread cannot be started, or it panicked.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), EngineLost> {
        let (tell, ended) = oneshot::channel();
        let runtime = Runtime::current();
        let started = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            self.work(&runtime, &stop);
            // Whoever waits for it may be gone; then nobody is left to be told.
            let _nobody_waits = tell.send(());
        });
        started.map_err(|_| EngineLost)?;
        ended.await.map_err(|_| EngineLost)
    }

    fn work(mut self, runtime: &Runtime, stop: &CancellationToken) {
        let nothing = Sampling {
            seed: 0,
            completions: 1,
            shaping: Default::default(),
            max_tokens: 1,
            stop_tokens: Vec::new(),
        };
        let mut batch = Batch {
            // Each request brings its own manner.
            sampler: Sampler::new(nothing, self.rows),
            running: BTreeMap::new(),
            counters: Arc::clone(&self.counters),
            counted: 0,
        };
        let mut next = None;
        while !stop.is_cancelled() {
            batch.let_go();
            next = batch.fill(next, &mut self.inbox);
            self.counters.batch(batch.running.len(), usize::from(next.is_some()));
            if batch.sampler.pending() > 0 {
                batch.step();
                continue;
            }
            let idle = async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    job = self.inbox.receive() => job,
                }
            };
            match runtime.block_on(idle) {
                Some(job) => next = Some(job),
                None => break,
            }
        }
        self.inbox.close();
        while let Some(job) = next.take().or_else(|| self.inbox.try_receive()) {
            fail(&job, &Refusal::CutOff);
        }
        batch.fail(&Refusal::CutOff);
    }
}

impl Batch {
    /// Takes requests while all completions of the next one have room; returns the one that has none.
    fn fill(&mut self, next: Option<Job>, inbox: &mut Mailbox<Job>) -> Option<Job> {
        let mut next = next;
        while let Some(job) = next.take().or_else(|| inbox.try_receive()) {
            if job.progress.is_closed() {
                continue;
            }
            let completions = job.manner.sampling.completions;
            if !self.sampler.has_room_for(completions) && self.sampler.pending() > 0 {
                return Some(job);
            }
            self.counters.began(job.since.elapsed(), job.request.prompt.len());
            job.progress.send_modify(|progress| {
                progress.samples.resize_with(completions, Sampled::default);
            });
            self.sampler.submit_with(job.request.clone(), job.manner.clone());
            self.running.insert(job.request.group, Running { job, open: completions });
        }
        None
    }

    /// Forgets whom nobody waits for, and completions that need no more tokens.
    fn let_go(&mut self) {
        let sampler = &mut self.sampler;
        self.running.retain(|group, running| {
            if running.job.progress.is_closed() {
                sampler.cancel(*group);
                return false;
            }
            for (sample, enough) in running.job.enough.iter().enumerate() {
                // Asked once: a completion that ended by itself meanwhile is open no more.
                if enough.swap(false, Ordering::Relaxed)
                    && running.job.progress.borrow().samples[sample].finish.is_none()
                {
                    sampler.cancel_sample(*group, sample as u32);
                    running.job.progress.send_modify(|progress| {
                        progress.samples[sample].finish = Some(Finish::Stop);
                    });
                    running.open -= 1;
                }
            }
            running.open > 0
        });
    }

    fn step(&mut self) {
        let started = Instant::now();
        match self.sampler.step() {
            Ok(ended) => {
                self.show();
                ended.into_iter().for_each(|completion| self.end(completion));
            }
            Err(error) => {
                // Which request it was is not known, and the next step might fail the same way.
                tracing::error!(%error, requests = self.running.len(), "a step failed; its requests are given up");
                self.fail(&Refusal::Failed(error.to_string()));
            }
        }
        let sampled = self.sampler.sampled_tokens();
        self.counters.step(sampled - self.counted, started.elapsed());
        self.counted = sampled;
    }

    /// Shows the tokens that were sampled.
    fn show(&mut self) {
        for live in self.sampler.live() {
            let Some(running) = self.running.get(&live.group) else { continue };
            running.job.progress.send_modify(|progress| {
                let sampled = &mut progress.samples[live.sample as usize];
                let (tokens, notes) = (sampled.tokens.len(), sampled.notes.len());
                sampled.tokens.extend_from_slice(&live.tokens[tokens..]);
                sampled.notes.extend_from_slice(&live.notes[notes..]);
            });
        }
    }

    fn end(&mut self, completion: Completion) {
        let Some(running) = self.running.get_mut(&completion.group) else { return };
        running.job.progress.send_modify(|progress| {
            progress.samples[completion.sample as usize] = Sampled {
                tokens: completion.tokens,
                notes: completion.notes,
                finish: Some(completion.finish),
            };
        });
        running.open -= 1;
        if running.open == 0 {
            self.running.remove(&completion.group);
        }
    }

    /// Gives all requests up.
    fn fail(&mut self, why: &Refusal) {
        for (group, running) in std::mem::take(&mut self.running) {
            self.sampler.cancel(group);
            fail(&running.job, why);
        }
    }
}

fn fail(job: &Job, why: &Refusal) {
    job.progress.send_modify(|progress| progress.failed = Some(why.clone()));
}
