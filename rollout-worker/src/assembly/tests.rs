#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn facts() -> GroupFacts {
    GroupFacts {
        group: GroupIndex(7),
        version: PolicyVersion(3),
        revision: RevisionNumber(2),
        example_json: "{}".to_owned(),
        prompt_tokens: vec![1, 2],
    }
}

fn completion(sample: u32) -> Completion {
    let tokens = vec![sample + 10; sample as usize + 1];
    let finish = if sample.is_multiple_of(2) { Finish::Stop } else { Finish::Length };
    Completion {
        group: 7,
        sample,
        logprobs: vec![-0.5; tokens.len()],
        notes: vec![],
        tokens,
        finish,
    }
}

fn reward(sample: u32) -> Reward {
    Reward { reward: f64::from(sample) / 8.0, verdict: format!("v{sample}"), detail: String::new() }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrival {
    Sampled(u32),
    Scored(u32),
}

/// All arrivals of `n` completions in the order of `keys`, but that none is scored before it is there.
fn arrivals(n: u32, keys: &[u32]) -> Vec<Arrival> {
    let mut order: Vec<(u32, Arrival)> = (0..n)
        .flat_map(|sample| {
            let (a, b) = (keys[2 * sample as usize], keys[2 * sample as usize + 1]);
            [(a.min(b), Arrival::Sampled(sample)), (a.max(b), Arrival::Scored(sample))]
        })
        .collect();
    order.sort_by_key(|(key, _)| *key);
    order.into_iter().map(|(_, arrival)| arrival).collect()
}

fn assemble(n: u32, order: &[Arrival]) -> Option<Scored> {
    let mut open = Some(Assembly::new(facts(), n as usize));
    let mut whole = None;
    for arrival in order {
        let mut assembly = open.take().expect("nothing comes after the last");
        match arrival {
            Arrival::Sampled(sample) => assembly.sampled(completion(*sample)).unwrap(),
            Arrival::Scored(sample) => match assembly.scored(*sample, reward(*sample)).unwrap() {
                Stage::Open(still) => assembly = still,
                Stage::Whole(scored) => {
                    whole = Some(scored);
                    continue;
                }
            },
        }
        open = Some(assembly);
    }
    whole
}

proptest! {
    #[test]
    fn any_order_of_arrivals_gives_the_same_group(
        n in 1u32..9, keys in proptest::collection::vec(any::<u32>(), 16),
    ) {
        let in_order: Vec<Arrival> = (0..n)
            .flat_map(|sample| [Arrival::Sampled(sample), Arrival::Scored(sample)])
            .collect();
        let expected = assemble(n, &in_order).expect("all arrived");
        let found = assemble(n, &arrivals(n, &keys)).expect("all arrived");
        prop_assert_eq!(&found, &expected);
        let message = found.into_message(LeaseEpoch(5), "w");
        let samples: Vec<u32> = message.completions.iter().map(|c| c.sample).collect();
        prop_assert_eq!(samples, (0..n).collect::<Vec<_>>());
        for c in &message.completions {
            prop_assert_eq!(c.reward, f64::from(c.sample) / 8.0);
            prop_assert_eq!(&c.tokens, &completion(c.sample).tokens);
        }
    }

    #[test]
    fn a_group_is_whole_at_its_last_reward_and_not_before(
        n in 1u32..9, keys in proptest::collection::vec(any::<u32>(), 16),
    ) {
        let order = arrivals(n, &keys);
        prop_assert!(assemble(n, &order[..order.len() - 1]).is_none());
    }
}

#[test]
fn what_does_not_belong_is_refused_by_name() {
    let group = GroupIndex(7);
    let mut assembly = Assembly::new(facts(), 2);
    assembly.sampled(completion(0)).unwrap();
    assert_eq!(assembly.sampled(completion(0)), Err(AssemblyError::Again { group, sample: 0 }));
    assert_eq!(
        assembly.sampled(completion(2)),
        Err(AssemblyError::NoSuchSample { group, expected: 2, found: 2 })
    );
    assert_eq!(
        assembly.sampled(Completion { group: 8, ..completion(1) }),
        Err(AssemblyError::Foreign { group, found: 8 })
    );
    let unasked = assembly.clone().scored(1, reward(1)).unwrap_err();
    assert_eq!(unasked, AssemblyError::UnaskedReward { group, sample: 1 });
    let Stage::Open(once) = assembly.scored(0, reward(0)).unwrap() else {
        panic!("sample 1 is missing");
    };
    assert_eq!((once.missing(), once.unsampled()), (1, 1));
    let twice = once.scored(0, reward(0)).unwrap_err();
    assert_eq!(twice, AssemblyError::UnaskedReward { group, sample: 0 });
}
