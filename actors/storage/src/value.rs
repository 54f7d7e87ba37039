//! How a record is written down: format, version in clear, envelope, checksum over all and the key.

use mssm_domain::{SealedBytes, StoredRecord};
use sha2::{Digest, Sha256};

/// The only format so far.
const FORMAT: u8 = 1;

/// Bytes before the envelope: the format and the version, big endian.
const HEAD: usize = 1 + 8;

/// Bytes of SHA-256 kept. It finds accidents; forgery is the envelope's own tag's to find.
const SUM: usize = 8;

/// The bytes that are stored under `key`.
pub(crate) fn encode(key: &[u8], record: &StoredRecord) -> Vec<u8> {
    let sealed = record.sealed.as_bytes();
    let mut bytes = Vec::with_capacity(HEAD + sealed.len() + SUM);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&record.version.to_be_bytes());
    bytes.extend_from_slice(sealed);
    let sum = checksum(key, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The record that was stored under `key`, or what is wrong with its bytes.
pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<StoredRecord, String> {
    let (version, sealed) = split(key, bytes)?;
    Ok(StoredRecord { version, sealed: SealedBytes::new(sealed.to_vec()) })
}

/// The version of the record that was stored under `key`, and its envelope in place.
pub(crate) fn split<'bytes>(
    key: &[u8],
    bytes: &'bytes [u8],
) -> Result<(u64, &'bytes [u8]), String> {
    let (body, sum) = bytes.split_last_chunk::<SUM>().ok_or("cut short")?;
    if checksum(key, body) != *sum {
        return Err("checksum does not match".to_owned());
    }
    let (format, rest) = body.split_first().ok_or("cut short")?;
    if *format != FORMAT {
        return Err(format!("unknown format {format}"));
    }
    let (version, sealed) = rest.split_first_chunk::<8>().ok_or("cut short")?;
    Ok((u64::from_be_bytes(*version), sealed))
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; SUM] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(body);
    let mut sum = [0; SUM];
    sum.iter_mut().zip(hash.finalize()).for_each(|(kept, byte)| *kept = byte);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is written is read back, and any changed or missing byte is noticed.
        #[test]
        fn a_record_comes_back_whole_or_not_at_all(
            key in prop::collection::vec(any::<u8>(), 0..40),
            version: u64,
            sealed in prop::collection::vec(any::<u8>(), 0..80),
            place: prop::sample::Index,
            bit in 0..8_u32,
        ) {
            let record = StoredRecord { version, sealed: SealedBytes::new(sealed) };
            let bytes = encode(&key, &record);
            prop_assert_eq!(decode(&key, &bytes), Ok(record));

            let mut flipped = bytes.clone();
            flipped[place.index(bytes.len())] ^= 1 << bit;
            prop_assert!(decode(&key, &flipped).is_err());
            prop_assert!(decode(&key, &bytes[..place.index(bytes.len())]).is_err());

            let mut other = key;
            other.push(0);
            prop_assert!(decode(&other, &bytes).is_err(), "moved to another key");
        }
    }
}
