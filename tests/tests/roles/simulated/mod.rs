//! The roles of a run as hosts of a simulated network: the real coordinator, learner, reward services
//! and workers with a tiny random model, one thread, and a clock that is the test's.
//!
//! Invariant: what happens is a function of the seed, so a failure can be looked at again.

pub mod faults;
pub mod network;
pub mod observer;
pub mod roles;
pub mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

use octet_policy::template::COMPACT_TEMPLATE;
use serde_json::{Value, json};
use tempfile::TempDir;
use turmoil::Sim;

/// Completions of a group.
pub const COMPLETIONS: u32 = 4;
/// The most tokens of a completion.
pub const MAX_TOKENS: usize = 8;

/// What a run is, whatever happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub steps: u64,
    pub batch: u64,
    pub lag: u64,
    /// The step from which on the second reward counts.
    pub swap_at: Option<u64>,
}

/// Who takes part, and how fast.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Of each worker: how many groups it samples at once, and how long a decoding step takes.
    pub workers: Vec<(u32, Duration)>,
    /// How long the learner takes for a step.
    pub learns: Duration,
    /// How long scoring one completion takes.
    pub scores: Duration,
}

impl Default for Cast {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            workers: vec![(2, ms(60)), (1, ms(40)), (3, ms(90))],
            learns: ms(150),
            scores: ms(5),
        }
    }
}

/// The durable files of a run, and the model that it starts from.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        // Syncing a file costs nothing in memory, and nothing here outlives the test.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let disk = Self { folder: folder.unwrap() };
        std::fs::create_dir(disk.run()).unwrap();
        disk.write_model();
        disk
    }

    pub fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// The policy crate's random model with a longer context and a short template.
    fn write_model(&self) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../policy/tests/fixtures/models/qwen2-tied");
        let to = self.model();
        std::fs::create_dir(&to).unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let config = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["max_position_embeddings"] = json!(1024);
        std::fs::write(to.join("config.json"), config.to_string()).unwrap();
        std::fs::write(to.join("chat_template.jinja"), COMPACT_TEMPLATE).unwrap();
    }
}

/// The rows of the data set.
pub fn rows() -> Vec<String> {
    let row = |n: usize| {
        json!({
            "prompt": [{"role": "user", "content": format!("add {n} and {n}")}],
            "reward_model": {"ground_truth": {"tool_call": {"name": "add", "parameters": {"a": n}}}},
        })
        .to_string()
    };
    (0..5).map(row).collect()
}

/// Does `work` where nothing is handed to other threads: what computes in parallel computes in turn.
pub fn on_one_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

/// A simulated network. `seed` keys the delays of messages and whatever else is drawn.
pub fn network(seed: u64, longest: Duration) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(longest)
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .tcp_capacity(1024)
        .build()
}
