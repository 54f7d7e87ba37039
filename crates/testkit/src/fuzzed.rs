//! What the fuzzers found, tried again in an ordinary test, with some changes to each.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use crate::SeededRandom;

/// Changes tried of each input.
const CHANGES: u64 = 4;

/// Has `work` try each input that `scripts/fuzz` keeps for a target, and each with changes from a seed.
///
/// Panics, with the input, where `work` panics.
pub fn fuzzed(target: &str, work: impl Fn(&[u8])) {
    let inputs = kept(target).unwrap_or_else(|error| panic!("the inputs of {target}: {error}"));
    assert!(!inputs.is_empty(), "no inputs for {target}");
    let random = SeededRandom::new(1);
    let attempt = |input: &[u8]| {
        let tried = catch_unwind(AssertUnwindSafe(|| work(input)));
        assert!(tried.is_ok(), "{target}: {:?}", String::from_utf8_lossy(input));
    };
    for input in &inputs {
        attempt(input);
        for _ in 0..CHANGES {
            attempt(&changed(input, &inputs, &random));
        }
    }
}

/// The same for one of the seven readers of records, which an input names in its first byte.
pub fn fuzzed_records(reader: u8, work: impl Fn(&[u8])) {
    fuzzed("records", |input| {
        if let Some((whose, bytes)) = input.split_first()
            && whose % 7 == reader
        {
            work(bytes);
        }
    });
}

/// The inputs in a target's archive.
fn kept(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let archive = corpus.join(format!("{target}.tar.gz"));
    let unpacked =
        Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder.path()).status()?;
    if !unpacked.success() {
        return Err(io::Error::other(format!("tar: {unpacked}")));
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.path())?.collect::<io::Result<_>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    files.iter().map(|file| std::fs::read(file.path())).collect()
}

/// An input cut, with a byte changed, or with the end of another.
fn changed(input: &[u8], others: &[Vec<u8>], random: &SeededRandom) -> Vec<u8> {
    let below = |bound: usize| {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(random.below(bound)).unwrap_or(0)
    };
    let (mut bytes, at) = (input.to_vec(), below(input.len()));
    match below(3) {
        0 => bytes.truncate(at),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << below(8);
            }
        }
        _ => {
            bytes.truncate(at);
            let other = others.get(below(others.len())).map_or(&[][..], Vec::as_slice);
            bytes.extend_from_slice(other.get(below(other.len())..).unwrap_or_default());
        }
    }
    bytes
}
