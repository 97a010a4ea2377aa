//! Examples for reinforcement learning of tool calling: the row format, loading and checking,
//! shuffling, and generation.
//!
//! The one idea: a row is a prompt, the tools offered, and a ground truth that both settle. Everything
//! that is generated here is a pure function of its seed, and goes through the same reader as a
//! user's own file. The tools, words and refusable requests of the generator are data, in
//! `catalogue/*.toml`, to be read and extended. The crate knows no network, no clock and no
//! randomness but its keyed draws.

mod answer;
mod catalogue;
mod check;
mod cold_start;
mod compose;
mod draw;
mod example;
mod fault;
mod generate;
mod import;
mod lexicon;
mod load;
mod phrase;
mod possible;
mod shuffle;
mod statistics;
mod tool;
mod truth;
mod value;

pub use answer::{python_json, reference_answer};
pub use catalogue::{Catalogue, ParameterPlan, ToolPlan};
pub use check::check;
pub use cold_start::{ColdStart, ColdStartSpec, Drill, DrillKind, drill};
pub use compose::SYSTEM_MESSAGE;
pub use example::{Example, Message, Role};
pub use fault::{FAULTS_KEPT, Fault, Faults, RowFault, RowFaults};
pub use generate::{Spec, Split, generate};
pub use import::{BFCL_CATEGORIES, Format, Imported, import, import_bfcl};
pub use load::{load, write_jsonl};
pub use phrase::Style;
pub use possible::{PossibleCall, may_be_left_out};
pub use shuffle::{epoch_order, example_for_group};
pub use statistics::Statistics;
pub use tool::Tool;
pub use truth::{Behaviour, Call, GroundTruth};
pub use value::Kind;
