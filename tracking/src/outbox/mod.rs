//! What is sent to a server next, as a function of the journal and of what the server has.
//!
//! Invariants: a batch is within every limit of the server; what is acknowledged is never sent again by the same
//! outbox, and what is not is sent until it is acknowledged or was refused alone. Order is kept. There is no clock,
//! no disk and no network here.

use crate::event::{Entry, Event, Number, Status};
use crate::names::Names;

#[cfg(test)]
mod tests;

/// How far a server is: it has all events before `event`, and so many items of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The first event that it may lack something of.
    pub event: i64,
    /// How many items of that it has.
    pub item: usize,
}

/// What one call may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Metrics.
    pub metrics: usize,
    /// Parameters.
    pub params: usize,
    /// Tags.
    pub tags: usize,
    /// All of these together.
    pub items: usize,
    /// Bytes of the call's text, as estimated from above.
    pub bytes: usize,
}

/// A call to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What is sent.
    pub call: Call,
    /// How many items that is.
    pub items: usize,
    /// The first of them.
    pub before: Position,
    /// How far it is once it has acknowledged.
    pub after: Position,
    /// What the first item is called in a message.
    what: String,
}

/// What is sent in one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Parameters, tags and metrics.
    Batch(Batch),
    /// A file of the run directory.
    Upload {
        /// Its path from the run directory.
        file: String,
    },
    /// How the run stands.
    Status {
        /// That.
        status: Status,
        /// Since when, in milliseconds since 1970.
        at_ms: i64,
    },
}

/// Parameters, tags and metrics, as the server calls them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Keys and values.
    pub params: Vec<(String, String)>,
    /// Names and values.
    pub tags: Vec<(String, String)>,
    /// Measurements.
    pub metrics: Vec<Metric>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The server's name of it.
    pub key: String,
    /// What was measured.
    pub value: Number,
    /// When it was written down, in milliseconds since 1970.
    pub at_ms: i64,
    /// At which step.
    pub step: u64,
}

/// What a server would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is in the journal.
    pub at: Position,
    /// What it is.
    pub what: String,
    /// What the server said.
    pub reason: String,
}

/// What is sent to one server.
#[derive(Clone, Debug)]
pub struct Outbox {
    done: Position,
    /// The most items of the next batch: fewer after a refusal or a time-out.
    most: usize,
    limits: Limits,
    names: Names,
}

impl Position {
    /// Nothing was sent.
    pub const START: Self = Self { event: 0, item: 0 };
}

impl Limits {
    /// Those of MLflow 3.
    pub const MLFLOW: Self =
        Self { metrics: 1000, params: 100, tags: 100, items: 1000, bytes: 900_000 };
}

impl Batch {
    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.params.len() + self.tags.len() + self.metrics.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Outbox {
    /// For a server that is so far.
    pub fn new(done: Position, limits: Limits, names: Names) -> Self {
        Self { done, most: limits.items.max(1), limits, names }
    }

    /// How far the server is.
    pub fn done(&self) -> Position {
        self.done
    }

    /// What to send next, given the events from [`Outbox::done`] on; nothing when the server has them all.
    pub fn next(&self, entries: &[Entry]) -> Option<Planned> {
        let mut filling = Filling::new(self.limits, self.most, self.names);
        let (mut at, mut first) = (self.done, None::<(Position, String)>);
        for entry in entries.iter().filter(|entry| entry.id >= self.done.event) {
            if entry.id > at.event {
                at = Position { event: entry.id, item: 0 };
            }
            let call = match &entry.event {
                Event::Artifact { file } => Call::Upload { file: file.clone() },
                Event::Status { status } => Call::Status { status: *status, at_ms: entry.at_ms },
                event => {
                    while at.item < event.items() && filling.take(entry, at.item) {
                        first.get_or_insert_with(|| (at, what(event, at.item)));
                        at.item += 1;
                    }
                    if at.item < event.items() {
                        break;
                    }
                    at = Position { event: entry.id + 1, item: 0 };
                    continue;
                }
            };
            // It is a call of its own: what was gathered goes first.
            if first.is_none() {
                let before = Position { event: entry.id, item: 0 };
                let after = Position { event: entry.id + 1, item: 0 };
                let what = entry.event.name();
                return Some(Planned { call, items: 1, before, after, what });
            }
            break;
        }
        let Filling { batch, .. } = filling;
        first.map(|(before, what)| {
            let items = batch.len();
            Planned { call: Call::Batch(batch), items, before, after: at, what }
        })
    }

    /// The server has it.
    pub fn acknowledged(&mut self, planned: &Planned) {
        self.done = planned.after;
        self.most = self.most.saturating_mul(2).min(self.limits.items.max(1));
    }

    /// The server was not done with it in time: the next one is smaller.
    pub fn overdue(&mut self, planned: &Planned) {
        self.most = (planned.items / 2).max(1);
    }

    /// The server refused it, and would again. A batch is halved until the item that is refused is alone; that one
    /// is put aside and passed.
    pub fn refused(&mut self, planned: &Planned, reason: &str) -> Option<SetAside> {
        if planned.items > 1 {
            self.most = planned.items / 2;
            return None;
        }
        let (what, reason) = (planned.what.clone(), reason.to_owned());
        self.done = planned.after;
        Some(SetAside { at: planned.before, what, reason })
    }
}

/// What an item is called in a message.
fn what(event: &Event, item: usize) -> String {
    match event {
        Event::Params { values } => format!("the parameter {}", values[item].0),
        Event::Tags { values } => format!("the tag {}", values[item].0),
        Event::Metrics { step, values } => format!("{} of step {step}", values[item].0),
        other => other.name(),
    }
}

/// A batch that is being filled.
struct Filling {
    batch: Batch,
    bytes: usize,
    most: usize,
    limits: Limits,
    names: Names,
}

/// What the text around an item takes, from above.
const AROUND: usize = 120;

impl Filling {
    fn new(limits: Limits, most: usize, names: Names) -> Self {
        Self { batch: Batch::default(), bytes: 0, most, limits, names }
    }

    /// Takes an item of an event, unless the batch is full. An empty batch takes any.
    fn take(&mut self, entry: &Entry, item: usize) -> bool {
        let (batch, limits) = (&self.batch, self.limits);
        let empty = batch.is_empty();
        if !empty && batch.len() >= self.most.min(limits.items) {
            return false;
        }
        // Any character may become six in JSON.
        let size = |name: &str, value: usize| AROUND + 6 * (name.len() + value);
        let (full, bytes) = match &entry.event {
            Event::Params { values } => {
                (batch.params.len() >= limits.params, size(&values[item].0, values[item].1.len()))
            }
            Event::Tags { values } => {
                (batch.tags.len() >= limits.tags, size(&values[item].0, values[item].1.len()))
            }
            Event::Metrics { values, .. } => {
                (batch.metrics.len() >= limits.metrics, size(&values[item].0, 0))
            }
            Event::Artifact { .. } | Event::Status { .. } => return false,
        };
        if !empty && (full || self.bytes + bytes > limits.bytes) {
            return false;
        }
        self.bytes += bytes;
        match &entry.event {
            Event::Params { values } => self.batch.params.push(values[item].clone()),
            Event::Tags { values } => self.batch.tags.push(values[item].clone()),
            Event::Metrics { step, values } => {
                let (name, value) = &values[item];
                let (key, value) = (self.names.of(name), *value);
                self.batch.metrics.push(Metric { key, value, at_ms: entry.at_ms, step: *step });
            }
            Event::Artifact { .. } | Event::Status { .. } => {}
        }
        true
    }
}
