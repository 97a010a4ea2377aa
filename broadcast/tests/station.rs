//! A seat on its own thread, whose library may do what it likes.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use octet_broadcast::{
    Abort, Epoch, Factory, Fault, Order, Orders, Patience, Place, Progress, Report, Station, Store,
    Transport, UniqueId,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(200);

/// Forms at once, hangs inside of a broadcast or behind it while it is told to, and says what was asked of it.
#[derive(Clone)]
struct Wire {
    /// Inside of `broadcast`.
    hangs: Arc<AtomicBool>,
    /// Inside of the `poll` after it.
    hangs_behind: Arc<AtomicBool>,
    /// A broadcast does not end, and its abort does not return.
    waits_for_others: Arc<AtomicBool>,
    /// Whether an abort from another thread ends that.
    obeys: bool,
    asked: Arc<Mutex<Vec<&'static str>>>,
    sender: SyncSender<()>,
    broadcasts: bool,
}

impl Wire {
    fn new(obeys: bool) -> (Self, Receiver<()>) {
        let (sender, inside) = sync_channel(1);
        let wire = Self {
            hangs: Arc::default(),
            hangs_behind: Arc::default(),
            waits_for_others: Arc::default(),
            obeys,
            asked: Arc::default(),
            sender,
            broadcasts: false,
        };
        (wire, inside)
    }

    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }

    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push(what);
    }

    fn hang(&self, while_set: &AtomicBool) {
        self.sender.send(()).unwrap();
        while while_set.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Transport for Wire {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        Ok(UniqueId([3; 128]))
    }

    fn form(&mut self, _: &Place) -> Result<(), Fault> {
        self.note("form");
        Ok(())
    }

    fn broadcast(&mut self, _: u64) -> Result<(), Fault> {
        self.note("broadcast");
        self.broadcasts = true;
        if self.hangs.load(Ordering::SeqCst) {
            self.hang(&self.hangs);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        if self.broadcasts && self.hangs_behind.load(Ordering::SeqCst) {
            self.hang(&self.hangs_behind);
        }
        if self.broadcasts && self.waits_for_others.load(Ordering::SeqCst) {
            return Ok(Progress::Busy);
        }
        // Also of what was aborted: its kernels have ended, after all.
        Ok(Progress::Idle)
    }

    fn abort(&mut self) {
        self.note("abort");
        if self.broadcasts && self.waits_for_others.load(Ordering::SeqCst) {
            self.hang(&self.waits_for_others);
        }
        self.broadcasts = false;
    }

    fn abort_handle(&self) -> Arc<dyn Abort> {
        let wire = self.clone();
        Arc::new(move || {
            wire.note("abort from outside");
            if wire.obeys {
                wire.hangs_behind.store(false, Ordering::SeqCst);
            }
        })
    }
}

struct Nothing;

impl Store for Nothing {
    fn outgoing(&mut self, _: u64) -> Result<Vec<Bytes>, String> {
        Ok(Vec::new())
    }

    fn expected(&mut self, _: u64) -> Result<usize, String> {
        Ok(0)
    }

    fn arrived(&mut self, _: u64, _: Bytes) -> Result<(), String> {
        Ok(())
    }
}

type Heard = Receiver<Result<Report, Fault>>;

fn start(wire: &Wire, patience: Patience) -> (Station, Heard) {
    let (said, heard) = sync_channel(64);
    let (wire, begun) = (wire.clone(), Instant::now());
    let station = Station::start(
        Factory::new(move |_| Ok(wire)),
        Box::new(Nothing),
        patience,
        move || begun.elapsed(),
        move |report| said.send(report).unwrap(),
    );
    assert_eq!(until(&heard, |_| true), Report::default(), "it can take part");
    (station.unwrap(), heard)
}

fn orders(order: Order, within: Duration) -> Orders {
    Orders { order, within, catch_up: None }
}

fn until(heard: &Heard, wished: impl Fn(&Report) -> bool) -> Report {
    loop {
        let report = heard.recv_timeout(PATIENCE).unwrap().unwrap();
        if wished(&report) {
            return report;
        }
    }
}

fn place(epoch: u64) -> Place {
    Place { epoch: Epoch(epoch), id: UniqueId([3; 128]), rank: 0, world: 1 }
}

fn sit(station: &Station, heard: &Heard, epoch: u64) {
    station.tell(orders(Order::Sit(place(epoch)), PATIENCE));
    until(heard, |report| report.state.seated == Some(Epoch(epoch)));
}

#[test]
fn a_library_that_does_not_return_holds_up_nobody_and_is_left_when_it_does() {
    let (wire, inside) = Wire::new(false);
    wire.hangs.store(true, Ordering::SeqCst);
    let (station, heard) = start(&wire, Patience::default());
    station.tell(orders(Order::Name(Epoch(1)), PATIENCE));
    until(&heard, |report| report.state.named == Some((Epoch(1), UniqueId([3; 128]))));
    sit(&station, &heard, 1);
    station.tell(orders(Order::Send(place(1), 7), PATIENCE));
    inside.recv_timeout(PATIENCE).unwrap();
    // It is inside of the library. Telling it things does not wait, and of these the newest counts.
    for epoch in 2..1_000 {
        station.tell(orders(Order::Sit(place(epoch)), PATIENCE));
    }
    let said = heard.try_recv().unwrap().unwrap();
    assert!(said.doing.unwrap().0.contains("version 7"), "what it is in");
    assert_ne!(said.state.begun, Some((Epoch(1), Some(7))), "no lie");
    assert!(heard.try_recv().is_err(), "it says nothing more");
    wire.hangs.store(false, Ordering::SeqCst);
    until(&heard, |report| report.state.seated == Some(Epoch(999)));
    assert_eq!(wire.asked(), ["form", "broadcast", "abort", "form"]);
    drop(station);
    // The thread gives the communicator up and ends, and its end of the channel with it.
    while heard.recv_timeout(PATIENCE).is_ok() {}
    assert_eq!(wire.asked().last(), Some(&"abort"));
}

#[test]
fn a_call_that_waits_beyond_the_deadline_is_aborted_from_outside_and_has_failed() {
    let (wire, inside) = Wire::new(true);
    wire.hangs_behind.store(true, Ordering::SeqCst);
    let (station, heard) = start(&wire, Patience { grace: SOON, ..Patience::default() });
    sit(&station, &heard, 1);
    let told = Instant::now();
    station.tell(orders(Order::Send(place(1), 7), 3 * SOON));
    inside.recv_timeout(PATIENCE).unwrap();
    let report = until(&heard, |report| report.state.failed == Some(Epoch(1)));
    assert!(told.elapsed() >= 4 * SOON, "not before the deadline and the grace");
    assert_eq!(report.state.done, None, "although the transport says that nothing is under way");
    let fault = report.fault.unwrap();
    assert!(fault.contains("aborted from another thread"), "{fault}");
    // The next epoch is as good as any.
    sit(&station, &heard, 2);
    assert_eq!(wire.asked(), ["form", "broadcast", "abort from outside", "abort", "form"]);
    station.tell(orders(Order::Send(place(2), 8), PATIENCE));
    until(&heard, |report| report.state.done == Some((Epoch(2), 8)));
}

#[test]
fn a_call_that_not_even_an_abort_ends_is_said_to_be_lost() {
    let (wire, inside) = Wire::new(false);
    wire.hangs_behind.store(true, Ordering::SeqCst);
    let patience = Patience { grace: SOON, lost: SOON, ..Patience::default() };
    let (station, heard) = start(&wire, patience);
    sit(&station, &heard, 1);
    station.tell(orders(Order::Send(place(1), 7), SOON));
    inside.recv_timeout(PATIENCE).unwrap();
    let lost = loop {
        if let Err(lost) = heard.recv_timeout(PATIENCE).unwrap() {
            break lost.to_string();
        }
    };
    assert!(lost.starts_with("poll: the library did not return within"), "{lost}");
    station.tell(orders(Order::Sit(place(2)), SOON));
    // It returns after all: the thread ends, and takes part in nothing more.
    wire.hangs_behind.store(false, Ordering::SeqCst);
    assert!(heard.recv_timeout(PATIENCE).is_err(), "that was its last word");
    assert_eq!(wire.asked().iter().filter(|asked| **asked == "form").count(), 1);
}

#[test]
fn without_a_transport_there_is_no_member() {
    let (said, heard) = sync_channel(1);
    let missing = || Fault { doing: "open", problem: "there is none".to_owned() };
    let factory = Factory::new(move |_| Err::<Wire, _>(missing()));
    let say = move |report| said.send(report).unwrap();
    let clock = || Duration::ZERO;
    let station = Station::start(factory, Box::new(Nothing), Patience::default(), clock, say);
    let _station = station.unwrap();
    assert_eq!(
        heard.recv_timeout(PATIENCE).unwrap().unwrap_err().to_string(),
        "open: there is none"
    );
    assert!(heard.recv_timeout(PATIENCE).is_err(), "that is the end of it");
}

#[test]
fn what_has_failed_is_said_before_an_abort_that_waits_for_others() {
    let (wire, inside) = Wire::new(false);
    wire.waits_for_others.store(true, Ordering::SeqCst);
    let (station, heard) = start(&wire, Patience::default());
    sit(&station, &heard, 1);
    station.tell(orders(Order::Send(place(1), 7), SOON));
    inside.recv_timeout(PATIENCE).unwrap();
    until(&heard, |report| report.state.failed == Some(Epoch(1)));
    assert_eq!(wire.asked(), ["form", "broadcast", "abort"], "it is still inside");
    // Once the others let it go it takes part again.
    wire.waits_for_others.store(false, Ordering::SeqCst);
    sit(&station, &heard, 2);
}
