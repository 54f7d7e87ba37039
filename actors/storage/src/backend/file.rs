//! Records in a folder, a file each: plain to look at and to back up, slow with many writers.
//!
//! `records/` holds the files, `staged/` what a batch is about to put there, `journal` which of
//! them a batch of several changes puts and removes, `damaged/` what could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mssm_domain::{StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Report, StorageError, StorageReader};

use super::{Effects, StorageBackend, page_start, plan};
use crate::folder::{beside, is_no_space, open_private};
use crate::index::is_index;

#[cfg(test)]
mod chaos;
mod disk;
mod entry;
#[cfg(test)]
mod faults;
mod journal;
mod load;

pub(crate) use entry::name_of;

/// The folder of the records.
pub(crate) const RECORDS: &str = "records";

/// What is known without looking into files.
#[derive(Debug, Default)]
struct Index {
    /// The version under each key; `None` where the file is damaged: the key keeps its place.
    versions: BTreeMap<Vec<u8>, Option<u64>>,
    /// Names of files that are in `damaged/` and not yet replaced: their keys answer `Damaged`.
    damaged: BTreeSet<String>,
    /// A batch is there in part, until the next start finishes it: nobody reads it so.
    torn: bool,
}

/// Where the parts of a store lie.
#[derive(Debug)]
struct Places {
    folder: PathBuf,
    records: PathBuf,
    staged: PathBuf,
    damaged: PathBuf,
    journal: PathBuf,
}

/// Keeps records in files; at most one process has the folder open.
pub(crate) struct FileStorage {
    places: Places,
    index: RwLock<Index>,
    applying: Mutex<()>,
    /// Locked for as long as this lives.
    _lock: File,
    /// How many steps of a commit are left until it stops dead, as at a crash.
    #[cfg(test)]
    steps_left: std::sync::atomic::AtomicUsize,
}

