//! The language model: architectures, weights, tokenizer, chat template, group sampling, and group
//! log-probabilities with their gradients. It knows no network.
//!
//! The one idea: a group shares its prompt, and the code that samples is the code that learns. See
//! [`model::Model`].

pub mod config;
pub mod files;
pub mod gguf;
pub mod kernel;
pub mod layout;
pub mod lora;
pub mod model;
pub mod ops;
pub mod policy;
pub mod sampler;
pub mod source;
pub mod template;
pub mod tokenizer;
