//! What the audit is told of the lease manager's own doings; ending access never waits for it.
//!
//! A line is stored in the batch that changes its lease, so that neither a kill nor a blocked log
//! loses it; it is sent from memory, in order, and its record goes with a later batch. A kill
//! between the two sends a line again, marked late: a line twice is better than none.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{StoredKey, Timestamp};
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::keys::KeyError;
use mssm_messages::{Barrier, BarrierError, Changes, Port};
use tracing::warn;

use crate::letter::{decode, encode, letter_folder, letter_path};

/// How many lines are kept in memory while the log takes none, some MiB; all others are read again.
const KEPT_MAX: usize = if cfg!(test) { 100 } else { 10_000 };
/// How many lines go in one message, about.
const BATCH: usize = 256;
/// How many records of sent letters go with one batch.
const FORGET_MAX: usize = 64;
/// After so many quiet looks their records go by themselves: a second.
const QUIET_LOOKS: u32 = 4;
/// Records read at a time.
const PAGE: usize = 500;
/// How often, and how far apart, it is looked whether the last lines are written: half a second.
const FLUSH_LOOKS: u32 = 50;
/// See [`FLUSH_LOOKS`].
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// Bits of a number below its opening's time: a million letters a millisecond.
const COUNTER_BITS: u32 = 20;

/// Lines on their way to the audit, in order.
pub(crate) struct Outbox {
    audit: Port<Append>,
    barrier: Barrier,
    /// By number; `None` is read from the store when its turn comes.
    waiting: RefCell<BTreeMap<u64, Option<Vec<Entry>>>>,
    kept: Cell<usize>,
    /// In the log already; their records go with the next batch.
    sent: RefCell<Vec<u64>>,
    next: Cell<u64>,
    /// What has a number below this is late.
    late_below: Cell<u64>,
    lost: Cell<u64>,
    quiet: Cell<u32>,
    sending: Cell<bool>,
}

impl Outbox {
    /// Nothing waits yet.
    pub(crate) fn new(audit: Port<Append>, barrier: Barrier) -> Self {
        Self {
            audit,
            barrier,
            waiting: RefCell::default(),
            kept: Cell::new(0),
            sent: RefCell::default(),
            next: Cell::new(0),
            late_below: Cell::new(0),
            lost: Cell::new(0),
            quiet: Cell::new(0),
            sending: Cell::new(false),
        }
    }

    /// From now on letters are numbered behind all that an earlier opening may have left.
    pub(crate) fn open(&self, now: Timestamp) {
        self.next.set(self.next.get().max(now.unix_ms() << COUNTER_BITS));
        self.late_below.set(self.next.get());
    }

