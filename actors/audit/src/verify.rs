//! Checks a log with the public key alone: every link, every signature, and what follows the last.

mod diagnosis;
mod lines;
mod signatures;

use std::io::{self, BufRead};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mssm_crypto::chain::CheckpointVerifier;
use mssm_messages::audit::Head;

use self::diagnosis::{Scene, Wrong, relinked};
pub use self::lines::Place;
pub(crate) use self::lines::{Line, Lines, in_order, open};
use self::signatures::{Checkers, Claim};
use crate::log::{Checkpoint, Position, checkpoint_line, told_device};
use crate::prefix::Prefix;

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A record was changed.
    Changed,
    /// A line was put before the record.
    Inserted,
    /// The record was taken out.
    Removed,
    /// The record stands elsewhere.
    Reordered,
    /// The log was cut off amid the record.
    Cut,
    /// Something between two checkpoints was changed and the links after it computed anew.
    Relinked {
        /// The first record that it may be.
        since: u64,
    },
    /// The checkpoint names another key.
    OtherKey,
    /// It is not the log whose head was given.
    OtherLog,
}

/// What was found to be wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was done.
    pub damage: Damage,
    /// The number of the record that is wrong or missing.
    pub seq: u64,
    /// Where it stands, or the line in its place.
    pub place: Place,
    /// What is wrong with it, for the auditor.
    pub what: String,
}

/// What a log proved to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Which device's log it is, as its first lines say.
    pub device: Option<String>,
    /// How many lines were read.
    pub lines: u64,
    /// The number of the first record; not 0 if earlier ones are in files that were not given.
    pub first_seq: u64,
    /// How many checkpoints carry a good signature.
    pub checkpoints: u64,
    /// How many records follow the last good checkpoint; a cut there cannot be seen from the file.
    pub unsigned: u64,
    /// How far the log goes.
    pub head: Head,
    /// What the server itself wrote down of damage to log or store: the first such lines.
    pub confessed: Vec<String>,
    /// The first thing that is wrong; `None` if nothing is.
    pub finding: Option<Finding>,
}

/// The events by which a server says that something is not as it was.
const CONFESSIONS: [&str; 8] = [
    "lease-events-lost",
    "log-adopted",
    "log-damaged",
    "log-missing",
    "records-missed",
    "store-rolled-back",
    "store-tampered",
    "store-tampering-accepted",
];
/// So many of them are kept.
const CONFESSIONS_MAX: usize = 100;

