//! A bucket of the index as bytes: the keys in it, sorted, each with a digest of its record.

use std::collections::BTreeMap;

use mssm_domain::StoredRecord;
use sha2::{Digest, Sha256};

/// Bytes of SHA-256 kept of a record: nobody chooses what an envelope looks like, so what has to
/// be hard is a second record with the digest of a given one.
const SUM: usize = 16;

/// What a record's bytes come to.
pub(crate) type Sum = [u8; SUM];

/// What should lie under each key of a bucket.
pub(crate) type Bucket = BTreeMap<Vec<u8>, Sum>;

/// The digest of a record.
pub(crate) fn sum(record: &StoredRecord) -> Sum {
    let mut hash = Sha256::new();
    hash.update(record.version.to_be_bytes());
    hash.update(record.sealed.as_bytes());
    let mut kept = [0; SUM];
    kept.iter_mut().zip(hash.finalize()).for_each(|(kept, byte)| *kept = byte);
    kept
}

/// For each key its length (four bytes, big endian), itself, its digest.
pub(crate) fn encode(bucket: &Bucket) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bucket.keys().map(|key| 4 + key.len() + SUM).sum());
    for (key, sum) in bucket {
        bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(sum);
    }
    bytes
}

/// Reads what [`encode`] wrote, and nothing else.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Bucket> {
    let mut bucket = Bucket::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (key, rest) = rest.split_at_checked(length)?;
        let (sum, rest) = rest.split_first_chunk()?;
        if bucket.last_key_value().is_some_and(|(last, _)| last.as_slice() >= key) {
            return None;
        }
        bucket.insert(key.to_vec(), *sum);
        bytes = rest;
    }
    Some(bucket)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_comes_back_and_nothing_else_is_one(
            bucket in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 0..40), any::<Sum>(), 0..8),
            mut noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = encode(&bucket);
            prop_assert_eq!(decode(&bytes), Some(bucket));
            if let Some(found) = decode(&noise) {
                prop_assert_eq!(encode(&found), noise.clone());
            }
            noise.splice(0..0, bytes);
            if let Some(found) = decode(&noise) {
                prop_assert_eq!(encode(&found), noise);
            }
        }
    }
}