    /// Finds what an earlier opening left in the store.
    pub(crate) async fn restore(&self) -> Result<(), BarrierError> {
        let own = self.late_below.get();
        let mut after: Option<StoredKey> = None;
        loop {
            let page = self.barrier.scan(&letter_folder(), after.as_ref(), PAGE).await?;
            for (_, plain) in &page {
                match plain.as_ref().map(|plain| decode(&plain.bytes)) {
                    Ok(Ok((number, _)))
                        if number < own && !self.sent.borrow().contains(&number) =>
                    {
                        self.waiting.borrow_mut().entry(number).or_insert(None);
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => {
                        warn!("a line for the audit cannot be read; it is left alone");
                    }
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Makes changes durable together with the lines that tell of them.
    pub(crate) async fn commit(
        self: &Rc<Self>,
        changes: Changes,
        entries: Vec<Entry>,
    ) -> Result<(), BarrierError> {
        let mut letter = Letter::new(self, entries);
        let changes = letter.enclose(changes)?;
        self.barrier.commit(changes).await?;
        letter.stored = true;
        Ok(())
    }

    /// Takes lines whose change could not be stored: they are lost with the process, or if too many
    /// wait, which is counted in a line of its own.
    pub(crate) fn note(&self, entries: Vec<Entry>) {
        if self.kept.get() >= KEPT_MAX {
            self.lost.set(self.lost.get() + entries.len() as u64);
            return;
        }
        self.wait(self.number(), Some(entries));
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    fn wait(&self, number: u64, entries: Option<Vec<Entry>>) {
        self.kept.set(self.kept.get() + entries.as_ref().map_or(0, Vec::len));
        self.waiting.borrow_mut().insert(number, entries);
    }

    /// Sends what waits, unless that is being done.
    pub(crate) fn send(self: &Rc<Self>) {
        let quiet = self.quiet.get().saturating_add(1);
        self.quiet.set(quiet);
        let forgets = quiet >= QUIET_LOOKS && !self.sent.borrow().is_empty();
        if self.sending.get() || (self.waiting.borrow().is_empty() && !forgets) {
            return;
        }
        self.sending.set(true);
        let outbox = Rc::clone(self);
        actix_rt::spawn(async move {
            if !outbox.drain().await {
                outbox.late_below.set(outbox.next.get());
            }
            if forgets {
                outbox.forget().await;
            }
            outbox.sending.set(false);
        });
    }

    /// Sends what waits and waits until the log has taken or refused it, but not for long; what it
    /// did not take stays in the store.
    pub(crate) async fn flush(self: &Rc<Self>) {
        self.send();
        for _ in 0..FLUSH_LOOKS {
            if !self.sending.get() {
                break;
            }
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
        self.forget().await;
        self.waiting.take();
        self.kept.set(0);
    }

    /// Sends all that waits; false as soon as the log refuses.
    async fn drain(&self) -> bool {
        loop {
            let Ok((numbers, mut batch)) = self.batch().await else { return false };
            if numbers.is_empty() {
                return self.waiting.borrow().is_empty();
            }
            let lost = self.lost.get();
            if let (Some(Entry::Event { time, .. }), true) = (batch.last(), lost > 0) {
                let details = vec![("count", lost.to_string())];
                let event = Event { name: "lease-events-lost", details };
                batch.push(Entry::Event { time: *time, event });
            }
            let told =
                batch.is_empty() || matches!(self.audit.commit(Append(batch)).await, Ok(Ok(())));
            if !told {
                return false;
            }
            self.lost.set(self.lost.get().saturating_sub(lost));
            let mut waiting = self.waiting.borrow_mut();
            for number in &numbers {
                let entries = waiting.remove(number).flatten();
                let kept =
                    self.kept.get().saturating_sub(entries.map_or(0, |entries| entries.len()));
                self.kept.set(kept);
            }
            self.sent.borrow_mut().extend(numbers);
        }
    }

    /// The next lines and the numbers of their letters.
    async fn batch(&self) -> Result<(Vec<u64>, Vec<Entry>), BarrierError> {
        let heads: Vec<(u64, Option<Vec<Entry>>)> = {
            let waiting = self.waiting.borrow();
            waiting.iter().take(BATCH).map(|(number, entries)| (*number, entries.clone())).collect()
        };
        let (mut numbers, mut batch) = (Vec::new(), Vec::new());
        for (number, entries) in heads {
            let mut entries = match entries {
                Some(entries) => entries,
                None => match self.read(number).await {
                    Ok(entries) => entries,
                    Err(BarrierError::Key(KeyError::Damaged)) => {
                        warn!(number, "a line for the audit cannot be read; it is left alone");
                        self.waiting.borrow_mut().remove(&number);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            if number < self.late_below.get() {
                entries.iter_mut().for_each(mark_late);
            }
            numbers.push(number);
            batch.append(&mut entries);
            if batch.len() >= BATCH {
                break;
            }
        }
        Ok((numbers, batch))
    }

    /// Lines that wait in the store; none if they never came there.
    async fn read(&self, number: u64) -> Result<Vec<Entry>, BarrierError> {
        let Some(plain) = self.barrier.read(&letter_path(number)).await? else {
            return Ok(Vec::new());
        };
        match decode(&plain.bytes) {
            Ok((_, entries)) => Ok(entries),
            Err(_) => Err(KeyError::Damaged.into()),
        }
    }

    /// Removes the records of what was sent, if no batch has taken them along.
    async fn forget(&self) {
        let numbers = self.sent.take();
        for chunk in numbers.chunks(BATCH) {
            let paths = chunk.iter().map(|number| letter_path(*number));
            let changes = paths.fold(Changes::new(), Changes::delete);
            if self.barrier.commit(changes).await.is_err() {
                self.sent.borrow_mut().extend(chunk);
            }
        }
    }
}

/// Lines on their way into the store. Unless they are known to have come there, it is looked.
struct Letter {
    outbox: Rc<Outbox>,
    number: u64,
    entries: Vec<Entry>,
    forgets: Vec<u64>,
    stored: bool,
}

impl Letter {
    fn new(outbox: &Rc<Outbox>, entries: Vec<Entry>) -> Self {
        let number = if entries.is_empty() { 0 } else { outbox.number() };
        let mut sent = outbox.sent.borrow_mut();
        let some = sent.len().min(FORGET_MAX);
        let forgets = sent.drain(..some).collect();
        outbox.quiet.set(0);
        Self { outbox: Rc::clone(outbox), number, entries, forgets, stored: false }
    }

    fn enclose(&mut self, changes: Changes) -> Result<Changes, BarrierError> {
        let paths = self.forgets.iter().map(|number| letter_path(*number));
        let changes = paths.fold(changes, Changes::delete);
        if self.entries.is_empty() {
            return Ok(changes);
        }
        let bytes = encode(self.number, &self.entries).map_err(|error| {
            warn!(%error, "a line for the audit cannot be written");
            KeyError::Damaged
        })?;
        Ok(changes.lay(letter_path(self.number), bytes))
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        let outbox = &self.outbox;
        if !self.stored {
            outbox.sent.borrow_mut().append(&mut self.forgets);
        }
        if !self.entries.is_empty() {
            let fits = self.stored && outbox.kept.get() < KEPT_MAX;
            outbox.wait(self.number, fits.then(|| std::mem::take(&mut self.entries)));
        }
    }
}

/// The log took it later than it happened; its time is that of the event.
fn mark_late(entry: &mut Entry) {
    if let Entry::Event { event, .. } = entry {
        event.details.push(("late", "true".to_owned()));
    }
}
