#![allow(clippy::unwrap_used)]
use super::*;

pub(crate) fn shape() -> RunShape {
    RunShape {
        steps: NonZeroU64::new(4).unwrap(),
        completions: 8,
        max_tokens: 32,
        longest_prompt: 100,
        shaping: Shaping::default(),
        adapter: None,
    }
}

fn message(change: impl FnOnce(&mut LearnerConfig, &mut RunShape)) -> String {
    let (mut config, mut shape) = (LearnerConfig::default(), shape());
    change(&mut config, &mut shape);
    config.resolve(&shape).unwrap_err().to_string()
}

#[test]
fn the_defaults_resolve_and_read_back() {
    let config = LearnerConfig::default();
    config.resolve(&shape()).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<LearnerConfig>(&text).unwrap(), config);
    assert_eq!(serde_json::from_str::<LearnerConfig>("{}").unwrap(), config);
}

#[test]
fn names_are_those_of_the_documentation() {
    let text = r#"{"objective": "dr-grpo", "schedule": "cosine", "clip_high": 0.3, "batch": 128}"#;
    let config: LearnerConfig = serde_json::from_str(text).unwrap();
    let recipe = config.resolve(&shape()).unwrap();
    assert_eq!(recipe.loss.objective(), Objective::DrGrpo);
    assert_eq!(
        (recipe.loss.settings().clip().low(), recipe.loss.settings().clip().high()),
        (0.2, 0.3)
    );
    assert!(
        serde_json::from_str::<LearnerConfig>(r#"{"objective": "grop"}"#)
            .unwrap_err()
            .to_string()
            .contains("did you mean \"grpo\"?")
    );
}

#[test]
fn each_fault_names_its_key() {
    for (found, parts) in [
        (message(|_, s| s.completions = 1), ["sampling.completions", "at least 2", "found 1"]),
        (message(|_, s| s.max_tokens = 0), ["sampling.max_tokens", "at least 1", "found 0"]),
        (
            message(|_, s| s.shaping.temperature = 0.0),
            ["sampling.temperature", "above 0", "found 0"],
        ),
        (message(|c, _| c.logprob_gap_max = -1.0), ["learner.logprob_gap_max", "at least 0", "-1"]),
        (message(|c, _| c.betas[1] = 1.0), ["[learner]", "beta2", "found 1"]),
        (message(|c, _| c.learning_rate = f64::NAN), ["[learner]", "learning rate", "NaN"]),
        (message(|c, _| c.clip_low = Some(2.0)), ["[learner]", "clip range", "low 2"]),
        (message(|c, _| c.kl_beta = -0.1), ["[learner]", "KL coefficient", "-0.1"]),
        (
            message(|c, s| (c.lag, s.shaping.top_p) = (1, 0.9)),
            ["sampling.top_p", "learner.lag", "found 0.9"],
        ),
        (
            message(|c, s| (c.kl_beta, s.shaping.top_k) = (0.1, 20)),
            ["sampling.top_k", "learner.kl_beta", "found 20"],
        ),
        (
            message(|c, s| (c.objective, s.shaping.top_k) = (Objective::Dpo, 20)),
            ["sampling.top_k", "learner.objective", "found 20"],
        ),
        (
            message(|c, _| c.beta = Some(0.1)),
            ["key `learner.beta`", "learner.kl_beta", "found 0.1 with objective \"grpo\""],
        ),
        (
            message(|c, _| (c.objective, c.beta) = (Objective::Dpo, Some(0.0))),
            ["[learner]", "beta above 0", "found 0"],
        ),
        (
            message(|c, _| (c.objective, c.kl_beta) = (Objective::Dpo, 0.1)),
            ["learner.kl_beta", "learner.beta", "found 0.1 with objective \"dpo\""],
        ),
        (
            message(|c, _| (c.objective, c.clip_high) = (Objective::Sft, Some(0.3))),
            ["learner.clip_high", "no ratio to clip", "found 0.3"],
        ),
    ] {
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }
}

#[test]
fn dpo_has_the_beta_of_the_paper_or_the_one_given() {
    let resolve = |text: &str| {
        let config: LearnerConfig = serde_json::from_str(text).unwrap();
        config.resolve(&shape()).unwrap().loss
    };
    let usual = resolve(r#"{"objective": "dpo"}"#);
    assert_eq!((usual.settings().dpo_beta(), usual.needs_reference()), (0.1, true));
    let given = resolve(r#"{"objective": "dpo", "beta": 0.3}"#);
    assert_eq!(given.settings().dpo_beta(), 0.3);
    assert!(!resolve(r#"{"objective": "sft"}"#).needs_reference());
    assert!(resolve(r#"{"objective": "sft", "kl_beta": 0.1}"#).needs_reference());
}

#[test]
fn a_run_cut_short_stays_on_the_ramp() {
    let config = LearnerConfig { warmup_steps: 10, learning_rate: 1.0, ..LearnerConfig::default() };
    let recipe = config.resolve(&shape()).unwrap();
    assert_eq!(recipe.schedule.learning_rate(3), 0.4);
}

#[test]
fn no_gradient_norm_limit_is_written_as_zero() {
    let config = LearnerConfig { max_gradient_norm: 0.0, ..LearnerConfig::default() };
    assert_eq!(config.resolve(&shape()).unwrap().hyperparameters.max_gradient_norm, None);
}
