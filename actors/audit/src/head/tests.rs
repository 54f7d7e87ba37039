//! A log that lost lines between two runs, and what the store remembers of it.

use std::sync::Arc;

use actix::Actor;
use mssm_domain::{SecretBytes, Timestamp};
use mssm_messages::audit::{Append, Entry, Event, Reopen};
use mssm_messages::seal::{Closing, InstallAuditKey};
use mssm_testkit::{MemoryStore, TestClock};

use super::*;
use crate::{AuditSettings, AuditWriter, FileBackend, Rotation};

struct Run {
    ports: AuditPorts,
    thread: std::thread::JoinHandle<()>,
    keeper: actix::Addr<HeadKeeper>,
}

impl Run {
    fn start(log: &std::path::Path, store: &MemoryStore, when_missing: WhenMissing) -> Self {
        Self::start_as_told(log, store, when_missing, false)
    }

    fn start_as_told(
        log: &std::path::Path,
        store: &MemoryStore,
        when_missing: WhenMissing,
        accept_rollback: bool,
    ) -> Self {
        let clock = Arc::new(TestClock::new());
        // Every batch closes its file where the log's name says so.
        let bytes = log.ends_with("rotated.log").then_some(1);
        let rotation = Rotation { bytes, ..Rotation::default() };
        let (ports, thread) = AuditWriter::start(
            FileBackend::new(log),
            clock.clone(),
            AuditSettings { rotation, ..AuditSettings::default() },
        )
        .unwrap();
        let config = HeadConfig { audit: ports.clone(), when_missing, accept_rollback };
        let keeper = HeadKeeper::new(config, mssm_testkit::barrier_over(store), clock).start();
        Self { ports, thread, keeper }
    }

    async fn unseal(&self) -> Result<(), StageError> {
        let seed = Some(SecretBytes::new(vec![7; 32]));
        self.keeper.send(InstallAuditKey { seed, salts: None }).await.unwrap()
    }

    async fn write(&self, lines: u32) {
        for number in 0..lines {
            let details = vec![("number", number.to_string())];
            let event = Event { name: "test", details };
            let line = Entry::Event { time: Timestamp::from_unix_ms(0), event };
            self.ports.append.ask(Append(vec![line]), DEADLINE).await.unwrap().unwrap();
        }
    }

    async fn end(self) {
        self.keeper.send(Closing).await.unwrap().unwrap();
        self.keeper.send(InstallAuditKey { seed: None, salts: None }).await.unwrap().unwrap();
        // The actor holds ports; the thread is left to its end, as at a stop of the program.
        drop((self.ports, self.thread));
    }
}

/// Two runs on one log; between them something is done to it. What the second says is missing.
async fn missing_after(spoil: fn(&std::path::Path), when: WhenMissing) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let (log, other) = (folder.path().join("audit.log"), folder.path().join("moved.log"));
    let store = MemoryStore::new();
    let run = Run::start(&log, &store, when);
    run.unseal().await.unwrap();
    run.write(10).await;
    run.end().await;
    // A copy, since the first run's thread may still hold the lock of the file.
    std::fs::copy(&log, &other).unwrap();
    std::fs::remove_file(&log).unwrap();
    spoil(&other);
    let run = Run::start(&other, &store, when);
    run.unseal().await.map_err(|StageError(text)| text)?;
    run.write(1).await;
    let text = std::fs::read_to_string(&other).unwrap();
    let told = text.lines().find(|line| line.contains("log-missing"));
    let status = run.ports.status.ask(ReadStatus, DEADLINE).await.unwrap().unwrap();
    assert_eq!(told.is_some(), status.missing.is_some());
    Ok(told.unwrap_or_default().to_owned())
}

fn cut_to(log: &std::path::Path, lines: usize) {
    let text = std::fs::read_to_string(log).unwrap();
    let kept: Vec<&str> = text.lines().take(lines).collect();
    std::fs::write(log, kept.join("\n") + "\n").unwrap();
}

