//! Threads: independent tasks on the current pool, and each thread's scratch memory.
//!
//! Invariant: a task's result depends on its index alone, never on the thread that runs it or on the
//! order of tasks. One thread runs tasks inline, without touching the pool.

use rayon::prelude::*;
use std::cell::RefCell;

/// Threads of the current pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on a thread of the pool. From there, handing tasks to the pool wakes nobody up to wait for them; from
/// outside, each product costs two changes of threads, which is as long as a small product takes.
pub fn inside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if threads() == 1 { work() } else { rayon::scope(|_| work()) }
}

/// Runs `task(0) … task(count - 1)`, in any order and on any thread.
pub fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    if count <= 1 || threads() == 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Calls `work(index, chunk)` for consecutive chunks of `len` floats.
pub fn for_each_chunk(data: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if len == 0 {
        return;
    }
    if data.len() <= len || threads() == 1 {
        data.chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
    } else {
        data.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
    }
}

/// How many rows of `width` floats make a task that is worth handing over.
pub fn rows_per_task(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

/// Memory that a thread keeps between products.
#[derive(Default)]
pub struct Scratch {
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's scratch. The work inside must not call the pool: a stolen task would want it too.
pub fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|scratch| work(&mut scratch.borrow_mut()))
}

/// Makes room for `len` floats, whatever they are. Memory that was once there is not cleared again.
pub fn room(memory: &mut Vec<f32>, len: usize) {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
}

/// A slice that several tasks write, each its own part.
#[derive(Clone, Copy)]
pub struct SharedMut(*mut f32, usize);

// SAFETY: `pointer` is unsafe to call; its callers promise disjoint parts.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Shares a slice for as long as the caller keeps it borrowed.
    pub fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }

    /// The start of the slice.
    ///
    /// # Safety
    /// The slice is still borrowed, and no two tasks touch the same element.
    pub unsafe fn pointer(self) -> *mut f32 {
        self.0
    }

    /// Elements `from .. from + len`.
    ///
    /// # Safety
    /// As for [`SharedMut::pointer`].
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part<'a>(self, from: usize, len: usize) -> &'a mut [f32] {
        assert!(from + len <= self.1, "part {from}+{len} of {} floats", self.1);
        // SAFETY: inside the slice; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}
