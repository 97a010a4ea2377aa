//! The transport over NCCL.
//!
//! A version is staged in one buffer on the device, the pieces of the store behind each other: copied
//! there on the root, broadcast, and copied back to the host elsewhere, where the store verifies it.
//!
//! Invariant: no call waits for another member. The communicator is non-blocking, so that forming it and
//! enqueueing a broadcast return at once and are asked after with `ncclCommGetAsyncError`; the end of a
//! broadcast is an event on the stream; `ncclCommAbort` ends both at any time. What does take time,
//! copying and verifying, is this member's own and begins when the collective has not begun or has ended.

use std::sync::Arc;

use bytes::Bytes;
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtrMut, DriverError};
use cudarc::nccl::result::{self, NcclStatus};
use cudarc::nccl::{Id, sys};

use crate::seat::{Fault, Progress, Transport};
use crate::store::{Factory, Store};
use crate::words::{Place, UniqueId};

/// NCCL's own marks of a configuration (`NCCL_CONFIG_INITIALIZER`).
const MAGIC: u32 = 0xcafe_beef;
/// The version whose configuration this is: 2.28. Older libraries are not used.
const VERSION: u32 = 22_800;
/// "Not set" (`NCCL_CONFIG_UNDEF_INT`).
const UNSET: i32 = i32::MIN;

/// A member's NCCL communicator on a stream of its own of one device.
pub struct Nccl {
    stream: Arc<CudaStream>,
    store: Box<dyn Store>,
    comm: Option<Comm>,
    rank: usize,
    sending: Option<Sending>,
}

struct Comm {
    raw: sys::ncclComm_t,
}

/// A broadcast under way.
struct Sending {
    version: u64,
    /// Lives until the broadcast has ended or was aborted; freed in the stream's order, so behind it.
    staged: CudaSlice<u8>,
    /// Recorded behind the broadcast; none while the library has not put it on the stream.
    after: Option<CudaEvent>,
}

// SAFETY: NCCL lets a communicator be used from any thread, one at a time, and `&mut self` is one.
unsafe impl Send for Comm {}

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
        Ok(Self { stream, store, comm: None, rank: 0, sending: None })
    }

    /// Whether the library has finished what it was asked for last.
    fn is_ready(&self) -> Result<bool, Fault> {
        const DOING: &str = "poll the communicator";
        let Some(comm) = &self.comm else { return Ok(true) };
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator was made by `form` and was not aborted, or it would be none.
        let asked = unsafe { sys::ncclCommGetAsyncError(comm.raw, &raw mut state) };
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
        let Some(comm) = &self.comm else { return Err(fault(DOING, "there is no communicator")) };
        let (stream, bytes) = (self.stream.cu_stream().cast(), staged.len());
        let (address, _recorded) = staged.device_ptr_mut(&self.stream);
        let (pointer, kind) = (address as *mut _, sys::ncclDataType_t::ncclUint8);
        // SAFETY: the buffer is device memory of that size and outlives the broadcast, see [`Sending`];
        // in place, as NCCL allows.
        let sent = unsafe { result::broadcast(pointer, pointer, bytes, kind, 0, comm.raw, stream) };
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
        if !raw.is_null() {
            self.comm = Some(Comm { raw });
        }
        self.rank = place.rank;
        check(DOING, begun)?;
        if self.comm.is_none() {
            return Err(fault(DOING, "the library began and gave no communicator"));
        }
        Ok(())
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
        self.comm = None;
        self.sending = None;
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        // SAFETY: made by `form`, and dropped once. What the abort itself says changes nothing: the
        // communicator is gone either way.
        let _gone = unsafe { result::comm_abort(self.raw) };
    }
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
