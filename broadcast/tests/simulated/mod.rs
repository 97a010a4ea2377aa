//! A transport between members of one process that can be told to hang, to die half-way and to be slow.
//!
//! It keeps the books that NCCL keeps in silence: a communicator whose members disagree about its epoch,
//! its size or what is broadcast in it ends the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use octet_broadcast::{Abort, Epoch, Fault, Place, Progress, Transport, UniqueId};

/// Everything that is between the members.
#[derive(Debug, Default)]
pub struct Net {
    pub now_ms: u64,
    drawn: u64,
    comms: BTreeMap<[u8; 128], Comm>,
    /// Members whose library does not answer until then.
    pub hangs_until: BTreeMap<u64, u64>,
    /// Members whose next call fails.
    pub errors: BTreeSet<u64>,
    /// How long anything takes.
    pub slow_ms: BTreeMap<u64, u64>,
    /// Whether the others notice that one has given up, as sockets sometimes let them.
    pub aborts_are_noticed: bool,
    /// What each member has received or sent.
    pub weights: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Comm {
    epoch: Epoch,
    world: usize,
    ranks: BTreeMap<usize, u64>,
    gone: BTreeSet<u64>,
    /// By version: who has begun, and since when all have.
    sent: BTreeMap<u64, BTreeMap<u64, u64>>,
    formed_at: Option<u64>,
}

/// One member's end.
#[derive(Debug)]
pub struct Wire {
    pub net: Rc<RefCell<Net>>,
    pub member: u64,
    comm: Option<UniqueId>,
    doing: Option<Doing>,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Forming,
    Broadcasting(u64),
}

impl Wire {
    pub fn new(net: Rc<RefCell<Net>>, member: u64) -> Self {
        Self { net, member, comm: None, doing: None }
    }

    /// Whether something is under way that could last for ever.
    pub fn is_busy(&self) -> bool {
        self.doing.is_some()
    }

    fn fault(&self, doing: &'static str) -> Result<(), Fault> {
        match self.net.borrow_mut().errors.remove(&self.member) {
            true => Err(Fault { doing, problem: "as scripted".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Net {
    /// The process is gone: nobody aborts anything.
    pub fn dies(&mut self, member: u64) {
        for comm in self.comms.values_mut() {
            if comm.ranks.values().any(|other| *other == member) {
                comm.gone.insert(member);
            }
        }
    }

    fn hangs(&self, member: u64) -> bool {
        self.hangs_until.get(&member).is_some_and(|until| self.now_ms < *until)
    }
}

impl Transport for Wire {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        self.fault("draw an identifier")?;
        let mut net = self.net.borrow_mut();
        net.drawn += 1;
        let mut id = [0; 128];
        id[..8].copy_from_slice(&net.drawn.to_le_bytes());
        Ok(UniqueId(id))
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        assert!(self.comm.is_none() && self.doing.is_none(), "two communicators at once");
        self.fault("form the communicator")?;
        let mut net = self.net.borrow_mut();
        let comm = net.comms.entry(place.id.0).or_insert_with(|| Comm {
            epoch: place.epoch,
            world: place.world,
            ranks: BTreeMap::new(),
            gone: BTreeSet::new(),
            sent: BTreeMap::new(),
            formed_at: None,
        });
        assert_eq!((comm.epoch, comm.world), (place.epoch, place.world), "epochs are mixed");
        let before = comm.ranks.insert(place.rank, self.member);
        assert_eq!(before, None, "two members have the rank {}", place.rank);
        self.comm = Some(place.id);
        self.doing = Some(Doing::Forming);
        Ok(())
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        assert!(self.doing.is_none(), "two things at once");
        self.fault("broadcast")?;
        let mut net = self.net.borrow_mut();
        let (now, id) = (net.now_ms, self.comm.expect("a communicator").0);
        let comm = net.comms.get_mut(&id).unwrap();
        comm.sent.entry(version).or_default().insert(self.member, now);
        self.doing = Some(Doing::Broadcasting(version));
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        self.fault("poll")?;
        let Some(id) = self.comm else { return Ok(Progress::Idle) };
        let mut net = self.net.borrow_mut();
        let now = net.now_ms;
        let slow = net.slow_ms.get(&self.member).copied().unwrap_or(0);
        let any_hangs = |net: &Net, comm: &Comm| comm.ranks.values().any(|m| net.hangs(*m));
        let comm = &net.comms[&id.0];
        if net.aborts_are_noticed && !comm.gone.is_empty() {
            let problem = "the remote process has exited".to_owned();
            return Err(Fault { doing: "poll", problem });
        }
        let Some(doing) = self.doing else { return Ok(Progress::Idle) };
        if any_hangs(&net, comm) || !comm.gone.is_empty() {
            return Ok(Progress::Busy);
        }
        let all_since = match doing {
            Doing::Forming if comm.ranks.len() == comm.world => Some(comm.formed_at.unwrap_or(now)),
            Doing::Forming => None,
            Doing::Broadcasting(version) => {
                let begun = &comm.sent[&version];
                (begun.len() == comm.world).then(|| begun.values().copied().max().unwrap_or(now))
            }
        };
        let comm = net.comms.get_mut(&id.0).unwrap();
        if matches!(doing, Doing::Forming) && all_since.is_some() {
            comm.formed_at = all_since;
        }
        if all_since.is_none_or(|since| now < since + slow) {
            return Ok(Progress::Busy);
        }
        if let Doing::Broadcasting(version) = doing {
            net.weights.insert(self.member, version);
        }
        self.doing = None;
        Ok(Progress::Idle)
    }

    fn abort(&mut self) {
        if let Some(id) = self.comm.take() {
            let mut net = self.net.borrow_mut();
            let member = self.member;
            net.comms.get_mut(&id.0).unwrap().gone.insert(member);
        }
        self.doing = None;
    }

    fn abort_handle(&self) -> Arc<dyn Abort> {
        // One thread drives all members.
        Arc::new(|| ())
    }
}
