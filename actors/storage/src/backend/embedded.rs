//! Records in one file, `store.redb`: a copy-on-write tree whose readers never wait for the writer.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use mssm_domain::{StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Report, StorageError, StorageReader, Write as Change};
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable,
    TableDefinition, TableError,
};
use tracing::warn;

use self::watch::{Events, Failure, Watch, WatchedFile};
use super::{StorageBackend, decide, page_start};
use crate::folder::{beside, open_private, sync_folder};
use crate::index::is_index;
use crate::value;

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod faults;
mod watch;

/// All records: stored key to `value::encode` of the record.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// The file's name in the data folder.
pub(crate) const FILE: &str = "store.redb";

/// Bytes of pages kept in memory. The system's own cache holds the rest: an idle server is to
/// stay below 20 MiB, and a page from that cache costs a copy, no disk.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Why the file could not be opened.
pub(crate) type OpenFailure = (PathBuf, DatabaseError);

/// Keeps records in `store.redb`; at most one process has it open.
pub(crate) struct EmbeddedStorage {
    path: PathBuf,
    watch: Arc<Watch>,
    /// `None` only while, or after, a file that failed could not be opened again.
    database: RwLock<Option<Database>>,
}

impl EmbeddedStorage {
    /// Opens the file in the folder, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenFailure> {
        let (path, watch) = (folder.join(FILE), Arc::<Watch>::default());
        if !path.exists() {
            create(folder, &path).map_err(|error| (path.clone(), error))?;
        }
        let database = open_database(&path, &watch).map_err(|error| (path.clone(), error))?;
        Ok(Self { path, watch, database: RwLock::new(Some(database)) })
    }

    /// Verifies the whole file, pages and allocation too, for a server that is not running.
    pub(crate) fn verify(&self) -> Result<Report, StorageError> {
        let integrity = {
            let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
            let database = held.as_mut().ok_or_else(closed)?;
            contained(|| database.check_integrity().map_err(|error| damaged(&error)))
        };
        let finding = match integrity {
            Ok(true) => None,
            Ok(false) => Some(format!("{FILE}: its bookkeeping was wrong and has been repaired")),
            Err(error) => return Ok(Report { records: 0, damaged: vec![error.to_string()] }),
        };
        let mut report = self.check()?;
        report.damaged.extend(finding);
        Ok(report)
    }

    /// One short read transaction.
    fn with_records<T>(
        &self,
        work: impl FnOnce(&Records) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let held = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = held.as_ref().ok_or_else(closed)?;
        contained(|| {
            let transaction = database.begin_read().map_err(unreadable)?;
            work(&transaction.open_table(RECORDS).map_err(unreadable)?)
        })
    }

    fn with_page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.with_records(|records| {
            let range = (page_start(prefix, after), Bound::Unbounded);
            for entry in records.range::<&[u8]>(range).map_err(unreadable)?.take(limit) {
                let (key, value) = entry.map_err(unreadable)?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                each(key.value(), value.value())?;
            }
            Ok(())
        })
    }

    /// One write transaction; whatever fails in it leaves the old root in force or in doubt.
    fn transact(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, redb::Error> {
        let held = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = held.as_ref() else { return Err(redb::Error::DatabaseClosed) };
        let mut transaction = database.begin_write()?;
        // Saves the allocation with each commit, in two phases: opening after a crash takes
        // milliseconds instead of a walk over all pages.
        transaction.set_quick_repair(true);
        transaction.set_durability(redb::Durability::Immediate)?;
        let mut answers = Vec::with_capacity(group.len());
        {
            let mut records = transaction.open_table(RECORDS)?;
            for batch in group {
                let answer = decide(batch, |key| version_of(&records, key));
                if answer.is_ok() {
                    for write in &batch.writes {
                        match write {
                            Change::Put(key, record) => {
                                let bytes = value::encode(key.as_bytes(), record);
                                records.insert(key.as_bytes(), bytes.as_slice())?;
                            }
                            Change::Delete(key) => {
                                records.remove(key.as_bytes())?;
                            }
                        }
                    }
                }
                answers.push(answer);
            }
        }
        if answers.iter().any(Result::is_ok) {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(answers)
    }

    /// Opens the file anew; after any failure the engine takes and gives nothing until then.
    fn reopen(&self) -> Result<(), StorageError> {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file admits one opener.
        *held = None;
        let opened = contained(|| {
            open_database(&self.path, &self.watch).map_err(|error| match &error {
                DatabaseError::Storage(redb::StorageError::Io(cause))
                    if crate::folder::is_no_space(cause) =>
                {
                    StorageError::NoSpace(error.to_string())
                }
                _ => StorageError::Io(error.to_string()),
            })
        });
        *held = Some(opened?);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl StorageReader for EmbeddedStorage {
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        self.with_records(|records| {
            let found = records.get(key.as_bytes()).map_err(unreadable)?;
            found.map(|value| decoded(key.as_bytes(), value.value())).transpose()
        })
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError> {
        let mut page = Vec::new();
        self.with_page(prefix, after, limit, |key, _| {
            page.push(StoredKey::new(key.to_vec()));
            Ok(())
        })?;
        Ok(page)
    }

    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        let mut page = Vec::new();
        self.with_page(prefix, after, limit, |key, value| {
            page.push((StoredKey::new(key.to_vec()), decoded(key, value)?));
            Ok(())
        })?;
        Ok(page)
    }
}

impl StorageBackend for EmbeddedStorage {
    fn apply(&self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        if !self.is_open() {
            self.reopen()?;
        }
        self.watch.begin();
        self.transact(group).map_err(|error| {
            let error = judge(&self.watch.look(), &error);
            // Nothing was written, so the service goes on: at once for readers, and for writers
            // as soon as there is room. What is in doubt stays shut.
            if !matches!(error, StorageError::Unknown(_))
                && let Err(cause) = self.reopen()
            {
                warn!(%cause, "the store failed and cannot be opened again yet");
            }
            error
        })
    }

    fn check(&self) -> Result<Report, StorageError> {
        let mut report = Report::default();
        let mut position = 0_u64;
        let walked = self.with_page(&[], None, usize::MAX, |key, value| {
            position += 1;
            match value::split(key, value) {
                Ok(_) => report.records += u64::from(!is_index(key)),
                Err(cause) => {
                    let place = format!("{FILE}: record {position} of table records: {cause}");
                    report.damaged.push(place);
                }
            }
            Ok(())
        });
        if let Err(cause) = walked {
            report.damaged.push(format!("{FILE}: unreadable after record {position}: {cause}"));
        }
        Ok(report)
    }
}

/// Makes the file under another name first, so that a crash leaves a whole one or none.
fn create(folder: &Path, path: &Path) -> Result<(), DatabaseError> {
    let io = |error| DatabaseError::Storage(redb::StorageError::Io(error));
    let fresh = beside(path, ".new");
    if fresh.exists() {
        std::fs::remove_file(&fresh).map_err(io)?;
    }
    let database = open_database(&fresh, &Arc::default())?;
    database.close()?;
    std::fs::rename(&fresh, path).map_err(io)?;
    sync_folder(folder).map_err(io)
}

fn open_database(path: &Path, watch: &Arc<Watch>) -> Result<Database, DatabaseError> {
    let file = open_private(path).map_err(redb::StorageError::Io)?;
    let file = WatchedFile::new(file, Arc::clone(watch))?;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file)?;
        make_table(&database)?;
        Ok(database)
    }));
    opened.unwrap_or_else(|_| {
        Err(redb::StorageError::Corrupted("the engine gave up on it".to_owned()).into())
    })
}

