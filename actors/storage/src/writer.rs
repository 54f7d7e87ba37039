//! The commit thread: takes what waits, commits it as one group, answers each.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mssm_messages::Letter;
use mssm_messages::failpoint;
use mssm_messages::index::{IndexError, InstallIndex, Standing};
use mssm_messages::storage::{Commit, StorageError, Write};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::StorageBackend;

mod keeping;

pub(crate) use keeping::{Keeping, OnDistrust};

/// How many batches may wait; at some 10,000 a second the last has then waited half a second.
pub(crate) const QUEUE: usize = 4096;

/// Batches in one commit: enough to share a sync among all waiting connections of a busy server.
const GROUP_BATCHES: usize = 256;

/// Bytes after which a group takes no further batch, which bounds what one commit holds in memory.
const GROUP_BYTES: usize = 1024 * 1024;

/// Counts of the writer, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    commits: AtomicU64,
    batches: AtomicU64,
    queued: AtomicU64,
}

impl Stats {
    /// Durable commits so far; a group counts once.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Batches answered so far, refused ones too.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Batches that waited when the writer last looked.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }
}

/// Called once, with the reason, when the writer stops for good.
pub(crate) type OnPoison = Box<dyn FnOnce(String) + Send>;

/// Applies groups, and nothing more once a sync has failed.
pub(crate) struct Writer {
    keeping: Keeping,
    stats: Arc<Stats>,
    on_poison: Option<OnPoison>,
    poison: Option<String>,
}

impl Writer {
    pub(crate) fn new(
        backend: Arc<dyn StorageBackend>,
        stats: Arc<Stats>,
        on_poison: OnPoison,
        on_distrust: OnDistrust,
    ) -> Self {
        let keeping = Keeping::new(backend, on_distrust);
        Self { keeping, stats, on_poison: Some(on_poison), poison: None }
    }

    /// Works until all ports are gone, or until told to stop: then finishes what waits.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Letter<Commit>>,
        mut installs: mpsc::Receiver<Letter<InstallIndex>>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut stoppable = true;
        loop {
            let comparing = self.keeping.is_comparing();
            let first = tokio::select! {
                biased;
                Some(letter) = installs.recv() => {
                    let _gone = letter.reply.send(self.install(letter.message));
                    continue;
                }
                letter = queue.recv() => letter,
                told = &mut stop, if stoppable => {
                    stoppable = false;
                    // A handle that was dropped told nothing: then the ports decide.
                    if told.is_ok() {
                        queue.close();
                    }
                    continue;
                }
                () = std::future::ready(()), if comparing => {
                    self.keeping.compare_further();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let letters = gather(first, &mut queue);
            self.stats.queued.store(queue.len() as u64, Ordering::Relaxed);
            self.answer(letters);
            // Also where commits never cease.
            self.keeping.compare_further();
        }
    }

    fn install(&mut self, message: InstallIndex) -> Result<Standing, IndexError> {
        if let Some(cause) = &self.poison {
            return Err(StorageError::Poisoned(cause.clone()).into());
        }
        let installed = catch_unwind(AssertUnwindSafe(|| self.keeping.install(message.0)));
        installed.unwrap_or_else(|_| Err(StorageError::Io("the index panicked".to_owned()).into()))
    }

    /// Applies a group and answers it; whoever has gone away is no reason not to.
    fn answer(&mut self, letters: Vec<Letter<Commit>>) {
        let (group, replies): (Vec<_>, Vec<_>) =
            letters.into_iter().map(|letter| (letter.message, letter.reply)).unzip();
        let answers = self.apply(&group);
        debug_assert_eq!(answers.len(), replies.len(), "an answer for each");
        self.stats.batches.fetch_add(answers.len() as u64, Ordering::Relaxed);
        for (reply, answer) in replies.into_iter().zip(answers) {
            let _gone = reply.send(answer);
        }
    }

    fn apply(&mut self, group: &[Commit]) -> Vec<Result<(), StorageError>> {
        match self.commit(group) {
            Ok(answers) => answers,
            Err(error) if group.len() == 1 || self.poison.is_some() => fill(group.len(), &error),
            Err(_) => self.apply_singly(group),
        }
    }

    /// After a group failed as a whole: whose fault it was, no other member shall suffer from.
    fn apply_singly(&mut self, group: &[Commit]) -> Vec<Result<(), StorageError>> {
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            match self.commit(std::slice::from_ref(batch)) {
                Ok(answer) => answers.extend(answer),
                // No room for this one: the others would only wait longer to hear the same.
                Err(error) => {
                    let full = matches!(error, StorageError::NoSpace(_));
                    answers.push(Err(error));
                    if full {
                        break;
                    }
                }
            }
        }
        if let Some(Err(last)) = answers.last().cloned() {
            answers.resize(group.len(), Err(last));
        }
        answers
    }

    /// One durable commit, or the reason why there was none.
    fn commit(&mut self, group: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        if let Some(cause) = &self.poison {
            return Err(StorageError::Poisoned(cause.clone()));
        }
        failpoint::here("store.before_commit");
        let applied = catch_unwind(AssertUnwindSafe(|| self.keeping.apply(group)))
            .unwrap_or_else(|_| Err(StorageError::Unknown("the storage panicked".to_owned())));
        failpoint::here("store.after_commit");
        match applied {
            Ok(answers) => {
                self.stats.commits.fetch_add(1, Ordering::Relaxed);
                Ok(answers)
            }
            Err(StorageError::Unknown(cause)) => {
                self.poison(&cause);
                Err(StorageError::Unknown(cause))
            }
            Err(error) => Err(error),
        }
    }

    /// A failed sync is never tried again: the system may have dropped the pages and say "done".
    fn poison(&mut self, cause: &str) {
        error!(cause, "the store could not confirm a write and takes no more");
        self.poison = Some(cause.to_owned());
        if let Some(tell) = mem::take(&mut self.on_poison) {
            tell(cause.to_owned());
        }
    }
}

fn fill(count: usize, error: &StorageError) -> Vec<Result<(), StorageError>> {
    vec![Err(error.clone()); count]
}

/// The first letter and what else waits, up to the bounds of a group.
fn gather(
    first: Letter<Commit>,
    queue: &mut mpsc::Receiver<Letter<Commit>>,
) -> Vec<Letter<Commit>> {
    let mut bytes = size(&first.message);
    let mut letters = vec![first];
    while letters.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
        let Ok(letter) = queue.try_recv() else { break };
        bytes += size(&letter.message);
        letters.push(letter);
    }
    letters
}

fn size(batch: &Commit) -> usize {
    let bytes = batch.writes.iter().map(|write| match write {
        Write::Put(key, record) => key.as_bytes().len() + record.sealed.as_bytes().len(),
        Write::Delete(key) => key.as_bytes().len(),
    });
    bytes.sum()
}

#[cfg(test)]
mod tests;
