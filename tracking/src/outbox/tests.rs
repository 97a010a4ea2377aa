//! The outbox against a server that fails, forgets to answer and refuses, and a client that is killed.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const SMALL: Limits = Limits { metrics: 7, params: 3, tags: 2, items: 8, bytes: 4_000 };

/// What happens to the next call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The server takes it.
    Arrives,
    /// The server takes it, and the answer is lost.
    Unanswered,
    /// It never arrives.
    Lost,
    /// The client waited too long for the answer; the server has it.
    Overdue,
    /// The client is killed before, and goes on from what the disk remembers.
    Killed,
}

/// One item as a server sees it.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Param(String, String),
    Tag(String, String),
    Metric(String, u64, i64),
    File(String),
    Status(i64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Arrives),
        Just(Fate::Unanswered),
        Just(Fate::Lost),
        Just(Fate::Overdue),
        Just(Fate::Killed),
    ]
}

/// Names are unique by their place, so that an item can be told from every other.
fn event(at: usize) -> impl Strategy<Value = Event> {
    let pairs = move |most: usize| {
        prop::collection::vec("x{0,300}", 1..most).prop_map(move |values| {
            let named = values.into_iter().enumerate();
            named.map(|(i, value)| (format!("k{at}.{i}"), value)).collect::<Vec<_>>()
        })
    };
    let metrics = (1..30usize).prop_map(move |n| {
        let value = |i: usize| (format!("m{at}.{i}"), Number(i as f64));
        Event::Metrics { step: at as u64, values: (0..n).map(value).collect() }
    });
    prop_oneof![
        4 => metrics,
        1 => pairs(12).prop_map(|values| Event::Params { values }),
        1 => pairs(12).prop_map(|values| Event::Tags { values }),
        1 => Just(Event::Artifact { file: format!("f{at}") }),
        1 => Just(Event::Status { status: Status::Running }),
    ]
}

fn journal() -> impl Strategy<Value = Vec<Entry>> {
    (1usize..12).prop_flat_map(|n| {
        let events: Vec<_> = (0..n).map(event).collect();
        events.prop_map(|events| {
            let entries = events.into_iter().enumerate();
            let entry = |(i, event)| Entry { id: i as i64 + 1, at_ms: 1000 + i as i64, event };
            entries.map(entry).collect()
        })
    })
}

/// All that a journal tells, in its order.
fn told(entries: &[Entry]) -> Vec<Item> {
    let mut items = Vec::new();
    for Entry { at_ms, event, .. } in entries {
        match event.clone() {
            Event::Params { values } => {
                items.extend(values.into_iter().map(|(k, v)| Item::Param(k, v)));
            }
            Event::Tags { values } => {
                items.extend(values.into_iter().map(|(k, v)| Item::Tag(k, v)))
            }
            Event::Metrics { step, values } => {
                items.extend(values.into_iter().map(|(k, _)| Item::Metric(k, step, *at_ms)));
            }
            Event::Artifact { file } => items.push(Item::File(file)),
            Event::Status { .. } => items.push(Item::Status(*at_ms)),
        }
    }
    items
}

fn received(call: &Call) -> Vec<Item> {
    match call.clone() {
        Call::Upload { file } => vec![Item::File(file)],
        Call::Status { at_ms, .. } => vec![Item::Status(at_ms)],
        Call::Batch(Batch { params, tags, metrics }) => {
            let params = params.into_iter().map(|(k, v)| Item::Param(k, v));
            let tags = tags.into_iter().map(|(k, v)| Item::Tag(k, v));
            let metrics = metrics.into_iter().map(|m| Item::Metric(m.key, m.step, m.at_ms));
            params.chain(tags).chain(metrics).collect()
        }
    }
}

fn within(call: &Call, limits: Limits) -> bool {
    let Call::Batch(batch) = call else { return true };
    batch.params.len() <= limits.params
        && batch.tags.len() <= limits.tags
        && batch.metrics.len() <= limits.metrics
        && batch.len() <= limits.items
        && !batch.is_empty()
}

