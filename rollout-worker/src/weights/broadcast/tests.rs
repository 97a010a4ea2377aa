#![allow(clippy::unwrap_used)]

use super::*;
use crate::weights::tests::{config, published};

fn parcel_of(change: impl FnOnce(&mut Vec<u8>)) -> (Bytes, String) {
    let (manifest, data) = published(&config());
    let mut whole = parcel::pack(&manifest, data.into()).concat();
    change(&mut whole);
    (whole.into(), manifest.digest)
}

#[test]
fn a_version_that_was_broadcast_is_taken_in_tensor_by_tensor() {
    let (whole, digest) = parcel_of(|_| {});
    let arrival = verify(PolicyVersion(3), &digest, whole, &config().tensor_specs()).unwrap();
    let (message, data) = published(&config());
    assert_eq!(arrival.manifest.message(), &message);
    assert_eq!(arrival.tensors.concat(), data);
}

#[test]
fn anything_else_than_was_published_is_refused_by_name() {
    let refused = |parcel: (Bytes, String), version: u64| {
        verify(PolicyVersion(version), &parcel.1, parcel.0, &config().tensor_specs()).unwrap_err()
    };
    let error = refused(parcel_of(|bytes| *bytes.last_mut().unwrap() ^= 1), 3);
    assert!(error.contains("expected BLAKE3"), "{error}");
    let error = refused(parcel_of(|bytes| bytes.truncate(bytes.len() - 1)), 3);
    assert!(error.contains("bytes of tensors"), "{error}");
    let error = refused(parcel_of(|_| {}), 4);
    assert!(error.contains("expected version 4"), "{error}");
    let (whole, _) = parcel_of(|_| {});
    let error = refused((whole.clone(), "cafe".to_owned()), 3);
    assert!(error.contains("published digest cafe"), "{error}");
    // Wherever one bit differs, it is noticed.
    for at in (0..whole.len()).step_by(97) {
        let changed = parcel_of(|bytes| bytes[at] ^= 4);
        verify(PolicyVersion(3), &changed.1, changed.0, &config().tensor_specs()).unwrap_err();
    }
}
