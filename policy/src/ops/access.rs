//! CPU `f32` tensors as slices, to read and to write in place.
//!
//! Invariant: only contiguous `f32` tensors on the CPU come through here; [`is_fused`] says which.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor};
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

/// A new tensor whose floats `fill` computes.
pub fn filled(
    like: &Tensor,
    shape: impl Into<candle_core::Shape>,
    fill: impl FnOnce(&mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut data = vec![0f32; shape.elem_count()];
    fill(&mut data)?;
    Tensor::from_vec(data, shape, like.device())
}
