//! What a broadcast carries: a version's manifest and, behind it, its tensors' bytes.
//!
//! Invariant: whoever has a parcel can verify it with nothing but the published digest, so a broadcast
//! waits for no other call.

use bytes::{Buf, Bytes};
use octet_proto::weights::WeightsManifest;
use prost::Message;

/// How many bytes say how long the manifest is.
const HEADER: usize = 8;

/// A version's bytes in pieces, in their order.
pub fn pack(manifest: &WeightsManifest, data: Bytes) -> Vec<Bytes> {
    let encoded = manifest.encode_to_vec();
    let mut head = Vec::with_capacity(HEADER + encoded.len());
    head.extend_from_slice(&(encoded.len() as u64).to_le_bytes());
    head.extend_from_slice(&encoded);
    vec![head.into(), data]
}

/// How many bytes the pieces have together.
pub fn packed_bytes(manifest: &WeightsManifest) -> u64 {
    (HEADER + manifest.encoded_len()) as u64 + manifest.total_bytes
}

/// The manifest, unverified, and the bytes behind it, without a copy.
///
/// # Errors
/// That is no parcel.
pub fn unpack(mut parcel: Bytes) -> Result<(WeightsManifest, Bytes), String> {
    let bytes = parcel.len();
    let none = |what: &str| format!("expected a parcel with {what}, found {bytes} bytes");
    let length = parcel.try_get_u64_le().map_err(|_| none("a length"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > parcel.len() {
        return Err(none(&format!("a manifest of {length} bytes")));
    }
    let manifest = WeightsManifest::decode(parcel.split_to(length));
    Ok((manifest.map_err(|error| format!("expected a manifest: {error}"))?, parcel))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_parcel_comes_back_and_a_part_of_one_does_not() {
        let data = Bytes::from_static(b"weights");
        let manifest = WeightsManifest {
            version: 3,
            total_bytes: data.len() as u64,
            digest: "cafe".into(),
            tensors: Vec::new(),
        };
        let whole = pack(&manifest, data.clone()).concat();
        assert_eq!(whole.len() as u64, packed_bytes(&manifest));
        assert_eq!(unpack(whole.clone().into()).unwrap(), (manifest, data));
        for end in 0..whole.len() - 7 {
            unpack(whole[..end].to_vec().into()).unwrap_err();
        }
        let mut long = whole;
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(unpack(long.into()).unwrap_err().contains("a manifest of"));
    }
}
