//! A collective transport between the roles of one process, which can be told to hang, to be slow and to
//! give other bytes than were sent.
//!
//! It is as silent as NCCL: whoever is in a communicator that another one has left waits for ever. A
//! communicator whose members disagree ends the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use octet_broadcast::{Abort, Epoch, Factory, Fault, Place, Progress, Store, Transport, UniqueId};

/// Everything that is between the members. Clones share it.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Mutex<Net>>);

#[derive(Default)]
pub struct Net {
    drawn: u64,
    comms: BTreeMap<[u8; 128], Comm>,
    /// Members whose library does not return from a broadcast.
    pub stuck: BTreeSet<String>,
    /// How long a broadcast takes.
    pub takes: Duration,
    /// Who gets one wrong byte, once, in which version.
    pub corrupts: Option<(String, u64)>,
    /// Who received which version, in which epoch.
    pub received: Vec<(String, u64, u64)>,
}

struct Comm {
    epoch: Epoch,
    world: usize,
    ranks: BTreeMap<usize, String>,
    left: bool,
    bytes: BTreeMap<u64, Bytes>,
    /// By version: who has begun, and when the last one did.
    begun: BTreeMap<u64, (usize, Instant)>,
}

impl Fabric {
    pub fn with<T>(&self, act: impl FnOnce(&mut Net) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// A transport of the member of that name.
    pub fn member(&self, name: &str) -> Factory {
        let (fabric, name) = (self.clone(), name.to_owned());
        Factory::new(move |store| {
            Ok(Wire { fabric, name, store, comm: None, rank: 0, doing: None })
        })
    }
}

struct Wire {
    fabric: Fabric,
    name: String,
    store: Box<dyn Store>,
    comm: Option<[u8; 128]>,
    rank: usize,
    doing: Option<Doing>,
}

#[derive(Clone, Copy)]
enum Doing {
    Forming,
    Broadcasting(u64),
}

fn fault(problem: String) -> Fault {
    Fault { doing: "broadcast over the fabric", problem }
}

impl Transport for Wire {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        let drawn = self.fabric.with(|net| {
            net.drawn += 1;
            net.drawn
        });
        let mut id = [0; 128];
        id[..8].copy_from_slice(&drawn.to_le_bytes());
        Ok(UniqueId(id))
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        assert!(self.comm.is_none() && self.doing.is_none(), "two communicators at once");
        let (name, place) = (self.name.clone(), *place);
        self.fabric.with(|net| {
            let comm = net.comms.entry(place.id.0).or_insert_with(|| Comm {
                epoch: place.epoch,
                world: place.world,
                ranks: BTreeMap::new(),
                left: false,
                bytes: BTreeMap::new(),
                begun: BTreeMap::new(),
            });
            assert_eq!((comm.epoch, comm.world), (place.epoch, place.world), "epochs are mixed");
            let before = comm.ranks.insert(place.rank, name);
            assert_eq!(before, None, "two members have the rank {}", place.rank);
        });
        (self.comm, self.rank, self.doing) = (Some(place.id.0), place.rank, Some(Doing::Forming));
        Ok(())
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        assert!(self.doing.is_none(), "two things at once");
        while self.fabric.with(|net| net.stuck.contains(&self.name)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let bytes = match self.rank {
            0 => Some(self.store.outgoing(version).map_err(fault)?.concat().into()),
            _ => None,
        };
        let id = self.comm.expect("a communicator");
        self.fabric.with(|net| {
            let comm = net.comms.get_mut(&id).unwrap();
            comm.bytes.extend(bytes.map(|bytes| (version, bytes)));
            let begun = comm.begun.entry(version).or_insert((0, Instant::now()));
            *begun = (begun.0 + 1, Instant::now());
        });
        self.doing = Some(Doing::Broadcasting(version));
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        let (Some(id), Some(doing)) = (self.comm, self.doing) else { return Ok(Progress::Idle) };
        let (name, rank) = (self.name.clone(), self.rank);
        let came = self.fabric.with(|net| {
            let comm = &net.comms[&id];
            match doing {
                _ if comm.left => None,
                Doing::Forming => (comm.ranks.len() == comm.world).then(Bytes::new),
                Doing::Broadcasting(version) => {
                    let (begun, last) = comm.begun[&version];
                    (begun == comm.world && last.elapsed() >= net.takes)
                        .then(|| comm.bytes[&version].clone())
                }
            }
        });
        let Some(mut bytes) = came else { return Ok(Progress::Busy) };
        self.doing = None;
        if let (Doing::Broadcasting(version), true) = (doing, rank > 0) {
            let expected = self.store.expected(version).map_err(fault)?;
            assert_eq!(expected, bytes.len(), "{name} made room for another parcel");
            let epoch = self.fabric.with(|net| {
                if net.corrupts.take_if(|who| *who == (name.clone(), version)).is_some() {
                    let mut wrong = bytes.to_vec();
                    *wrong.last_mut().unwrap() ^= 1;
                    bytes = wrong.into();
                }
                net.comms[&id].epoch.0
            });
            self.store.arrived(version, bytes).map_err(fault)?;
            self.fabric.with(|net| net.received.push((name, version, epoch)));
        }
        Ok(Progress::Idle)
    }

    fn abort(&mut self) {
        self.doing = None;
        if let Some(id) = self.comm.take() {
            self.fabric.with(|net| net.comms.get_mut(&id).unwrap().left = true);
        }
    }

    fn abort_handle(&self) -> Arc<dyn Abort> {
        // No call of this one waits beyond any deadline.
        Arc::new(|| ())
    }
}
