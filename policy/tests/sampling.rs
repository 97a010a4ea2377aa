//! The code that samples is the code that learns: equal to the bit, whatever else is going on.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::DType;
use common::{MODELS, load, tokens, with_threads};
use octet_policy::kernel::head::Shaping;
use octet_policy::layout::GroupTokens;
use octet_policy::model::Model;
use octet_policy::sampler::{Completion, Finish, GroupRequest, Guide, Manner, Sampler, Sampling};
use std::sync::Arc;

fn sampling(shaping: Shaping) -> Sampling {
    Sampling { seed: 42, completions: 8, shaping, max_tokens: 40, stop_tokens: vec![7, 11, 200] }
}

fn prompt(group: u64) -> Vec<u32> {
    tokens(20 + 13 * group as usize, group as u32 + 1)
}

fn sample(model: &Arc<Model>, groups: &[u64], rows: usize, shaping: Shaping) -> Vec<Completion> {
    let mut sampler = Sampler::new(sampling(shaping), rows);
    for &group in groups {
        sampler.submit(GroupRequest { group, prompt: prompt(group), model: model.clone() });
    }
    let mut all = Vec::new();
    while sampler.pending() > 0 {
        all.extend(sampler.step().unwrap());
    }
    all.sort_by_key(|c| (c.group, c.sample));
    all
}

fn frozen(name: &str) -> Arc<Model> {
    let mut model = load(name, DType::F32);
    model.freeze().unwrap();
    Arc::new(model)
}

const SHAPINGS: [Shaping; 3] = [
    Shaping { temperature: 1.0, top_p: 1.0, top_k: 0 },
    Shaping { temperature: 0.7, top_p: 0.9, top_k: 0 },
    Shaping { temperature: 1.3, top_p: 1.0, top_k: 20 },
];

#[test]
fn the_learner_finds_the_samplers_log_probs_to_the_bit() {
    for name in MODELS {
        let (model, learner) = (frozen(name), load(name, DType::F32));
        for shaping in SHAPINGS {
            let completions = sample(&model, &[0, 1, 2], 64, shaping);
            let groups: Vec<GroupTokens> = (0..3)
                .map(|g| GroupTokens {
                    prefix: prompt(g),
                    suffixes: completions
                        .iter()
                        .filter(|c| c.group == g)
                        .map(|c| c.tokens.clone())
                        .collect(),
                })
                .collect();
            let recorded: Vec<u32> =
                completions.iter().flat_map(|c| &c.logprobs).map(|l| l.to_bits()).collect();
            let learned = learner.log_probs(&groups, shaping).unwrap();
            let found: Vec<u32> = learned.logprobs.iter().map(|l| l.to_bits()).collect();
            assert_eq!(recorded, found, "{name} {shaping:?}");
        }
    }
}

#[test]
fn a_group_does_not_depend_on_its_company_or_on_threads() {
    for name in MODELS {
        let model = frozen(name);
        let alone = sample(&model, &[3], 8, SHAPINGS[0]);
        assert_eq!(alone.len(), 8);
        for (groups, rows, threads) in
            [(&[3u64, 0, 1][..], 24, 1), (&[0, 1, 2, 3, 4], 16, 2), (&[5, 3], 64, 3)]
        {
            let all = with_threads(threads, || sample(&model, groups, rows, SHAPINGS[0]));
            assert_eq!(all.len(), 8 * groups.len());
            let found: Vec<&Completion> = all.iter().filter(|c| c.group == 3).collect();
            assert_eq!(
                found,
                alone.iter().collect::<Vec<_>>(),
                "{name} {groups:?} {rows} {threads}"
            );
        }
    }
}

#[test]
fn completions_end_at_stop_tokens_or_at_the_limit() {
    let model = frozen("qwen2-tied");
    let all = sample(&model, &[0, 1, 2, 3], 32, SHAPINGS[0]);
    assert!(
        all.iter().any(|c| c.finish == Finish::Stop)
            && all.iter().any(|c| c.finish == Finish::Length)
    );
    for c in &all {
        let stop = |t: &u32| [7, 11, 200].contains(t);
        let (last, before) = c.tokens.split_last().unwrap();
        assert!(!before.iter().any(stop));
        assert_eq!(c.finish == Finish::Stop, stop(last));
        assert!(c.tokens.len() == 40 || stop(last));
        assert_eq!(c.tokens.len(), c.logprobs.len());
    }
    let distinct: std::collections::BTreeSet<_> = all.iter().map(|c| &c.tokens).collect();
    assert!(distinct.len() > all.len() / 2, "samples of a group must differ");
}

