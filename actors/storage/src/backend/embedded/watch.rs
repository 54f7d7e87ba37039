//! The database's file, watched: what failed, and whether the commit may have taken hold by then.
//!
//! The engine reports a failure of the disk without saying which call failed, and what can be
//! promised hangs on exactly that. A commit in two phases writes its pages and the header with
//! the new root in the spare slot, syncs, then writes the header again with the slots swapped,
//! and syncs. So as long as no sync followed a write of the header, the old root is in force.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mssm_messages::failpoint;
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError};

use crate::folder::is_no_space;

/// What the disk did during one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) header_written: bool,
    /// The new root may be in force.
    pub(super) header_synced: bool,
    /// The last failure.
    pub(super) failure: Option<Failure>,
}

/// Which call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Reading.
    Read(String),
    /// Writing or growing.
    Write {
        /// For want of room, or because nothing may be written.
        no_space: bool,
        /// The system's words.
        cause: String,
    },
    /// Syncing: what the disk holds is unknown from here on.
    Sync(String),
}

/// Remembers what the disk did since it was last asked to forget.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Events>);

impl Watch {
    /// Forgets all, but never that a sync failed.
    pub(super) fn begin(&self) {
        let mut events = self.events();
        if !matches!(events.failure, Some(Failure::Sync(_))) {
            *events = Events::default();
        }
    }

    /// What happened since.
    pub(super) fn look(&self) -> Events {
        self.events().clone()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, offset: u64) {
        if offset == 0 {
            self.events().header_written = true;
        }
    }

    fn synced(&self) {
        let mut events = self.events();
        events.header_synced |= events.header_written;
    }

    fn failed(&self, failure: Failure) {
        let mut events = self.events();
        if !matches!(events.failure, Some(Failure::Sync(_))) {
            events.failure = Some(failure);
        }
    }
}

/// The file that the engine works on.
#[derive(Debug)]
pub(super) struct WatchedFile {
    file: Box<dyn redb::StorageBackend>,
    watch: Arc<Watch>,
}

impl WatchedFile {
    pub(super) fn new(file: File, watch: Arc<Watch>) -> Result<Self, DatabaseError> {
        #[cfg(test)]
        if let Some(disk) = super::faults::disk() {
            return Ok(Self { file: Box::new(disk), watch });
        }
        Ok(Self { file: Box::new(FileBackend::new(file)?), watch })
    }

    fn write_failed(&self, error: &io::Error) {
        let (no_space, cause) = (is_no_space(error), error.to_string());
        self.watch.failed(Failure::Write { no_space, cause });
    }
}

impl redb::StorageBackend for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len().inspect_err(|error| self.watch.failed(Failure::Read(error.to_string())))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let result = self.file.read(offset, out);
        result.inspect_err(|error| self.watch.failed(Failure::Read(error.to_string())))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).inspect_err(|error| self.write_failed(error))
    }

    fn sync_data(&self) -> io::Result<()> {
        failpoint::here("store.before_sync");
        let result = self.file.sync_data().inspect(|()| self.watch.synced());
        failpoint::here("store.after_sync");
        result.inspect_err(|error| self.watch.failed(Failure::Sync(error.to_string())))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        failpoint::here("store.before_write");
        let result = self.file.write(offset, data).inspect(|()| self.watch.wrote(offset));
        failpoint::here("store.after_write");
        result.inspect_err(|error| self.write_failed(error))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_in_doubt_once_a_sync_followed_the_header() {
        let watch = Watch::default();
        watch.wrote(4096);
        watch.synced();
        assert!(!watch.look().header_synced, "growing the file syncs too");
        watch.wrote(0);
        assert!(!watch.look().header_synced);
        watch.synced();
        assert!(watch.look().header_synced);
        watch.begin();
        assert_eq!(watch.look(), Events::default());
    }

    #[test]
    fn a_failed_sync_is_never_forgotten() {
        let watch = Watch::default();
        watch.failed(Failure::Sync("gone".to_owned()));
        watch.failed(Failure::Read("later".to_owned()));
        watch.begin();
        assert_eq!(watch.look().failure, Some(Failure::Sync("gone".to_owned())));
    }
}
