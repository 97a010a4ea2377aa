//! Code that `build.rs` made from the contracts. Private: the crate's modules say what leaves.

// The field comments of the `.proto` files are the documentation; what they leave out stays out.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("octet.v1");
