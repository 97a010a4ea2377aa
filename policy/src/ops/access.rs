//! CPU `f32` tensors as slices, to read and to write in place.
//!
//! Invariant: only contiguous `f32` tensors on the CPU come through here; [`is_fused`] says which.

use crate::kernel::gemm::Start;
use crate::kernel::parallel;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Shape, Storage, Tensor};
use std::cell::Cell;

/// Whether the fused CPU kernels take this tensor. All others go the composite way.
pub fn is_fused(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32
}

/// Lends the floats of several tensors.
pub fn read<const N: usize, R>(
    tensors: [&Tensor; N],
    work: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[][..]; N];
    for ((slice, (storage, layout)), t) in slices.iter_mut().zip(&guards).zip(tensors) {
        let Storage::Cpu(CpuStorage::F32(data)) = &**storage else {
            candle_core::bail!("expected f32 on the cpu, found {:?} on {:?}", t.dtype(), t.device())
        };
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("expected a contiguous tensor, found strides {:?}", layout.stride())
        };
        *slice = &data[from..to];
    }
    Ok(work(slices))
}

/// Lends a tensor's floats for writing. Clones of the tensor see the change: it is how weights and
/// gradients are updated without a copy.
pub fn write<R>(t: &Tensor, work: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    struct Write<F, R>(Cell<Option<F>>, Cell<Option<R>>);
    impl<F: FnOnce(&mut [f32]) -> R, R> InplaceOp1 for Write<F, R> {
        fn name(&self) -> &'static str {
            "write"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let (CpuStorage::F32(data), Some((from, to))) = (storage, layout.contiguous_offsets())
            else {
                candle_core::bail!("expected a contiguous f32 tensor to write to")
            };
            self.1.set(self.0.take().map(|work| work(&mut data[from..to])));
            Ok(())
        }
    }
    let op = Write(Cell::new(Some(work)), Cell::new(None));
    t.inplace_op1(&op)?;
    match op.1.take() {
        Some(result) => Ok(result),
        None => candle_core::bail!("a write did not run"),
    }
}

/// As [`write`], for any number of different tensors at once.
pub fn write_all<R>(tensors: &[Tensor], work: impl FnOnce(Vec<&mut [f32]>) -> R) -> Result<R> {
    /// Start and length of a locked tensor's floats.
    type Held = (*mut f32, usize);
    fn nest(tensors: &[Tensor], held: &mut Vec<Held>, work: &mut dyn FnMut(&[Held])) -> Result<()> {
        match tensors {
            [] => {
                work(held);
                Ok(())
            }
            [first, rest @ ..] => write(first, |data| {
                held.push((data.as_mut_ptr(), data.len()));
                nest(rest, held, work)
            })?,
        }
    }
    let (mut work, mut result) = (Some(work), None);
    nest(tensors, &mut Vec::with_capacity(tensors.len()), &mut |held| {
        // SAFETY: `nest` holds the write lock of every tensor while it calls this, and a tensor that came
        // twice would have blocked on its own lock.
        let slices = held.iter().map(|&(p, n)| unsafe { std::slice::from_raw_parts_mut(p, n) });
        result = work.take().map(|work| work(slices.collect()));
    })?;
    match result {
        Some(result) => Ok(result),
        None => candle_core::bail!("a write did not run"),
    }
}

/// A new tensor whose floats `fill` computes, every one of them: what is there before is anything.
pub fn filled(
    like: &Tensor,
    shape: impl Into<Shape>,
    fill: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut data = unwritten(shape.elem_count());
    fill(&mut data)?;
    Tensor::from_vec(data, shape, like.device())
}

/// Floats that nobody wrote yet. To clear them first would write every tensor twice, on one thread. Where debug
/// assertions are on they are no numbers, so that a kernel that reads what it did not write is seen.
pub fn unwritten(count: usize) -> Vec<f32> {
    if cfg!(debug_assertions) {
        return vec![f32::NAN; count];
    }
    let mut data: Vec<f32> = Vec::with_capacity(count);
    // SAFETY: the memory is there, every pattern of bits is a float, and whoever asks for it writes each element
    // before one is read.
    #[allow(clippy::uninit_vec, reason = "kernels overwrite all of it")]
    unsafe {
        data.set_len(count);
    }
    data
}

