//! A disk that takes its time, is full, cannot say what it did, or belongs to a server that died.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mssm_domain::{RecordPath, StoredKey, StoredRecord};
use mssm_messages::Port;
use mssm_messages::storage::{Commit, Report, StorageError, StoragePort, StorageReader};
use mssm_storage::{MemoryStorage, StorageBackend};
use mssm_testkit::FakeKeys;

use crate::weather::Weather;

/// How many batches may wait, as in the real store.
const QUEUE: usize = 4096;

/// The store as one run of the server sees it.
pub(crate) struct Disk {
    records: Arc<MemoryStorage>,
    weather: Arc<Weather>,
    dead: Arc<AtomicBool>,
}

impl Disk {
    /// The ports of a run, over the real writer.
    pub(crate) fn port(
        records: &Arc<MemoryStorage>,
        weather: &Arc<Weather>,
        dead: &Arc<AtomicBool>,
    ) -> StoragePort {
        let disk = Self {
            records: Arc::clone(records),
            weather: Arc::clone(weather),
            dead: Arc::clone(dead),
        };
        let disk = Arc::new(disk);
        let (writer, mut asked) = Port::<Commit>::to_thread(QUEUE);
        let (applies, queue) = tokio::sync::mpsc::channel(QUEUE);
        let poisoned = Arc::clone(dead);
        // After a failed sync the server ends itself.
        let on_poison = move |_| poisoned.store(true, Ordering::SeqCst);
        let backend: Arc<dyn StorageBackend> = disk.clone();
        actix_rt::spawn(mssm_storage::work(backend, queue, on_poison));
        let (weather, dead) = (Arc::clone(weather), Arc::clone(dead));
        actix_rt::spawn(async move {
            while let Some(letter) = asked.recv().await {
                tokio::time::sleep(Duration::from_millis(weather.random.below(8))).await;
                let mut waiting = vec![letter];
                while let Ok(letter) = asked.try_recv() {
                    waiting.push(letter);
                }
                for letter in waiting {
                    // What was on its way to the disk of a dead server is gone.
                    if !dead.load(Ordering::SeqCst) {
                        let _ = applies.send(letter).await;
                    }
                }
            }
        });
        StoragePort { reader: disk, writer }
    }

    fn alive(&self) -> Result<(), StorageError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(StorageError::Io("the server is dead".to_owned()));
        }
        Ok(())
    }
}

impl StorageReader for Disk {
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        self.alive()?;
        self.records.read(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError> {
        self.alive()?;
        self.records.scan(prefix, after, limit)
    }

    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        self.alive()?;
        self.records.scan_records(prefix, after, limit)
    }
}

impl StorageBackend for Disk {
    fn apply(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        self.alive()?;
        if self.weather.is_full() || self.weather.chance(1) {
            return Err(StorageError::NoSpace("the model's disk is full".to_owned()));
        }
        // A power cut before, or after, the sync: nobody hears which.
        if self.weather.chance(1) {
            let told = self.weather.random.below(2) == 0;
            let answers = if told { self.records.apply(group)? } else { Vec::new() };
            drop(answers);
            return Err(StorageError::Unknown("the model's sync failed".to_owned()));
        }
        self.records.apply(group)
    }

    fn check(&self) -> Result<Report, StorageError> {
        self.records.check()
    }
}

/// The bytes of all live leases' records, in clear: the keys of the simulation hide nothing.
pub(crate) fn live_leases(records: &MemoryStorage) -> Vec<Vec<u8>> {
    let folder = FakeKeys::stored_key(&RecordPath::new(&["lease"]));
    let page = records.scan_records(folder.as_bytes(), None, usize::MAX).unwrap();
    page.into_iter().map(|(_, record)| record.sealed.as_bytes().to_vec()).collect()
}

/// True if some live lease's record names a login.
pub(crate) fn has_lease(records: &MemoryStorage, user: &str) -> bool {
    let names = |bytes: &Vec<u8>| bytes.windows(user.len()).any(|part| part == user.as_bytes());
    live_leases(records).iter().any(names)
}
