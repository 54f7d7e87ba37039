//! The file backend: the suite, crashes between any two steps, damaged files.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mssm_domain::SealedBytes;
use mssm_messages::storage::{Expect, Precondition, Write as Change};

use super::*;
use crate::suite::{Store, conformance};

struct Folder(tempfile::TempDir);

impl Folder {
    fn store(&self) -> FileStorage {
        FileStorage::open(self.0.path()).unwrap().expect("not open elsewhere")
    }
}

impl Store for Folder {
    const DURABLE: bool = true;

    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<dyn StorageBackend> {
        Arc::new(self.store())
    }

    fn damage(&self, key: &StoredKey) -> bool {
        let path = self.0.path().join("records").join(entry::name_of(key.as_bytes()));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        true
    }
}

conformance!(Folder);

fn key(name: &str) -> StoredKey {
    StoredKey::new(name.as_bytes().to_vec())
}

fn record(version: u64) -> StoredRecord {
    StoredRecord { version, sealed: SealedBytes::new(vec![7; 100]) }
}

fn versions(store: &FileStorage) -> Vec<(StoredKey, u64)> {
    let all = store.scan_records(b"", None, usize::MAX).unwrap();
    all.into_iter().map(|(key, record)| (key, record.version)).collect()
}

#[test]
fn a_crash_between_any_two_steps_leaves_all_of_a_batch_or_nothing() {
    let batches = [
        vec![
            Change::Put(key("a"), record(2)),
            Change::Delete(key("b")),
            Change::Put(key("c"), record(1)),
        ],
        vec![Change::Put(key("a"), record(2))],
        vec![Change::Delete(key("b"))],
    ];
    let before = vec![(key("a"), 1), (key("b"), 1)];
    for writes in batches {
        let mut stops = 0;
        loop {
            let folder = Folder::create();
            let store = folder.store();
            store.put(&key("a"), &record(1)).unwrap();
            store.put(&key("b"), &record(1)).unwrap();
            store.steps_left.store(stops, Ordering::Relaxed);
            let batch = Commit { preconditions: vec![], writes: writes.clone() };
            let whole = store.apply(&[batch]).is_ok();
            drop(store);

            let found = versions(&folder.store());
            let mut after: BTreeMap<_, _> = before.iter().cloned().collect();
            for write in &writes {
                match write {
                    Change::Put(key, record) => after.insert(key.clone(), record.version),
                    Change::Delete(key) => after.remove(key),
                };
            }
            let after: Vec<_> = after.into_iter().collect();
            assert!(found == after || (!whole && found == before), "{stops}: {found:?}");
            assert!(folder.store().places.journal.metadata().is_err(), "the journal is done with");
            assert_eq!(std::fs::read_dir(folder.0.path().join("staged")).unwrap().count(), 0);
            if whole {
                break;
            }
            stops += 1;
        }
        assert!(stops > 0, "some step was stopped at");
    }
}

#[test]
fn a_damaged_file_is_isolated_at_the_start_and_the_others_are_served() {
    let folder = Folder::create();
    let store = folder.store();
    for name in ["a", "b", "c"] {
        store.put(&key(name), &record(1)).unwrap();
    }
    drop(store);
    let path = folder.0.path().join("records").join(entry::name_of(b"b"));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(folder.0.path().join("records/stray"), b"nonsense").unwrap();

    for _ in 0..2 {
        let store = folder.store();
        assert_eq!(store.scan(b"", None, 9), Ok(vec![key("a"), key("b"), key("c")]));
        for name in ["a", "c"] {
            assert_eq!(store.read(&key(name)), Ok(Some(record(1))), "{name}");
        }
        assert!(matches!(store.read(&key("b")), Err(StorageError::Damaged(_))));
        let report = store.check().unwrap();
        assert_eq!((report.records, report.damaged.len()), (2, 2), "{report:?}");
    }

    let store = folder.store();
    let absent = Precondition { key: key("b"), expect: Expect::Absent };
    let batch = Commit { preconditions: vec![absent], writes: vec![] };
    let answers = store.apply(&[batch]).unwrap();
    assert!(matches!(answers[..], [Err(StorageError::Damaged(_))]), "damaged is not absent");
    store.put(&key("b"), &record(9)).unwrap();
    assert_eq!(store.read(&key("b")), Ok(Some(record(9))));
    drop(store);
    assert_eq!(folder.store().check().unwrap().damaged, ["damaged/stray"]);
}

#[test]
fn a_file_damaged_while_it_runs_is_isolated_when_it_is_read() {
    let folder = Folder::create();
    let store = folder.store();
    store.put(&key("a"), &record(1)).unwrap();
    store.put(&key("b"), &record(1)).unwrap();
    std::fs::write(folder.0.path().join("records").join(entry::name_of(b"a")), b"").unwrap();
    std::fs::remove_file(folder.0.path().join("records").join(entry::name_of(b"b"))).unwrap();
    for name in ["a", "b"] {
        assert!(matches!(store.read(&key(name)), Err(StorageError::Damaged(_))), "{name}");
        assert!(matches!(store.read(&key(name)), Err(StorageError::Damaged(_))), "{name} again");
    }
    assert_eq!(store.check().unwrap().damaged.len(), 2);
    assert_eq!(store.scan(b"", None, 9), Ok(vec![key("a"), key("b")]));
}

#[test]
fn a_file_that_cannot_be_read_at_one_start_is_served_after_the_next() {
    let folder = Folder::create();
    folder.store().put(&key("a"), &record(1)).unwrap();
    let path = folder.0.path().join("records").join(entry::name_of(b"a"));
    let aside = folder.0.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(folder.store().read(&key("a")), Err(StorageError::Damaged(_))));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(folder.store().read(&key("a")), Ok(Some(record(1))));
}

/// Its own bytes say nothing any more: the index, which speaks of every record, says whose it is.
#[test]
fn a_file_of_which_nothing_is_left_keeps_its_place_if_the_index_speaks_of_it() {
    let folder = Folder::create();
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    crate::suite::put_with_index(&folder.open(), &names);
    for name in names {
        let path = folder.0.path().join("records").join(entry::name_of(name.as_bytes()));
        std::fs::write(path, b"").unwrap();
    }
    for _ in 0..2 {
        let keys = folder.store().scan(b"", None, names.len()).unwrap();
        assert_eq!(keys, names.map(key));
    }
}

#[test]
fn a_damaged_journal_stops_nothing() {
    let folder = Folder::create();
    folder.store().put(&key("a"), &record(1)).unwrap();
    std::fs::write(folder.0.path().join("journal"), b"half a jour").unwrap();
    let store = folder.store();
    assert_eq!(versions(&store), [(key("a"), 1)]);
    assert_eq!(store.check().unwrap().damaged, ["damaged/journal"]);
}

#[test]
fn a_second_opener_is_refused() {
    let folder = Folder::create();
    let _first = folder.store();
    assert!(FileStorage::open(folder.0.path()).unwrap().is_none());
}
