//! What a place that keeps records must offer; the writer and the suite know nothing else of it.

use std::collections::BTreeMap;

use mssm_domain::{StoredKey, StoredRecord};
use mssm_messages::storage::{
    Commit, Expect, Report, StorageError, StorageReader, Write as Change,
};

pub(crate) mod embedded;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod file;
pub(crate) mod memory;

/// Keeps records: reads in place, and one durable commit for a group of batches.
///
/// [`Self::apply`] is what a backend implements and what the server uses: a put alone could not
/// be made conditional, nor could two keys change together. [`Self::put`], [`Self::get`] and
/// [`Self::delete`] are the plain shape of the same, one record at a time, for tools and tests.
pub trait StorageBackend: StorageReader {
    /// Applies the batches in order, in one durable commit, and answers each.
    ///
    /// A batch's preconditions are all checked before any of its writes, and see what earlier
    /// batches of the group wrote. A batch that is refused (the inner error) writes nothing and
    /// does not disturb the others. The outer error aborts the whole group: nothing was written,
    /// unless it is [`StorageError::Unknown`]; the caller may then try the members singly.
    ///
    /// Called by one thread at a time.
    fn apply(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError>;

    /// Reads every record and tells which are damaged.
    fn check(&self) -> Result<Report, StorageError>;

    /// The record under a key.
    fn get(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        self.read(key)
    }

    /// Stores one record durably, replacing what was there.
    fn put(&self, key: &StoredKey, record: &StoredRecord) -> Result<(), StorageError> {
        apply_one(self, Change::Put(key.clone(), record.clone()))
    }

    /// Removes one record durably; one that is not there is fine.
    fn delete(&self, key: &StoredKey) -> Result<(), StorageError> {
        apply_one(self, Change::Delete(key.clone()))
    }
}

fn apply_one<B: StorageBackend + ?Sized>(backend: &B, write: Change) -> Result<(), StorageError> {
    let batch = Commit { preconditions: Vec::new(), writes: vec![write] };
    backend.apply(std::slice::from_ref(&batch))?.into_iter().collect()
}

/// Whether all preconditions of a batch hold, given how to learn the version that a key has.
pub(crate) fn decide(
    batch: &Commit,
    mut version_of: impl FnMut(&StoredKey) -> Result<Option<u64>, StorageError>,
) -> Result<(), StorageError> {
    for (position, condition) in batch.preconditions.iter().enumerate() {
        let found = version_of(&condition.key)?;
        let holds = match condition.expect {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Version(version) => found == Some(version),
        };
        if !holds {
            return Err(StorageError::Precondition(position));
        }
    }
    Ok(())
}

/// What a group leaves under each key it touches; `None` is a deleted one.
pub(crate) type Effects<'group> = BTreeMap<&'group [u8], Option<&'group StoredRecord>>;

/// Works a group out on paper: the answers, and what is to be written once for all.
///
/// For backends whose engine has no transaction that sees its own writes.
pub(crate) fn plan(
    group: &[Commit],
    mut version_of: impl FnMut(&StoredKey) -> Result<Option<u64>, StorageError>,
) -> (Vec<Result<(), StorageError>>, Effects<'_>) {
    let mut effects = Effects::new();
    let mut answers = Vec::with_capacity(group.len());
    for batch in group {
        let answer = decide(batch, |key| match effects.get(key.as_bytes()) {
            Some(record) => Ok(record.map(|record| record.version)),
            None => version_of(key),
        });
        if answer.is_ok() {
            effects.extend(batch.writes.iter().map(|write| match write {
                Change::Put(key, record) => (key.as_bytes(), Some(record)),
                Change::Delete(key) => (key.as_bytes(), None),
            }));
        }
        answers.push(answer);
    }
    (answers, effects)
}

/// Where a page of a scan begins: inclusively at the prefix, or exclusively after a key.
pub(crate) fn page_start<'scan>(
    prefix: &'scan [u8],
    after: Option<&'scan [u8]>,
) -> std::ops::Bound<&'scan [u8]> {
    match after {
        Some(after) if after >= prefix => std::ops::Bound::Excluded(after),
        _ => std::ops::Bound::Included(prefix),
    }
}
