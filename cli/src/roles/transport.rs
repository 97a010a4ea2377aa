//! What a role broadcasts weights with, as the recipe has it.
//!
//! Invariant: a recipe that asks for what this program was not built with is refused before the role joins
//! the run; that a transport cannot be opened is no such thing, since weights come without it.

use crate::recipe::Recipe;
use anyhow::{Context, Result};
use octet_broadcast::Factory;

/// The transport, where the recipe asks for one.
///
/// # Errors
/// The program has none, or the device is none that has it.
pub fn transport(recipe: &Recipe) -> Result<Option<Factory>> {
    if !recipe.weights.are_broadcast() {
        return Ok(None);
    }
    let device = recipe.model.device.as_str();
    let ordinal = device.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    let ordinal = ordinal.with_context(|| {
        format!(
            "weights.broadcast = \"nccl\": expected model.device = \"cuda:0\", found \"{device}\""
        )
    })?;
    nccl(ordinal).map(Some)
}

#[cfg(feature = "cuda")]
fn nccl(ordinal: usize) -> Result<Factory> {
    Ok(octet_broadcast::nccl::factory(ordinal))
}

#[cfg(not(feature = "cuda"))]
fn nccl(_ordinal: usize) -> Result<Factory> {
    anyhow::bail!(
        "weights.broadcast = \"nccl\": this octet was built without CUDA; build it with --features cuda, or set \"off\""
    )
}
