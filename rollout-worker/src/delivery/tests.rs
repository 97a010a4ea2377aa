use octet_proto::GroupIndex;
use octet_proto::learner::ScoredGroup;
use proptest::prelude::*;
use tokio::time::Instant;

use super::outbox::Outbox;

#[derive(Clone, Debug)]
enum Act {
    Put(u64),
    Send,
    Confirm(u64),
    Rewind,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u64..6).prop_map(Act::Put),
        Just(Act::Send),
        (0u64..6).prop_map(Act::Confirm),
        Just(Act::Rewind),
    ]
}

proptest! {
    #[test]
    fn on_a_new_stream_exactly_what_has_no_receipt_is_sent_again(
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut outbox = Outbox::default();
        let mut unconfirmed = std::collections::BTreeSet::new();
        for act in acts {
            match act {
                Act::Put(group) => {
                    outbox.put(ScoredGroup { group, ..ScoredGroup::default() });
                    unconfirmed.insert(group);
                }
                Act::Send => {
                    let sent = outbox.send(Instant::now());
                    prop_assert!(sent.is_none_or(|sent| unconfirmed.contains(&sent.group)));
                }
                Act::Confirm(group) => {
                    prop_assert_eq!(outbox.remove(GroupIndex(group)), unconfirmed.remove(&group));
                }
                Act::Rewind => outbox.rewind(),
            }
            prop_assert_eq!(outbox.len(), unconfirmed.len());
        }
        outbox.rewind();
        prop_assert_eq!(outbox.oldest(), None);
        let again: Vec<u64> =
            std::iter::from_fn(|| outbox.send(Instant::now())).map(|sent| sent.group).collect();
        prop_assert_eq!(again, unconfirmed.into_iter().collect::<Vec<_>>());
        prop_assert!(!outbox.has_unsent());
    }
}
