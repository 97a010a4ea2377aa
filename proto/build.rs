//! Compiles the contracts to Rust, and to the descriptor set that gRPC reflection serves.
//!
//! Invariant: nothing but crates is needed (protox replaces `protoc`), and nothing is written
//! outside of `OUT_DIR`.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

const CONTRACTS: [&str; 6] = ["admin", "broadcast", "coordinator", "reward", "learner", "weights"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let files: Vec<PathBuf> =
        CONTRACTS.iter().map(|name| root.join(format!("octet/v1/{name}.proto"))).collect();
    println!("cargo:rerun-if-changed={}", root.join("octet").display());

    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(Path::new(&out).join("octet.v1.bin"), descriptors.encode_to_vec())?;

    // `Bytes` lets a weight chunk travel from the socket to its consumer without a copy.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