proptest! {
    #[test]
    fn everything_arrives_or_is_refused_by_name(
        entries in journal(),
        fates in prop::collection::vec(fate(), 0..60),
        poison in prop::collection::btree_set(0usize..60, 0..4),
    ) {
        let all = told(&entries);
        let poison: Vec<Item> = poison.iter().filter_map(|at| all.get(*at).cloned()).collect();
        let mut disk = Position::START;
        let mut outbox = Outbox::new(disk, SMALL, Names::Octet);
        let (mut server, mut aside) = (Vec::<Item>::new(), 0);
        let mut fates = fates.into_iter();
        let mut calls = 0;
        while let Some(planned) = outbox.next(&entries) {
            calls += 1;
            prop_assert!(calls < 2_000, "it does not come to an end");
            prop_assert!(within(&planned.call, SMALL), "{:?}", planned.call);
            let items = received(&planned.call);
            prop_assert_eq!(items.len(), planned.items);
            let fate = fates.next().unwrap_or(Fate::Arrives);
            if matches!(fate, Fate::Killed) {
                outbox = Outbox::new(disk, SMALL, Names::Octet);
                continue;
            }
            if matches!(fate, Fate::Lost) {
                continue;
            }
            if items.iter().any(|item| poison.contains(item)) {
                // Nothing of a refused call is kept; the refusal itself may be lost, too.
                if matches!(fate, Fate::Arrives) && let Some(put) = outbox.refused(&planned, "no") {
                    prop_assert_eq!(items.len(), 1);
                    prop_assert_eq!(put.at, planned.before);
                    aside += 1;
                    disk = outbox.done();
                }
                continue;
            }
            for item in items {
                if !server.contains(&item) {
                    server.push(item);
                }
            }
            match fate {
                Fate::Arrives => {
                    outbox.acknowledged(&planned);
                    prop_assert!(outbox.done() > disk, "no progress");
                    disk = outbox.done();
                }
                Fate::Overdue => outbox.overdue(&planned),
                _ => {}
            }
        }
        let expected: Vec<Item> = all.into_iter().filter(|item| !poison.contains(item)).collect();
        // Within a call, kinds are grouped; between calls, the journal's order holds.
        let order = |items: &[Item], of: fn(&Item) -> bool| items.iter().filter(|i| of(i)).cloned().collect::<Vec<_>>();
        for of in [
            (|i| matches!(i, Item::Metric(..))) as fn(&Item) -> bool,
            |i| matches!(i, Item::Param(..)),
            |i| matches!(i, Item::Tag(..)),
            |i| matches!(i, Item::File(..) | Item::Status(..)),
        ] {
            prop_assert_eq!(order(&server, of), order(&expected, of));
        }
        prop_assert_eq!(aside, poison.len());
    }
}

fn metrics(id: i64, n: usize) -> Entry {
    let values = (0..n).map(|i| (format!("m{i}"), Number(i as f64))).collect();
    Entry { id, at_ms: id, event: Event::Metrics { step: id as u64, values } }
}

#[test]
fn steps_share_a_batch_up_to_the_limit() {
    let entries: Vec<Entry> = (1..=60).map(|id| metrics(id, 20)).collect();
    let mut outbox = Outbox::new(Position::START, Limits::MLFLOW, Names::Trl);
    let first = outbox.next(&entries).unwrap();
    assert_eq!((first.items, first.after), (1000, Position { event: 51, item: 0 }));
    outbox.acknowledged(&first);
    let second = outbox.next(&entries).unwrap();
    assert_eq!((second.items, second.after), (200, Position { event: 61, item: 0 }));
    outbox.acknowledged(&second);
    assert_eq!(outbox.next(&entries), None);
}

#[test]
fn an_event_that_is_too_long_goes_in_parts() {
    let mut outbox = Outbox::new(Position::START, SMALL, Names::Octet);
    let entries = [metrics(1, 10)];
    let first = outbox.next(&entries).unwrap();
    assert_eq!((first.items, first.after), (7, Position { event: 1, item: 7 }));
    outbox.acknowledged(&first);
    assert_eq!(outbox.next(&entries).unwrap().items, 3);
}

#[test]
fn a_batch_stays_below_the_servers_size() {
    let long = |i: usize| (format!("p{i}"), "\u{1}".repeat(6000));
    let params = Event::Params { values: (0..100).map(long).collect() };
    let entries = [Entry { id: 1, at_ms: 1, event: params }];
    let first = Outbox::new(Position::START, Limits::MLFLOW, Names::Trl).next(&entries).unwrap();
    let Call::Batch(batch) = &first.call else { panic!("{:?}", first.call) };
    let bytes = serde_json::to_string(&batch.params).unwrap().len();
    assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
}