/// The composite operations, which other devices and dtypes use, sample the same tokens nearly always;
/// here in f64, against the learner's own composite form.
#[test]
fn composite_sampling_agrees_with_composite_learning() {
    let model = Arc::new(load("qwen2-tied", DType::F64));
    let completions = sample(&model, &[1], 8, SHAPINGS[0]);
    let suffixes = completions.iter().map(|c| c.tokens.clone()).collect();
    let group = GroupTokens { prefix: prompt(1), suffixes };
    let learned = model.log_probs(&[group], SHAPINGS[0]).unwrap();
    let recorded: Vec<f32> = completions.iter().flat_map(|c| c.logprobs.clone()).collect();
    for (a, b) in learned.logprobs.iter().zip(&recorded) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn prompts_past_the_context_are_refused() {
    let model = frozen("qwen2-tied");
    let mut sampler = Sampler::new(sampling(SHAPINGS[0]), 64);
    let limit = model.config().max_position_embeddings;
    sampler.submit(GroupRequest { group: 0, prompt: vec![1; limit + 1], model });
    let error = sampler.step().unwrap_err().to_string();
    assert!(error.contains("context"), "{error}");
}

/// All that a server's requests may differ in.
fn manner(seed: u64, completions: usize, shaping: Shaping) -> Manner {
    let sampling = Arc::new(Sampling { seed, completions, ..sampling(shaping) });
    Manner { sampling, stream: 0, alternatives: None, guide: None }
}

fn drain(sampler: &mut Sampler) -> Vec<Completion> {
    let mut all = Vec::new();
    while sampler.pending() > 0 {
        all.extend(sampler.step().unwrap());
    }
    all.sort_by_key(|c| (c.group, c.sample));
    all
}

#[test]
fn requests_in_manners_of_their_own_are_each_what_they_are_alone() {
    let model = frozen(MODELS[0]);
    let request = |group| GroupRequest { group, prompt: prompt(1), model: model.clone() };
    let alone = |seed, completions, shaping: Shaping| {
        // Group 0 of a sampler whose own way this is: the reference.
        let own = Sampling { seed, completions, ..sampling(shaping) };
        let mut sampler = Sampler::new(own, 64);
        sampler.submit(request(0));
        drain(&mut sampler)
    };
    let ways = [(1, 1, SHAPINGS[0]), (9, 3, SHAPINGS[1]), (1, 2, SHAPINGS[2]), (1, 1, SHAPINGS[0])];
    let mut sampler = Sampler::new(sampling(Shaping::default()), 64);
    for (group, (seed, completions, shaping)) in ways.into_iter().enumerate() {
        // They join one after the other, while the others are being decoded.
        let noted = Manner { alternatives: Some(2), ..manner(seed, completions, shaping) };
        sampler.submit_with(request(100 + group as u64), noted);
        assert!(sampler.step().unwrap().is_empty(), "the prompts were chosen to take longer");
    }
    let together = drain(&mut sampler);
    for (group, (seed, completions, shaping)) in ways.into_iter().enumerate() {
        let found: Vec<&Completion> =
            together.iter().filter(|c| c.group == 100 + group as u64).collect();
        let expected = alone(seed, completions, shaping);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs));
            assert_eq!(found.notes.len(), found.tokens.len());
            if shaping == SHAPINGS[0] {
                // Nothing is shaped: what the model held is what was drawn from.
                let notes: Vec<f32> = found.notes.iter().map(|n| n.logprob).collect();
                assert_eq!(notes, found.logprobs);
            }
        }
    }
}

#[derive(Debug)]
struct Only(Vec<u32>);

impl Guide for Only {
    fn allowed(&self, written: &[u32]) -> Option<Vec<u32>> {
        (written.len() < 3).then(|| self.0.clone())
    }
}

#[test]
fn a_guide_restricts_its_own_request_and_a_cancelled_sample_leaves_the_others() {
    let model = frozen(MODELS[0]);
    let request = |group| GroupRequest { group, prompt: prompt(1), model: model.clone() };
    let free = || manner(5, 2, Shaping::default());
    let mut sampler = Sampler::new(sampling(Shaping::default()), 64);
    let guided = Manner { guide: Some(Arc::new(Only(vec![3, 90]))), ..free() };
    sampler.submit_with(request(1), guided);
    sampler.submit_with(request(2), free());
    sampler.submit_with(request(3), free());
    sampler.step().unwrap();
    sampler.cancel_sample(3, 0);
    assert!(sampler.live().all(|p| p.tokens.len() == 2), "a prompt's step gives two tokens");
    let all = drain(&mut sampler);
    let of = |group: u64| all.iter().filter(move |c| c.group == group).collect::<Vec<_>>();
    for completion in of(1) {
        assert!(completion.tokens[..3].iter().all(|t| [3, 90].contains(t)));
    }
    assert_eq!(of(2).len(), 2);
    assert_eq!(of(3).len(), 1, "sample 0 was cancelled");
    assert_eq!(of(3)[0].tokens, of(2)[1].tokens, "and sample 1 is what it is");
    assert!(!sampler.holds(3));
}
