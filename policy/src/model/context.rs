//! The device's context, for whoever drops tensors last.
//!
//! Invariant: memory of a CUDA device is given back by a thread on which the device's context is current. On another
//! one the driver refuses (`CUDA_ERROR_INVALID_CONTEXT`): the memory stays taken, and since a drop returns nothing, the
//! next operation on the device, on whichever thread, reports the error as if it was its own.

use candle_core::{Device, Tensor};

/// Declared before the tensors of a structure, so that it is dropped before them.
#[derive(Clone, Debug)]
pub(super) struct Context {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only CUDA has contexts"))]
    device: Device,
}

impl Context {
    /// Of the device on which these are.
    pub(super) fn of(tensors: &[Tensor]) -> Self {
        Self { device: tensors.first().map_or(Device::Cpu, |tensor| tensor.device().clone()) }
    }
}

#[cfg(feature = "cuda")]
impl Drop for Context {
    fn drop(&mut self) {
        if let Device::Cuda(device) = &self.device {
            // A failure here is reported by the next operation, as above.
            let _bound = device.cuda_stream().context().bind_to_thread();
        }
    }
}
