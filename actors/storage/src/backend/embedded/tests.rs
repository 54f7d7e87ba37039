//! The embedded backend: the suite, what its errors mean, and what a damaged file does.

use mssm_domain::SealedBytes;
use mssm_messages::storage::{Expect, Precondition};

use super::*;
use crate::suite::{Store, conformance};

struct Folder(tempfile::TempDir);

impl Store for Folder {
    const DURABLE: bool = true;

    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<dyn StorageBackend> {
        Arc::new(EmbeddedStorage::open(self.0.path()).unwrap())
    }

    fn damage(&self, key: &StoredKey) -> bool {
        let store = EmbeddedStorage::open(self.0.path()).unwrap();
        let held = store.database.read().unwrap();
        let transaction = held.as_ref().unwrap().begin_write().unwrap();
        let bytes: &[u8] = b"nonsense that is no record";
        transaction.open_table(RECORDS).unwrap().insert(key.as_bytes(), bytes).unwrap();
        transaction.commit().unwrap();
        true
    }
}

conformance!(Folder);

fn key() -> StoredKey {
    StoredKey::new(b"key".to_vec())
}

fn record(version: u64) -> StoredRecord {
    StoredRecord { version, sealed: SealedBytes::new(vec![7; 100]) }
}

#[test]
fn a_failure_means_what_the_disk_did_and_not_what_the_engine_says() {
    let write = |no_space| Failure::Write { no_space, cause: "c".to_owned() };
    let table: [(bool, Option<Failure>, StorageError); 7] = [
        (false, Some(write(true)), StorageError::NoSpace("c".to_owned())),
        (true, Some(write(true)), StorageError::Unknown("Database has been closed".to_owned())),
        (false, Some(write(false)), StorageError::Unknown("c".to_owned())),
        (false, Some(Failure::Sync("c".to_owned())), StorageError::Unknown("sync: c".to_owned())),
        (true, Some(Failure::Sync("c".to_owned())), StorageError::Unknown("sync: c".to_owned())),
        (false, Some(Failure::Read("c".to_owned())), StorageError::Io("c".to_owned())),
        (false, None, StorageError::Io("Database has been closed".to_owned())),
    ];
    for (header_synced, failure, expected) in table {
        let events = Events { header_synced, failure, ..Events::default() };
        assert_eq!(judge(&events, &redb::Error::DatabaseClosed), expected, "{events:?}");
    }
}

#[test]
fn opening_again_in_the_middle_keeps_records_and_readers_go_on() {
    let folder = Folder::create();
    let store = EmbeddedStorage::open(folder.0.path()).unwrap();
    store.put(&key(), &record(1)).unwrap();
    store.reopen().unwrap();
    assert_eq!(store.read(&key()), Ok(Some(record(1))));
    *store.database.write().unwrap() = None;
    assert_eq!(store.read(&key()), Err(closed()));
    store.put(&key(), &record(2)).unwrap();
    assert_eq!(store.read(&key()), Ok(Some(record(2))), "the next commit opened it");
}

#[test]
fn a_second_opener_is_refused() {
    let folder = Folder::create();
    let _first = folder.open();
    let second = EmbeddedStorage::open(folder.0.path());
    assert!(matches!(second, Err((_, DatabaseError::DatabaseAlreadyOpen))));
}

#[test]
fn a_creation_that_a_crash_cut_short_is_begun_again() {
    let folder = Folder::create();
    std::fs::write(folder.0.path().join("store.redb.new"), b"half").unwrap();
    folder.open().put(&key(), &record(1)).unwrap();
}

#[test]
fn a_damaged_record_is_named_and_the_others_are_served() {
    let folder = Folder::create();
    let other = StoredKey::new(b"other".to_vec());
    folder.open().put(&other, &record(1)).unwrap();
    folder.damage(&key());
    let store = EmbeddedStorage::open(folder.0.path()).unwrap();
    assert!(matches!(store.read(&key()), Err(StorageError::Damaged(_))));
    assert_eq!(store.read(&other), Ok(Some(record(1))));
    let report = store.check().unwrap();
    assert_eq!((report.records, report.damaged.len()), (1, 1), "{report:?}");
    assert_eq!(store.verify().unwrap(), report);

    let expect = Precondition { key: key(), expect: Expect::Present };
    let batch = Commit { preconditions: vec![expect], writes: vec![] };
    let answers = store.apply(&[batch, Commit::default()]).unwrap();
    assert!(matches!(answers[..], [Err(StorageError::Damaged(_)), Ok(())]), "{answers:?}");
    store.put(&key(), &record(1)).unwrap();
    assert_eq!(store.check().unwrap().damaged, Vec::<String>::new());
}

#[test]
fn a_file_that_is_no_store_is_an_error_and_no_panic() {
    for bytes in [vec![0; 10_000], b"redb\x1a\x0a\xa9\x0d\x0a".repeat(2000)] {
        let folder = Folder::create();
        std::fs::write(folder.0.path().join(FILE), bytes).unwrap();
        assert!(EmbeddedStorage::open(folder.0.path()).is_err());
    }
}

#[test]
fn flipped_bytes_are_found_and_panic_nowhere() {
    for part in 1..6 {
        let folder = Folder::create();
        {
            let store = folder.open();
            for number in 0..50_u8 {
                store.put(&StoredKey::new(vec![number; 9]), &record(1)).unwrap();
            }
        }
        let path = folder.0.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let start = bytes.len() * part / 6;
        bytes.iter_mut().skip(start).take(4096).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).unwrap();
        if let Ok(store) = EmbeddedStorage::open(folder.0.path()) {
            for number in 0..50_u8 {
                let read = store.read(&StoredKey::new(vec![number; 9]));
                assert!(read.is_err() || read == Ok(Some(record(1))) || read == Ok(None));
            }
            let _ = store.verify();
        }
    }
}
