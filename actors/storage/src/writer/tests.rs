//! The commit thread: groups, bounds, failures, the end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Mutex;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::storage::{Report, StorageReader};
use mssm_messages::{Port, PortError};

use super::*;
use crate::MemoryStorage;
use crate::open::start;

fn put(name: &str) -> Commit {
    let record = StoredRecord { version: 1, sealed: SealedBytes::new(vec![1; 1024]) };
    let write = Write::Put(StoredKey::new(name.as_bytes().to_vec()), record);
    Commit { preconditions: vec![], writes: vec![write] }
}

fn writer(memory: &Arc<MemoryStorage>) -> (Writer, Arc<Mutex<Vec<String>>>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let listener = Arc::clone(&told);
    let tell = Box::new(move |cause| listener.lock().unwrap().push(cause));
    (Writer::new(Arc::clone(memory) as _, Arc::default(), tell, Box::new(|_| {})), told)
}

#[actix_rt::test]
async fn what_waits_is_committed_as_groups_within_their_bounds() {
    let (port, mut queue) = Port::<Commit>::to_thread(600);
    let mut waiting = Vec::new();
    for _ in 0..300 {
        let port = port.clone();
        let batch = Commit::default();
        waiting.push(actix_rt::spawn(async move { port.commit(batch).await }));
    }
    while queue.len() < 300 {
        tokio::task::yield_now().await;
    }
    let first = queue.recv().await.unwrap();
    assert_eq!(gather(first, &mut queue).len(), GROUP_BATCHES, "bounded by batches");

    let (port, mut queue) = Port::<Commit>::to_thread(600);
    let mut big = put("big");
    big.writes = vec![big.writes[0].clone(); 600];
    for _ in 0..9 {
        let (port, big) = (port.clone(), big.clone());
        waiting.push(actix_rt::spawn(async move { port.commit(big).await }));
    }
    while queue.len() < 9 {
        tokio::task::yield_now().await;
    }
    let first = queue.recv().await.unwrap();
    assert_eq!(gather(first, &mut queue).len(), 2, "bounded by bytes");
}

#[test]
fn a_full_disk_refuses_and_then_the_service_goes_on_by_itself() {
    let memory = Arc::<MemoryStorage>::default();
    let (mut writer, told) = writer(&memory);
    let full = StorageError::NoSpace("full".to_owned());
    memory.fail_next(full.clone());
    memory.fail_next(full.clone());
    let group = ["a", "b", "c"].map(put);
    assert_eq!(writer.apply(&group), vec![Err(full.clone()); 3], "the rest is not even tried");
    assert_eq!(writer.apply(&group), vec![Ok(()); 3]);

    memory.fail_next(full);
    assert_eq!(writer.apply(&group), vec![Ok(()); 3], "singly there was room");
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn one_members_failure_is_not_the_others() {
    let memory = Arc::<MemoryStorage>::default();
    let (mut writer, _) = writer(&memory);
    let bad = StorageError::Io("bad".to_owned());
    memory.fail_next(bad.clone());
    memory.fail_next(bad.clone());
    assert_eq!(writer.apply(&["a", "b"].map(put)), vec![Err(bad), Ok(())]);
}

#[test]
fn a_failed_sync_poisons_for_good_and_is_told_once() {
    let memory = Arc::<MemoryStorage>::default();
    let (mut writer, told) = writer(&memory);
    let unknown = StorageError::Unknown("sync".to_owned());
    memory.fail_next(unknown.clone());
    assert_eq!(writer.apply(&["a", "b"].map(put)), vec![Err(unknown); 2]);
    let poisoned = StorageError::Poisoned("sync".to_owned());
    for _ in 0..2 {
        assert_eq!(writer.apply(&["c", "d"].map(put)), vec![Err(poisoned.clone()); 2]);
    }
    assert_eq!(*told.lock().unwrap(), ["sync"]);
    assert_eq!(memory.read(&StoredKey::new(b"c".to_vec())), Ok(None));
}

/// A backend whose commit panics.
struct Panics;

impl StorageReader for Panics {
    fn read(&self, _: &StoredKey) -> Result<Option<StoredRecord>, StorageError> {
        Ok(None)
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<StoredKey>, StorageError> {
        Ok(vec![])
    }

    fn scan_records(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError> {
        Ok(vec![])
    }
}

impl StorageBackend for Panics {
    fn apply(&self, _: &[Commit]) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        panic!("a bug")
    }

    fn check(&self) -> Result<Report, StorageError> {
        Ok(Report::default())
    }
}

#[actix_rt::test]
async fn a_panic_poisons_and_the_thread_goes_on_answering() {
    let (tell, told) = oneshot::channel();
    let on_poison = Box::new(move |cause| tell.send(cause).unwrap());
    let (port, handle) = start(Arc::new(Panics), on_poison, Box::new(|_| {})).unwrap();
    assert!(matches!(port.writer.commit(put("a")).await, Ok(Err(StorageError::Unknown(_)))));
    assert!(matches!(port.writer.commit(put("a")).await, Ok(Err(StorageError::Poisoned(_)))));
    assert_eq!(told.await.unwrap(), "the storage panicked");
    handle.shutdown().await;
}

#[actix_rt::test]
async fn a_shutdown_finishes_what_waits_and_takes_nothing_more() {
    let memory = Arc::<MemoryStorage>::default();
    let (port, handle) =
        start(Arc::clone(&memory) as _, Box::new(|_| {}), Box::new(|_| {})).unwrap();
    let handed = Rc::<Cell<u32>>::default();
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let (writer, batch) = (port.writer.clone(), put(&number.to_string()));
            let handed = Rc::clone(&handed);
            actix_rt::spawn(async move {
                // Counted and handed over in one go: nothing is awaited in between.
                handed.set(handed.get() + 1);
                writer.commit(batch).await
            })
        })
        .collect();
    while handed.get() < 100 {
        tokio::task::yield_now().await;
    }
    let stats = handle.stats();
    handle.shutdown().await;
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), Ok(Ok(())));
    }
    assert_eq!((memory.check().unwrap().records, stats.batches(), stats.queued()), (100, 100, 0));
    assert!((1..=100).contains(&stats.commits()));
    assert_eq!(port.writer.commit(put("late")).await, Err(PortError::Stopped));
}

#[actix_rt::test]
async fn the_thread_ends_with_the_last_port_even_without_its_handle() {
    let (tell, ended) = oneshot::channel::<()>();
    let on_poison = Box::new(move |_| drop(tell));
    let (port, handle) =
        start(Arc::<MemoryStorage>::default(), on_poison, Box::new(|_| {})).unwrap();
    drop(handle);
    assert_eq!(port.writer.commit(put("a")).await, Ok(Ok(())), "a dropped handle stops nothing");
    drop(port);
    // The thread held the sender; it is gone only when the thread's work is.
    assert!(ended.await.is_err());
}
