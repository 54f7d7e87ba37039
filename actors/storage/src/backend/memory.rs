//! Records in memory: for tests, and for a server whose data may go when it stops.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use mssm_domain::{StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Report, StorageError, StorageReader};

use super::{StorageBackend, page_start, plan};
use crate::index::is_index;

/// Keeps records in memory; can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    records: RwLock<BTreeMap<Vec<u8>, StoredRecord>>,
    failures: Mutex<VecDeque<StorageError>>,
}

impl MemoryStorage {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a coming commit fail with this error; several are used up one a commit, in order.
    ///
    /// With [`StorageError::Unknown`] the commit is applied all the same: the caller cannot know.
    pub fn fail_next(&self, error: StorageError) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push_back(error);
    }

    fn records(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, StoredRecord>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageReader for MemoryStorage {
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        Ok(self.records().get(key.as_bytes()).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError> {
        let page = self.scan_records(prefix, after, limit)?;
        Ok(page.into_iter().map(|(key, _)| key).collect())
    }

    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        let records = self.records();
        let range = (page_start(prefix, after), Bound::Unbounded);
        let page = records.range::<[u8], _>(range);
        Ok(page
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, record)| (StoredKey::new(key.clone()), record.clone()))
            .collect())
    }
}

impl StorageBackend for MemoryStorage {
    fn apply(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        let failure = self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(error) = &failure
            && !matches!(error, StorageError::Unknown(_))
        {
            return Err(error.clone());
        }
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let (answers, effects) =
            plan(group, |key| Ok(records.get(key.as_bytes()).map(|record| record.version)));
        for (key, record) in effects {
            match record {
                Some(record) => records.insert(key.to_vec(), record.clone()),
                None => records.remove(key),
            };
        }
        failure.map_or(Ok(answers), Err)
    }

    fn check(&self) -> Result<Report, StorageError> {
        let records = self.records().keys().filter(|key| !is_index(key)).count();
        Ok(Report { records: records as u64, damaged: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Store, conformance};

    struct Kept(std::sync::Arc<MemoryStorage>);

    impl Store for Kept {
        const DURABLE: bool = false;

        fn create() -> Self {
            Self(std::sync::Arc::default())
        }

        fn open(&self) -> std::sync::Arc<dyn StorageBackend> {
            std::sync::Arc::clone(&self.0) as _
        }

        fn damage(&self, _: &StoredKey) -> bool {
            false
        }
    }

    conformance!(Kept);
}
