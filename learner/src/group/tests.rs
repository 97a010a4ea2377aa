#![allow(clippy::unwrap_used)]
use super::*;
use octet_proto::learner as wire;
use proptest::prelude::*;

/// A small group with values that differ from sample to sample.
pub(crate) fn parts(group: u64) -> GroupParts {
    let completion = |sample: u32| ScoredCompletion {
        sample,
        tokens: (0..=sample).map(|token| token * 7 + group as u32).collect(),
        logprobs: (0..=sample).map(|token| -0.25 - token as f32 * 0.1).collect(),
        finish: if sample.is_multiple_of(2) { Finish::Stop } else { Finish::Length },
        reward: f64::from(sample % 3) / 2.0,
        verdict: ["right-call", "no-call"][sample as usize % 2].to_owned(),
        detail: format!("sample {sample}: “found”"),
    };
    GroupParts {
        group: GroupIndex(group),
        lease_epoch: LeaseEpoch(3),
        policy_version: PolicyVersion(2),
        reward_revision: RevisionNumber(1),
        worker: "worker-1".to_owned(),
        example_json: format!("{{\"data_source\":\"test\",\"row\":{group}}}"),
        prompt_tokens: vec![1, 2, group as u32],
        completions: (0..8).map(completion).collect(),
    }
}

fn fault(change: impl FnOnce(&mut GroupParts)) -> GroupFault {
    let mut parts = parts(5);
    change(&mut parts);
    let error = ScoredGroup::new(parts).unwrap_err();
    assert!(error.to_string().starts_with("group "), "{error}");
    error.fault
}

#[test]
fn completions_come_in_any_order_and_leave_in_theirs() {
    let mut shuffled = parts(1);
    shuffled.completions.reverse();
    assert_eq!(ScoredGroup::new(shuffled).unwrap(), ScoredGroup::new(parts(1)).unwrap());
}

#[test]
fn each_fault_is_named() {
    assert_eq!(fault(|parts| parts.prompt_tokens.clear()), GroupFault::EmptyPrompt);
    assert_eq!(fault(|parts| parts.completions.clear()), GroupFault::NoCompletions);
    let found = fault(|parts| parts.completions[2].sample = 1);
    assert_eq!(found, GroupFault::Samples { last: 7, found: vec![0, 1, 1, 3, 4, 5, 6, 7] });
    let found = fault(|parts| drop(parts.completions.remove(0)));
    assert!(found.to_string().starts_with("expected each of the samples 0 to 6 exactly once"));
    let found = fault(|parts| {
        parts.completions[4].tokens.clear();
        parts.completions[4].logprobs.clear();
    });
    assert_eq!(found, GroupFault::EmptyCompletion { sample: 4 });
    let found = fault(|parts| parts.completions[1].logprobs.truncate(1));
    assert_eq!(found, GroupFault::Logprobs { sample: 1, tokens: 2, logprobs: 1 });
    let found = fault(|parts| parts.completions[3].logprobs[2] = f32::NAN);
    assert!(matches!(found, GroupFault::LogprobNotFinite { sample: 3, token: 2, .. }));
    let found = fault(|parts| parts.completions[7].reward = f64::INFINITY);
    assert!(matches!(found, GroupFault::RewardNotFinite { sample: 7, .. }));
    let found = fault(|parts| parts.example_json = "{\"prompt\":".to_owned());
    assert!(matches!(found, GroupFault::Example { .. }));
    let found = fault(|parts| parts.example_json = "[".repeat(100_000));
    assert!(matches!(found, GroupFault::Example { .. }));
    let found = fault(|parts| parts.policy_version = PolicyVersion(u64::MAX));
    assert!(matches!(found, GroupFault::TooLarge { field: "a policy version", .. }));
}

#[test]
fn negative_zero_is_zero() {
    let mut parts = parts(1);
    parts.completions[0].reward = -0.0;
    assert_eq!(ScoredGroup::new(parts).unwrap().rewards()[0].to_bits(), 0.0f64.to_bits());
}

#[test]
fn an_unknown_finish_reason_is_refused() {
    let mut message = wire::ScoredGroup::from(ScoredGroup::new(parts(1)).unwrap());
    message.completions[6].finish = 9;
    let error = ScoredGroup::try_from(message).unwrap_err();
    assert_eq!(error.fault, GroupFault::Finish { sample: 6, found: 9 });
}

proptest! {
    #[test]
    fn the_wire_brings_back_what_was_sent(group in 0u64..1 << 40, rewards in prop::collection::vec(-1e3f64..1e3, 8)) {
        let mut parts = parts(group);
        for (completion, reward) in parts.completions.iter_mut().zip(rewards) {
            completion.reward = reward;
        }
        let group = ScoredGroup::new(parts).unwrap();
        let message = wire::ScoredGroup::from(group.clone());
        prop_assert_eq!(ScoredGroup::try_from(message).unwrap(), group);
    }
}
