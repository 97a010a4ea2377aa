#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Recipe {
    run: Run,
    optimizer: Optimizer,
    reward: Option<Reward>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Run {
    name: String,
    title: Option<String>,
    steps: Option<u64>,
    batch: NonZeroU32,
    seed: u64,
    #[serde(with = "super::duration")]
    lease: Duration,
    variant: Variant,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Optimizer {
    lr: f64,
    betas: [f32; 2],
    nesterov: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reward {
    name: String,
    replicas: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Variant {
    Grpo,
    DrGrpo,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            name: "quickstart".into(),
            title: None,
            steps: None,
            batch: NonZeroU32::MIN,
            seed: 0,
            lease: Duration::from_secs(30),
            variant: Variant::Grpo,
        }
    }
}

const FILE: &str = "\
# a recipe
[run]
batch = 16
variant = \"dr-grpo\"
lease = \"500ms\"

[optimizer]
lr = 5e-6
betas = [0.9, 0.95]
";

fn with_sets(sets: &[&str]) -> Result<Recipe, ConfigError> {
    load(&Layers::new().text("recipe.toml", FILE)?.set(sets)?)
}

fn error_of(file: &str) -> String {
    let loaded = Layers::new().text("recipe.toml", file).and_then(|layers| load::<Recipe>(&layers));
    let text = loaded.unwrap_err().to_string();
    assert!(!text.contains('\n'), "an error is one line: {text}");
    text
}

fn set_error(set: &str) -> String {
    with_sets(&[set]).unwrap_err().to_string()
}

#[test]
fn later_layers_win_key_by_key_in_whatever_order_they_are_added() {
    let variables = [("OCTET_RUN__BATCH", "32"), ("OCTET_RUN__SEED", "7"), ("HOME", "/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let layers = Layers::new()
        .set(["run.seed=9", "run.title=over the top"])
        .unwrap()
        .environment(variables)
        .unwrap()
        .text("recipe.toml", FILE)
        .unwrap();
    let recipe: Recipe = load(&layers).unwrap();
    assert_eq!(recipe.run.batch.get(), 32, "environment over file");
    assert_eq!(recipe.run.seed, 9, "--set over environment");
    assert_eq!(recipe.run.title.as_deref(), Some("over the top"));
    assert_eq!(recipe.run.variant, Variant::DrGrpo, "the file's other keys stay");
    assert_eq!(recipe.run.lease, Duration::from_millis(500));
    assert_eq!(recipe.run.name, "quickstart", "defaults fill the rest");
    assert_eq!(recipe.optimizer, Optimizer { lr: 5e-6, betas: [0.9, 0.95], nesterov: false });

    assert_eq!(layers.origin("run.batch").to_string(), "environment variable OCTET_RUN__BATCH");
    assert_eq!(layers.origin("run.variant").to_string(), "recipe.toml:4");
    assert_eq!(layers.origin("run.name"), Origin::Default);
    assert_eq!(
        layers.refusal("run.seed", "an even number", "9").to_string(),
        "key `run.seed` (from --set run.seed=9): expected an even number, found 9"
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    assert_eq!(
        set_error("run.stpes=3"),
        "unknown key `run.stpes` (from --set run.stpes=3): did you mean `run.steps`?"
    );
    assert_eq!(
        error_of("[run]\nbatch = 4\n\n[optimiser]\nlr = 1e-3\n"),
        "unknown key `optimiser` (from recipe.toml:5): did you mean `optimizer`?"
    );
    assert_eq!(
        set_error("steps=3"),
        "unknown key `steps` (from --set steps=3): did you mean `run.steps`?"
    );
    assert_eq!(
        error_of("run.dry-lease = 1"),
        "unknown key `run.dry-lease` (from recipe.toml:1): the keys in `run` are \
         name, title, steps, batch, seed, lease, variant"
    );
    assert_eq!(
        error_of("[run.batch]\nsize = 4"),
        "key `run.batch` (from recipe.toml:2): expected a nonzero u32, found map"
    );
}

#[test]
fn keys_of_an_optional_section_are_known_once_it_is_given() {
    let recipe = with_sets(&["reward.name=strict", "reward.replicas=2"]).unwrap();
    assert_eq!(recipe.reward, Some(Reward { name: "strict".into(), replicas: 2 }));
    let missing = set_error("reward.name=strict");
    assert!(
        missing.contains("`reward`") && missing.contains("missing field `replicas`"),
        "{missing}"
    );
    let unknown = with_sets(&["reward.name=a", "reward.replicas=2", "reward.replcas=3"]);
    let unknown = unknown.unwrap_err().to_string();
    assert!(unknown.contains("unknown field `replcas`"), "{unknown}");
    assert!(unknown.contains("--set reward."), "{unknown}");
}

#[test]
fn free_keys_of_a_map_are_taken() {
    let recipe = with_sets(&["labels.team=tools", "labels.ticket=12"]).unwrap();
    assert_eq!(recipe.labels["team"], "tools");
    assert_eq!(recipe.labels["ticket"], "12", "text, because the map wants text");
}

#[test]
fn a_value_of_the_wrong_kind_says_what_was_expected_and_where() {
    assert_eq!(
        error_of("[run]\n\nseed = \"three\"\n"),
        "key `run.seed` (from recipe.toml:3): expected u64, found string \"three\""
    );
    assert_eq!(
        error_of("run.batch = 0"),
        "key `run.batch` (from recipe.toml:1): expected a nonzero u32, found integer `0`"
    );
    assert_eq!(
        error_of("run.variant = \"ppo\""),
        "key `run.variant` (from recipe.toml:1): expected `grpo` or `dr-grpo`, \
         found unknown variant `ppo`"
    );
    assert_eq!(
        error_of("run.lease = \"5 weeks\""),
        "key `run.lease` (from recipe.toml:1): expected a duration such as \"500ms\", \"3s\", \
         \"2m\" or \"1h\", found string \"5 weeks\""
    );
    assert_eq!(
        error_of("optimizer.betas = [0.9, \"x\"]"),
        "key `optimizer.betas[1]` (from recipe.toml:1): expected f32, found string \"x\""
    );
    assert_eq!(
        set_error("run.seed=three"),
        "key `run.seed` (from --set run.seed=three): expected u64, found string \"three\""
    );
    assert_eq!(
        set_error("run.seed=-1"),
        "key `run.seed` (from --set run.seed=-1): expected u64, found integer `-1`"
    );
}

#[test]
fn what_json_cannot_say_is_refused_with_its_line() {
    for (value, found) in [
        ("nan", "the number nan"),
        ("-inf", "the number -inf"),
        ("1979-05-27", "the date 1979-05-27 (put it in quotes)"),
        ("18446744073709551616", "the number 18446744073709551616"),
    ] {
        let text = error_of(&format!("[optimizer]\nlr = {value}"));
        assert!(text.starts_with("key `optimizer.lr` (from recipe.toml:2): expected "), "{text}");
        assert!(text.ends_with(&format!("found {found}")), "{text}");
    }
    assert_eq!(with_sets(&["run.seed=18446744073709551615"]).unwrap().run.seed, u64::MAX);
}

#[test]
fn what_is_not_toml_or_no_assignment_is_refused() {
    let text = error_of("[run]\nbatch = 4\nseed 7\n");
    assert!(text.starts_with("recipe.toml:3: not valid TOML: "), "{text}");
    let twice = error_of("[run]\nseed = 1\nseed = 2\n");
    assert!(twice.starts_with("recipe.toml:3: not valid TOML: duplicate key"), "{twice}");
    assert_eq!(set_error("run.seed"), "--set run.seed: no `=`: expected section.key=value");
    assert_eq!(
        set_error("run..seed=3"),
        "--set run..seed=3: `run..seed` names no key: expected section.key=value"
    );
    let missing = Layers::new().file(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the configuration file no/such.toml: "), "{missing}");
}

#[test]
fn text_that_looks_like_something_else_is_text_where_text_is_wanted() {
    for text in ["7", "true", "2026-11-22", "[x", "", "a=b", "1\nrun.seed=3", "\"quoted"] {
        let recipe = with_sets(&[&format!("run.title={text}")]).unwrap();
        assert_eq!(recipe.run.title.as_deref(), Some(text));
    }
    assert_eq!(with_sets(&["run.name=\"7\""]).unwrap().run.name, "7", "quotes are TOML's");
}

#[test]
fn an_empty_section_takes_nothing_away() {
    let layers = Layers::new().text("a.toml", FILE).unwrap().text("b.toml", "[run]\n").unwrap();
    assert_eq!(load::<Recipe>(&layers).unwrap().run.batch.get(), 16);
}

#[test]
fn a_written_configuration_reads_back() {
    let recipe = with_sets(&["run.steps=3", "reward.name=a", "reward.replicas=1"]).unwrap();
    let text = to_toml(&recipe).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    assert_eq!(load_file::<Recipe>(file.path()).unwrap(), recipe, "{text}");
}

#[test]
fn the_digest_is_the_published_hash_of_sorted_json() {
    #[derive(Serialize)]
    struct Pair {
        b: u32,
        a: Option<bool>,
    }
    let expected = blake3::hash(br#"{"a":null,"b":2}"#).to_hex();
    assert_eq!(digest(&Pair { b: 2, a: None }).unwrap().as_str(), expected.as_str());
}

proptest! {
    #[test]
    fn any_configuration_survives_a_file_with_its_digest(
        name in "\\PC{0,20}", title in proptest::option::of("\\PC{0,20}"),
        steps in proptest::option::of(0..i64::MAX as u64), batch in 1u32.., lease in 0u64..1_000_000,
        lr in proptest::num::f64::NORMAL, betas: [bool; 2], keys in proptest::collection::btree_map("[a-z.\" =]{1,6}", "\\PC{0,8}", 0..4),
    ) {
        let recipe = Recipe {
            run: Run {
                name, title, steps, batch: NonZeroU32::new(batch).unwrap(), seed: 3,
                lease: Duration::from_millis(lease), variant: Variant::DrGrpo,
            },
            optimizer: Optimizer { lr, betas: betas.map(|b| if b { 0.95 } else { 0.1 }), nesterov: true },
            reward: None,
            labels: keys,
        };
        let text = to_toml(&recipe).unwrap();
        let back: Recipe = load(&Layers::new().text("recipe.toml", &text).unwrap()).unwrap();
        prop_assert_eq!(digest(&back).unwrap(), digest(&recipe).unwrap());
        prop_assert_eq!(back, recipe);
    }

    #[test]
    fn no_file_and_no_argument_panics(file in "\\PC{0,60}", lines in "[a-z=\\[\\]{}.\"'0-9\n ]{0,60}", set in "\\PC{0,30}") {
        for text in [file, lines] {
            let _ = Layers::new().text("any.toml", &text).and_then(|layers| load::<Recipe>(&layers));
        }
        let _ = Layers::new().set([set]).and_then(|layers| load::<Recipe>(&layers));
    }

    #[test]
    fn one_slip_in_a_key_is_always_pointed_out(at in 0usize..5, by in proptest::char::range('a', 'z')) {
        let mut name: Vec<char> = "batch".chars().collect();
        prop_assume!(name[at] != by);
        name[at] = by;
        let key: String = name.into_iter().collect();
        let text = set_error(&format!("run.{key}=3"));
        prop_assert!(text.ends_with("did you mean `run.batch`?"), "{}", text);
    }

    #[test]
    fn a_duration_is_written_as_it_is_read(millis in 0u64..10_000_000) {
        let run = Run { lease: Duration::from_millis(millis), ..Run::default() };
        let text = serde_json::to_string(&run).unwrap();
        prop_assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run);
    }
}
