//! Where models compute and with which element type, by the names that recipes and flags have for it.
//!
//! Invariant: a pair that no computation here can serve is refused before a weight is read. Nothing opens a
//! GPU but what computes: a coordinator runs on a machine that has none.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};

/// The type named `dtype`, if a device of that name computes with it.
///
/// # Errors
/// A name that means nothing, or bf16 on the CPU.
pub fn dtype(dtype: &str, device: &str) -> Result<DType> {
    let on_cpu = ordinal(device)?.is_none();
    match dtype {
        "f32" => Ok(DType::F32),
        "bf16" if on_cpu => bail!(
            "key `model.dtype`: bf16 needs a GPU (model.device = \"cuda:0\"); on the CPU use \"f32\""
        ),
        "bf16" => Ok(DType::BF16),
        _ => bail!("key `model.dtype`: expected \"f32\" or \"bf16\", found \"{dtype}\""),
    }
}

/// Opens the device.
///
/// # Errors
/// A name that means nothing, or a GPU that cannot be opened.
pub fn open(device: &str) -> Result<Device> {
    match ordinal(device)? {
        None => Ok(Device::Cpu),
        Some(ordinal) => Device::new_cuda(ordinal).with_context(|| {
            format!("model.device = \"{device}\": opening the GPU; without one, use \"cpu\"")
        }),
    }
}

/// The number of the GPU; none for the CPU.
fn ordinal(device: &str) -> Result<Option<usize>> {
    match device.strip_prefix("cuda:").map(str::parse) {
        None if device == "cpu" => Ok(None),
        Some(Ok(ordinal)) => Ok(Some(ordinal)),
        _ => bail!("key `model.device`: expected \"cpu\" or \"cuda:0\", found \"{device}\""),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something() {
        assert_eq!(dtype("f32", "cpu").unwrap(), DType::F32);
        assert_eq!(dtype("bf16", "cuda:3").unwrap(), DType::BF16);
        for (t, device) in [("bf16", "cpu"), ("f16", "cpu"), ("f32", "gpu"), ("f32", "cuda:x")] {
            assert!(dtype(t, device).is_err(), "{t} on {device}");
        }
        assert!(open("cpu").unwrap().is_cpu());
    }
}
