//! Writes batches: opens the log, goes on where it ended, closes a file that is full or old.

use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{Clock, Timestamp};
use mssm_messages::audit::{Entry, Event, StoreEpoch};

use crate::backend::{AuditBackend, Blocked};
use crate::log::{
    ADOPTED, Batch, Checkpoint, Log, MISSING, POSITION_EVERY, Position, Stores, adopts, told_store,
};
use crate::prefix::Prefix;

/// So much of a log's end is read when it is opened: twice what lies between lines that tell its
/// position.
const TAIL_BYTES: u64 = 2 * POSITION_EVERY;

/// When a file is closed and the log goes on in a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Beyond so many bytes; `None` is never.
    pub bytes: Option<u64>,
    /// So long after its first line; `None` is never.
    pub every: Option<Duration>,
}

/// The file that is written to.
#[derive(Clone, Copy, Debug)]
struct Current {
    first: u64,
    bytes: u64,
    since: Timestamp,
}

/// Holds the backend and what is known of the log in it.
pub(crate) struct Pen {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) backend: Box<dyn AuditBackend>,
    pub(crate) log: Log,
    rotation: Rotation,
    current: Option<Current>,
    /// How many records there were when the log was taken up.
    pub(crate) taken_up: Option<u64>,
    /// The first record of the file that was not in its place any more when it was written to, and
    /// whether that was whole, in another place.
    left: Option<(u64, bool)>,
    /// Records whose file is gone, until that is written down; and from where on some are, until that is compared.
    lost: Option<(u64, u64)>,
    lost_from: Option<u64>,
    /// True if all that was lost since was only moved: whoever does that tells us, perhaps a moment later.
    moved: bool,
    /// What is before this was in a file that was set aside, as that was found when the log was taken up.
    aside: u64,
    /// Records of an earlier run that no checkpoint covered when the log was taken up.
    adopted: Option<(u64, u64)>,
}

