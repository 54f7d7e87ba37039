//! The embedded backend on a disk that fails.

use super::faults::Disk;
use super::*;
use crate::backend::faults::Fate;
use crate::suite::chaos::{Doomed, chaos};

struct Failing {
    disk: Disk,
    /// The file is opened and stays empty: the disk is in memory.
    folder: tempfile::TempDir,
}

impl Doomed for Failing {
    type Store = EmbeddedStorage;

    fn create(seed: u64) -> Self {
        Self { disk: Disk::install(seed), folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> EmbeddedStorage {
        let (path, watch) = (self.folder.path().join(FILE), Arc::<Watch>::default());
        let database = open_database(&path, &watch).expect("a start never fails");
        EmbeddedStorage { path, watch, database: RwLock::new(Some(database)) }
    }

    fn heal(store: &EmbeddedStorage) {
        if !store.is_open() {
            // As the next commit does.
            store.reopen().expect("a disk in order");
        }
    }

    fn fate<T>(&self, work: impl FnOnce(&mut Fate) -> T) -> T {
        work(&mut self.disk.state().fate)
    }

    fn power_on(&self) {
        self.disk.power_on();
    }
}

chaos!(Failing);
