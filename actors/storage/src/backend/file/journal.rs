//! The redo log of the file backend: which staged files a batch puts in place and which it removes.
//!
//! The journal is put in place by one rename, after everything it names is staged and synced. From
//! then on the batch is applied, if need be by the next start; before, it never happened.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// What every journal begins with; the last byte counts the layout.
const MAGIC: &[u8; 8] = b"mssmjnl\x01";

/// Bytes of a file's name.
const NAME: usize = 64;

/// By the file's name: whether a staged file is put in its place, else it is removed.
pub(super) type Steps = BTreeMap<String, bool>;

/// The journal's bytes: magic, then for each step `+` or `-` and the name, then SHA-256 of all.
pub(super) fn encode(steps: &Steps) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, puts) in steps {
        bytes.push(if *puts { b'+' } else { b'-' });
        bytes.extend_from_slice(name.as_bytes());
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// The steps in a journal; `None` if it is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Steps> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    if Sha256::digest(body).as_slice() != sum {
        return None;
    }
    let mut steps = Steps::new();
    for step in body.strip_prefix(MAGIC)?.chunks(1 + NAME) {
        let (kind, name) = step.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        // Names become paths, so nothing but a name may pass.
        if name.len() != NAME || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        steps.insert(name.to_owned(), *kind == b'+');
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_journal_is_read_back_whole_or_not_at_all(
            steps in prop::collection::btree_map("[0-9a-f]{64}", any::<bool>(), 0..8),
            place: prop::sample::Index,
        ) {
            let bytes = encode(&steps);
            prop_assert_eq!(decode(&bytes), Some(steps));
            prop_assert_eq!(decode(&bytes[..place.index(bytes.len())]), None);
            let mut flipped = bytes;
            let place = place.index(flipped.len());
            flipped[place] ^= 1;
            prop_assert_eq!(decode(&flipped), None);
        }
    }
}
