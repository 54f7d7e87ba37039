//! Everything that can be done to a log, and what is said of it.

use std::io::Write;

use mssm_crypto::chain::CheckpointKey;
use proptest::prelude::*;

use super::*;
use crate::tests::{sample, verdict, verifier};

fn join(lines: &[&str]) -> String {
    lines.join("\n") + "\n"
}

fn damage(text: &str) -> (Damage, u64, u64) {
    let finding = verdict(text).finding.unwrap();
    (finding.damage, finding.seq, finding.place.line)
}

#[test]
fn what_fuzzing_found_breaks_no_log() {
    let verifier = CheckpointKey::from_seed(&[7; 32]).verifier();
    mssm_testkit::fuzzed("audit", |bytes| {
        let _verdict = verify(bytes, &verifier);
    });
}

#[actix_rt::test]
async fn whatever_is_done_to_the_lines_is_found_named_and_placed() {
    let text = sample().await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(verdict(&text).finding, None);

    let mut removed = lines.clone();
    removed.drain(6..8);
    assert_eq!(damage(&join(&removed)), (Damage::Removed, 6, 7));
    assert!(verdict(&join(&removed)).finding.unwrap().what.contains("2 records"));

    for (from, to) in [(5, 6), (2, 6), (9, 6)] {
        let mut inserted = lines.clone();
        inserted.insert(to, lines[from]);
        let damage = damage(&join(&inserted));
        // A later record that was put in twice is one that stands before its turn.
        let expected = if from > to { Damage::Reordered } else { Damage::Inserted };
        assert_eq!(damage, (expected, 6, 7), "{from}");
    }
    let mut nonsense = lines.clone();
    nonsense.insert(6, "{}");
    assert_eq!(damage(&join(&nonsense)), (Damage::Inserted, 6, 7));

    let mut swapped = lines.clone();
    swapped.swap(6, 7);
    assert_eq!(damage(&join(&swapped)), (Damage::Reordered, 6, 7));
    let mut moved = lines.clone();
    let line = moved.remove(6);
    moved.insert(12, line);
    assert_eq!(damage(&join(&moved)), (Damage::Reordered, 6, 7));

    let (before, _) = text.split_once("\"number\":\"3\"").unwrap();
    let seq = before.lines().count() as u64 - 1;
    let changed = text.replacen("\"number\":\"3\"", "\"number\":\"4\"", 1);
    assert_eq!(damage(&changed), (Damage::Changed, seq, seq + 1));

    assert_eq!(damage(&text[..text.len() - 9]).0, Damage::Cut);
    assert_eq!(damage(&join(&lines[1..])), (Damage::Removed, 0, 1));

    let stranger = CheckpointKey::from_seed(&[8; 32]).verifier();
    let finding = verify(text.as_bytes(), &stranger).unwrap().finding.unwrap();
    assert_eq!(finding.damage, Damage::OtherKey);
}

#[actix_rt::test]
async fn a_tail_that_was_cut_off_at_a_checkpoint_is_seen_by_who_knows_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let text = sample().await;
    let lines: Vec<&str> = text.lines().collect();
    let head = Some(verdict(&text).head);
    let damage = |lines: &[&str], head| {
        std::fs::write(&file, join(lines)).unwrap();
        let verdict =
            verify_files(std::slice::from_ref(&file), &verifier(), head, &mut |_| ()).unwrap();
        verdict.finding.map(|finding| (finding.damage, finding.seq))
    };
    assert_eq!(damage(&lines, head), None);
    let left = lines.len() - 2;
    assert_eq!(damage(&lines[..left], None), None);
    assert_eq!(damage(&lines[..left], head), Some((Damage::Cut, left as u64)));
    let other = Some(Head { count: 3, hash: [1; 32] });
    assert_eq!(damage(&lines, other), Some((Damage::OtherLog, 2)));
}

/// Someone without the key changes a record and computes every later link anew.
#[actix_rt::test]
async fn links_computed_anew_are_found_between_their_checkpoints() {
    let text = sample().await;
    let changed = text.replacen("\"number\":\"5\"", "\"number\":\"6\"", 1);
    let (before, _) = text.split_once("\"number\":\"5\"").unwrap();
    let record = before.lines().count() as u64 - 1;
    let mut forged = String::new();
    let mut position = Position::default();
    for line in changed.lines() {
        let prefix = Prefix::parse(line.as_bytes()).unwrap();
        let claimed = claimed(line.as_bytes());
        let line = match claimed.filter(|_| prefix.kind == "checkpoint") {
            Some(claimed) => {
                let key = claimed.key;
                let line = checkpoint_line(&position, &key, prefix.time, &claimed.signature);
                String::from_utf8(line.unwrap()).unwrap()
            }
            None => line.replacen(prefix.prev, &position.head(), 1),
        };
        position.append(line.as_bytes());
        forged += &line;
        forged.push('\n');
    }
    let finding = verdict(&forged).finding.unwrap();
    assert_eq!(finding.damage, Damage::Relinked { since: record }, "{}", finding.what);
    assert_eq!(finding.seq, record + 1);
}

#[actix_rt::test]
async fn files_are_verified_as_one_in_whatever_order_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = sample().await;
    let cut = text.match_indices('\n').nth(8).unwrap().0 + 1;
    std::fs::write(path("b"), zstd::encode_all(&text.as_bytes()[..cut], 1).unwrap()).unwrap();
    std::fs::write(path("a"), &text.as_bytes()[cut..]).unwrap();
    let whole = verify_files(&[path("a"), path("b")], &verifier(), None, &mut |_| ()).unwrap();
    assert_eq!(
        (whole.finding, whole.unsigned, whole.lines),
        (None, 0, text.lines().count() as u64)
    );
    let finding =
        verify_files(&[path("a")], &verifier(), None, &mut |_| ()).unwrap().finding.unwrap();
    assert_eq!((finding.damage, finding.place.file), (Damage::Removed, path("a")));
}