impl Pen {
    pub(crate) fn new(
        backend: Box<dyn AuditBackend>,
        clock: Arc<dyn Clock>,
        rotation: Rotation,
    ) -> Self {
        let log = Log::default();
        let (current, taken_up, adopted) = (None, None, None);
        let (left, lost, lost_from, moved, aside) = (None, None, None, true, 0);
        Self {
            clock,
            backend,
            log,
            rotation,
            current,
            taken_up,
            left,
            lost,
            lost_from,
            moved,
            aside,
            adopted,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// The next batch opens the log anew if its file is not the one that is open any more.
    pub(crate) fn reopen(&mut self) {
        if self.moved {
            self.lost_from = None;
        }
        self.left = self.left.filter(|(_, whole)| !whole);
        if let Some(current) = self.current
            && self.backend.inspect().is_err()
        {
            self.left = Some((current.first, false)).filter(|_| !self.backend.is_whole());
            self.current = None;
        }
    }

    /// The first record that is to be there; `None` if it is not known.
    pub(crate) fn kept_from(&self) -> Option<u64> {
        let first = self.backend.kept_from().or(self.current.map(|current| current.first));
        self.lost_from.into_iter().chain(first).min()
    }

    /// What was lost since the log was compared with what the store knows, if anything.
    pub(crate) fn missing(&self) -> Option<String> {
        let first = self.lost_from?;
        Some(format!(
            "records from {first} on: their file was moved, removed or cut while it was open"
        ))
    }

    /// Records from this one on that no file holds.
    pub(crate) fn gap(&mut self, from: u64) -> Option<(u64, u64)> {
        (self.lost_from, self.moved) = (None, true);
        self.backend.gap(from.max(self.aside))
    }

    /// The file that was left is not what is written on: its records are gone from here.
    fn lose(&mut self) {
        let Some((first, whole)) = self.left.take() else { return };
        self.moved &= whole;
        let last = self.log.position.count().saturating_sub(1);
        tracing::error!(first, last, "the audit file with these records is gone");
        self.lost = Some((self.lost.map_or(first, |(known, _)| known.min(first)), last));
        self.lost_from = self.lost_from.into_iter().chain([first]).min();
    }

    /// Writes entries and their checkpoint; returns how many lines it took.
    pub(crate) fn write(&mut self, entries: &[&Entry]) -> Result<u64, Blocked> {
        let now = self.clock.now();
        let (mut current, mut opening) = match self.current {
            Some(current) => (current, Vec::new()),
            None => self.open(now)?,
        };
        if let Err(blocked) = self.backend.inspect() {
            // This batch is refused; the next one opens anew, and goes on if that is safe.
            self.left = self.left.or_else(|| Some((current.first, self.backend.is_whole())));
            self.current = None;
            self.backend.close();
            return Err(blocked);
        }
        opening.extend(self.backend.removed().into_iter().map(|records| {
            let details = vec![("records", records)];
            Entry::Event { time: now, event: Event { name: "log-file-removed", details } }
        }));
        opening.extend(self.lost.map(|(first, last)| {
            let what = format!(
                "records {first} to {last}: their file was moved, removed or cut while it was open"
            );
            Entry::Event {
                time: now,
                event: Event { name: MISSING, details: vec![("missing", what)] },
            }
        }));
        // The first signature covers them too: whoever believes it must know that it came later.
        let signs = self.log.public_key().is_some();
        opening.extend(self.adopted.filter(|_| signs).map(|(first, last)| {
            let details = vec![("records", format!("{first}-{last}"))];
            Entry::Event { time: now, event: Event { name: ADOPTED, details } }
        }));
        let batch = self.render(now, opening.iter().chain(entries.iter().copied()))?;
        if batch.lines == 0 {
            return Ok(0);
        }
        self.backend.append(&batch.bytes)?;
        self.adopted = self.adopted.filter(|_| !signs);
        self.lost = None;
        current.bytes += batch.bytes.len() as u64;
        self.current = Some(current);
        let lines = batch.lines;
        self.log.accept(batch);
        Ok(lines)
    }

    /// Closes the file if it is full or old. It ends with a checkpoint, as every batch does.
    pub(crate) fn rotate(&mut self) {
        let Some(current) = self.current else { return };
        let now = self.clock.now();
        let full = self.rotation.bytes.is_some_and(|bound| current.bytes >= bound);
        let old = self.rotation.every.is_some_and(|bound| current.since.until(now) >= bound);
        let last = self.log.position.count().checked_sub(1);
        if let Some(last) = last.filter(|_| full || old) {
            match self.backend.retire(current.first, last, now) {
                Ok(()) => self.current = None,
                // It goes on in the same file; the next batch tries again.
                Err(Blocked(error)) => tracing::warn!(error, "the audit log was not rotated"),
            }
        }
    }

    fn render<'a>(
        &mut self,
        now: Timestamp,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Batch, Blocked> {
        let batch = self.log.batch(now, entries);
        batch.map_err(|error| Blocked(format!("an entry cannot be written: {error}")))
    }

    /// Opens the log and says what must be written first.
    ///
    /// A log that was in use goes on only in the lines it knows, or in an empty file.
    fn open(&mut self, now: Timestamp) -> Result<(Current, Vec<Entry>), Blocked> {
        let mut there = There::default();
        let mut found = self.backend.open(TAIL_BYTES, &mut |line| there.take(line))?;
        if there.lines > 0 && there.position.is_none() {
            // Lines so long that none in the tail tells the position.
            there = There::default();
            let torn = found.torn.take();
            found = self.backend.open(u64::MAX, &mut |line| there.take(line))?;
            found.torn = torn.or(found.torn);
        }
        if there.stores.all().is_empty() && self.log.stores.all().is_empty() {
            // Nothing that is signed: the file before it may say more.
            let mut before = There::default();
            self.backend.read_newest_closed(&mut |line| before.take(line))?;
            there.stores = before.stores;
        }
        there.stores.all().iter().for_each(|told| self.log.stores.note(*told));
        let fresh = found.first.is_none();
        let begins = self.log.position.count() == 0;
        if let Some(position) = there.position.as_ref().filter(|_| begins) {
            self.log.resume(position.clone(), there.untold);
            let last = position.count().saturating_sub(1);
            self.adopted = there.unsigned.map(|first| (first, last));
        }
        self.taken_up.get_or_insert(self.log.position.count());
        match there.position {
            None if there.lines == 0 => {}
            Some(position) if !there.broken && self.log.position == position => {}
            // An empty file beside closed ones, whose end may be behind what is known.
            _ if fresh && self.log.position.count() > 0 => {}
            None if begins => {
                let place = self.backend.place();
                return Err(Blocked(format!("{place} is not an audit log: move it away")));
            }
            // It was cut, or written to by somebody else, if only while no server ran: it is kept as it is.
            _ => {
                let aside = self.backend.put_away(self.log.position.count())?;
                self.lose();
                if begins {
                    self.aside = self.log.position.count();
                }
                tracing::error!(aside, "the audit file did not hold what was written to it");
                let (current, mut first) = self.open(now)?;
                let details = vec![("moved_to", aside)];
                let event = Event { name: "log-damaged", details };
                first.push(Entry::Event { time: now, event });
                return Ok((current, first));
            }
        }
        let mut first = Vec::new();
        if fresh {
            self.lose();
            first.push(self.log.first_line(now));
        }
        self.left = None;
        if let Some(aside) = found.torn {
            tracing::warn!(aside, "the audit log ended in a torn line, which was set aside");
            let details = vec![("moved_to", aside)];
            first.push(Entry::Event { time: now, event: Event { name: "torn-line", details } });
        }
        let begins = found.first.as_deref().and_then(Prefix::parse);
        let since = begins.and_then(|line| Timestamp::parse(line.time).ok()).unwrap_or(now);
        let first_seq = begins.map_or(self.log.position.count(), |line| line.seq);
        Ok((Current { first: first_seq, bytes: found.length, since }, first))
    }
}

/// Where the lines of a log lead, from the last one that tells a position.
#[derive(Default)]
struct There {
    position: Option<Position>,
    /// What signed lines say of stores, and the newest that no signature covers yet.
    stores: Stores,
    said: Option<StoreEpoch>,
    untold: u64,
    lines: u64,
    /// The first record behind the last checkpoint.
    unsigned: Option<u64>,
    /// True behind the first line that does not follow from the one before it.
    broken: bool,
}

impl There {
    fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        let prefix = Prefix::parse(line);
        let follows = |position: &Position| {
            prefix.is_some_and(|line| line.seq == position.count() && line.prev == position.head())
        };
        self.broken |= !self.position.as_ref().is_none_or(follows);
        if self.broken {
            return;
        }
        match prefix {
            Some(of) if of.kind == "checkpoint" => {
                self.unsigned = None;
                self.sign(line, of.time);
            }
            Some(line) => self.unsigned = self.unsigned.or(Some(line.seq)),
            None => {}
        }
        if tells_of_the_log(line) {
            if let Some(before) = Position::before(line) {
                self.broken = self.position.as_ref().is_some_and(|known| *known != before);
                if self.broken {
                    return;
                }
                self.position = Some(before);
                self.untold = 0;
            }
            self.said = told_store(line).or(self.said);
            if adopts(line) {
                // Whoever may write the file could have said that: signed it was only by being found there.
                self.said = None;
            }
        }
        self.untold += line.len() as u64 + 1;
        if let Some(position) = &mut self.position {
            position.append(line);
        }
    }
}

impl There {
    /// What was said last is believed if this checkpoint is by the store that it is of.
    fn sign(&mut self, line: &[u8], time: &str) {
        if let (Some(said), Some(position)) = (self.said, &self.position)
            && Checkpoint::parse(line).is_some_and(|signed| signed.is_of(&said.key, position, time))
        {
            self.stores.note(said);
            self.said = None;
        }
    }
}

/// A cheap look before a line is parsed: only events of the log itself can tell its position.
fn tells_of_the_log(line: &[u8]) -> bool {
    const SIGN: &[u8] = b"\"event\":\"log-";
    line.get(..256).unwrap_or(line).windows(SIGN.len()).any(|window| window == SIGN)
}

#[cfg(test)]
mod tests;
