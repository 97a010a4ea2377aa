//! Serving a policy: OpenAI's chat completions and SageMaker's container contract, from one port.
//!
//! The one idea of this crate is that what is served is what was trained: the same sampler, the same template, and
//! the same reading of calls ([`octet_calls`]) that rewards were given by. A request's randomness is keyed by its
//! seed alone, so the same request gives the same completion whatever else is in the batch.
//!
//! A request goes from `routes` to the `desk`, which reads it (`request`), makes its prompt (`loaded`, `forced`) and
//! gives it to the `engine`; `answering` turns the engine's tokens into news of its choices (`choice`, `text`), and
//! `answer` and `sse` write them down.
//!
//! Invariant: whatever a stranger sends gets an answer within a deadline, and none of it ends the server.

mod answer;
mod answering;
mod choice;
mod counters;
mod desk;
mod engine;
mod error;
mod follow;
mod forced;
mod loaded;
mod request;
mod routes;
mod server;
mod sse;
mod text;

pub use counters::{CLASSES, Latency, Numbers};
pub use desk::{Desk, Page, Settings};
pub use engine::EngineLost;
pub use error::Refusal;
pub use follow::{Candidate, Source, follow};
pub use loaded::{LoadError, Loaded};
pub use request::{ChatRequest, Limits, ToolChoice};
pub use server::{Ended, Server};
