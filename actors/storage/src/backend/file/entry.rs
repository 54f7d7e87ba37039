//! How one record lies in a file of its own, and how that file is called.

use mssm_domain::StoredRecord;
use sha2::{Digest, Sha256};

use crate::value;

/// What every record's file begins with; the last byte counts the layout.
const MAGIC: &[u8; 8] = b"mssmrec\x01";

/// The file of a key: SHA-256 of the key in hex, so that any key has a short, plain name.
pub(crate) fn name_of(key: &[u8]) -> String {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = |byte: u8| [usize::from(byte >> 4), usize::from(byte & 15)];
    let digest = Sha256::digest(key);
    digest.iter().flat_map(|byte| digits(*byte)).filter_map(|digit| HEX.get(digit)).collect()
}

/// The file's bytes: magic, length of the key (four bytes, big endian), key, value.
pub(super) fn encode(key: &[u8], record: &StoredRecord) -> Vec<u8> {
    let value = value::encode(key, record);
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + key.len() + value.len());
    bytes.extend_from_slice(MAGIC);
    // A key is 64 KiB at most (`StoredKey` counts its segments in two bytes, paths are bounded);
    // a longer one would come back as damaged, never as another key.
    bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&value);
    bytes
}

/// The key and the record in a file of this name, or what is wrong with it.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<(Vec<u8>, StoredRecord), String> {
    let (key, stored) = split(name, bytes)?;
    Ok((key.to_vec(), value::decode(key, stored)?))
}

/// The key that a file of this name says it is of, also if its record is damaged.
pub(super) fn key_in(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    split(name, bytes).ok().map(|(key, _)| key.to_vec())
}

fn split<'bytes>(name: &str, bytes: &'bytes [u8]) -> Result<(&'bytes [u8], &'bytes [u8]), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a record")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("cut short")?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| "cut short")?;
    let (key, stored) = rest.split_at_checked(length).ok_or("cut short")?;
    if name_of(key) != name {
        return Err("its name is not its key's".to_owned());
    }
    Ok((key, stored))
}
