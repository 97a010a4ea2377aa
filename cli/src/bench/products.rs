//! The matrix products of a learning step alone: every projection of a layer and the head, forward and
//! backward, with as many rows as a micro-batch has.
//!
//! Invariant: the operations are those that learning calls, on the model's own weights.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use octet_policy::model::Model;
use octet_policy::ops::{Projection, linear, linear_backward, rows_at_once};
use std::time::Instant;

/// The products of one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Products {
    /// Their floating-point operations.
    pub operations: f64,
    /// Their seconds.
    pub seconds: f64,
}

/// Each product is measured so often; the fastest counts, as for the machine's own speed.
const TIMES: usize = 3;

/// Measures the products of `rows` rows of which `predicting` reach the vocabulary.
pub fn measure(model: &Model, (rows, predicting): (usize, usize)) -> Result<Products> {
    let (params, layers) = (model.params(), model.config().num_hidden_layers as f64);
    let weight = |name: &str| -> Result<&Tensor> {
        let at = params.specs().iter().position(|spec| spec.name == name);
        at.map(|at| &params.tensors()[at]).with_context(|| format!("the model has no {name}"))
    };
    let mut all = Products { operations: 0.0, seconds: 0.0 };
    for name in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ] {
        all.add(one(weight(&format!("model.layers.0.{name}.weight"))?, rows)?, layers);
    }
    let head = weight("lm_head.weight").or_else(|_| weight("model.embed_tokens.weight"))?;
    let chunk = rows_at_once(predicting, head.dim(0)?);
    all.add(one(head, chunk)?, predicting as f64 / chunk as f64);
    Ok(all)
}

/// `y = x · Wᵀ`, and the gradients of both factors.
fn one(weight: &Tensor, rows: usize) -> Result<Products> {
    let (outputs, inputs) = weight.dims2()?;
    let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu)?;
    let mut gradient = weight.zeros_like()?;
    let mut seconds = f64::INFINITY;
    for _ in 0..=TIMES {
        let start = Instant::now();
        let y = linear(&x, Projection { weight, bias: None, packed: None, adapter: None })?;
        linear_backward(&x, weight, &y, None, Some(&mut gradient), None)?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(Products { operations: 6.0 * (rows * inputs * outputs) as f64, seconds })
}

impl Products {
    fn add(&mut self, one: Self, times: f64) {
        self.operations += times * one.operations;
        self.seconds += times * one.seconds;
    }
}
