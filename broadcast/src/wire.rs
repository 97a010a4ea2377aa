//! Words to messages and back.
//!
//! Invariant: what a message says is what was meant, or it is refused; nothing is filled in.

use std::time::Duration;

use octet_proto::broadcast as proto;

use crate::words::{Epoch, Order, Orders, Place, State, UniqueId};

/// A message that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected {expected} in a message about broadcasts, found {found}: the nodes are of different versions"
)]
pub struct Malformed {
    /// What was expected.
    pub expected: &'static str,
    /// What came.
    pub found: String,
}

/// What a broadcast carries, as the coordinator tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The version.
    pub version: u64,
    /// How many bytes come.
    pub bytes: u64,
    /// The digest that the version was published with, hex.
    pub digest: String,
}

/// A member's state as a message; `parcel_bytes` is the learner's alone.
pub fn state_to_proto(state: &State, parcel_bytes: u64, fault: String) -> proto::BroadcastState {
    let epoch = |epoch: Option<Epoch>| epoch.map_or(0, |Epoch(epoch)| epoch);
    proto::BroadcastState {
        heard: state.heard.0,
        holds: state.holds,
        parcel_bytes,
        named: state.named.map(|(Epoch(epoch), id)| proto::BroadcastName {
            epoch,
            unique_id: id.0.to_vec().into(),
        }),
        seated: epoch(state.seated),
        begun: state.begun.map(|(Epoch(epoch), version)| proto::BroadcastBegun { epoch, version }),
        done: state.done.map(|(Epoch(epoch), version)| proto::BroadcastDone { epoch, version }),
        failed: epoch(state.failed),
        fault,
    }
}

/// A member's state.
///
/// # Errors
/// The identifier is none.
pub fn state_from_proto(message: &proto::BroadcastState) -> Result<State, Malformed> {
    let epoch = |epoch: u64| (epoch > 0).then_some(Epoch(epoch));
    let named = message.named.as_ref();
    let named = named.map(|named| Ok((Epoch(named.epoch), unique_id(&named.unique_id)?)));
    Ok(State {
        heard: Epoch(message.heard),
        holds: message.holds,
        named: named.transpose()?,
        seated: epoch(message.seated),
        begun: message.begun.as_ref().map(|begun| (Epoch(begun.epoch), begun.version)),
        done: message.done.as_ref().map(|done| (Epoch(done.epoch), done.version)),
        failed: epoch(message.failed),
    })
}

/// Orders as a message. `parcel` says what the version is that is to be broadcast; without it there is
/// no order, for nobody could know what came.
pub fn orders_to_proto(orders: &Orders, parcel: Option<&Parcel>) -> proto::BroadcastOrders {
    let order = match (orders.order, parcel) {
        (Order::Name(epoch), _) => Some(proto::Order::Name(epoch.0)),
        (Order::Sit(at), _) => Some(proto::Order::Sit(place_to_proto(&at))),
        (Order::Send(at, version), Some(parcel)) if parcel.version == version => {
            Some(proto::Order::Send(proto::BroadcastSend {
                place: Some(place_to_proto(&at)),
                version,
                parcel_bytes: parcel.bytes,
                digest: parcel.digest.clone(),
            }))
        }
        (Order::Stand | Order::Send(..), _) => None,
    };
    // Upwards: a member that gives up sooner than its convener looks like one whose transport broke.
    let within_ms = orders.within.as_nanos().div_ceil(1_000_000);
    let within_ms = u64::try_from(within_ms).unwrap_or(u64::MAX);
    proto::BroadcastOrders { order, within_ms }
}

/// Orders, and what is to be broadcast.
///
/// # Errors
/// A place is missing, or is none.
pub fn orders_from_proto(
    message: &proto::BroadcastOrders,
) -> Result<(Orders, Option<Parcel>), Malformed> {
    let (order, parcel) = match &message.order {
        None => (Order::Stand, None),
        Some(proto::Order::Name(epoch)) => (Order::Name(Epoch(*epoch)), None),
        Some(proto::Order::Sit(at)) => (Order::Sit(place(at)?), None),
        Some(proto::Order::Send(send)) => {
            let none = || malformed("a place in the communicator", "none");
            let at = place(send.place.as_ref().ok_or_else(none)?)?;
            let (version, bytes, digest) = (send.version, send.parcel_bytes, send.digest.clone());
            (Order::Send(at, version), Some(Parcel { version, bytes, digest }))
        }
    };
    let within = Duration::from_millis(message.within_ms);
    Ok((Orders { order, within, catch_up: None }, parcel))
}

