#![allow(clippy::unwrap_used)]
use super::*;

fn bundled() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.data.train = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/data/train.jsonl");
    recipe
}

#[test]
fn who_looks_on_is_no_part_of_the_digest() {
    let mut recipe = bundled();
    let usual = recipe.digest(NonZeroU64::MIN, "weights").unwrap();
    recipe.tracking.mlflow = Some("http://127.0.0.1:5000".into());
    recipe.tracking.experiment = "another".into();
    assert_eq!(recipe.digest(NonZeroU64::MIN, "weights").unwrap(), usual);
}

#[test]
fn keys_of_dpo_are_part_of_the_digest_where_they_are_given() {
    let mut recipe = bundled();
    let digest = |recipe: &Recipe| recipe.digest(NonZeroU64::MIN, "weights").unwrap();
    let usual = digest(&recipe);
    recipe.learner.beta = Some(0.1);
    let first = digest(&recipe);
    recipe.learner.beta = Some(0.2);
    assert!(first != usual && digest(&recipe) != first);
}

#[test]
fn an_adapter_is_a_part_of_the_digest() {
    let mut recipe = bundled();
    let digest = |recipe: &Recipe| recipe.digest(NonZeroU64::MIN, "weights").unwrap();
    let whole = digest(&recipe);
    recipe.policy.lora = Some(Lora::default());
    let adapted = digest(&recipe);
    assert_ne!(adapted, whole);
    recipe.policy.lora = Some(Lora { alpha: 16.0, ..Lora::default() });
    assert_ne!(digest(&recipe), adapted);
}

#[test]
fn how_weights_travel_is_no_part_of_the_digest() {
    let mut recipe = bundled();
    let usual = recipe.digest(NonZeroU64::MIN, "weights").unwrap();
    // A build that knows nothing of it computes the same digest: it is not even mentioned.
    assert!(!serde_json::to_string(&recipe).unwrap().contains("broadcast"));
    recipe.weights.broadcast = "nccl".into();
    recipe.weights.broadcast_within = Duration::from_secs(5);
    assert_eq!(recipe.digest(NonZeroU64::MIN, "weights").unwrap(), usual);
    recipe.run.seed += 1;
    assert_ne!(recipe.digest(NonZeroU64::MIN, "weights").unwrap(), usual);
}
