//! Checks a log with the public key alone: every link, every signature, and what follows the last.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mssm_crypto::chain::CheckpointVerifier;
use serde::Deserialize;

use crate::log::{CONTINUED, Checkpoint, Position, STARTED, checkpoint_line};

/// What was found to be wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The number of the record that is wrong or missing.
    pub seq: u64,
    /// The line's place among all lines given, from 1.
    pub line: u64,
    /// What is wrong with it, for the auditor.
    pub what: String,
}

/// What a log proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many lines were read.
    pub lines: u64,
    /// The number of the first record; not 0 if earlier ones are in files that were not given.
    pub first_seq: u64,
    /// How many checkpoints carry a good signature.
    pub checkpoints: u64,
    /// How many records follow the last good checkpoint; a cut there cannot be seen from the file.
    pub unsigned: u64,
    /// The first thing that is wrong; `None` if nothing is.
    pub finding: Option<Finding>,
}

#[derive(Deserialize)]
struct Head {
    seq: u64,
    prev: String,
    time: String,
    #[serde(rename = "type")]
    kind: String,
    event: Option<String>,
}

/// Checks the files of a log, oldest first, as one; `progress` is told the lines read so far, now
/// and then.
pub fn verify_files(
    files: &[&Path],
    key: &CheckpointVerifier,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Verdict> {
    let mut state = State::default();
    for file in files {
        let reader = BufReader::with_capacity(1 << 20, File::open(file)?);
        if !state.read(reader, key, progress)? {
            break;
        }
    }
    Ok(state.end())
}

/// Checks one log.
pub fn verify(log: impl BufRead, key: &CheckpointVerifier) -> io::Result<Verdict> {
    let mut state = State::default();
    state.read(log, key, &mut |_| ())?;
    Ok(state.end())
}

/// So many lines are read between two words of progress.
const PROGRESS_LINES: u64 = 50_000;

#[derive(Default)]
struct State {
    verdict: Verdict,
    position: Position,
    /// The number of the last record that a good checkpoint covers, and one more.
    signed: u64,
}

impl State {
    /// Reads lines until the end or the first thing wrong; true if nothing was.
    fn read(
        &mut self,
        mut log: impl BufRead,
        key: &CheckpointVerifier,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<bool> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if log.read_until(b'\n', &mut line)? == 0 {
                return Ok(true);
            }
            self.verdict.lines += 1;
            if self.verdict.lines.is_multiple_of(PROGRESS_LINES) {
                progress(self.verdict.lines);
            }
            let checked = match line.strip_suffix(b"\n") {
                Some(whole) => self.check(whole, key),
                None => Err("is cut off in its middle (a crash, or a cut)".to_owned()),
            };
            if let Err(what) = checked {
                let seq = self.position.count();
                self.verdict.finding = Some(Finding { seq, line: self.verdict.lines, what });
                return Ok(false);
            }
        }
    }

    fn check(&mut self, line: &[u8], key: &CheckpointVerifier) -> Result<(), String> {
        let head: Head = serde_json::from_slice(line)
            .map_err(|_| "is not a line of an audit log: changed".to_owned())?;
        if self.verdict.lines == 1 {
            self.begin(&head, line)?;
        }
        let expected = self.position.count();
        if head.seq > expected {
            let missing = head.seq - expected;
            return Err(format!("is missing: {missing} records were removed here"));
        }
        if head.seq < expected {
            let seq = head.seq;
            return Err(format!("stands in place of it with number {seq}: inserted or reordered"));
        }
        if head.prev != self.position.head() {
            return Err(match expected.checked_sub(1) {
                Some(before) => format!(
                    "does not follow from record {before}: one of the two was changed, \
                     or a record between them was removed and the rest numbered anew"
                ),
                None => "does not begin the chain: changed".to_owned(),
            });
        }
        match head.kind.as_str() {
            "request" | "response" | "event" => {}
            "checkpoint" => self.check_signature(line, &head.time, key)?,
            _ => return Err("is of no known kind: changed".to_owned()),
        }
        self.position.append(line);
        Ok(())
    }

    /// The first line tells whether earlier records are elsewhere.
    fn begin(&mut self, head: &Head, line: &[u8]) -> Result<(), String> {
        self.verdict.first_seq = head.seq;
        let begins = matches!(head.event.as_deref(), Some(STARTED | CONTINUED));
        match Position::before(line).filter(|_| begins) {
            Some(position) => self.position = position,
            None if head.seq == 0 => return Err("does not begin a log: changed".to_owned()),
            None => return Err(format!("is missing: {} records before the first line", head.seq)),
        }
        self.signed = head.seq;
        Ok(())
    }

    fn check_signature(
        &mut self,
        line: &[u8],
        time: &str,
        key: &CheckpointVerifier,
    ) -> Result<(), String> {
        let (text, _) = self.position.checkpoint_text(time);
        let checkpoint: Option<Checkpoint> = serde_json::from_slice(line).ok();
        let signature =
            checkpoint.and_then(|checkpoint| STANDARD.decode(checkpoint.signature).ok());
        let good = signature.is_some_and(|signature| {
            let written = checkpoint_line(&self.position, &key.public(), time, &signature);
            key.verify(text.as_bytes(), &signature).is_ok()
                && written.is_ok_and(|written| written == line)
        });
        if !good {
            let first = self.signed;
            return Err(format!(
                "is a checkpoint that this key did not sign over these lines: something from \
                 record {first} on was changed and its links computed anew, or the key is another"
            ));
        }
        self.verdict.checkpoints += 1;
        self.signed = self.position.count() + 1;
        Ok(())
    }

    fn end(self) -> Verdict {
        let unsigned = self.position.count().saturating_sub(self.signed);
        Verdict { unsigned, ..self.verdict }
    }
}