#[actix_rt::test]
async fn a_log_that_is_whole_is_taken_up_without_a_word() {
    assert_eq!(missing_after(|_| (), WhenMissing::Refuse).await, Ok(String::new()));
}

#[actix_rt::test]
async fn a_cut_tail_is_missed_at_the_next_unsealing() {
    // One checkpoint and its line are gone: every line that is left is in order and signed.
    let cut = |log: &std::path::Path| cut_to(log, 25);
    let told = missing_after(cut, WhenMissing::Warn).await.unwrap();
    assert!(told.contains("records 25 to 26"), "{told}");
    let refused = missing_after(cut, WhenMissing::Refuse).await.unwrap_err();
    assert!(refused.contains("records 25 to 26"), "{refused}");
}

#[actix_rt::test]
async fn a_deleted_log_is_missed_at_the_next_unsealing() {
    let gone = |log: &std::path::Path| std::fs::remove_file(log).unwrap();
    let told = missing_after(gone, WhenMissing::Warn).await.unwrap();
    assert!(told.contains("records 0 to 26"), "{told}");
    assert!(missing_after(gone, WhenMissing::Refuse).await.is_err());
}

#[actix_rt::test]
async fn another_log_is_missed_even_if_it_is_longer() {
    let longer = |log: &std::path::Path| {
        let mut written = crate::log::Log::default();
        let line = |number: u32| {
            let event = Event { name: "forged", details: vec![("number", number.to_string())] };
            Entry::Event { time: Timestamp::from_unix_ms(0), event }
        };
        let mut lines = vec![written.first_line(Timestamp::from_unix_ms(0))];
        lines.extend((0..50).map(line));
        let batch = written.batch(Timestamp::from_unix_ms(0), &lines).unwrap();
        std::fs::write(log, batch.bytes).unwrap();
    };
    let told = missing_after(longer, WhenMissing::Warn).await.unwrap();
    assert!(told.contains("another"), "{told}");
}

/// Requests do not wait for the store, and one write of it a second is all.
#[actix_rt::test]
async fn the_head_follows_the_log_without_a_commit_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let run = Run::start(&folder.path().join("audit.log"), &store, WhenMissing::Warn);
    run.unseal().await.unwrap();
    let before = store.commits();
    run.write(50).await;
    assert!(store.commits() <= before + 2, "{}", store.commits());
    store.fail_writes(Some(mssm_messages::storage::StorageError::Busy));
    run.write(5).await;
    store.fail_writes(None);
    run.end().await;
    let kept = mssm_testkit::barrier_over(&store).read(&path()).await.unwrap().unwrap();
    let head = decode(kept.bytes.expose()).unwrap().head;
    let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    assert_eq!(head.count, text.lines().count() as u64);
}

/// One run on a log and a store, and what is left of both.
async fn run_once(folder: &std::path::Path, from: &str, to: &str, store: &MemoryStore) {
    // A copy, since an earlier run's thread may still hold the lock of its file.
    let (from, to) = (folder.join(from), folder.join(to));
    if from.exists() {
        std::fs::copy(from, &to).unwrap();
    }
    let run = Run::start(&to, store, WhenMissing::Refuse);
    run.unseal().await.unwrap();
    run.write(3).await;
    run.end().await;
}

#[actix_rt::test]
async fn an_older_copy_of_the_store_is_not_opened_unless_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    run_once(folder.path(), "none", "first.log", &store).await;
    let backup = store.copy();
    run_once(folder.path(), "first.log", "second.log", &store).await;

    let log = folder.path().join("third.log");
    std::fs::copy(folder.path().join("second.log"), &log).unwrap();
    let run = Run::start(&log, &backup, WhenMissing::Refuse);
    let StageError(refused) = run.unseal().await.unwrap_err();
    assert!(refused.contains("-accept-rollback"), "{refused}");
    drop(run);

    let log = folder.path().join("fourth.log");
    std::fs::copy(folder.path().join("second.log"), &log).unwrap();
    let run = Run::start_as_told(&log, &backup, WhenMissing::Refuse, true);
    run.unseal().await.unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("store-rolled-back"), "{text}");
    run.end().await;
    // Accepted once, it is the store that the log knows.
    run_once(folder.path(), "fourth.log", "fifth.log", &backup).await;
}