#[actix_rt::test]
async fn files_that_others_rotated_and_spoiled_are_put_in_order_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = sample().await;
    let cut = |nth: usize| text.match_indices('\n').nth(nth).unwrap().0 + 1;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&text.as_bytes()[..cut(4)]).unwrap();
    std::fs::write(path("log.2.gz"), packed.finish().unwrap()).unwrap();
    std::fs::write(path("log.1"), &text.as_bytes()[cut(4)..cut(8)]).unwrap();
    std::fs::write(path("log"), &text.as_bytes()[cut(8)..]).unwrap();
    std::fs::write(path("log.0"), "").unwrap();
    // As a shell names them, which is not how they follow.
    let files = ["log", "log.0", "log.1", "log.2.gz"].map(path);
    let verify = || verify_files(&files, &verifier(), None, &mut |_| ());
    let whole = verify().unwrap();
    assert_eq!((whole.finding, whole.lines), (None, text.lines().count() as u64));
    // The first line of a file no longer says which one it is.
    let spoiled = text[cut(4)..cut(8)].replacen("seq", "sep", 1);
    std::fs::write(path("log.1"), spoiled).unwrap();
    let finding = verify().unwrap().finding.unwrap();
    let place = (finding.place.file, finding.place.line);
    assert_eq!((finding.damage, finding.seq, place), (Damage::Changed, 5, (path("log.1"), 1)));
    // A file of something else.
    std::fs::write(path("log.1"), b"\xfd7zXZ\0 as xz begins\n").unwrap();
    let refused = verify().unwrap_err().to_string();
    assert!(refused.contains("log.1: holds no record"), "{refused}");
}

#[actix_rt::test]
async fn a_record_is_proved_without_the_log_and_a_checkpoint_as_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let text = sample().await;
    std::fs::write(&file, &text).unwrap();
    let files = [file];
    let mut wanted = |line: &[u8]| Prefix::parse(line).is_some_and(|line| line.kind == "event");
    let proofs = crate::prove_records(&files, &mut wanted).unwrap();
    assert_eq!(proofs.len(), text.lines().filter(|line| line.contains("\"event\":")).count());
    let stranger = CheckpointKey::from_seed(&[8; 32]).verifier();
    for proof in &proofs {
        let written = proof.to_json().unwrap();
        let read = crate::Proof::parse(&written).unwrap();
        assert!(read.check(&verifier()).is_ok());
        assert_eq!(read.check(&stranger), Err(crate::ProofError::Signature));
        let other = written.replacen("number\\\":\\\"", "number\\\":\\\"1", 1);
        if other != written {
            let forged = crate::Proof::parse(&other).unwrap();
            assert_eq!(forged.check(&verifier()), Err(crate::ProofError::Path));
        }
    }
    let numbered = text
        .lines()
        .filter(|line| line.contains("\"checkpoint\""))
        .map(|line| Prefix::parse(line.as_bytes()).unwrap().seq);
    let seqs: Vec<u64> = numbered.collect();
    for (index, first) in seqs.iter().enumerate() {
        for second in &seqs[index..] {
            let proof = crate::prove_beginning(&files, *first, *second).unwrap().unwrap();
            assert!(proof.check(&verifier()).is_ok(), "{first} {second}");
        }
    }
    assert_eq!(crate::prove_beginning(&files, 1, 4).unwrap(), None);
}

proptest! {
    /// Any change of any byte of what a checkpoint covers is found, and its record named.
    #[test]
    fn every_changed_byte_is_found_and_its_record_named(
        at in any::<prop::sample::Index>(), by in 1_u8..,
    ) {
        let text = actix_rt::System::new().block_on(sample());
        let mut bytes = text.into_bytes();
        let index = at.index(bytes.len());
        let record = bytes[..index].split(|byte| *byte == b'\n').count() as u64 - 1;
        bytes[index] ^= by;
        let finding = verify(bytes.as_slice(), &verifier()).unwrap().finding;
        let finding = finding.expect("found");
        prop_assert_eq!(finding.seq, record, "byte {} is {}: {}", index, bytes[index], finding.what);
    }

    /// So is any byte that was put in or taken out.
    #[test]
    fn every_inserted_or_removed_byte_is_found_and_its_record_named(
        at in any::<prop::sample::Index>(), inserted in prop::option::of(any::<u8>()),
    ) {
        let text = actix_rt::System::new().block_on(sample());
        let mut bytes = text.into_bytes();
        let index = at.index(bytes.len());
        let record = bytes[..index].split(|byte| *byte == b'\n').count() as u64 - 1;
        match inserted {
            Some(byte) => bytes.insert(index, byte),
            None => drop(bytes.remove(index)),
        }
        let finding = verify(bytes.as_slice(), &verifier()).unwrap().finding;
        let finding = finding.expect("found");
        prop_assert_eq!(finding.seq, record, "byte {}: {}", index, finding.what);
    }

    /// Whatever is given as a log, the verdict is an answer.
    #[test]
    fn hostile_logs_are_refused(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        prop_assert!(verify(bytes.as_slice(), &verifier()).unwrap().finding.is_some());
    }

    /// And so it is for what is nearly one.
    #[test]
    fn shuffled_logs_are_refused(
        lines in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let text = actix_rt::System::new().block_on(sample());
        let all: Vec<&str> = text.lines().collect();
        let some: Vec<&str> = lines.iter().map(|index| *index.get(&all)).collect();
        let found = verify(join(&some).as_bytes(), &verifier()).unwrap().finding;
        prop_assert_eq!(found.is_none(), all.starts_with(&some));
    }
}