/// Makes the table once; writes nothing where it is there, so that a full disk can be opened.
fn make_table(database: &Database) -> Result<(), redb::StorageError> {
    let wrong = |error: redb::Error| match error {
        redb::Error::Io(error) => redb::StorageError::Io(error),
        other => redb::StorageError::Corrupted(other.to_string()),
    };
    let found = database.begin_read().map_err(|error| wrong(error.into()))?.open_table(RECORDS);
    match found {
        Ok(_) => Ok(()),
        Err(TableError::TableDoesNotExist(_)) => {
            let made = || -> Result<(), redb::Error> {
                let mut transaction = database.begin_write()?;
                transaction.set_quick_repair(true);
                transaction.open_table(RECORDS)?;
                transaction.commit()?;
                Ok(())
            };
            made().map_err(wrong)
        }
        Err(error) => Err(wrong(error.into())),
    }
}

fn version_of(
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &StoredKey,
) -> Result<Option<u64>, StorageError> {
    let found = records.get(key.as_bytes()).map_err(unreadable)?;
    let version = found.map(|value| value::split(key.as_bytes(), value.value()).map(|(v, _)| v));
    version.transpose().map_err(|cause| StorageError::Damaged(format!("{FILE}: {cause}")))
}

/// What a failed transaction means, from what the disk did meanwhile.
fn judge(events: &Events, error: &redb::Error) -> StorageError {
    let said = error.to_string();
    match &events.failure {
        Some(Failure::Sync(cause)) => StorageError::Unknown(format!("sync: {cause}")),
        _ if events.header_synced => StorageError::Unknown(said),
        Some(Failure::Write { no_space: true, cause }) => StorageError::NoSpace(cause.clone()),
        // A disk that refuses writes for any other reason is failing.
        Some(Failure::Write { no_space: false, cause }) => StorageError::Unknown(cause.clone()),
        Some(Failure::Read(cause)) => StorageError::Io(cause.clone()),
        None => StorageError::Io(said),
    }
}

fn decoded(key: &[u8], bytes: &[u8]) -> Result<StoredRecord, StorageError> {
    value::decode(key, bytes).map_err(|cause| StorageError::Damaged(format!("{FILE}: {cause}")))
}

/// The engine asserts what it expects of its file; a damaged one must not take the caller down.
fn contained<T>(work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StorageError::Damaged(format!("{FILE}: its tree does not hold together")))
    })
}

fn damaged(error: &DatabaseError) -> StorageError {
    StorageError::Damaged(format!("{FILE}: {error}"))
}

fn unreadable(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Corrupted(cause) => StorageError::Damaged(format!("{FILE}: {cause}")),
        other => StorageError::Io(format!("{FILE}: {other}")),
    }
}

fn closed() -> StorageError {
    StorageError::Io(format!("{FILE} failed and is not open again yet"))
}

#[cfg(test)]
mod tests;
