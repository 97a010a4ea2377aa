//! A node's part in the broadcasts of weights: its seat's thread on one side, its heartbeats on the other.
//!
//! Invariant: nothing here waits for the thread, which a library may hold up; what it said last is said
//! again with each heartbeat, so a member that hangs looks like one that does nothing. A thread that was
//! given up says nothing more, and the node is no member.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use octet_broadcast::wire::{Parcel, orders_from_proto, state_to_proto};
use octet_broadcast::{Factory, Patience, Report, Station, Store};
use octet_proto::broadcast::{BroadcastOrders, BroadcastState};
use tokio::sync::watch;

use crate::wait::{WaitGuard, Waits};

/// A node's membership.
#[derive(Debug)]
pub struct Membership {
    station: Station,
    heard: watch::Receiver<Option<Report>>,
    expected: Expected,
    waits: Waits,
    wait: Option<WaitGuard>,
    fault: Option<String>,
    begun: Instant,
}

/// What the next broadcast carries, for the store that will take it in. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Expected(Arc<Mutex<Option<Parcel>>>);

impl Expected {
    /// What a broadcast of this version carries.
    ///
    /// # Errors
    /// The coordinator has not said it.
    pub fn get(&self, version: u64) -> Result<Parcel, String> {
        let known = self.lock().clone().filter(|parcel| parcel.version == version);
        known.ok_or_else(|| format!("the coordinator has not said what version {version} is"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parcel>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    /// Starts the thread that will make the transport around the store.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn join(
        factory: Factory,
        waits: &Waits,
        store: impl FnOnce(Expected) -> Box<dyn Store>,
    ) -> io::Result<Self> {
        let (begun, expected) = (Instant::now(), Expected::default());
        let (said, heard) = watch::channel(None);
        let store = store(expected.clone());
        let station = Station::start(
            factory,
            store,
            Patience::default(),
            move || begun.elapsed(),
            move |news| match news {
                Ok(report) => said.send_modify(|known| *known = Some(report)),
                Err(error) => {
                    tracing::warn!(%error, "no transport for broadcasts: versions are fetched");
                    // From now on it is no member, and none that hangs.
                    said.send_modify(|known| *known = None);
                }
            },
        )?;
        Ok(Self { station, heard, expected, waits: waits.clone(), wait: None, fault: None, begun })
    }

    /// Waits for news of the seat, which the coordinator should hear of soon.
    pub async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            // There will be no more.
            std::future::pending::<()>().await;
        }
        let report = self.heard.borrow_and_update().clone();
        let fault = report.as_ref().and_then(|report| report.fault.clone());
        if let Some(fault) = fault.as_ref().filter(|_| fault != self.fault) {
            tracing::warn!(fault, "a broadcast failed here");
        }
        self.fault = fault;
        self.wait = report.and_then(|report| report.doing).map(|(doing, until)| {
            let within = until.saturating_sub(self.begun.elapsed());
            self.waits.enter("broadcast", doing, within)
        });
    }

    /// What to tell the coordinator, whose newest version is `holds`; nothing while it is not known whether
    /// there is a transport.
    pub fn say(&self, holds: Option<u64>, parcel_bytes: u64) -> Option<BroadcastState> {
        let report = self.heard.borrow().clone()?;
        let mut state = report.state;
        state.holds = state.holds.max(holds);
        Some(state_to_proto(&state, parcel_bytes, report.fault.unwrap_or_default()))
    }

    /// Takes orders from the coordinator.
    pub fn hear(&self, orders: &BroadcastOrders) {
        match orders_from_proto(orders) {
            Ok((orders, parcel)) => {
                if parcel.is_some() {
                    *self.expected.lock() = parcel;
                }
                self.station.tell(orders);
            }
            Err(error) => tracing::warn!(%error, "pass over orders for a broadcast"),
        }
    }
}
