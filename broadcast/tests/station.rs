//! A seat on its own thread, whose library may do what it likes.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use octet_broadcast::{
    Epoch, Factory, Fault, Order, Orders, Place, Progress, Report, Station, Store, Transport,
    UniqueId,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Forms at once, hangs inside of a broadcast while it is told to, and says what was asked of it.
struct Wire {
    hangs: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<&'static str>>>,
    sender: std::sync::mpsc::SyncSender<()>,
}

impl Transport for Wire {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        Ok(UniqueId([3; 128]))
    }

    fn form(&mut self, _: &Place) -> Result<(), Fault> {
        self.asked.lock().unwrap().push("form");
        Ok(())
    }

    fn broadcast(&mut self, _: u64) -> Result<(), Fault> {
        self.asked.lock().unwrap().push("broadcast");
        self.sender.send(()).unwrap();
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        Ok(Progress::Idle)
    }

    fn abort(&mut self) {
        self.asked.lock().unwrap().push("abort");
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

fn orders(order: Order) -> Orders {
    Orders { order, within: PATIENCE, catch_up: None }
}

fn until(heard: &Receiver<Result<Report, Fault>>, wished: impl Fn(&Report) -> bool) -> Report {
    loop {
        let report = heard.recv_timeout(PATIENCE).unwrap().unwrap();
        if wished(&report) {
            return report;
        }
    }
}

#[test]
fn a_library_that_does_not_return_holds_up_nobody_and_is_left_when_it_does() {
    let (hangs, asked) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let (sender, inside) = sync_channel(1);
    let wire = Wire { hangs: Arc::clone(&hangs), asked: Arc::clone(&asked), sender };
    let (said, heard) = sync_channel(64);
    let begun = Instant::now();
    let station = Station::start(
        Factory::new(move |_| Ok(wire)),
        Box::new(Nothing),
        move || begun.elapsed(),
        move |report| said.send(report).unwrap(),
    );
    let station = station.unwrap();
    assert_eq!(until(&heard, |_| true), Report::default(), "it can take part");
    station.tell(orders(Order::Name(Epoch(1))));
    until(&heard, |report| report.state.named == Some((Epoch(1), UniqueId([3; 128]))));
    let place = Place { epoch: Epoch(1), id: UniqueId([3; 128]), rank: 0, world: 1 };
    station.tell(orders(Order::Sit(place)));
    until(&heard, |report| report.state.seated == Some(Epoch(1)));
    station.tell(orders(Order::Send(place, 7)));
    inside.recv_timeout(PATIENCE).unwrap();
    // It is inside of the library. Telling it things does not wait, and of these the newest counts.
    for epoch in 2..1_000 {
        station.tell(orders(Order::Sit(Place { epoch: Epoch(epoch), ..place })));
    }
    assert!(heard.try_recv().is_err(), "it says nothing: not that it has begun, and no lie");
    hangs.store(false, Ordering::SeqCst);
    until(&heard, |report| report.state.seated == Some(Epoch(999)));
    assert_eq!(*asked.lock().unwrap(), ["form", "broadcast", "abort", "form"]);
    drop(station);
    // The thread gives the communicator up and ends, and its end of the channel with it.
    while heard.recv_timeout(PATIENCE).is_ok() {}
    assert_eq!(asked.lock().unwrap().last(), Some(&"abort"));
}

#[test]
fn without_a_transport_there_is_no_member() {
    let (said, heard) = sync_channel(1);
    let missing = || Fault { doing: "open", problem: "there is none".to_owned() };
    let factory = Factory::new(move |_| Err::<Wire, _>(missing()));
    let say = move |report| said.send(report).unwrap();
    let _station = Station::start(factory, Box::new(Nothing), || Duration::ZERO, say).unwrap();
    assert_eq!(
        heard.recv_timeout(PATIENCE).unwrap().unwrap_err().to_string(),
        "open: there is none"
    );
    assert!(heard.recv_timeout(PATIENCE).is_err(), "that is the end of it");
}