fn place_to_proto(place: &Place) -> proto::BroadcastPlace {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    proto::BroadcastPlace {
        epoch: place.epoch.0,
        unique_id: place.id.0.to_vec().into(),
        rank: number(place.rank),
        world: number(place.world),
    }
}

fn place(message: &proto::BroadcastPlace) -> Result<Place, Malformed> {
    let (rank, world) = (message.rank as usize, message.world as usize);
    if rank >= world {
        let found = format!("rank {rank} of {world}");
        return Err(malformed("a rank below the number of members", found));
    }
    Ok(Place { epoch: Epoch(message.epoch), id: unique_id(&message.unique_id)?, rank, world })
}

fn unique_id(bytes: &[u8]) -> Result<UniqueId, Malformed> {
    let id = bytes.try_into().map(UniqueId);
    id.map_err(|_| malformed("an identifier of 128 bytes", format!("{} bytes", bytes.len())))
}

fn malformed(expected: &'static str, found: impl Into<String>) -> Malformed {
    Malformed { expected, found: found.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: UniqueId = UniqueId([7; 128]);

    #[test]
    fn states_come_back_as_they_went() {
        let full = State {
            heard: Epoch(4),
            holds: Some(0),
            named: Some((Epoch(4), ID)),
            seated: Some(Epoch(3)),
            begun: Some((Epoch(3), Some(0))),
            done: Some((Epoch(3), 0)),
            failed: Some(Epoch(2)),
        };
        for state in [full, State { begun: Some((Epoch(9), None)), ..full }, State::default()] {
            let message = state_to_proto(&state, 12, "fault".into());
            assert_eq!(state_from_proto(&message).unwrap(), state);
        }
    }

    #[test]
    fn orders_come_back_as_they_went_and_nothing_is_sent_that_nobody_knows() {
        let place = Place { epoch: Epoch(4), id: ID, rank: 1, world: 2 };
        let within = Duration::from_millis(1500);
        let parcel = Parcel { version: 5, bytes: 1 << 33, digest: "cafe".into() };
        let orders = |order| Orders { order, within, catch_up: None };
        for order in [Order::Stand, Order::Name(Epoch(4)), Order::Sit(place), Order::Send(place, 5)]
        {
            let message = orders_to_proto(&orders(order), Some(&parcel));
            let (found, what) = orders_from_proto(&message).unwrap();
            assert_eq!(found, orders(order));
            assert_eq!(what, matches!(order, Order::Send(..)).then(|| parcel.clone()));
        }
        for (order, known) in
            [(Order::Send(place, 5), None), (Order::Send(place, 6), Some(&parcel))]
        {
            let (found, what) = orders_from_proto(&orders_to_proto(&orders(order), known)).unwrap();
            assert_eq!((found.order, what), (Order::Stand, None));
        }
    }

    #[test]
    fn nobody_is_told_to_give_up_before_its_convener_does() {
        for (micros, told) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (3_999_001, 4000)] {
            let within = Duration::from_micros(micros);
            let orders = Orders { order: Order::Stand, within, catch_up: None };
            assert_eq!(orders_to_proto(&orders, None).within_ms, told, "{micros} µs");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let place = proto::BroadcastPlace { epoch: 1, rank: 2, world: 2, ..Default::default() };
        let sit =
            |place| proto::BroadcastOrders { order: Some(proto::Order::Sit(place)), within_ms: 1 };
        let error = orders_from_proto(&sit(place.clone())).unwrap_err();
        assert!(error.to_string().contains("rank 2 of 2"), "{error}");
        let place = proto::BroadcastPlace { rank: 1, unique_id: vec![0; 127].into(), ..place };
        let error = orders_from_proto(&sit(place)).unwrap_err();
        assert!(error.to_string().contains("127 bytes"), "{error}");
    }
}
