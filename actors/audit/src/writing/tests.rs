//! A log over several files: closed when full or old, compressed, kept as long as it should be.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{Clock, Timestamp};
use mssm_messages::audit::{Entry, Event};
use mssm_testkit::TestClock;

use super::*;
use crate::tests::verifier;
use crate::{FileBackend, Keep, verify_files};

fn event(number: u32) -> Entry {
    let details = vec![("number", number.to_string())];
    Entry::Event { time: Timestamp::from_unix_ms(0), event: Event { name: "test", details } }
}

fn key() -> mssm_crypto::chain::CheckpointKey {
    mssm_crypto::chain::CheckpointKey::from_seed(&crate::tests::SEED)
}

struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, clock: Arc::new(TestClock::new()) }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    fn pen(&self, rotation: Rotation, keep: Keep) -> Pen {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mut pen = Pen::new(Box::new(FileBackend::keeping(self.log(), keep)), clock, rotation);
        pen.log.set_key(Some(key()));
        pen
    }

    fn files(&self) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.folder.path()).unwrap();
        let mut files: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn whole(&self) -> crate::Verdict {
        let verdict = verify_files(&self.files(), &verifier(), None, &mut |_| ()).unwrap();
        assert_eq!(verdict.finding, None);
        verdict
    }
}

fn write(pen: &mut Pen, numbers: std::ops::Range<u32>) {
    for number in numbers {
        pen.write(&[&event(number)]).unwrap();
        pen.rotate();
    }
}

/// Closed files are compressed on a thread of its own; this waits for it to be done.
fn tidied(pen: &mut Pen) {
    while pen.backend.is_tidying() {
        std::thread::yield_now();
    }
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "zst")
}

#[test]
fn a_full_file_is_closed_compressed_and_followed_by_another() {
    let rig = Rig::new();
    let rotation = Rotation { bytes: Some(4000), every: None };
    let mut pen = rig.pen(rotation, Keep::default());
    write(&mut pen, 0..60);
    tidied(&mut pen);
    write(&mut pen, 60..61);
    tidied(&mut pen);
    let verdict = rig.whole();
    assert_eq!((verdict.first_seq, verdict.unsigned), (0, 0));
    let files = rig.files();
    assert!(files.len() > 4, "{files:?}");
    assert!(files.iter().filter(|file| is_compressed(file)).count() > 2, "{files:?}");
    // Another run goes on in the same files, and does not forget that it has closed some.
    drop(pen);
    let mut pen = rig.pen(rotation, Keep::default());
    write(&mut pen, 61..90);
    tidied(&mut pen);
    assert!(rig.whole().lines > verdict.lines);
    assert_eq!(pen.backend.kept_from(), Some(0));
    assert_eq!(pen.backend.gap(0), None);
    // A line of a closed file is found, and a file that somebody took away is missed.
    assert!(pen.backend.find(3).unwrap().is_some());
    let gone = rig.files().into_iter().find(|file| is_compressed(file)).unwrap();
    std::fs::remove_file(gone).unwrap();
    assert!(pen.backend.gap(0).is_some());
}

#[test]
fn an_old_file_is_closed_at_the_next_record() {
    let rig = Rig::new();
    let rotation = Rotation { bytes: None, every: Some(Duration::from_hours(1)) };
    let mut pen = rig.pen(rotation, Keep::default());
    write(&mut pen, 0..2);
    rig.clock.advance(Duration::from_mins(59));
    write(&mut pen, 2..3);
    assert_eq!(rig.files(), [rig.log()]);
    drop(pen);
    // The age is that of the first line, not of the run.
    let mut pen = rig.pen(rotation, Keep::default());
    rig.clock.advance(Duration::from_mins(1));
    write(&mut pen, 3..5);
    tidied(&mut pen);
    assert_eq!(rig.files().len(), 2);
    rig.whole();
}

#[test]
fn files_beyond_the_bound_are_removed_and_that_is_written_down() {
    let rig = Rig::new();
    let rotation = Rotation { bytes: Some(2000), every: None };
    let mut pen = rig.pen(rotation, Keep { files: Some(2), age: None });
    for number in 0..40 {
        write(&mut pen, number..number + 1);
        tidied(&mut pen);
    }
    let closed = rig.files().iter().filter(|file| is_compressed(file)).count();
    assert_eq!(closed, 2, "{:?}", rig.files());
    let text = std::fs::read_to_string(rig.log()).unwrap_or_default();
    let all: Vec<u8> = rig.files().iter().filter(|file| is_compressed(file)).fold(
        text.into_bytes(),
        |mut all, file| {
            all.extend(zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap());
            all
        },
    );
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("log-file-removed"));
    let verdict = verify_files(&rig.files(), &verifier(), None, &mut |_| ()).unwrap();
    assert_eq!(verdict.finding, None);
    assert!(verdict.first_seq > 0);
}

/// What stands in a closed file is for verifying; but whoever empties one cannot keep its name alone.
#[test]
fn a_closed_file_that_was_emptied_is_missed_like_one_that_is_gone() {
    let rig = Rig::new();
    let mut pen = rig.pen(Rotation { bytes: Some(2000), every: None }, Keep::default());
    write(&mut pen, 0..20);
    tidied(&mut pen);
    assert_eq!(pen.backend.gap(0), None);
    let emptied = rig.files().into_iter().find(|file| *file != rig.log()).unwrap();
    std::fs::write(&emptied, "").unwrap();
    let pipe = rig.folder.path().join("audit.log.000000000000-000000000099");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert!(pen.backend.gap(0).is_some(), "and a pipe of such a name holds nothing up");
}

