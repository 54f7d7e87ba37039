//! How wiring starts the storage: opens a backend, starts the commit thread, hands out the ports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use mssm_messages::index::{Finding, Findings, InstallIndex};
use mssm_messages::storage::{Commit, Report, StorageError, StoragePort};
use mssm_messages::{Letter, Port};
use redb::DatabaseError;
use tokio::sync::{mpsc, oneshot};

use crate::backend::StorageBackend;
use crate::backend::embedded::{EmbeddedStorage, FILE};
use crate::backend::file::{FileStorage, RECORDS, name_of};
use crate::backend::memory::MemoryStorage;
use crate::folder::{Unfit, prepare};
use crate::index::consistent;
use crate::writer::{OnDistrust, OnPoison, QUEUE, Stats, Writer};

/// Where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// In one file, `store.redb`: the default.
    Embedded,
    /// In a folder, a file each.
    File,
    /// Nowhere: gone when the server stops.
    Memory,
}

/// What the storage is to be.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Where records are kept.
    pub kind: StorageKind,
    /// The data folder; made if it is not there. `Memory` does not look at it.
    pub folder: PathBuf,
}

/// Why the storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Others may look into the data folder.
    #[error("the data folder {0} is open to others (mode {1:o}); run: chmod 700 {0}",
            .folder.display(), .mode)]
    Exposed {
        /// The data folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process has the store open.
    #[error("the store in {} is in use by another server", .0.display())]
    InUse(PathBuf),
    /// There is nothing to examine.
    #[error("there is no store in {}", .0.display())]
    Absent(PathBuf),
    /// The store is there and cannot be made sense of.
    #[error("the store {} is damaged: {cause}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The engine's words.
        cause: String,
    },
    /// The system refused.
    #[error("the data folder {} cannot be used: {cause}", .folder.display())]
    Io {
        /// The data folder.
        folder: PathBuf,
        /// The system's words.
        cause: String,
    },
}

