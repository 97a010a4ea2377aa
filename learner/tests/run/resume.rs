//! A run is a pure function of its configuration: stopped, resumed, on one thread or two, with groups
//! in any order, it makes the same weights to the bit.

use crate::support::{STEPS, Setup, World, adapter, recipe, worker};
use octet_learner::LearnerConfig;
use octet_learner::group::ScoredGroup;
use octet_learner::metrics::{StepMetrics, Timing, read};
use octet_learner::spool::Spool;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

fn setups() -> [(&'static str, Setup); 5] {
    let of = |change: &dyn Fn(&mut LearnerConfig)| {
        let mut recipe = recipe();
        change(&mut recipe);
        Setup { recipe, threads: NonZeroUsize::new(1), adapter: None }
    };
    [
        ("on-policy", of(&|_| ())),
        ("lag", of(&|r| r.lag = 1)),
        ("kl", of(&|r| (r.kl_beta, r.check_inert) = (0.1, true))),
        ("lora", Setup { adapter: Some(adapter()), ..of(&|_| ()) }),
        (
            "lora-lag-kl",
            Setup { adapter: Some(adapter()), ..of(&|r| (r.kl_beta, r.lag) = (0.1, 1)) },
        ),
    ]
}

/// All that is a function of the configuration.
fn history(run: &Path) -> Vec<StepMetrics> {
    let mut records = read(&run.join("metrics.jsonl")).unwrap();
    records.iter_mut().for_each(|record| record.timing = Timing::default());
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_makes_the_same_weights() {
    let world = World::new();
    for (name, setup) in setups() {
        let whole = world.run(&format!("{name}-whole"), &setup, STEPS).await.unwrap();
        assert!(whole.complete && whole.committed_steps == STEPS, "{whole:?}");
        assert_eq!(whole.totals.logprob_gap_max, 0.0, "{name}");
        assert_eq!(whole.totals.steps, STEPS);
        let expected = history(&world.run_directory(&format!("{name}-whole")));
        assert_eq!(expected.len() as u64, STEPS);
        assert!(expected.iter().all(|step| step.gradient_norm > 0.0), "{name}");

        let cut = format!("{name}-cut");
        let half = world.run(&cut, &setup, 2).await.unwrap();
        assert!(!half.complete && half.committed_steps == 2, "{half:?}");
        assert_ne!(half.weights_digest, whole.weights_digest);
        let rest = world.run(&cut, &setup, STEPS).await.unwrap();
        assert_eq!(rest.totals.steps, 2, "{name}: two steps were committed before");
        assert_eq!(rest.weights_digest, whole.weights_digest, "{name}");
        assert_eq!(history(&world.run_directory(&cut)), expected, "{name}");

        // A complete run that is resumed has nothing to do.
        let again = world.run(&cut, &setup, STEPS).await.unwrap();
        assert_eq!((again.totals.steps, again.weights_digest), (0, whole.weights_digest));
    }
}

/// A run that trains an adapter commits it alone, and with its base it is what was trained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_is_committed_without_its_base() {
    let world = World::new();
    let setups = setups();
    let whole = world.run("adapted", &setups[3].1, STEPS).await.unwrap();
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let expected = ["adapter_config.json", "adapter_model.safetensors", "octet"];
    assert_eq!(names(&whole.weights), expected);
    let load = |path: &Path| {
        let (dtype, device) = (candle_core::DType::F32, candle_core::Device::Cpu);
        octet_policy::policy::Policy::load(path, dtype, &device).unwrap().model
    };
    let (trained, base) = (load(&whole.weights), load(&world.model));
    assert_eq!(trained.trained().digest().unwrap().to_hex().as_str(), whole.weights_digest);
    assert_eq!(trained.params().digest().unwrap(), base.params().digest().unwrap());
    assert_eq!(trained.lora(), Some(&adapter().lora));
    let fresh = base.with_fresh_lora(&adapter()).unwrap();
    for i in 0..fresh.trained().specs().len() {
        let of = |model: &octet_policy::model::Model| model.trained().read(i, <[f32]>::to_vec);
        assert_ne!(
            of(&trained).unwrap(),
            of(&fresh).unwrap(),
            "{}",
            fresh.trained().specs()[i].name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_died_between_spool_and_commit_goes_on_from_the_spool() {
    let world = World::new();
    let [(_, setup), ..] = setups();
    let whole = world.run("whole", &setup, STEPS).await.unwrap();
    let half = world.run("cut", &setup, 2).await.unwrap();
    // All groups of the next step are durable, one of them was told to nobody, and nothing of the
    // step is committed.
    let mut model = octet_policy::policy::Policy::load(
        &half.weights,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    )
    .unwrap()
    .model;
    model.freeze().unwrap();
    let groups = worker::sample(&Arc::new(model), 2, worker::groups(2));
    let groups: Vec<ScoredGroup> = groups.into_iter().map(|g| g.try_into().unwrap()).collect();
    Spool::open(&world.run_directory("cut").join("spool.sqlite")).unwrap().append(&groups).unwrap();
    // And what a crash leaves half-made.
    let leftover = world.run_directory("cut").join("checkpoints/.tmp-step-000003");
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("model.safetensors"), "half").unwrap();

    // Nobody samples the step again: it is learned from the spool alone.
    let third = world.run_from_spool("cut", &setup, 2, 3).await.unwrap();
    assert_eq!(third.committed_steps, 3);
    let rest = world.run("cut", &setup, STEPS).await.unwrap();
    assert_eq!(rest.weights_digest, whole.weights_digest);
    assert_eq!(history(&world.run_directory("cut")), history(&world.run_directory("whole")));
    // What is left is a Hugging Face directory that loads, tokenizer and template included.
    let loaded = octet_policy::policy::Policy::load(
        &rest.weights,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    );
    let digest = loaded.unwrap().model.params().digest().unwrap();
    assert_eq!(digest.to_hex().as_str(), rest.weights_digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_threads_changes_no_bit() {
    let world = World::new();
    let [(_, one), ..] = setups();
    let two = Setup { threads: NonZeroUsize::new(2), ..one.clone() };
    let [one, two] = [
        world.run("one", &one, STEPS).await.unwrap(),
        world.run("two", &two, STEPS).await.unwrap(),
    ];
    assert_eq!(one.weights_digest, two.weights_digest);
    assert!(one.totals.flops > 0.0 && one.totals.flops == two.totals.flops);
    assert_eq!(one.totals.learned_tokens, two.totals.learned_tokens);
}