/// A few kilobytes, compressed, can be a line of any length.
#[test]
fn an_endless_line_in_the_folder_is_an_error_and_no_memory() {
    let rig = Rig::new();
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    write(&mut pen, 0..1);
    drop(pen);
    let endless = || std::io::repeat(b'x').take(crate::backend::LINE_BYTES_MAX as u64 + 2);
    let closed = rig.folder.path().join("audit.log.000000000001-000000000099.zst");
    let packed = zstd::encode_all(endless(), 1).unwrap();
    assert!(packed.len() < 20_000, "{}", packed.len());
    std::fs::write(&closed, packed).unwrap();
    std::fs::rename(rig.log(), rig.folder.path().join("elsewhere")).unwrap();
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    let Blocked(reason) = pen.write(&[&event(1)]).unwrap_err();
    assert!(reason.contains("longer than those of an audit log"), "{reason}");
    let told = verify_files(&[closed], &verifier(), None, &mut |_| ()).unwrap_err();
    assert!(told.to_string().contains("line 1: a line is longer"), "{told}");
}

#[test]
fn a_crash_between_closing_a_file_and_beginning_the_next_breaks_no_chain() {
    let rig = Rig::new();
    let mut pen = rig.pen(Rotation { bytes: Some(1), every: None }, Keep::default());
    write(&mut pen, 0..1);
    tidied(&mut pen);
    assert!(!rig.log().exists());
    drop(pen);
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    write(&mut pen, 1..2);
    assert_eq!(rig.whole().first_seq, 0);
}

/// A line that stands where the log stands now.
fn next_line(log: &Path, seq: u64) -> String {
    let mut there = There::default();
    std::fs::read_to_string(log).unwrap().lines().for_each(|line| there.take(line.as_bytes()));
    let position = there.position.unwrap();
    let (seq, prev) = (position.count() + seq, position.head());
    format!(
        "{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\":\"2026-01-02T03:04:05Z\",\"type\":\"event\",\"event\":\"x\"}}\n"
    )
}

fn confessed(rig: &Rig, name: &str) -> usize {
    let verdict = verify_files(&[rig.log()], &verifier(), None, &mut |_| ()).unwrap();
    assert_eq!(verdict.finding, None);
    verdict.confessed.iter().filter(|line| line.contains(name)).count()
}

#[test]
fn what_was_added_while_no_server_ran_is_set_aside_or_named() {
    let rig = Rig::new();
    let add = |line: String| {
        let text = std::fs::read_to_string(rig.log()).unwrap() + &line;
        std::fs::write(rig.log(), text).unwrap();
    };
    let run = |numbers| {
        let mut pen = rig.pen(Rotation::default(), Keep::default());
        write(&mut pen, numbers);
    };
    run(0..2);
    run(2..3);
    assert_eq!(confessed(&rig, "log-adopted"), 0, "a run that ends signed leaves nothing");
    add(next_line(&rig.log(), 0));
    run(3..4);
    run(4..5);
    assert_eq!(confessed(&rig, "log-adopted"), 1, "once, however many runs follow");
    for (damaged, line) in
        [next_line(&rig.log(), 1), "\n".to_owned(), "{}\n".to_owned()].into_iter().enumerate()
    {
        add(line);
        run(5..6);
        assert_eq!(confessed(&rig, "log-damaged"), 1, "{damaged}");
        assert_eq!(rig.files().len(), 2 + damaged);
    }
}

#[test]
fn what_was_written_without_a_key_is_named_if_an_earlier_run_wrote_it() {
    let rig = Rig::new();
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    pen.log.set_key(None);
    write(&mut pen, 0..2);
    pen.log.set_key(Some(key()));
    write(&mut pen, 2..3);
    assert_eq!(confessed(&rig, "log-adopted"), 0, "the same run knows what it wrote");
    pen.log.set_key(None);
    write(&mut pen, 3..4);
    drop(pen);
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    pen.log.set_key(None);
    write(&mut pen, 4..5);
    assert_eq!(confessed(&rig, "log-adopted"), 0, "nothing is signed yet");
    pen.log.set_key(Some(key()));
    write(&mut pen, 5..6);
    assert_eq!(confessed(&rig, "log-adopted"), 1);
}

#[test]
fn a_file_that_was_moved_is_followed_without_a_refusal_when_that_is_told() {
    let rig = Rig::new();
    let mut pen = rig.pen(Rotation::default(), Keep::default());
    write(&mut pen, 0..1);
    pen.reopen();
    write(&mut pen, 1..2);
    assert_eq!(rig.files().len(), 1);
    std::fs::rename(rig.log(), rig.folder.path().join("audit.log.old")).unwrap();
    pen.reopen();
    write(&mut pen, 2..3);
    assert_eq!(rig.files().len(), 2);
    rig.whole();
}

#[test]
fn what_was_found_unsigned_is_not_believed_for_being_signed_then() {
    let rig = Rig::new();
    let open = || rig.pen(Rotation::default(), Keep::default());
    let mut pen = open();
    let told = StoreEpoch { key: key().public(), epoch: 5 };
    pen.write(&[&Log::store_line(pen.clock.now(), &told)]).unwrap();
    drop(pen);
    let details = format!(r#"{{"epoch":"99","key":"{}"}}"#, hex::encode(told.key));
    let text = std::fs::read_to_string(rig.log()).unwrap();
    let said = format!(r#""event":"log-store-epoch","details":{details}"#);
    let line = next_line(&rig.log(), 0).replace(r#""event":"x""#, &said);
    std::fs::write(rig.log(), text + &line).unwrap();
    // Signed, and ended before the store told its own.
    open().write(&[]).unwrap();
    let mut pen = open();
    pen.write(&[]).unwrap();
    assert_eq!(pen.log.stores.all(), [told]);
}