/// Checks the files of a log as one, whatever their order; they must hold the lines up to `head`,
/// if one is given. `progress` is told the lines read so far, now and then.
pub fn verify_files(
    files: &[PathBuf],
    key: &CheckpointVerifier,
    head: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Verdict> {
    check_all(Lines::of_files(in_order(files)?), key, head, progress)
}

/// Checks one log.
pub fn verify(log: impl BufRead, key: &CheckpointVerifier) -> io::Result<Verdict> {
    check_all(Lines::of_log(log), key, None, &mut |_| ())
}

/// Hands every whole line of a log's files to `each`, oldest first, until it says no.
pub fn read_lines(files: &[PathBuf], each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut lines = Lines::of_files(in_order(files)?);
    let mut line = Line::default();
    while lines.next(&mut line)? && (!line.whole || each(&line.bytes)) {}
    Ok(())
}

/// So many lines are read between two words of progress.
const PROGRESS_LINES: u64 = 50_000;

fn check_all(
    mut lines: Lines<'_>,
    key: &CheckpointVerifier,
    head: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Verdict> {
    std::thread::scope(|scope| {
        let mut checkers = Checkers::start(scope, key);
        let mut state = State { awaited: head, ..State::default() };
        let read = state.read(&mut lines, key, &mut checkers, progress);
        if let Some(claim) = state.pending.take() {
            checkers.check(claim);
        }
        // Workers end before an error is told.
        let refused = checkers.finish();
        read?;
        Ok(state.end(refused))
    })
}

#[derive(Default)]
struct State {
    verdict: Verdict,
    position: Position,
    /// Where the log stood before the last line, and where that line is.
    earlier: Position,
    before: Option<Line>,
    /// The number of the last record that a checkpoint covers, and one more.
    signed: u64,
    /// The last checkpoint, until the next line says whether it was that one.
    pending: Option<Claim>,
    /// A head that the log must come by.
    awaited: Option<Head>,
}

impl State {
    /// Reads lines until the end or the first thing wrong.
    fn read(
        &mut self,
        lines: &mut Lines<'_>,
        key: &CheckpointVerifier,
        checkers: &mut Checkers<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let mut line = Line::default();
        while lines.next(&mut line)? {
            self.verdict.lines += 1;
            if self.verdict.lines.is_multiple_of(PROGRESS_LINES) {
                progress(self.verdict.lines);
            }
            let checked = self.check(&line, key);
            if let Err(wrong) = checked {
                let scene = Scene {
                    wrong,
                    line: &line,
                    before: self.before.as_ref(),
                    earlier: &self.earlier,
                    position: &self.position,
                    since: self.signed,
                    key,
                };
                self.verdict.finding = Some(scene.diagnose(lines)?);
                return Ok(());
            }
            self.take(&line, key, checkers);
            // What was the line before is read over.
            line = self.before.replace(line).unwrap_or_default();
        }
        // What followed would have shown that a line is not what its beginning says.
        if let Some(last) = self.before.as_ref().filter(|last| !is_json(&last.bytes)) {
            let seq = self.position.count().saturating_sub(1);
            let what = "is not as a record is written: changed".to_owned();
            let place = last.place.clone();
            self.verdict.finding = Some(Finding { damage: Damage::Changed, seq, place, what });
        }
        Ok(())
    }

    fn check(&mut self, line: &Line, key: &CheckpointVerifier) -> Result<(), Wrong> {
        if !line.whole {
            return Err(Wrong::Torn);
        }
        let prefix = Prefix::parse(&line.bytes).ok_or(Wrong::Foreign)?;
        if self.before.is_none() {
            self.position = Position::before(&line.bytes).ok_or(Wrong::Front)?;
            (self.verdict.first_seq, self.signed) = (prefix.seq, prefix.seq);
        }
        if prefix.seq != self.position.count() || prefix.prev != self.position.head() {
            return Err(Wrong::Link);
        }
        match prefix.kind {
            "request" | "response" | "event" => Ok(()),
            "checkpoint" => {
                let claimed = claimed(&line.bytes).ok_or(Wrong::Checkpoint)?;
                let (key, signature) = (key.public(), &claimed.signature);
                let written = checkpoint_line(&self.position, &key, prefix.time, signature);
                // Every byte of it follows from the lines before it, but the signature.
                let same = written.is_ok_and(|written| written == line.bytes);
                if same { Ok(()) } else { Err(Wrong::Checkpoint) }
            }
            _ => Err(Wrong::Kind),
        }
    }

    /// The line is the next; whether a signature holds is seen by and by.
    fn take(&mut self, line: &Line, key: &CheckpointVerifier, checkers: &mut Checkers<'_>) {
        if let Some(claim) = self.pending.take() {
            checkers.check(Claim { linked: true, ..claim });
        }
        let prefix = Prefix::parse(&line.bytes);
        if prefix.is_some_and(|prefix| confesses(&prefix))
            && self.verdict.confessed.len() < CONFESSIONS_MAX
        {
            self.verdict.confessed.push(String::from_utf8_lossy(&line.bytes).into_owned());
        }
        if self.verdict.device.is_none() && prefix.is_some_and(|prefix| begins(&prefix)) {
            self.verdict.device = told_device(&line.bytes);
        }
        let prefix = prefix.filter(|prefix| prefix.kind == "checkpoint");
        if let (Some(prefix), Some(claimed)) = (prefix, claimed(&line.bytes))
            && claimed.key == key.public()
        {
            self.pending = Some(Claim {
                seq: prefix.seq,
                place: line.place.clone(),
                since: self.signed,
                text: self.position.checkpoint_text(prefix.time).0,
                signature: claimed.signature,
                linked: false,
            });
            self.verdict.checkpoints += 1;
            self.signed = prefix.seq + 1;
        }
        self.earlier.clone_from(&self.position);
        self.position.append(&line.bytes);
        self.awaited = self.awaited.filter(|head| *head != self.position.at());
    }

    fn end(self, refused: Option<Claim>) -> Verdict {
        let unsigned = self.position.count().saturating_sub(self.signed);
        let mut verdict = Verdict { unsigned, head: self.position.at(), ..self.verdict };
        let earlier = refused
            .filter(|claim| verdict.finding.as_ref().is_none_or(|finding| claim.seq < finding.seq));
        if let Some(claim) = earlier {
            let Claim { seq, place, since, linked, .. } = claim;
            verdict.finding = Some(relinked(since, seq, place, linked));
        }
        if let (None, Some(head)) = (&verdict.finding, self.awaited) {
            verdict.finding = Some(Self::short_of(
                head,
                self.position.count(),
                self.before.map(|line| line.place),
            ));
        }
        verdict
    }

    /// The log never came by the head that it should hold.
    fn short_of(head: Head, count: u64, place: Option<Place>) -> Finding {
        let last = head.count.saturating_sub(1);
        let (damage, seq, what) = if count < head.count {
            let what = format!("and those up to {last} are missing: the log's end was cut off");
            (Damage::Cut, count, what)
        } else {
            (Damage::OtherLog, last, "is not the one whose hash was given".to_owned())
        };
        Finding { damage, seq, place: place.unwrap_or_default(), what }
    }
}

/// A look that costs little: the event's name is the first that follows the kind.
fn confesses(prefix: &Prefix<'_>) -> bool {
    let name = prefix.rest.strip_prefix(b",\"event\":\"").filter(|_| prefix.kind == "event");
    name.is_some_and(|name| {
        CONFESSIONS.iter().any(|known| {
            name.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
        })
    })
}

/// True for the lines that say whose log it is.
fn begins(prefix: &Prefix<'_>) -> bool {
    let names: [&[u8]; 3] = [b"log-started", b"log-continued", b"log-key"];
    let name = prefix.rest.strip_prefix(b",\"event\":\"").filter(|_| prefix.kind == "event");
    name.is_some_and(|name| names.iter().any(|known| name.starts_with(known)))
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// What a checkpoint's line claims.
pub(crate) struct Claimed {
    pub(crate) root: [u8; 32],
    pub(crate) key: [u8; 32],
    pub(crate) signature: Vec<u8>,
}

/// Reads a checkpoint's line; nothing of it is believed yet.
pub(crate) fn claimed(line: &[u8]) -> Option<Claimed> {
    let said: Checkpoint = serde_json::from_slice(line).ok()?;
    let (mut root, mut key) = ([0; 32], [0; 32]);
    hex::decode_to_slice(said.root, &mut root).ok()?;
    hex::decode_to_slice(said.key, &mut key).ok()?;
    Some(Claimed { root, key, signature: STANDARD.decode(said.signature).ok()? })
}

#[cfg(test)]
mod tests;
