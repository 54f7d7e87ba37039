//! What the store holds: records under hidden keys.

use std::fmt;

use crate::SealedBytes;

/// The plain name of a record: non-empty segments joined by `/`, as `kv/<mount>/prod/stripe`.
///
/// Known only inside the server; what the store sees is the [`StoredKey`] made of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPath(String);

impl RecordPath {
    /// A record's name from its parts; each part may itself hold several segments.
    ///
    /// Empty segments vanish, so that no two spellings name different records.
    pub fn new(parts: &[&str]) -> Self {
        let mut path = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for segment in parts.iter().flat_map(|part| part.split('/')) {
            if segment.is_empty() {
                continue;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(segment);
        }
        Self(path)
    }

    /// The name of a record below this one.
    pub fn child(&self, below: &str) -> Self {
        Self::new(&[&self.0, below])
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, none of them empty; none at all for the root.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }
}

impl fmt::Debug for RecordPath {
    /// Names of records are secrets too; only the kind of record is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.0.split('/').next().unwrap_or_default();
        write!(f, "RecordPath({kind}/..)")
    }
}

/// A record's key in the store: for each segment its length (two bytes, big endian) and its
/// encrypted name, so that the key of a parent is a prefix of its children's keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredKey(Vec<u8>);

impl StoredKey {
    /// Wraps the bytes of a stored key.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKey({} B)", self.0.len())
    }
}

/// What the store keeps under a key: an envelope and its version, which counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Counts the writes of this key; bound into the envelope, checked as a precondition.
    pub version: u64,
    /// The envelope.
    pub sealed: SealedBytes,
}
