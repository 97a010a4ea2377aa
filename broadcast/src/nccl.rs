//! The transport over NCCL. It has been compiled and has not yet run on a GPU.
//!
//! Invariant: no call blocks. The communicator is non-blocking, so that forming it and enqueueing a
//! broadcast return at once and are asked after with `ncclCommGetAsyncError`; the end of a broadcast is
//! an event on the stream; `ncclCommAbort` ends both at any time.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};
use cudarc::nccl::result::{self, NcclStatus};
use cudarc::nccl::{Id, sys};

use crate::seat::{Fault, Progress, Transport};
use crate::words::{Place, UniqueId};

/// NCCL's own marks of a configuration (`NCCL_CONFIG_INITIALIZER`).
const MAGIC: u32 = 0xcafe_beef;
/// The version whose configuration this is: 2.28.
const VERSION: u32 = 22_800;
/// "Not set" (`NCCL_CONFIG_UNDEF_INT`).
const UNSET: i32 = i32::MIN;

/// Device memory that is broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The device address.
    pub address: u64,
    /// How many bytes.
    pub bytes: usize,
}

/// Where a version's tensors lie on the device: read on rank 0, written elsewhere.
pub trait Weights {
    /// The buffers of a version, in the same order and sizes on every member. They stay where they are
    /// until the broadcast has ended or was aborted.
    ///
    /// # Errors
    /// Rank 0 does not hold the version, or there is no memory for it.
    fn buffers(&mut self, version: u64) -> Result<Vec<Buffer>, String>;
}

/// A member's NCCL communicator on one stream of one device.
pub struct Nccl<W> {
    stream: Arc<CudaStream>,
    weights: W,
    comm: Option<Comm>,
    /// Recorded after a broadcast.
    after: Option<CudaEvent>,
    /// Whether a broadcast was handed to the library and has no event behind it yet.
    handed_over: bool,
}

struct Comm {
    raw: sys::ncclComm_t,
}

// SAFETY: NCCL lets a communicator be used from any thread, one at a time, and `&mut self` is one.
unsafe impl Send for Comm {}

impl<W: Weights> Nccl<W> {
    /// A transport on `stream`.
    pub fn new(stream: Arc<CudaStream>, weights: W) -> Self {
        Self { stream, weights, comm: None, after: None, handed_over: false }
    }

    /// Whether the library has finished what it was asked for last.
    fn is_ready(&self, doing: &'static str) -> Result<bool, Fault> {
        let Some(comm) = &self.comm else { return Ok(true) };
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator was made by `form` and was not aborted, or it would be none.
        let asked = unsafe { sys::ncclCommGetAsyncError(comm.raw, &raw mut state) };
        check(doing, asked.result())?;
        Ok(check(doing, state.result())? != NcclStatus::InProgress)
    }

    fn send(&mut self, buffers: &[Buffer]) -> Result<(), Fault> {
        const DOING: &str = "enqueue a broadcast";
        let Some(comm) = &self.comm else { return Err(fault(DOING, "there is no communicator")) };
        let stream = self.stream.cu_stream().cast();
        check(DOING, result::group_start())?;
        for Buffer { address, bytes } in buffers {
            let (pointer, kind) = (*address as *mut _, sys::ncclDataType_t::ncclUint8);
            // SAFETY: `Weights` promises that the buffer is device memory of that size until the
            // broadcast has ended; in place, as NCCL allows.
            let sent =
                unsafe { result::broadcast(pointer, pointer, *bytes, kind, 0, comm.raw, stream) };
            check(DOING, sent)?;
        }
        check(DOING, result::group_end()).map(drop)
    }
}

impl<W: Weights> Transport for Nccl<W> {
    fn unique_id(&mut self) -> Result<UniqueId, Fault> {
        let id = check("draw an identifier", Id::new())?;
        Ok(UniqueId(id.internal().map(|byte| byte as u8)))
    }

    fn form(&mut self, place: &Place) -> Result<(), Fault> {
        const DOING: &str = "form the communicator";
        self.abort();
        let context = self.stream.context();
        context.bind_to_thread().map_err(|error| fault(DOING, &error.to_string()))?;
        let number =
            |n: usize| i32::try_from(n).map_err(|_| fault(DOING, "more members than NCCL counts"));
        let (world, rank) = (number(place.world)?, number(place.rank)?);
        let id = sys::ncclUniqueId { internal: place.id.0.map(|byte| byte as std::ffi::c_char) };
        let (mut raw, mut config) = (std::ptr::null_mut(), non_blocking());
        // SAFETY: both point to locals that live during the call.
        let begun = unsafe {
            result::comm_init_rank_config(&raw mut raw, world, id, rank, &raw mut config)
        };
        if !raw.is_null() {
            self.comm = Some(Comm { raw });
        }
        check(DOING, begun).map(drop)
    }

    fn broadcast(&mut self, version: u64) -> Result<(), Fault> {
        let buffers = self.weights.buffers(version);
        let buffers = buffers.map_err(|problem| Fault { doing: "find the weights", problem })?;
        self.send(&buffers)?;
        self.handed_over = true;
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress, Fault> {
        if !self.is_ready("poll the communicator")? {
            return Ok(Progress::Busy);
        }
        if std::mem::take(&mut self.handed_over) {
            // The kernels are on the stream now; the event is behind them.
            let event = self.stream.record_event(None);
            self.after = Some(event.map_err(|error| fault("record an event", &error.to_string()))?);
        }
        match &self.after {
            Some(event) if !event.is_complete() => Ok(Progress::Busy),
            _ => {
                self.after = None;
                Ok(Progress::Idle)
            }
        }
    }

    fn abort(&mut self) {
        (self.after, self.handed_over) = (None, false);
        self.comm = None;
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        // SAFETY: made by `form`, and dropped once. What the abort itself says changes nothing: the
        // communicator is gone either way.
        let _gone = unsafe { result::comm_abort(self.raw) };
    }
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

fn fault(doing: &'static str, problem: &str) -> Fault {
    Fault { doing, problem: problem.to_owned() }
}