/// What wiring keeps: to watch the storage, to verify it, to stop it.
///
/// Dropping it stops nothing; the thread ends when the last port is gone.
pub struct StorageHandle {
    backend: Arc<dyn StorageBackend>,
    index: Port<InstallIndex>,
    stats: Arc<Stats>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl StorageHandle {
    /// The writer's counts, which go on counting.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// The way to hand the commit thread the key of its index.
    pub fn index(&self) -> Port<InstallIndex> {
        self.index.clone()
    }

    /// The backend, to check it while it runs: reads every record, so not on an arbiter.
    pub fn backend(&self) -> Arc<dyn StorageBackend> {
        Arc::clone(&self.backend)
    }

    /// Takes no more batches, finishes those that wait, ends the thread.
    pub async fn shutdown(self) {
        let _ended_already = self.stop.send(());
        // The sender goes with the thread's work, so this never waits for more than that.
        let _ended = self.ended.await;
        let _panicked = self.thread.join();
    }
}

/// Opens the storage and starts its commit thread.
///
/// `on_poison` is called once, on that thread, if a write cannot be confirmed: nothing more is
/// written then, and the server is to seal and end. `on_distrust` is called there when records are
/// found that are not what was written last: the server is to seal.
pub fn open(
    config: &StorageConfig,
    on_poison: impl FnOnce(String) + Send + 'static,
    on_distrust: impl FnMut(Findings) + Send + 'static,
) -> Result<(StoragePort, StorageHandle), OpenError> {
    start(open_backend(config)?, Box::new(on_poison), Box::new(on_distrust))
        .map_err(|error| OpenError::Io { folder: config.folder.clone(), cause: error.to_string() })
}

/// Verifies a store that no server has open, more deeply than a running one could. Makes none.
pub fn check_offline(config: &StorageConfig) -> Result<Result<Report, StorageError>, OpenError> {
    let part = match config.kind {
        StorageKind::Embedded => FILE,
        StorageKind::File => RECORDS,
        StorageKind::Memory => "",
    };
    if !config.folder.join(part).exists() {
        return Err(OpenError::Absent(config.folder.clone()));
    }
    let (store, report): (Arc<dyn StorageBackend>, _) = match config.kind {
        StorageKind::Embedded => {
            let store = open_embedded(&config.folder)?;
            let report = store.verify();
            (Arc::new(store), report)
        }
        StorageKind::File | StorageKind::Memory => {
            let store = open_backend(config)?;
            let report = store.check();
            (store, report)
        }
    };
    Ok(report.and_then(|report| with_index(&*store, report)))
}

/// Adds what records and index say of each other, which takes no key: who knew the form of the
/// index could have made both fit, and only the server would see it.
fn with_index(store: &dyn StorageBackend, mut report: Report) -> Result<Report, StorageError> {
    let Findings { first, more } = consistent(store)?;
    report.damaged.extend(first.iter().map(|Finding { key, what }| {
        format!("record {}: {}", name_of(key.as_bytes()), what.text())
    }));
    if more > 0 {
        report.damaged.push(format!("{more} more do not fit the index"));
    }
    Ok(report)
}

/// A store in memory with its commit thread, for tests; also what makes it fail.
pub fn start_memory() -> std::io::Result<(StoragePort, Arc<MemoryStorage>)> {
    let memory = Arc::<MemoryStorage>::default();
    let (port, _handle) = start(Arc::clone(&memory) as _, Box::new(|_| {}), Box::new(|_| {}))?;
    Ok((port, memory))
}

/// The commit thread's work as a task of the caller's own, for simulations, which have no threads.
pub async fn work(
    backend: Arc<dyn StorageBackend>,
    queue: mpsc::Receiver<Letter<Commit>>,
    on_poison: impl FnOnce(String) + Send + 'static,
) {
    let (_never_told, stop) = oneshot::channel();
    let (_no_key, installs) = mpsc::channel(1);
    let writer = Writer::new(backend, Arc::default(), Box::new(on_poison), Box::new(|_| {}));
    writer.run(queue, installs, stop).await;
}

/// Starts the commit thread over a backend.
pub(crate) fn start(
    backend: Arc<dyn StorageBackend>,
    on_poison: OnPoison,
    on_distrust: OnDistrust,
) -> std::io::Result<(StoragePort, StorageHandle)> {
    let (writer, queue) = Port::to_thread(QUEUE);
    let (index, installs) = Port::to_thread(1);
    let (stop, stopped) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let stats = Arc::<Stats>::default();
    let work = Writer::new(Arc::clone(&backend), Arc::clone(&stats), on_poison, on_distrust);
    // Only to wait for the queue and the word to stop at once; it drives nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let thread = std::thread::Builder::new().name("storage".to_owned()).spawn(move || {
        let _ending: oneshot::Sender<()> = ending;
        runtime.block_on(work.run(queue, installs, stopped));
    })?;
    let port = StoragePort { reader: Arc::clone(&backend) as _, writer };
    Ok((port, StorageHandle { backend, index, stats, stop, thread, ended }))
}

fn open_backend(config: &StorageConfig) -> Result<Arc<dyn StorageBackend>, OpenError> {
    Ok(match config.kind {
        StorageKind::Embedded => Arc::new(open_embedded(&config.folder)?),
        StorageKind::File => Arc::new(open_files(&config.folder)?),
        StorageKind::Memory => Arc::new(MemoryStorage::new()),
    })
}

fn open_embedded(folder: &Path) -> Result<EmbeddedStorage, OpenError> {
    prepare_folder(folder)?;
    EmbeddedStorage::open(folder).map_err(|(path, error)| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(folder.to_owned()),
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            OpenError::Io { folder: folder.to_owned(), cause: error.to_string() }
        }
        other => OpenError::Damaged { path, cause: other.to_string() },
    })
}

fn open_files(folder: &Path) -> Result<FileStorage, OpenError> {
    prepare_folder(folder)?;
    match FileStorage::open(folder) {
        Ok(Some(storage)) => Ok(storage),
        Ok(None) => Err(OpenError::InUse(folder.to_owned())),
        Err(error) => Err(OpenError::Io { folder: folder.to_owned(), cause: error.to_string() }),
    }
}

fn prepare_folder(folder: &Path) -> Result<(), OpenError> {
    prepare(folder).map_err(|unfit| match unfit {
        Unfit::Exposed(mode) => OpenError::Exposed { folder: folder.to_owned(), mode },
        Unfit::Io(error) => OpenError::Io { folder: folder.to_owned(), cause: error.to_string() },
    })
}

#[cfg(test)]
mod tests;
