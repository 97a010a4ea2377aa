//! What can be wrong with published weights.
//!
//! Invariant: [`Damage`] may be gone when the same is fetched again, [`WeightsError`] is not.

use octet_proto::PolicyVersion;

/// Weights that did not arrive as they were published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another version than asked for.
    #[error("manifest: expected version {expected}, found version {found}")]
    Version {
        /// Asked for.
        expected: PolicyVersion,
        /// Received.
        found: PolicyVersion,
    },
    /// Digests of tensors that do not make the digest of the weights.
    #[error(
        "manifest of version {version}: expected tensors' digests that make {expected}, found those that make {found}"
    )]
    ManifestDigest {
        /// The version.
        version: PolicyVersion,
        /// The digest that the manifest gives.
        expected: String,
        /// The digest of what it lists.
        found: String,
    },
    /// Weights that the learner did not publish.
    #[error(
        "manifest of version {version}: expected the published digest {expected}, found {found}"
    )]
    OtherDigest {
        /// The version.
        version: PolicyVersion,
        /// What the learner published.
        expected: String,
        /// What the source gives.
        found: String,
    },
    /// A manifest of another model, from a source that is not the learner.
    #[error("{problem}")]
    Manifest {
        /// What is wrong with it.
        problem: String,
    },
    /// A digest that is none.
    #[error("manifest: expected a BLAKE3 digest in hex as {of}, found `{found}`")]
    NoDigest {
        /// Of which tensor, or of the weights.
        of: String,
        /// What is there.
        found: String,
    },
    /// A chunk from elsewhere.
    #[error("chunks: expected one at offset {expected}, found one at {found}")]
    Offset {
        /// What had been received so far.
        expected: u64,
        /// Where the chunk says that it belongs.
        found: u64,
    },
    /// More than there is.
    #[error("chunks: expected {expected} bytes in all, found more")]
    TooLong {
        /// The manifest's total.
        expected: u64,
    },
    /// Bytes of a tensor that are not the published ones.
    #[error("tensor {name}: expected BLAKE3 {expected}, found {found}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Where it begins.
        start: u64,
        /// The manifest's digest.
        expected: String,
        /// The digest of what arrived.
        found: String,
    },
}

/// Why a version cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The version is of another model.
    #[error(
        "weights of version {version}: {what}: expected {expected}, found {found}: start the worker with the model that the learner trains"
    )]
    OtherModel {
        /// The version.
        version: PolicyVersion,
        /// Where they differ.
        what: String,
        /// What the worker's model directory says.
        expected: String,
        /// What the manifest says.
        found: String,
    },
    /// It arrived damaged each time.
    #[error("weights of version {version} arrived damaged {times} times, the last time: {damage}")]
    Damaged {
        /// The version.
        version: PolicyVersion,
        /// How often.
        times: u32,
        /// What was wrong last.
        damage: Damage,
    },
    /// The model cannot be made of them.
    #[error("make a model of the weights of version {version}")]
    Build {
        /// The version.
        version: PolicyVersion,
        /// Why.
        source: candle_core::Error,
    },
}
