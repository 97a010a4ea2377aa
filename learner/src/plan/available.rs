//! How much memory this process may still take.
//!
//! Invariant: a lower bound of the machine's and the container's word, or nothing where neither is
//! known; never a guess.

use candle_core::Device;
use std::fs;

/// Free memory, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Bytes on the machine.
    pub host: Option<u64>,
    /// Bytes on the device that computes, where that has its own.
    pub device: Option<u64>,
}

/// What is free on the machine and on `device`.
pub fn available_on(device: &Device) -> Available {
    Available { host: available_memory(), device: free_on(device) }
}

#[cfg(feature = "cuda")]
fn free_on(device: &Device) -> Option<u64> {
    use candle_core::cuda_backend::cudarc::driver::result::mem_get_info;
    let device = device.as_cuda_device().ok()?;
    device.cuda_stream().context().bind_to_thread().ok()?;
    mem_get_info().ok().map(|(free, _total)| free as u64)
}

#[cfg(not(feature = "cuda"))]
fn free_on(_: &Device) -> Option<u64> {
    None
}

/// Bytes that can be taken without swapping or being killed: the machine's free memory, or what is
/// left of the container's limit where that is less. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let read = |name| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let container = match (read("memory.max"), read("memory.current")) {
        (Some(limit), Some(current)) => left(&limit, &current),
        _ => None,
    };
    machine.into_iter().chain(container).min()
}

/// `MemAvailable` in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What is left of a limit; none where it is `max`, that is none.
fn left(limit: &str, current: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    Some(limit.saturating_sub(current.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(meminfo(text), Some(23_000_000 * 1024));
        assert_eq!(meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(left("1000\n", "300\n"), Some(700));
        assert_eq!(left("1000", "1300"), Some(0));
        assert_eq!(left("max\n", "300\n"), None);
    }
}
