//! A log over several files: closed when full or old, compressed, kept as long as it should be.

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
        let key = mssm_crypto::chain::CheckpointKey::from_seed(&crate::tests::SEED);
        pen.log.set_key(Some(key));
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
    assert_eq!(rig.files().len(), 3, "{:?}", rig.files());
    let text = std::fs::read_to_string(rig.log()).unwrap();
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
