//! The transport over NCCL.
//!
//! A version is staged in one buffer on the device, the pieces of the store behind each other: copied
//! there on the root, broadcast, and copied back to the host elsewhere, where the store verifies it.
//!
//! Invariant: no call is meant to wait for another member. The communicator is non-blocking, so that forming it
//! and enqueueing a broadcast return at once and are asked after with `ncclCommGetAsyncError`; the end of a
//! broadcast is an event on the stream; `ncclCommAbort` ends both at any time, also from another thread, for
//! a call behind a broadcast that a member does not take part in may wait, whatever the library promises. What does
//! take time, copying and verifying, is this member's own and begins when the collective has not begun or has
//! ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtrMut, DriverError};
use cudarc::nccl::result::{self, NcclStatus};
use cudarc::nccl::{Id, sys};

use crate::store::{Factory, Store};
use crate::transport::{Abort, Fault, Progress, Transport};
use crate::words::{Place, UniqueId};

/// NCCL's own marks of a configuration (`NCCL_CONFIG_INITIALIZER`).
const MAGIC: u32 = 0xcafe_beef;
/// The version whose configuration this is: 2.28. Older libraries are not used.
const VERSION: u32 = 22_800;
/// "Not set" (`NCCL_CONFIG_UNDEF_INT`).
const UNSET: i32 = i32::MIN;
/// How long a call into the library usually takes at most.
const SHORT: Duration = Duration::from_millis(200);

/// A member's NCCL communicator on a stream of its own of one device.
pub struct Nccl {
    stream: Arc<CudaStream>,
    store: Box<dyn Store>,
    comm: Arc<Comm>,
    rank: usize,
    sending: Option<Sending>,
}

/// The communicator, if there is one, which whoever is first gives up: the thread that uses it, or the one
/// that watches that.
#[derive(Default)]
struct Comm {
    raw: Mutex<Option<Raw>>,
    /// Held while a call is inside of the library.
    used: Mutex<()>,
}

struct Raw(sys::ncclComm_t);

/// A broadcast under way.
struct Sending {
    version: u64,
    /// Lives until the broadcast has ended or was aborted; freed in the stream's order, so behind it.
    staged: CudaSlice<u8>,
    /// Recorded behind the broadcast; none while the library has not put it on the stream.
    after: Option<CudaEvent>,
}

// SAFETY: NCCL lets a communicator be used from any thread, one at a time, which `Comm::used` sees to, and be
// aborted from any thread at any time.
unsafe impl Send for Raw {}

/// A transport on the device of that number, with a stream of its own.
pub fn factory(ordinal: usize) -> Factory {
    Factory::new(move |store| Nccl::new(ordinal, store))
}

impl Nccl {
    /// A transport on the device of that number, with a stream of its own.
    ///
    /// # Errors
    /// The driver or NCCL is missing or too old, or there is no such device.
    pub fn new(ordinal: usize, store: Box<dyn Store>) -> Result<Self, Fault> {
        const DOING: &str = "open NCCL";
        let found = library_version()?;
        if found < VERSION as i32 {
            let problem = format!("expected version {VERSION} or newer, found {found}: install it");
            return Err(Fault { doing: DOING, problem });
        }
        let stream = CudaContext::new(ordinal).and_then(|context| context.new_stream());
        let stream = stream.map_err(|error| driver(DOING, &error))?;
        Ok(Self { stream, store, comm: Arc::default(), rank: 0, sending: None })
    }

    /// Whether the library has finished what it was asked for last.
    fn is_ready(&self) -> Result<bool, Fault> {
        const DOING: &str = "poll the communicator";
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator was made by `form` and is not given up during the call.
        let ask = |raw| unsafe { sys::ncclCommGetAsyncError(raw, &raw mut state) };
        let Some(asked) = self.comm.using(ask) else { return Ok(true) };
        check(DOING, asked.result())?;
        Ok(check(DOING, state.result())? != NcclStatus::InProgress)
    }

    /// A buffer on the device, on the root with the version in it.
    fn stage(&mut self, version: u64) -> Result<CudaSlice<u8>, Fault> {
        const DOING: &str = "stage the weights";
        let missing = |problem| Fault { doing: DOING, problem };
        let pieces = match self.rank {
            0 => self.store.outgoing(version).map_err(missing)?,
            _ => Vec::new(),
        };
        let bytes = match self.rank {
            0 => pieces.iter().map(Bytes::len).sum(),
            _ => self.store.expected(version).map_err(missing)?,
        };
        // SAFETY: every byte is written before it is read, here or by the broadcast.
        let staged = unsafe { self.stream.alloc::<u8>(bytes) };
        let mut staged = staged.map_err(|error| driver(DOING, &error))?;
        let mut from = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let mut place = staged.slice_mut(from..from + piece.len());
            let copied = self.stream.memcpy_htod(piece.as_ref(), &mut place);
            copied.map_err(|error| driver(DOING, &error))?;
            from += piece.len();
        }
        Ok(staged)
    }

    fn send(&self, staged: &mut CudaSlice<u8>) -> Result<(), Fault> {
        const DOING: &str = "enqueue a broadcast";
        let (stream, bytes) = (self.stream.cu_stream().cast(), staged.len());
        let (address, _recorded) = staged.device_ptr_mut(&self.stream);
        let (pointer, kind) = (address as *mut _, sys::ncclDataType_t::ncclUint8);
        let sent = self.comm.using(|raw| {
            // SAFETY: the buffer is device memory of that size and outlives the broadcast, see [`Sending`];
            // in place, as NCCL allows.
            unsafe { result::broadcast(pointer, pointer, bytes, kind, 0, raw, stream) }
        });
        let sent = sent.ok_or_else(|| fault(DOING, "there is no communicator"))?;
        check(DOING, sent).map(drop)
    }

    /// Hands what was received to the store.
    fn receive(&mut self, sending: Sending) -> Result<(), Fault> {
        const DOING: &str = "take the weights in";
        if self.rank == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; sending.staged.len()];
        let copied = self.stream.memcpy_dtoh(&sending.staged, bytes.as_mut_slice());
        let copied = copied.and_then(|()| self.stream.synchronize());
        copied.map_err(|error| driver(DOING, &error))?;
        let arrived = self.store.arrived(sending.version, bytes.into());
        arrived.map_err(|problem| Fault { doing: DOING, problem })
    }
}

