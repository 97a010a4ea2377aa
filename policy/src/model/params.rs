//! A model's weights under their Hugging Face names, or an adapter's, and gradients in the same order.
//!
//! Invariant: parameter `i` is `specs()[i]`, in weights, gradients and optimiser state: of a model those of its
//! configuration.

use super::context::Context;
use crate::config::{ModelConfig, TensorSpec};
use crate::ops::access::{is_fused, read};
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;

/// All weights of a model, or of an adapter. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Params {
    _context: Context,
    specs: Vec<TensorSpec>,
    tensors: Vec<Tensor>,
}

impl Params {
    /// Takes tensors in the order of [`ModelConfig::tensor_specs`].
    pub fn new(config: &ModelConfig, tensors: Vec<Tensor>) -> Result<Self> {
        Self::of(config.tensor_specs(), tensors)
    }

    fn made(specs: Vec<TensorSpec>, tensors: Vec<Tensor>) -> Self {
        Self { _context: Context::of(&tensors), specs, tensors }
    }

    /// Takes tensors in the order of `specs`.
    pub fn of(specs: Vec<TensorSpec>, tensors: Vec<Tensor>) -> Result<Self> {
        if specs.len() != tensors.len() {
            candle_core::bail!("expected {} weight tensors, found {}", specs.len(), tensors.len());
        }
        for (spec, tensor) in specs.iter().zip(&tensors) {
            if tensor.dims() != spec.shape {
                candle_core::bail!(
                    "{}: expected {:?}, found {:?}",
                    spec.name,
                    spec.shape,
                    tensor.dims()
                );
            }
        }
        Ok(Self::made(specs, tensors))
    }

    /// From plain floats, one vector a tensor.
    pub fn from_vecs(
        config: &ModelConfig,
        values: Vec<Vec<f32>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::of_vecs(config.tensor_specs(), values, dtype, device)
    }

    /// As [`Params::from_vecs`], in the order of `specs`.
    pub fn of_vecs(
        specs: Vec<TensorSpec>,
        values: Vec<Vec<f32>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let tensors = specs
            .iter()
            .zip(values)
            .map(|(spec, v)| {
                Tensor::from_vec(v, spec.shape.as_slice(), &Device::Cpu)?
                    .to_dtype(dtype)?
                    .to_device(device)
            })
            .collect::<Result<Vec<_>>>()?;
        Self::of(specs, tensors)
    }

    /// Gradients of these weights that are nothing yet: a tensor takes memory when the first is added to it.
    pub fn nothing_like(&self) -> Result<Self> {
        let tensors = self.tensors.iter().map(crate::ops::access::nothing_like);
        Ok(Self::made(self.specs.clone(), tensors.collect::<Result<_>>()?))
    }

    /// Makes zeros of what is nothing yet.
    pub fn complete(&mut self) -> Result<()> {
        for (spec, tensor) in self.specs.iter().zip(&mut self.tensors) {
            if tensor.elem_count() == 0 {
                *tensor = Tensor::zeros(spec.shape.as_slice(), tensor.dtype(), tensor.device())?;
            }
        }
        Ok(())
    }

    /// Zeros of the same shapes and types: fresh gradients, or moments.
    pub fn zeros_like(&self) -> Result<Self> {
        let tensors = self.tensors.iter().map(Tensor::zeros_like).collect::<Result<_>>()?;
        Ok(Self::made(self.specs.clone(), tensors))
    }

    /// A copy that shares nothing.
    pub fn deep_clone(&self) -> Result<Self> {
        let tensors = self.tensors.iter().map(Tensor::copy).collect::<Result<_>>()?;
        Ok(Self::made(self.specs.clone(), tensors))
    }

    /// The same weights as another type or on another device. Shares the tensors that are so already.
    pub fn to(&self, dtype: DType, device: &Device) -> Result<Self> {
        let tensors = self.tensors.iter().map(|t| t.to_dtype(dtype)?.to_device(device));
        Ok(Self::made(self.specs.clone(), tensors.collect::<Result<_>>()?))
    }

    /// Names and shapes.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors, to accumulate into.
    pub(crate) fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// Elements in all.
    pub fn count(&self) -> usize {
        self.specs.iter().map(TensorSpec::len).sum()
    }

    /// Calls `work` with the floats of parameter `i`; f32 on the CPU only.
    pub fn read<R>(&self, i: usize, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
        crate::ops::access::read([&self.tensors[i]], |[data]| work(data))
    }

    /// As [`Params::read`], for writing in place.
    pub fn write<R>(&self, i: usize, work: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
        crate::ops::access::write(&self.tensors[i], work)
    }

    /// Calls `work` with every parameter's floats, writable, and the same of `gradients`.
    pub fn update<R>(
        &self,
        gradients: &Params,
        work: impl FnOnce(Vec<(&mut [f32], &[f32])>) -> R,
    ) -> Result<R> {
        use crate::ops::access::write_all;
        write_all(&self.tensors, |values| {
            // Gradients are borrowed the same way: there is one way to hold many tensors at once.
            write_all(&gradients.tensors, |gradients| {
                let pairs = values.into_iter().zip(gradients);
                work(pairs.map(|(v, g)| (v, &*g)).collect())
            })
        })?
    }

    /// BLAKE3 of each tensor's little-endian bytes, over all tensors in order: the digest of the weights.
    pub fn digest(&self) -> Result<blake3::Hash> {
        let mut all = blake3::Hasher::new();
        for hash in self.tensor_digests()? {
            all.update(hash.as_bytes());
        }
        Ok(all.finalize())
    }

    /// What [`Params::digest`] is of these values as f32.
    pub fn digest_of(values: &[Vec<f32>]) -> blake3::Hash {
        let mut all = blake3::Hasher::new();
        for tensor in values {
            all.update(blake3::hash(&le_bytes(tensor)).as_bytes());
        }
        all.finalize()
    }

    /// BLAKE3 of each tensor's little-endian bytes.
    pub fn tensor_digests(&self) -> Result<Vec<blake3::Hash>> {
        let digests = self.tensors.par_iter().map(|t| {
            if !(is_fused(t) && t.is_contiguous()) {
                return Ok(blake3::hash(&bytes(t)?));
            }
            read([t], |[data]| blake3::hash(&le_bytes(data)))
        });
        digests.collect()
    }
}

/// Floats as little-endian bytes: on most machines those that they are.
pub fn le_bytes(data: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "big") {
        return Cow::Owned(data.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    // SAFETY: any bytes are bytes, and a byte may lie anywhere.
    Cow::Borrowed(unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) })
}

/// A tensor's elements as little-endian bytes, in its own dtype.
pub fn bytes(t: &Tensor) -> Result<Vec<u8>> {
    let flat = t.to_device(&Device::Cpu)?.flatten_all()?;
    Ok(match t.dtype() {
        DType::F32 => read([&flat], |[data]| le_bytes(data).into_owned())?,
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<half::bf16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => flat.to_vec1::<half::f16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        other => candle_core::bail!("weights of type {other:?} have no byte form here"),
    })
}

/// The reverse of [`bytes`].
pub fn from_bytes(data: &[u8], dtype: DType, shape: &[usize], device: &Device) -> Result<Tensor> {
    let wanted = shape.iter().product::<usize>() * dtype.size_in_bytes();
    if data.len() != wanted {
        candle_core::bail!("expected {wanted} bytes of {dtype:?} {shape:?}, found {}", data.len());
    }
    Tensor::from_raw_buffer(data, dtype, shape, device)
}
