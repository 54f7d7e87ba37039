//! What single commits changed since the buckets were written: one small record each, under a tag.

use std::collections::BTreeMap;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::storage::{StorageError, StorageReader, Write};

use super::bucket::{self, Bucket, Sum};
use super::{Broken, Index, PREFIX, Staged, TAG, broken};

/// What should lie under each key from now on; `None`: nothing.
pub(super) type Changed = BTreeMap<Vec<u8>, Option<Sum>>;

/// Where the delta of a version lies.
pub(super) fn key(version: u64) -> StoredKey {
    StoredKey::new([prefix().as_slice(), &version.to_be_bytes()].concat())
}

pub(super) fn prefix() -> Vec<u8> {
    [PREFIX.as_slice(), b"d"].concat()
}

/// Changes what a bucket says of a key.
pub(super) fn apply(bucket: &mut Bucket, key: &[u8], sum: Option<Sum>) {
    match sum {
        Some(sum) => bucket.insert(key.to_vec(), sum),
        None => bucket.remove(key),
    };
}

/// What is put, as a bucket has it, behind its length (four bytes, big endian); then what is removed.
fn encode(changed: &Changed) -> Vec<u8> {
    let (put, removed): (Vec<_>, Vec<_>) = changed.iter().partition(|(_, sum)| sum.is_some());
    let part = |entries: Vec<(&Vec<u8>, &Option<Sum>)>| {
        let entries = entries.into_iter().map(|(key, sum)| (key.clone(), sum.unwrap_or_default()));
        bucket::encode(&entries.collect())
    };
    let put = part(put);
    let mut bytes = u32::try_from(put.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(put);
    bytes.extend(part(removed));
    bytes
}

/// Reads what [`encode`] wrote.
fn decode(bytes: &[u8]) -> Option<Changed> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (put, removed) = rest.split_at_checked(length)?;
    let put = bucket::decode(put)?.into_iter().map(|(key, sum)| (key, Some(sum)));
    let removed = bucket::decode(removed)?.into_keys().map(|key| (key, None));
    Some(put.chain(removed).collect())
}

/// What a delta's record says, without asking whether it is to be believed.
pub(super) fn read(record: &StoredRecord) -> Option<Changed> {
    decode(record.sealed.as_bytes().split_last_chunk::<TAG>()?.0)
}

impl Index {
    /// The write of one commit's changes.
    pub(super) fn write_delta(&self, changed: Changed) -> (Vec<Write>, Staged) {
        let version = self.version.saturating_add(1);
        let mut body = encode(&changed);
        body.extend(self.tag_of("delta", version, &body));
        let record = StoredRecord { version, sealed: SealedBytes::new(body) };
        let (buckets, pages) = (BTreeMap::new(), BTreeMap::new());
        let staged = Staged { version, delta: Some(changed), buckets, pages };
        (vec![Write::Put(key(version), record)], staged)
    }

    /// Has changes wait that a delta speaks of.
    pub(super) fn wait(&mut self, changed: Changed) {
        for (key, sum) in changed {
            self.waiting.entry(self.bucket_of(&key)).or_default().insert(key, sum);
        }
    }

    /// Reads all deltas: each version behind the root's, and no other.
    pub(super) fn load_deltas(&mut self, store: &dyn StorageReader) -> Result<(), Broken> {
        let records = match store.scan_records(&prefix(), None, usize::MAX) {
            Ok(records) => records,
            Err(StorageError::Damaged(_)) => return Err(broken(&key(self.version), [])),
            Err(error) => return Err(error.into()),
        };
        for (there, record) in records {
            let version = self.version.saturating_add(1);
            let body = record.sealed.as_bytes().split_last_chunk::<TAG>();
            let changed = read(&record);
            let fits = there == key(version)
                && body.is_some_and(|(body, tag)| *tag == self.tag_of("delta", version, body));
            match changed {
                Some(changed) if fits => self.wait(changed),
                changed => return Err(broken(&there, changed.unwrap_or_default().into_keys())),
            }
            self.version = version;
        }
        Ok(())
    }
}
