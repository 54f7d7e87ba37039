//! A store in memory that can be made to fail, to wait and to be opened again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mssm_domain::{StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Expect, StorageError, StoragePort, StorageReader, Write};
use mssm_messages::{Letter, Port};
use tokio::sync::{mpsc, watch};

/// How many batches may wait for the writer.
const QUEUE: usize = 4096;

/// What the writer does with one batch.
enum Outcome {
    /// Fails; nothing is written.
    Refuse(StorageError),
    /// Writes it, and then says that it does not know.
    Doubt,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Vec<u8>, StoredRecord>,
    commits: u64,
    plan: VecDeque<Option<Outcome>>,
    down: Option<StorageError>,
    unreadable: Option<StorageError>,
    damaged: BTreeSet<Vec<u8>>,
}

/// Records in memory, checked and applied as the real store does. Clones share them.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    held: watch::Sender<bool>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { state: Arc::default(), held: watch::Sender::new(false) }
    }

    /// Starts a writer on the current arbiter and says how to reach it.
    ///
    /// A task and no thread, so that paused time does not run on while a batch is written. Call it
    /// again to go on with the same records after a "restart".
    pub fn port(&self) -> StoragePort {
        let (writer, queue) = Port::to_thread(QUEUE);
        actix_rt::spawn(self.clone().write(queue));
        StoragePort { reader: Arc::new(self.clone()), writer }
    }

    /// The next batch is refused with this error; calls add up.
    pub fn fail_next(&self, error: StorageError) {
        self.state().plan.push_back(Some(Outcome::Refuse(error)));
    }

    /// Another batch goes through before what is planned next.
    pub fn pass_next(&self) {
        self.state().plan.push_back(None);
    }

    /// The next batch is written, but its writer hears [`StorageError::Unknown`].
    pub fn doubt_next(&self) {
        self.state().plan.push_back(Some(Outcome::Doubt));
    }

    /// Every batch is refused with this error until `None` is set.
    pub fn fail_writes(&self, error: Option<StorageError>) {
        self.state().down = error;
    }

    /// Every read fails with this error until `None` is set.
    pub fn fail_reads(&self, error: Option<StorageError>) {
        self.state().unreadable = error;
    }

    /// Lets batches wait (`true`), or lets the waiting ones through.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How many batches were written.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.state().records.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record under a key, as it lies in the store.
    pub fn stored(&self, key: &StoredKey) -> Option<StoredRecord> {
        self.state().records.get(key.as_bytes()).cloned()
    }

    /// Puts a record behind everyone's back, or removes it: to damage a store.
    pub fn tamper(&self, key: &StoredKey, record: Option<StoredRecord>) {
        let key = key.as_bytes().to_vec();
        let mut state = self.state();
        match record {
            Some(record) => state.records.insert(key, record),
            None => state.records.remove(&key),
        };
    }

    /// Spoils a record where it lies, or has it whole again.
    pub fn damage(&self, key: &StoredKey, damaged: bool) {
        let mut state = self.state();
        if damaged {
            state.damaged.insert(key.as_bytes().to_vec());
        } else {
            state.damaged.remove(key.as_bytes());
        }
    }

    /// A store with the same records that goes its own way from here: what a crash leaves.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        copy.state().records.clone_from(&self.state().records);
        copy.state().damaged.clone_from(&self.state().damaged);
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(self, mut queue: mpsc::Receiver<Letter<Commit>>) {
        let mut held = self.held.subscribe();
        while let Some(letter) = queue.recv().await {
            // Cannot fail: this task owns a sender.
            let _ = held.wait_for(|held| !held).await;
            let result = self.state().apply(letter.message);
            // Nobody may be waiting any more; the batch is written all the same.
            let _ = letter.reply.send(result);
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn apply(&mut self, commit: Commit) -> Result<(), StorageError> {
        if let Some(error) = &self.down {
            return Err(error.clone());
        }
        let outcome = self.plan.pop_front().flatten();
        if let Some(Outcome::Refuse(error)) = outcome {
            return Err(error);
        }
        let holds = |key: &StoredKey, expect| {
            let version = self.records.get(key.as_bytes()).map(|record| record.version);
            match expect {
                Expect::Absent => version.is_none(),
                Expect::Present => version.is_some(),
                Expect::Version(wanted) => version == Some(wanted),
            }
        };
        let mut conditions = commit.preconditions.iter();
        if let Some(failed) = conditions.position(|must| !holds(&must.key, must.expect)) {
            return Err(StorageError::Precondition(failed));
        }
        for write in commit.writes {
            match write {
                Write::Put(key, record) => self.records.insert(key.as_bytes().to_vec(), record),
                Write::Delete(key) => self.records.remove(key.as_bytes()),
            };
        }
        self.commits += 1;
        match outcome {
            Some(Outcome::Doubt) => Err(StorageError::Unknown("the test said so".to_owned())),
            _ => Ok(()),
        }
    }

    fn page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        self.readable()?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let page = self
            .records
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, record)| (StoredKey::new(key.clone()), record.clone()));
        Ok(page.collect())
    }

    fn whole(&self, key: &StoredKey) -> Result<(), StorageError> {
        let damaged = self.damaged.contains(key.as_bytes());
        if damaged { Err(StorageError::Damaged("the test said so".to_owned())) } else { Ok(()) }
    }

    fn readable(&self) -> Result<(), StorageError> {
        self.unreadable.clone().map_or(Ok(()), Err)
    }
}

