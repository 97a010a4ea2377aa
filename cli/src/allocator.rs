//! The process's memory allocator, and how long it keeps what was freed.
//!
//! A training step frees and takes the same large tensors again and again. An allocator that hands them back
//! to the system in between pays for every page again when it is written: a tenth of a training step, and on one
//! virtual machine a tenth even where it happened only once in ten seconds.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`: the milliseconds after which freed memory goes back to the system. The number is
/// mimalloc 3's; its Rust crate has no name for it.
const PURGE_DELAY: c_int = 15;
/// Long beside a step, short enough that an idle process gives its memory back.
const MILLISECONDS: c_long = 600_000;

/// Keeps freed memory for a while. `MIMALLOC_PURGE_DELAY` in the environment says otherwise.
pub fn keep_freed_memory() {
    // SAFETY: mimalloc checks the number and may be told at any time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS) }
}

/// Gives back at once what this thread freed, so that what is measured next does not count it.
pub fn give_back() {
    // SAFETY: it frees nothing that is in use, and may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_purge_delay() {
        // What mimalloc begins with, where the environment says nothing; no other option has it.
        // SAFETY: as above.
        let found = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!(
            [1000, MILLISECONDS].contains(&found),
            "found {found}: another option, or mimalloc"
        );
    }
}