#[actix_rt::test]
async fn a_new_store_beside_another_ones_log_is_no_older_copy() {
    let folder = tempfile::tempdir().unwrap();
    run_once(folder.path(), "none", "first.log", &MemoryStore::new()).await;
    let log = folder.path().join("second.log");
    std::fs::copy(folder.path().join("first.log"), &log).unwrap();
    let run = Run::start(&log, &MemoryStore::new(), WhenMissing::Refuse);
    let seed = Some(SecretBytes::new(vec![8; 32]));
    run.keeper.send(InstallAuditKey { seed, salts: None }).await.unwrap().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("log-of-another-store").count(), 1, "but it is said: {text}");
}

/// What a run writes before it is unsealed is no part of what an earlier one left.
#[actix_rt::test]
async fn what_is_missing_is_counted_from_where_the_log_was_taken_up() {
    let cut_and_filled = async |more: u32| {
        let folder = tempfile::tempdir().unwrap();
        let (log, other) = (folder.path().join("audit.log"), folder.path().join("moved.log"));
        let store = MemoryStore::new();
        let run = Run::start(&log, &store, WhenMissing::Warn);
        run.unseal().await.unwrap();
        run.write(10).await;
        run.end().await;
        std::fs::copy(&log, &other).unwrap();
        cut_to(&other, 20);
        let run = Run::start(&other, &store, WhenMissing::Warn);
        run.write(more).await;
        run.unseal().await.unwrap();
        let told = |text: &str| text.lines().filter(|line| line.contains("log-missing")).count();
        let text = std::fs::read_to_string(&other).unwrap();
        assert!(text.contains("records 20 to 26"), "{text}");
        // Once, and not of what the store has kept since.
        run.write(3).await;
        run.keeper.send(Closing).await.unwrap().unwrap();
        run.keeper.send(InstallAuditKey { seed: None, salts: None }).await.unwrap().unwrap();
        run.unseal().await.unwrap();
        assert_eq!(told(&std::fs::read_to_string(&other).unwrap()), 1);
    };
    for more in [0, 3, 7, 30] {
        cut_and_filled(more).await;
    }
}

/// Closed files are compressed on a thread of its own: a copy in which that moved one is made anew.
fn copy_folder(from: &std::path::Path) -> tempfile::TempDir {
    let names = || {
        let entries = std::fs::read_dir(from).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    loop {
        let (copy, before) = (tempfile::tempdir().unwrap(), names());
        let copied = |name| std::fs::copy(from.join(name), copy.path().join(name)).is_ok();
        if before.iter().all(copied) && names() == before {
            return copy;
        }
    }
}

#[actix_rt::test]
async fn an_older_copy_is_told_though_the_file_that_said_so_has_been_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (name, store) = ("rotated.log", MemoryStore::new());
    let run = Run::start(&folder.path().join(name), &store, WhenMissing::Refuse);
    run.unseal().await.unwrap();
    run.write(3).await;
    run.end().await;
    let backup = store.copy();
    let folder = copy_folder(folder.path());
    let run = Run::start(&folder.path().join(name), &store, WhenMissing::Refuse);
    run.unseal().await.unwrap();
    run.write(3).await;
    // Killed: what was said at the unseal is in a file that has been closed since.
    let folder = copy_folder(folder.path());
    let run = Run::start(&folder.path().join(name), &backup, WhenMissing::Refuse);
    let StageError(refused) = run.unseal().await.unwrap_err();
    assert!(refused.contains("-accept-rollback"), "{refused}");
}

mod tampered;
