//! What somebody did to the log's file, while the server ran or between two runs.

use std::path::Path;

use super::*;

/// Writes one line behind a log, in the right place of its chain, as whoever may write the file can.
fn forge(log: &Path, rest: &str) {
    let text = std::fs::read_to_string(log).unwrap();
    let mut position = crate::log::Position::default();
    text.lines().for_each(|line| position.append(line.as_bytes()));
    let (seq, prev) = (position.count(), position.head());
    let line = format!(r#"{{"seq":{seq},"prev":"{prev}","time":"2026-01-01T00:00:00Z",{rest}}}"#);
    std::fs::write(log, format!("{text}{line}\n")).unwrap();
}

fn forge_epoch(log: &Path, key: &[u8; 32], epoch: u64) {
    let key = hex::encode(key);
    let details = format!(r#"{{"epoch":"{epoch}","key":"{key}"}}"#);
    forge(log, &format!(r#""type":"event","event":"log-store-epoch","details":{details}"#));
    let signed = format!(r#""root":"{key}","key":"{key}","signature":"{}""#, "A".repeat(88));
    forge(log, &format!(r#""type":"checkpoint",{signed}"#));
}

fn public() -> [u8; 32] {
    checkpoint_key(&SecretBytes::new(vec![7; 32])).unwrap().public()
}

#[actix_rt::test]
async fn a_line_that_nobody_signed_hides_no_older_copy_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    run_once(folder.path(), "none", "first.log", &store).await;
    let backup = store.copy();
    run_once(folder.path(), "first.log", "second.log", &store).await;
    for (name, forged) in [("own", public()), ("made-up", [9; 32])] {
        let log = folder.path().join(name);
        std::fs::copy(folder.path().join("second.log"), &log).unwrap();
        forge_epoch(&log, &forged, 1);
        let run = Run::start(&log, &backup, WhenMissing::Warn);
        let StageError(refused) = run.unseal().await.unwrap_err();
        assert!(refused.contains("-accept-rollback"), "{name}: {refused}");
    }
}

#[actix_rt::test]
async fn a_line_that_nobody_signed_locks_no_store_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    run_once(folder.path(), "none", "first.log", &store).await;
    forge_epoch(&folder.path().join("first.log"), &public(), 99_999);
    run_once(folder.path(), "first.log", "second.log", &store).await;
}

#[actix_rt::test]
async fn a_log_whose_signed_lines_were_laid_aside_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    run_once(folder.path(), "none", "first.log", &store).await;
    let backup = store.copy();
    run_once(folder.path(), "first.log", "second.log", &store).await;
    let text = std::fs::read_to_string(folder.path().join("second.log")).unwrap();
    let mut log = crate::log::Log::default();
    text.lines().for_each(|line| log.position.append(line.as_bytes()));
    let closed =
        |first: u64, last: u64| folder.path().join(format!("current.log.{first:012}-{last:012}"));
    let aside = closed(0, log.position.count() - 1);
    std::fs::write(aside, &text).unwrap();
    // Twice, so that the newest closed file says nothing either.
    let now = Timestamp::from_unix_ms(0);
    for last in [true, false] {
        let first = log.position.count();
        let batch = log.batch(now, &[log.first_line(now)]).unwrap();
        let current = folder.path().join("current.log");
        let file = if last { closed(first, first) } else { current };
        std::fs::write(file, &batch.bytes).unwrap();
        log.accept(batch);
    }
    let run = Run::start(&folder.path().join("current.log"), &backup, WhenMissing::Refuse);
    let StageError(refused) = run.unseal().await.unwrap_err();
    assert!(refused.contains("each signed line"), "{refused}");
}

/// What the log's file was when it was open.
async fn run_with(log: &Path, store: &MemoryStore, told: bool, spoil: fn(&Path)) {
    let run = Run::start(log, store, WhenMissing::Refuse);
    run.unseal().await.unwrap();
    run.write(3).await;
    spoil(log);
    if told {
        run.ports.reopen.ask(Reopen, DEADLINE).await.unwrap().unwrap();
    } else {
        let refused = run.ports.append.ask(Append(Vec::new()), DEADLINE).await.unwrap();
        assert!(refused.is_err(), "what is not told costs a request");
    }
    run.write(3).await;
    let status = run.ports.status.ask(ReadStatus, DEADLINE).await.unwrap().unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    assert_eq!(status.missing.is_some(), text.contains("log-missing"), "{text}");
    assert_ne!(status.missing.is_some(), told, "{text}");
    run.end().await;
}

/// Named in the log and to who watches at once, and missed at the next unsealing like one that went
/// while no server ran.
#[actix_rt::test]
async fn a_file_that_goes_while_it_is_open_is_named_and_missed() {
    let empty = |log: &Path| std::fs::write(log, "").unwrap();
    let away = |log: &Path| std::fs::rename(log, log.with_extension("away")).unwrap();
    let spoils: [fn(&Path); 4] =
        [|log| std::fs::remove_file(log).unwrap(), empty, |log| cut_to(log, 4), away];
    for spoil in spoils {
        let folder = tempfile::tempdir().unwrap();
        let (log, store) = (folder.path().join("audit.log"), MemoryStore::new());
        run_with(&log, &store, false, spoil).await;
        let other = folder.path().join("moved.log");
        std::fs::copy(&log, &other).unwrap();
        let run = Run::start(&other, &store, WhenMissing::Refuse);
        let StageError(refused) = run.unseal().await.unwrap_err();
        assert!(refused.contains("records 0 to"), "{refused}");
    }
}

#[actix_rt::test]
async fn a_file_that_is_moved_away_as_the_server_is_told_is_missed_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (log, store) = (folder.path().join("audit.log"), MemoryStore::new());
    let away: fn(&Path) = |log| std::fs::rename(log, log.with_extension("away")).unwrap();
    run_with(&log, &store, true, away).await;
    run_once(folder.path(), "audit.log", "moved.log", &store).await;
}

#[actix_rt::test]
async fn a_file_that_was_removed_is_named_though_the_server_is_told_that_it_was_moved() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let run = Run::start(&log, &MemoryStore::new(), WhenMissing::Refuse);
    run.unseal().await.unwrap();
    run.write(3).await;
    std::fs::remove_file(&log).unwrap();
    run.ports.reopen.ask(Reopen, DEADLINE).await.unwrap().unwrap();
    run.write(1).await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("\"missing\":\"records 0 to"), "{text}");
}

/// `logrotate` moves first and tells then: a request may come in between.
#[actix_rt::test]
async fn a_file_that_was_moved_a_moment_before_the_server_was_told_is_not_missed_later() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let run = Run::start(&log, &MemoryStore::new(), WhenMissing::Refuse);
    run.unseal().await.unwrap();
    for told in [true, false] {
        run.write(1).await;
        std::fs::rename(&log, folder.path().join(format!("away-{told}"))).unwrap();
        let refused = run.ports.append.ask(Append(Vec::new()), DEADLINE).await.unwrap();
        assert!(refused.is_err());
        run.write(1).await;
        if told {
            run.ports.reopen.ask(Reopen, DEADLINE).await.unwrap().unwrap();
        }
        let status = run.ports.status.ask(ReadStatus, DEADLINE).await.unwrap().unwrap();
        assert_eq!(status.missing.as_ref().is_some_and(|what| what.contains("moved")), !told);
    }
}
