//! What was done to a log where it first does not hold, told from the lines around the place.

use std::io;

use mssm_crypto::chain::{Chain, CheckpointVerifier};

use super::lines::{Line, Lines, Place};
use super::{Damage, Finding, claimed, is_json};
use crate::log::Position;
use crate::prefix::Prefix;

/// Why a line was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It has no line break.
    Torn,
    /// It is no record.
    Foreign,
    /// It is the first, and does not tell where it stands.
    Front,
    /// Its number or its link is not the next.
    Link,
    /// It is of no known kind.
    Kind,
    /// It is a checkpoint that says something else than the lines before it.
    Checkpoint,
}

/// What is known at the place.
pub(super) struct Scene<'a> {
    pub(super) wrong: Wrong,
    pub(super) line: &'a Line,
    /// The line before, if there is one.
    pub(super) before: Option<&'a Line>,
    /// Where the log stood before the line before.
    pub(super) earlier: &'a Position,
    /// Where the log stands before this line.
    pub(super) position: &'a Position,
    /// The first record that no checkpoint covers.
    pub(super) since: u64,
    pub(super) key: &'a CheckpointVerifier,
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut chain = Chain::default();
    chain.append(bytes);
    chain.head
}

fn follows(line: &Prefix<'_>, seq: u64, head: &str) -> bool {
    line.seq == seq && line.prev == head
}

impl Scene<'_> {
    /// Names the first bad record and what was done to it; reads on as far as it must.
    pub(super) fn diagnose(&self, rest: &mut Lines<'_>) -> io::Result<Finding> {
        let mut next = Line::default();
        let next = rest.next(&mut next)?.then_some(next);
        let next = next.as_ref().and_then(|line| Prefix::parse(&line.bytes));
        let seq = self.position.count();
        let fits = next.is_some_and(|next| follows(&next, seq, &self.position.head()));
        // The next line names this one: whatever it is, it stood here when the next was written.
        let vouched = next.map(|next| next.prev == hex::encode(hash(&self.line.bytes)));
        Ok(match self.wrong {
            // It began as a record does, and was taken for one.
            _ if self.before.is_some_and(|line| !is_json(&line.bytes)) => self.changed_before(),
            Wrong::Torn => self.found(Damage::Cut, seq, "is cut off in its middle"),
            Wrong::Front => self.front(next, vouched),
            Wrong::Foreign if fits => self.inserted("what stands before it is no record"),
            Wrong::Foreign | Wrong::Kind => {
                let seq = match next {
                    Some(next) if self.before.is_none() => next.seq.saturating_sub(1),
                    _ => seq,
                };
                self.found(Damage::Changed, seq, "is not as a record is written: changed")
            }
            Wrong::Checkpoint => self.checkpoint(vouched),
            Wrong::Link => match Prefix::parse(&self.line.bytes) {
                Some(line) => self.link(&line, fits, vouched, rest)?,
                None => self.found(Damage::Changed, seq, "is not as a record is written: changed"),
            },
        })
    }

    fn found(&self, damage: Damage, seq: u64, what: impl Into<String>) -> Finding {
        Finding { damage, seq, place: self.line.place.clone(), what: what.into() }
    }

    fn inserted(&self, why: &str) -> Finding {
        let seq = self.position.count();
        self.found(Damage::Inserted, seq, format!("has a line before it that was inserted: {why}"))
    }

    /// The line before was changed: this one names another hash for it.
    fn changed_before(&self) -> Finding {
        let seq = self.position.count().saturating_sub(1);
        let what = "was changed: the record after it names another hash";
        let finding = self.found(Damage::Changed, seq, what);
        let place = self.before.map(|line| line.place.clone());
        Finding { place: place.unwrap_or_default(), ..finding }
    }

    fn front(&self, next: Option<Prefix<'_>>, vouched: Option<bool>) -> Finding {
        let own = Prefix::parse(&self.line.bytes).map_or(0, |line| line.seq);
        if vouched == Some(false) {
            // Its number may be what was changed, or the break behind it.
            let seq = next.map_or(own, |next| next.seq.saturating_sub(1).min(own));
            return self.found(Damage::Changed, seq, "does not begin a log: changed");
        }
        if own == 0 {
            return self.found(Damage::Changed, 0, "does not begin a log: changed");
        }
        let what = format!("is missing: {own} records before the first line were removed");
        self.found(Damage::Removed, 0, what)
    }

    fn checkpoint(&self, vouched: Option<bool>) -> Finding {
        let (seq, since) = (self.position.count(), self.since);
        if vouched == Some(false) {
            let what = "is a checkpoint that was changed";
            return self.found(Damage::Changed, seq, what);
        }
        let other = claimed(&self.line.bytes).filter(|claimed| claimed.key != self.key.public());
        if let Some(other) = other {
            let key = hex::encode(other.key);
            let what = format!(
                "is a checkpoint of another key ({key}): the key given is not this log's, or \
                 something from record {since} on was changed and its links computed anew"
            );
            return self.found(Damage::OtherKey, seq, what);
        }
        relinked(since, seq, self.line.place.clone(), vouched == Some(true))
    }

    fn link(
        &self,
        line: &Prefix<'_>,
        fits: bool,
        vouched: Option<bool>,
        rest: &mut Lines<'_>,
    ) -> io::Result<Finding> {
        let (seq, head) = (self.position.count(), self.position.head());
        let stands = line.seq;
        if fits && stands > seq {
            return Ok(self.reordered(stands));
        }
        if fits {
            return Ok(self.inserted(&format!("it has number {stands}")));
        }
        if line.prev == head {
            let what = format!("was changed: it says to be record {stands}");
            return Ok(self.found(Damage::Changed, seq, what));
        }
        if stands == seq {
            let original = vouched.unwrap_or_else(|| self.is_signed(line));
            return Ok(if original {
                self.changed_before()
            } else {
                self.found(Damage::Changed, seq, "was changed: it names another record before it")
            });
        }
        if stands < seq {
            return Ok(self.inserted(&format!("it has number {stands}")));
        }
        let mut later = Line::default();
        while rest.next(&mut later)? {
            if Prefix::parse(&later.bytes).is_some_and(|later| follows(&later, seq, &head)) {
                return Ok(self.reordered(stands));
            }
        }
        let missing = stands - seq;
        let what = format!("is missing: {missing} records were removed here");
        Ok(self.found(Damage::Removed, seq, what))
    }

    fn reordered(&self, stands: u64) -> Finding {
        let seq = self.position.count();
        let what = format!("stands further down, record {stands} in its place: reordered");
        self.found(Damage::Reordered, seq, what)
    }

    /// True if the line is a checkpoint that was signed over what it names as the line before it.
    fn is_signed(&self, line: &Prefix<'_>) -> bool {
        let mut position = self.earlier.clone();
        let mut head = [0; 32];
        if self.before.is_none() || hex::decode_to_slice(line.prev, &mut head).is_err() {
            return false;
        }
        position.append_hash(head);
        let (text, _) = position.checkpoint_text(line.time);
        claimed(&self.line.bytes)
            .is_some_and(|claimed| self.key.verify(text.as_bytes(), &claimed.signature).is_ok())
    }
}

/// A checkpoint does not hold over lines that all follow from each other.
pub(super) fn relinked(since: u64, seq: u64, place: Place, vouched: bool) -> Finding {
    let either = if vouched { "" } else { "it was changed, or " };
    let what = format!(
        "is a checkpoint that this key did not sign over these lines: {either}something from \
         record {since} on was changed and its links computed anew"
    );
    Finding { damage: Damage::Relinked { since }, seq, place, what }
}
