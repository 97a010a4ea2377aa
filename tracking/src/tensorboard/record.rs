//! A record of an event file: the few fields of TensorFlow's `Event` that scalars need, in the frame of a TFRecord.
//!
//! Invariant: field numbers and frame are those of `tensorflow/core/util/event.proto` and
//! `tensorflow/core/lib/io/record_writer.h`.

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// In a file's first record alone.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// What was measured.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Summary {
    /// Each measurement.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The name.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// A scalar. One of several kinds there, so a zero is written too.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

/// Length, its checksum, the message, its checksum.
pub fn framed(message: &impl prost::Message) -> Vec<u8> {
    let data = message.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(&data);
    record.extend(masked(&data).to_le_bytes());
    record
}

/// CRC-32C, turned and shifted so that a checksum of checksums is no weak one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4: 32 bytes of zeros, and the usual nine digits.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_record_is_framed() {
        let message = Message { file_version: Some("brain.Event:2".into()), ..Message::default() };
        let record = framed(&message);
        assert_eq!(&record[..8], &15u64.to_le_bytes());
        assert_eq!(&record[12..27], b"\x1a\x0dbrain.Event:2");
        assert_eq!(record.len(), 8 + 4 + 15 + 4);
    }

    #[test]
    fn a_zero_is_written() {
        let value = Value { tag: "x".into(), simple_value: Some(0.0) };
        assert_eq!(prost::Message::encode_to_vec(&value), b"\x0a\x01x\x15\0\0\0\0");
    }
}
