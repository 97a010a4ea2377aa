//! A GGUF file's tensors under their Hugging Face names, as 32-bit floats.
//!
//! Invariant: rows come in the order of Hugging Face. For llama, files have the rows of queries and keys
//! interleaved (a pair of dimensions that is rotated together lies together); here they are put apart again.

use std::collections::BTreeMap;
use std::io::Cursor;

use candle_core::Device;

use super::config::ROPE_FACTORS;
use super::{Gguf, first_line};
use crate::config::{Architecture, ModelConfig, TensorSpec};
use crate::files::FilesError;

/// Parts of a layer: in Hugging Face, and in GGUF.
const PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

impl Gguf {
    /// All weights, in the order of [`ModelConfig::tensor_specs`].
    ///
    /// # Errors
    /// Names every tensor that is missing, of another shape, or that the model would silently ignore.
    pub fn weights(&self, config: &ModelConfig) -> Result<Vec<Vec<f32>>, FilesError> {
        let specs = config.tensor_specs();
        let mut problems = Vec::new();
        let mut ours = BTreeMap::new();
        for spec in &specs {
            let name = gguf_name(&spec.name);
            match self.content.tensor_infos.get(&name) {
                None => problems.push(format!("`{name}` is missing, expected {:?}", spec.shape)),
                Some(info) if info.shape.dims() != spec.shape => problems.push(format!(
                    "`{name}` has the wrong shape, expected {:?}, found {:?}",
                    spec.shape,
                    info.shape.dims()
                )),
                Some(_) => {}
            }
            ours.insert(name, spec);
        }
        let mut others: Vec<_> = self.content.tensor_infos.keys().collect();
        others.retain(|name| !ours.contains_key(*name) && *name != ROPE_FACTORS);
        others.sort();
        problems.extend(others.into_iter().map(|name| format!("`{name}` is unexpected")));
        if !problems.is_empty() {
            return Err(FilesError::Tensors { dir: self.path.clone(), problems });
        }
        specs.iter().map(|spec| self.weight(spec, config)).collect()
    }

    fn weight(&self, spec: &TensorSpec, config: &ModelConfig) -> Result<Vec<f32>, FilesError> {
        let values = self.dequantised(&gguf_name(&spec.name))?;
        let heads = match spec.name.as_str() {
            name if name.contains(".q_proj.") => config.num_attention_heads,
            name if name.contains(".k_proj.") => config.num_key_value_heads,
            _ => return Ok(values),
        };
        Ok(match config.architecture {
            Architecture::Llama => put_apart(&values, heads, config.head_dim),
            Architecture::Qwen2 | Architecture::Qwen3 => values,
        })
    }

    /// A tensor as 32-bit floats, in the file's own order.
    pub(super) fn dequantised(&self, name: &str) -> Result<Vec<f32>, FilesError> {
        let mut file = Cursor::new(&self.map[..]);
        let values = self
            .content
            .tensor(&mut file, name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
        values.map_err(|error| self.format(format!("the tensor `{name}`"), first_line(&error)))
    }

    /// Every tensor ends inside the file.
    pub(super) fn check_length(&self) -> Result<(), FilesError> {
        let mut expected = 0u64;
        for (name, info) in &self.content.tensor_infos {
            let elements =
                info.shape.dims().iter().try_fold(1u64, |product, &size| {
                    product.checked_mul(u64::try_from(size).ok()?)
                });
            let blocks = elements
                .filter(|count| count % info.ggml_dtype.block_size() as u64 == 0)
                .map(|count| count / info.ggml_dtype.block_size() as u64);
            let end = blocks
                .and_then(|blocks| blocks.checked_mul(info.ggml_dtype.type_size() as u64))
                .and_then(|bytes| bytes.checked_add(info.offset))
                .and_then(|end| end.checked_add(self.content.tensor_data_offset));
            let end = end.ok_or_else(|| {
                self.format(
                    format!("whole blocks of {:?} in `{name}`", info.ggml_dtype),
                    format!("the shape {:?}", info.shape.dims()),
                )
            })?;
            expected = expected.max(end);
        }
        let found = self.map.len() as u64;
        if expected > found {
            return Err(FilesError::Length { path: self.path.clone(), expected, found });
        }
        Ok(())
    }
}

/// What a tensor is called in GGUF.
fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let in_layer = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, gguf) = PARTS.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{layer}.{gguf}.{kind}"))
    };
    in_layer().unwrap_or_else(|| name.to_owned())
}

/// Rows `(head, pair, half)` become rows `(head, half, pair)`; a row is whatever is left of the tensor.
fn put_apart(values: &[f32], heads: usize, dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * dim);
    let mut rows = Vec::with_capacity(values.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..dim / 2 {
                let row = head * dim + pair * 2 + half;
                rows.extend_from_slice(&values[row * width..][..width]);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_heads_by_hand() {
        // Two heads of four rows of two: head 0 has rows 0 to 3, whose pairs are (0, 1) and (2, 3).
        let interleaved: Vec<f32> = (0..8).flat_map(|row| [row as f32, -(row as f32)]).collect();
        let apart = put_apart(&interleaved, 2, 4);
        let rows: Vec<f32> = apart.iter().copied().step_by(2).collect();
        assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(apart[3], -2.0);
    }

    #[test]
    fn names_by_hand() {
        assert_eq!(
            gguf_name("model.layers.12.self_attn.o_proj.weight"),
            "blk.12.attn_output.weight"
        );
        assert_eq!(gguf_name("model.layers.0.self_attn.q_proj.bias"), "blk.0.attn_q.bias");
        assert_eq!(gguf_name("lm_head.weight"), "output.weight");
    }
}
