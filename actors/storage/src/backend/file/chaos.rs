//! The file backend on a disk that fails.

use super::faults::Disk;
use super::*;
use crate::backend::faults::Fate;
use crate::suite::chaos::{Doomed, chaos};

struct Failing {
    disk: Disk,
    /// Holds the lock alone: the disk is in memory.
    folder: tempfile::TempDir,
}

impl Doomed for Failing {
    type Store = FileStorage;

    fn create(seed: u64) -> Self {
        Self { disk: Disk::install(seed), folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> FileStorage {
        let opened = FileStorage::open(self.folder.path());
        opened.expect("a start never fails").expect("not open elsewhere")
    }

    fn fate<T>(&self, work: impl FnOnce(&mut Fate) -> T) -> T {
        work(&mut self.disk.state().fate)
    }

    fn power_on(&self) {
        self.disk.power_on();
    }
}

chaos!(Failing);
