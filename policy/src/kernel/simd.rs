//! The widest vectors that this machine has, found out when the program runs.
//!
//! Invariant: the width changes no bit. Every chain is written per element, with fused multiply-adds where it wants
//! them and nowhere else, so a wider register computes more elements at once and none of them otherwise.

/// Whether the machine has AVX-512. False on other architectures.
#[inline]
pub fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Cached by the standard library: a load and a test.
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Fetches the line of this address into the nearest cache. A hint: any address will do.
#[inline(always)]
pub fn fetch(address: *const f32) {
    hint::<true>(address);
}

/// As [`fetch`], into the cache behind the nearest one: for what is wanted some thousand cycles later.
#[inline(always)]
pub fn fetch_far(address: *const f32) {
    hint::<false>(address);
}

#[inline(always)]
fn hint<const NEAR: bool>(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match NEAR {
            true => _mm_prefetch::<_MM_HINT_T0>(address.cast()),
            false => _mm_prefetch::<_MM_HINT_T1>(address.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Runs `work` as compiled for the widest vectors of the machine. Worth it around a loop over floats whose body is
/// inlined; what is not inlined stays as it is.
#[inline(always)]
pub fn widest<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has what the function is compiled for.
        return unsafe { wide(work) };
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
unsafe fn wide<R>(work: impl FnOnce() -> R) -> R {
    work()
}