impl Transport for Nccl {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        let id = check("draw an identifier", Id::new())?;
        Ok(UniqueId(id.internal().map(|byte| byte as u8)))
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        const DOING: &str = "form the communicator";
        self.abort();
        let context = self.stream.context();
        context.bind_to_thread().map_err(|error| driver(DOING, &error))?;
        let number =
            |n: usize| i32::try_from(n).map_err(|_| fault(DOING, "more members than NCCL counts"));
        let (world, rank) = (number(place.world)?, number(place.rank)?);
        let id = sys::ncclUniqueId { internal: place.id.0.map(|byte| byte as std::ffi::c_char) };
        let (mut raw, mut config) = (std::ptr::null_mut(), non_blocking());
        // SAFETY: both point to locals that live during the call, in which the library writes to them.
        let begun = unsafe {
            result::comm_init_rank_config(&raw mut raw, world, id, rank, &raw mut config)
        };
        self.rank = place.rank;
        if raw.is_null() {
            check(DOING, begun)?;
            return Err(fault(DOING, "the library began and gave no communicator"));
        }
        self.comm.put(Raw(raw));
        check(DOING, begun).map(drop)
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        let mut staged = self.stage(version)?;
        self.send(&mut staged)?;
        self.sending = Some(Sending { version, staged, after: None });
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        const DOING: &str = "poll the broadcast";
        if !self.is_ready()? {
            return Ok(Progress::Busy);
        }
        let Some(mut sending) = self.sending.take() else { return Ok(Progress::Idle) };
        let after = match sending.after.take() {
            Some(event) => event,
            // The kernels are on the stream now; the event is behind them.
            None => self.stream.record_event(None).map_err(|error| driver(DOING, &error))?,
        };
        if !after.try_is_complete().map_err(|error| driver(DOING, &error))? {
            self.sending = Some(Sending { after: Some(after), ..sending });
            return Ok(Progress::Busy);
        }
        self.receive(sending)?;
        Ok(Progress::Idle)
    }

    fn abort(&mut self) {
        // First the communicator: its kernels end, and the buffer is freed behind them.
        self.comm.give_up();
        self.sending = None;
    }

    fn abort_handle(&self) -> Arc<dyn Abort> {
        let comm = Arc::clone(&self.comm);
        Arc::new(move || comm.give_up())
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Comm {
    fn put(&self, raw: Raw) {
        *lock(&self.raw) = Some(raw);
    }

    /// What a call with the communicator gives, or nothing if there is none.
    fn using<T>(&self, call: impl FnOnce(sys::ncclComm_t) -> T) -> Option<T> {
        let _used = lock(&self.used);
        let raw = lock(&self.raw).as_ref().map(|raw| raw.0)?;
        Some(call(raw))
    }

    fn give_up(&self) {
        let Some(Raw(raw)) = lock(&self.raw).take() else { return };
        // From here on no call begins with it. One that is inside is left the time that it usually takes; one
        // that takes longer is waiting for a member, and the abort is what ends that.
        let begun = Instant::now();
        let _used = loop {
            match self.used.try_lock() {
                Ok(used) => break Some(used),
                Err(TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if begun.elapsed() > SHORT => break None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(SHORT / 40),
            }
        };
        // SAFETY: made by `form`, and taken here once. What the abort itself says changes nothing: the
        // communicator is gone either way.
        let _gone = unsafe { result::comm_abort(raw) };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A call that panicked left nothing half done in here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library's version, as NCCL counts it: 22 800 is 2.28.0.
///
/// # Errors
/// The driver or the library cannot be loaded.
pub fn library_version() -> Result<i32, Fault> {
    const DOING: &str = "load the driver and NCCL";
    // A library that is missing is a panic of the bindings, which load it when it is first used.
    let found =
        std::panic::catch_unwind(|| (CudaContext::device_count(), result::get_nccl_version()));
    let missing = "libcuda.so or libnccl.so is not where the loader looks: install them, or name their directories in LD_LIBRARY_PATH";
    let (devices, version) = found.map_err(|_panic| fault(DOING, missing))?;
    devices.map_err(|error| driver(DOING, &error))?;
    check(DOING, version)
}

fn non_blocking() -> sys::ncclConfig_t {
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: std::ptr::null(),
        splitShare: UNSET,
        trafficClass: UNSET,
        commName: std::ptr::null(),
        collnetEnable: UNSET,
        CTAPolicy: UNSET,
        shrinkShare: UNSET,
        nvlsCTAs: UNSET,
        nChannelsPerNetPeer: UNSET,
        nvlinkCentricSched: UNSET,
    }
}

fn check<T>(doing: &'static str, result: Result<T, result::NcclError>) -> Result<T, Fault> {
    result.map_err(|error| fault(doing, &format!("{:?}", error.0)))
}

fn driver(doing: &'static str, error: &DriverError) -> Fault {
    fault(doing, &error.to_string())
}

fn fault(doing: &'static str, problem: &str) -> Fault {
    Fault { doing, problem: problem.to_owned() }
}