/// Floats that a thread copies at once.
const COPIED: usize = 1 << 15;

/// A copy that shares nothing, made by all threads.
pub fn copied(t: &Tensor) -> Result<Tensor> {
    if !is_fused(t) {
        return t.copy();
    }
    filled(t, t.shape(), |out| {
        read([t], |[data]| {
            parallel::for_each_chunk(out, COPIED, |task, out| {
                out.copy_from_slice(&data[task * COPIED..][..out.len()]);
            });
        })
    })
}

/// Rows `ids` of a matrix, one after the other.
///
/// # Errors
/// A row that is not there.
pub fn rows_of(t: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (rows, width) = t.dims2()?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        candle_core::bail!("expected one of {rows} rows, found {id}");
    }
    if !is_fused(t) {
        return t.index_select(&Tensor::new(ids, t.device())?, 0);
    }
    let each = parallel::rows_per_task(width);
    filled(t, (ids.len(), width), |out| {
        read([t], |[data]| {
            parallel::for_each_chunk(out, each * width, |task, out| {
                for (out, id) in out.chunks_exact_mut(width).zip(&ids[task * each..]) {
                    out.copy_from_slice(&data[*id as usize * width..][..width]);
                }
            });
        })
    })
}

/// A matrix of zeros but for rows `ids`, each named once, which are those of `t`: the reverse of [`rows_of`].
pub fn rows_to(t: &Tensor, ids: &[u32], rows: usize) -> Result<Tensor> {
    let width = t.dim(1)?;
    if !is_fused(t) {
        let ids = Tensor::new(ids, t.device())?;
        return Tensor::zeros((rows, width), t.dtype(), t.device())?.index_add(&ids, t, 0);
    }
    filled(t, (rows, width), |out| {
        parallel::for_each_chunk(out, COPIED, |_, out| out.fill(0.0));
        read([t], |[data]| {
            for (row, id) in data.chunks_exact(width).zip(ids) {
                // Added to zero, as any sum of gradients is: a negative zero becomes a positive one.
                let out = &mut out[*id as usize * width..][..width];
                out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
            }
        })
    })
}

/// A gradient that is nothing yet: no elements, but a type and a place.
pub fn nothing_like(t: &Tensor) -> Result<Tensor> {
    Tensor::zeros(0, t.dtype(), t.device())
}

/// Adds to a gradient in place. One that is nothing yet becomes a tensor of this shape, whose sums `add` begins;
/// what is in its memory before is anything.
pub fn add_to<R>(
    gradient: &mut Tensor,
    shape: &Shape,
    add: impl FnOnce(&mut [f32], Start) -> R,
) -> Result<R> {
    if gradient.elem_count() > 0 {
        return write(gradient, |data| add(data, Start::Continue));
    }
    let mut data = unwritten(shape.elem_count());
    let result = add(&mut data, Start::Zero);
    *gradient = Tensor::from_vec(data, shape, gradient.device())?;
    Ok(result)
}

/// As [`add_to`], for sums that want to begin with zeros.
pub fn add_to_zeros<R>(
    gradient: &mut Tensor,
    shape: &Shape,
    add: impl FnOnce(&mut [f32]) -> R,
) -> Result<R> {
    add_to(gradient, shape, |data, start| {
        if start == Start::Zero {
            parallel::for_each_chunk(data, COPIED, |_, data| data.fill(0.0));
        }
        add(data)
    })
}

/// As [`add_to`], of a tensor of any type anywhere.
pub fn add_tensor_to(gradient: &mut Tensor, more: &Tensor) -> Result<()> {
    let more = more.to_dtype(gradient.dtype())?;
    *gradient = if gradient.elem_count() > 0 { (&*gradient + more)? } else { more };
    Ok(())
}
