//! The contract of broadcasts: what members and the coordinator tell each other with their heartbeats.

pub use crate::generated::broadcast_orders::Order;
pub use crate::generated::{
    BroadcastBegun, BroadcastDone, BroadcastEviction, BroadcastName, BroadcastOrders,
    BroadcastPhase, BroadcastPlace, BroadcastSend, BroadcastState, BroadcastStatus,
};