impl FileStorage {
    /// Opens the store in the folder, or makes it; finishes a batch that a crash cut short.
    ///
    /// `None` says that another process has it open.
    pub(crate) fn open(folder: &Path) -> io::Result<Option<Self>> {
        let places = Places {
            folder: folder.to_owned(),
            records: folder.join(RECORDS),
            staged: folder.join("staged"),
            damaged: folder.join("damaged"),
            journal: folder.join("journal"),
        };
        let lock = open_private(&folder.join("lock"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        for part in [&places.records, &places.staged, &places.damaged] {
            disk::create_folder(part)?;
        }
        places.replay()?;
        let index = places.load()?;
        Ok(Some(Self {
            places,
            index: RwLock::new(index),
            applying: Mutex::new(()),
            _lock: lock,
            #[cfg(test)]
            steps_left: usize::MAX.into(),
        }))
    }

    fn index(&self) -> Result<RwLockReadGuard<'_, Index>, StorageError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if index.torn {
            return Err(StorageError::Io("a batch is finished at the next start".to_owned()));
        }
        Ok(index)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a key that the index has, or what is wrong with its file.
    fn load_record(&self, key: &[u8]) -> Result<StoredRecord, StorageError> {
        match disk::read(&self.places.records.join(entry::name_of(key))) {
            Ok(bytes) => match entry::decode(&entry::name_of(key), &bytes) {
                Ok((_, record)) => Ok(record),
                Err(cause) => Err(StorageError::Damaged(cause)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::Damaged("its file is gone".to_owned()))
            }
            Err(error) => Err(StorageError::Io(error.to_string())),
        }
    }

    /// Reads; a file found damaged is moved out of the way, and the answer names it.
    fn load_or_isolate(&self, key: &[u8]) -> Result<Option<StoredRecord>, StorageError> {
        let name = entry::name_of(key);
        {
            let index = self.index()?;
            if index.damaged.contains(&name) {
                return Err(StorageError::Damaged(format!("damaged/{name}")));
            }
            if !index.versions.contains_key(key) {
                return Ok(None);
            }
            match self.load_record(key) {
                Err(StorageError::Damaged(_)) => {}
                answer => return answer.map(Some),
            }
        }
        let mut index = self.index_mut();
        // Again, now that nothing can be written meanwhile: it may have been replaced.
        match self.load_record(key) {
            Err(StorageError::Damaged(cause)) if index.versions.contains_key(key) => {
                index.versions.insert(key.to_vec(), None);
                index.damaged.insert(name.clone());
                self.places.isolate(&name, &cause);
                Err(StorageError::Damaged(format!("damaged/{name}: {cause}")))
            }
            Err(StorageError::Damaged(_)) => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn version_of(&self, key: &StoredKey) -> Result<Option<u64>, StorageError> {
        let (index, name) = (self.index()?, entry::name_of(key.as_bytes()));
        if index.damaged.contains(&name) {
            return Err(StorageError::Damaged(format!("damaged/{name}")));
        }
        Ok(index.versions.get(key.as_bytes()).copied().flatten())
    }

    /// Stages and syncs what is put; if anything fails here, nothing has happened.
    fn stage(&self, effects: &Effects<'_>) -> Result<(), StorageError> {
        for (key, record) in effects {
            let Some(record) = record else { continue };
            let path = self.places.staged.join(entry::name_of(key));
            let written = disk::write(&path, &entry::encode(key, record));
            written.map_err(|error| nothing_written(&error))?.sync().map_err(in_doubt)?;
            self.step()?;
        }
        disk::sync_folder(&self.places.staged).map_err(in_doubt)
    }

    /// Writes down durably what is to happen; from its rename on, it happens.
    fn write_journal(&self, steps: &journal::Steps) -> Result<(), StorageError> {
        let fresh = beside(&self.places.journal, ".new");
        let written = disk::write(&fresh, &journal::encode(steps));
        written.map_err(|error| nothing_written(&error))?.sync().map_err(in_doubt)?;
        self.step()?;
        disk::rename(&fresh, &self.places.journal).map_err(|error| nothing_written(&error))?;
        self.step()?;
        disk::sync_folder(&self.places.folder).map_err(in_doubt)?;
        self.step()
    }

    /// Makes the effects happen: staged, written down if there are several, put in place.
    fn commit(&self, effects: &Effects<'_>) -> Result<(), StorageError> {
        self.stage(effects)?;
        let steps: journal::Steps =
            effects.iter().map(|(key, record)| (entry::name_of(key), record.is_some())).collect();
        // One rename, or one removal, is atomic by itself.
        let journalled = steps.len() > 1;
        if journalled {
            self.write_journal(&steps)?;
        }
        // Readers wait for the length of the renames, so that they see all of a batch or nothing.
        let mut index = self.index_mut();
        let placed = self.place(&steps, journalled);
        index.torn = matches!(placed, Err(StorageError::Unknown(_)));
        placed?;
        for (key, record) in effects {
            let name = entry::name_of(key);
            match record {
                Some(record) => index.versions.insert(key.to_vec(), Some(record.version)),
                None => index.versions.remove(*key),
            };
            if index.damaged.remove(&name) {
                self.places.forget_damage(&name);
            }
        }
        Ok(())
    }

    /// Renames and removes, durably.
    fn place(&self, steps: &journal::Steps, journalled: bool) -> Result<(), StorageError> {
        for (name, puts) in steps {
            match self.places.settle(name, *puts) {
                Ok(()) => self.step()?,
                Err(error) if !journalled => return Err(nothing_written(&error)),
                Err(error) => return Err(in_doubt(error)),
            }
        }
        disk::sync_folder(&self.places.records).map_err(in_doubt)?;
        if journalled {
            self.step()?;
            // Durably gone before the next commit: a journal that came back would undo it.
            disk::remove(&self.places.journal).map_err(in_doubt)?;
            disk::sync_folder(&self.places.folder).map_err(in_doubt)?;
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "tests stop here")]
    const fn step(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Stops dead when the steps that a test allows are used up.
    #[cfg(test)]
    fn step(&self) -> Result<(), StorageError> {
        let left = self.steps_left.load(std::sync::atomic::Ordering::Relaxed);
        self.steps_left.store(left.saturating_sub(1), std::sync::atomic::Ordering::Relaxed);
        if left == 0 { Err(StorageError::Unknown("stopped".to_owned())) } else { Ok(()) }
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StorageError> {
        let index = self.index()?;
        let range = (page_start(prefix, after), Bound::Unbounded);
        let page = index.versions.range::<[u8], _>(range).map(|(key, _)| key);
        Ok(page.take_while(|key| key.starts_with(prefix)).take(limit).cloned().collect())
    }
}

impl StorageReader for FileStorage {
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        self.load_or_isolate(key.as_bytes())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError> {
        Ok(self.keys(prefix, after, limit)?.into_iter().map(StoredKey::new).collect())
    }

    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        let mut page = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        // A key that goes between the two looks is none; the page is filled up with the next.
        while page.len() < limit {
            let keys = self.keys(prefix, after.as_deref(), limit - page.len())?;
            let Some(last) = keys.last().cloned() else { break };
            for key in keys {
                if let Some(record) = self.load_or_isolate(&key)? {
                    page.push((StoredKey::new(key), record));
                }
            }
            after = Some(last);
        }
        Ok(page)
    }
}

impl StorageBackend for FileStorage {
    fn apply(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        let _alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, effects) = plan(group, |key| self.version_of(key));
        if effects.is_empty() {
            return Ok(answers);
        }
        match self.commit(&effects) {
            Ok(()) => Ok(answers),
            Err(error) => {
                if !matches!(error, StorageError::Unknown(_)) {
                    // What was staged in vain takes room; what stays goes at the next start.
                    self.places.clear_staged().unwrap_or_default();
                }
                Err(error)
            }
        }
    }

    fn check(&self) -> Result<Report, StorageError> {
        let mut report = Report::default();
        for key in self.keys(&[], None, usize::MAX)? {
            match self.load_or_isolate(&key) {
                Ok(Some(_)) => report.records += u64::from(!is_index(&key)),
                // Damaged ones are listed below; one that is gone was deleted meanwhile.
                Ok(None) | Err(StorageError::Damaged(_)) => {}
                Err(cause) => {
                    report.damaged.push(format!("records/{}: {cause}", entry::name_of(&key)));
                }
            }
        }
        report.damaged.extend(self.index()?.damaged.iter().map(|name| format!("damaged/{name}")));
        Ok(report)
    }
}

/// A failure before anything took hold.
fn nothing_written(error: &io::Error) -> StorageError {
    if is_no_space(error) {
        StorageError::NoSpace(error.to_string())
    } else {
        StorageError::Io(error.to_string())
    }
}

/// A failure after which nobody can say what the disk holds.
fn in_doubt(error: io::Error) -> StorageError {
    StorageError::Unknown(error.to_string())
}

#[cfg(test)]
mod tests;