impl StorageReader for MemoryStore {
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        let state = self.state();
        state.readable()?;
        state.whole(key)?;
        Ok(state.records.get(key.as_bytes()).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError> {
        let page = self.state().page(prefix, after, limit)?;
        Ok(page.into_iter().map(|(key, _)| key).collect())
    }

    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        let state = self.state();
        let page = state.page(prefix, after, limit)?;
        page.iter().try_for_each(|(key, _)| state.whole(key))?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use mssm_domain::{RecordPath, SecretBytes};
    use mssm_messages::{BarrierError, Changes};

    use super::*;
    use crate::{FakeKeys, barrier};

    fn path(name: &str) -> RecordPath {
        RecordPath::new(&[name])
    }

    fn bytes(text: &str) -> SecretBytes {
        SecretBytes::new(text.as_bytes().to_vec())
    }

    #[actix_rt::test]
    async fn what_is_written_is_read_back() {
        let (barrier, store) = barrier();
        barrier.commit(Changes::new().put(path("a/b"), 0, bytes("1"))).await.unwrap();
        let plain = barrier.read(&path("a/b")).await.unwrap().unwrap();
        assert_eq!((plain.version, plain.bytes.expose()), (1, b"1".as_slice()));
        assert_eq!((store.len(), store.commits()), (1, 1));
        assert!(barrier.read(&path("a")).await.unwrap().is_none());
    }

    #[actix_rt::test]
    async fn a_batch_whose_expectation_fails_changes_nothing() {
        let (barrier, store) = barrier();
        barrier.commit(Changes::new().put(path("a"), 0, bytes("1"))).await.unwrap();
        let changes = Changes::new()
            .put(path("b"), 0, bytes("2"))
            .put(path("a"), 0, bytes("3"))
            .delete(path("a"));
        let error = barrier.commit(changes).await.unwrap_err();
        assert_eq!(error.failed_expectation(), Some(1));
        assert_eq!(store.len(), 1);
    }

    #[actix_rt::test]
    async fn children_are_listed_and_scanned() {
        let (barrier, _store) = barrier();
        let mut changes = Changes::new();
        for name in ["k/b", "k/a/x", "k/a/y", "k/a", "other"] {
            changes = changes.put(path(name), 0, bytes(name));
        }
        barrier.commit(changes).await.unwrap();
        let children = barrier.list(&path("k"), None, 10).await.unwrap();
        let seen: Vec<_> =
            children.iter().map(|c| (c.name.as_str(), c.is_record, c.is_folder)).collect();
        assert_eq!(seen, [("a", true, true), ("b", true, false)]);
        let first = barrier.scan(&path("k"), None, 3).await.unwrap();
        let rest = barrier.scan(&path("k"), Some(&first[2].0), 3).await.unwrap();
        assert_eq!((first.len(), rest.len()), (3, 1));
        assert_eq!(barrier.delete_all(&path("k")).await.unwrap(), 4);
    }

    #[actix_rt::test]
    async fn a_damaged_record_is_an_error_in_its_place_and_hides_no_other() {
        let (barrier, store) = barrier();
        let mut changes = Changes::new();
        for name in ["k/a", "k/b", "k/c", "k/d"] {
            changes = changes.put(path(name), 0, bytes(name));
        }
        barrier.commit(changes).await.unwrap();
        let keys: Vec<_> = barrier
            .scan(&path("k"), None, 9)
            .await
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        store.damage(&keys[1], true);
        for limit in 1..6 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = barrier.scan(&path("k"), after.as_ref(), limit).await.unwrap();
                let full = page.len() == limit;
                after = page.last().map(|(key, _)| key.clone());
                seen.extend(page.into_iter().map(|(key, plain)| (key, plain.is_ok())));
                if !full {
                    break;
                }
            }
            let expected: Vec<_> = keys.iter().map(|key| (key.clone(), *key != keys[1])).collect();
            assert_eq!(seen, expected, "{limit} at a time");
        }
    }

    #[actix_rt::test]
    async fn it_fails_when_told_to() {
        let (barrier, store) = barrier();
        let put = |name| Changes::new().put(path(name), 0, bytes("1"));
        store.fail_next(StorageError::Busy);
        store.doubt_next();
        let refused = barrier.commit(put("a")).await;
        assert_eq!(refused, Err(BarrierError::Storage(StorageError::Busy)));
        assert!(store.is_empty());
        assert!(barrier.commit(put("a")).await.is_err());
        assert_eq!(store.len(), 1);
        store.fail_reads(Some(StorageError::Io("told to".to_owned())));
        assert!(barrier.read(&path("a")).await.is_err());
    }

    #[actix_rt::test]
    async fn a_held_batch_waits() {
        let (barrier, store) = barrier();
        store.hold(true);
        let changes = Changes::new().put(path("a"), 0, bytes("1"));
        let commit = actix_rt::spawn(async move { barrier.commit(changes).await });
        tokio::task::yield_now().await;
        assert!(store.is_empty());
        store.hold(false);
        commit.await.unwrap().unwrap();
        assert_eq!(store.len(), 1);
    }

    #[actix_rt::test]
    async fn a_record_that_was_moved_does_not_open() {
        let (barrier, store) = barrier();
        barrier.commit(Changes::new().put(path("a"), 0, bytes("1"))).await.unwrap();
        let record = store.stored(&FakeKeys::stored_key(&path("a")));
        store.tamper(&FakeKeys::stored_key(&path("b")), record);
        assert!(barrier.read(&path("b")).await.is_err());
    }
}
