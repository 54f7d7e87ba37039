//! One device as the hub sees it: what waits for it, and how it does.
//!
//! A round is what one wait for the audit is about. A device keeps those that others took and it did
//! not, within a bound, and gets them later, in order; what is beyond the bound it is told the number of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{Clock, Prefix};
use mssm_messages::audit::{AuditError, DeviceStatus, Entry, Event, Redacted};
use tokio::sync::Notify;

use crate::writer::{LogPorts, Write};

/// So much may wait for a device in memory, about.
const BACKLOG_BYTES: usize = if cfg!(test) { 256 << 10 } else { 32 << 20 };
/// So many rounds go to a device together.
const GROUP: usize = 512;
/// How long a device that refused is left alone if nothing new comes.
const PAUSE: Duration = Duration::from_secs(1);

/// So long after it was given something a device is said to take nothing, though nobody waits for it.
const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// What the requests of one moment are written down with, and what became of it.
pub(super) struct Round {
    entries: Arc<Vec<Entry>>,
    bytes: usize,
    /// Devices that are waited for and have not said yet; those of them that keep files.
    open: Cell<usize>,
    open_files: Cell<usize>,
    /// True once a device has it; a file.
    taken: Cell<bool>,
    filed: Cell<bool>,
    /// True once the requests were answered, false once they were refused.
    outcome: Cell<Option<bool>>,
    changed: Notify,
}

impl Round {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let bytes = entries.iter().map(weight).sum();
        Self {
            entries: Arc::new(entries),
            bytes,
            open: Cell::new(0),
            open_files: Cell::new(0),
            taken: Cell::new(false),
            filed: Cell::new(false),
            outcome: Cell::new(None),
            changed: Notify::new(),
        }
    }

    /// Waits until it is known whether a device has it: a file, or, once no file will, any other.
    pub(super) async fn decided(&self) -> bool {
        loop {
            if self.filed.get() || (self.taken.get() && self.open_files.get() == 0) {
                return true;
            }
            if self.open.get() == 0 {
                return self.taken.get();
            }
            self.changed.notified().await;
        }
    }

    /// True if any device has it.
    pub(super) const fn is_taken(&self) -> bool {
        self.taken.get()
    }

    /// The requests were answered, or refused: then no device is to have it any more.
    pub(super) fn settle(&self, taken: bool) {
        self.outcome.set(Some(taken));
    }
}

/// A round in a device's queue.
struct Turn {
    round: Rc<Round>,
    /// True while the round waits for this device.
    counted: Cell<bool>,
}

impl Turn {
    fn is_due(&self) -> bool {
        self.counted.get() || self.round.outcome.get() == Some(true)
    }

    fn said(&self, device: &Device, taken: bool) {
        let round = &self.round;
        if self.counted.replace(false) {
            round.open.set(round.open.get().saturating_sub(1));
            let files = round.open_files.get();
            round.open_files.set(files.saturating_sub(usize::from(device.keeps_files)));
        }
        if taken {
            round.taken.set(true);
            round.filed.set(round.filed.get() || device.keeps_files);
        }
        round.changed.notify_one();
    }
}

/// A device.
pub(super) struct Device {
    pub(super) path: Prefix,
    /// What names it for good: its salt derives from it.
    pub(super) id: String,
    /// Where it is, which only the operator is told.
    pub(super) place: String,
    /// True if what it has taken is on a disk.
    pub(super) keeps_files: bool,
    pub(super) log: LogPorts,
    waiting: RefCell<VecDeque<Turn>>,
    bytes: Cell<usize>,
    /// How many of those in front are being written.
    in_hand: Cell<usize>,
    missed: Cell<u64>,
    missed_untold: Cell<u64>,
    /// True once it was waited for in vain, until it has caught up: nobody waits for it meanwhile.
    behind: Cell<bool>,
    /// True while it does not answer, whether anybody waits for it or not.
    silent: Cell<bool>,
    refuses: RefCell<Option<String>>,
    gone: Cell<bool>,
    woken: Notify,
}

impl Device {
    pub(super) fn new(
        path: Prefix,
        id: String,
        place: String,
        keeps_files: bool,
        log: LogPorts,
    ) -> Self {
        Self {
            path,
            id,
            place,
            keeps_files,
            log,
            waiting: RefCell::default(),
            bytes: Cell::new(0),
            in_hand: Cell::new(0),
            missed: Cell::new(0),
            missed_untold: Cell::new(0),
            behind: Cell::new(false),
            silent: Cell::new(false),
            refuses: RefCell::default(),
            gone: Cell::new(false),
            woken: Notify::new(),
        }
    }

    /// Queues a round; one that nobody waits for here takes the place of older ones if need be.
    pub(super) fn push(&self, round: &Rc<Round>) {
        let counted = !self.behind.get();
        if counted {
            round.open.set(round.open.get() + 1);
            round.open_files.set(round.open_files.get() + usize::from(self.keeps_files));
        }
        let mut waiting = self.waiting.borrow_mut();
        self.bytes.set(self.bytes.get() + round.bytes);
        waiting.push_back(Turn { round: Rc::clone(round), counted: Cell::new(counted) });
        while self.bytes.get() > BACKLOG_BYTES && waiting.len() > self.in_hand.get() + 1 {
            let Some(turn) = waiting.remove(self.in_hand.get()) else { break };
            self.bytes.set(self.bytes.get().saturating_sub(turn.round.bytes));
            turn.said(self, false);
            if turn.round.outcome.get() != Some(false) {
                let lines = turn.round.entries.len() as u64;
                self.missed.set(self.missed.get() + lines);
                self.missed_untold.set(self.missed_untold.get() + lines);
            }
        }
        self.woken.notify_one();
    }

    /// Looks again whether something is due.
    pub(super) fn wake(&self) {
        if self.in_hand.get() == 0 && !self.waiting.borrow().is_empty() {
            self.woken.notify_one();
        }
    }

    /// It was waited for in vain: nobody waits for it until it has caught up.
    pub(super) fn fall_behind(&self) {
        if self.in_hand.get() > 0 && !self.behind.replace(true) && !self.silent.get() {
            self.tell_silence();
        }
    }

    fn tell_silence(&self) {
        tracing::error!(device = %self.path, place = self.place, "an audit device does not answer");
    }

    /// True if nobody waits for it.
    pub(super) const fn is_behind(&self) -> bool {
        self.behind.get()
    }

    /// Why it takes nothing, if so, for the operator's eyes.
    pub(super) fn problem(&self) -> Option<String> {
        let silent = || {
            (self.behind.get() || self.silent.get())
                .then(|| format!("{} does not answer", self.place))
        };
        self.refuses.borrow().clone().or_else(silent)
    }

    /// A reason for everybody's eyes.
    pub(super) fn without_place(&self, reason: &str) -> String {
        reason.replace(&self.place, if self.keeps_files { "the file" } else { "it" })
    }

    pub(super) fn status(&self) -> DeviceStatus {
        let waiting = self.waiting.borrow();
        let elsewhere = waiting.iter().filter(|turn| turn.round.is_taken());
        let waiting = elsewhere.map(|turn| turn.round.entries.len());
        DeviceStatus {
            path: self.path.clone(),
            blocked: self.problem().map(|reason| self.without_place(&reason)),
            waiting: waiting.sum::<usize>() as u64,
            missed: self.missed.get(),
        }
    }

    /// It was taken away: whoever feeds it ends.
    pub(super) fn leave(&self) {
        self.gone.set(true);
        self.woken.notify_one();
    }

    /// Hands the device what waits, for as long as it is there.
    pub(super) async fn feed(self: Rc<Self>, clock: Arc<dyn Clock>) {
        while !self.gone.get() {
            let batch = self.take(clock.as_ref());
            if batch.is_empty() {
                self.woken.notified().await;
                continue;
            }
            let untold = self.missed_untold.get();
            let written = self.write(batch).await;
            let refused = written.is_err();
            self.settle(written, untold);
            if refused {
                let _ = tokio::time::timeout(PAUSE, self.woken.notified()).await;
            }
        }
        // Whoever waits for it waits no more.
        self.waiting.borrow().iter().for_each(|turn| turn.said(&self, false));
    }

    /// Writes, and says so if that takes long: while a file takes records nobody else would notice.
    async fn write(&self, batch: Vec<Arc<Vec<Entry>>>) -> Result<(), String> {
        let mut writing = pin!(self.log.write.commit(Write(batch)));
        let soon = tokio::time::timeout(SILENCE, writing.as_mut()).await;
        let written = if let Ok(written) = soon {
            written
        } else {
            if !self.behind.get() {
                self.tell_silence();
            }
            self.silent.set(true);
            let written = writing.await;
            self.silent.set(false);
            written
        };
        match written {
            Ok(Err(AuditError::Blocked(reason))) => Err(reason),
            Ok(Err(AuditError::Busy)) | Err(_) => Err(format!("{} has ended", self.place)),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// What is to be written next. What was refused to those who asked is nobody's any more.
    fn take(&self, clock: &dyn Clock) -> Vec<Arc<Vec<Entry>>> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|turn| turn.round.outcome.get() != Some(false));
        self.bytes.set(waiting.iter().map(|turn| turn.round.bytes).sum());
        if waiting.is_empty() {
            self.behind.set(false);
        }
        // What was refused here waits until it is known whether another device has taken it.
        let due = waiting.iter().take(GROUP).take_while(|turn| turn.is_due());
        let mut batch: Vec<_> = due.map(|turn| Arc::clone(&turn.round.entries)).collect();
        self.in_hand.set(batch.len());
        let untold = self.missed_untold.get();
        if untold > 0 && !batch.is_empty() {
            let details = vec![("records", untold.to_string())];
            let event = Event { name: "records-missed", details };
            batch.insert(0, Arc::new(vec![Entry::Event { time: clock.now(), event }]));
        }
        batch
    }

    /// Notes what became of what was in hand.
    fn settle(&self, written: Result<(), String>, untold: u64) {
        let in_hand = self.in_hand.replace(0);
        let mut waiting = self.waiting.borrow_mut();
        match written {
            Ok(()) => {
                *self.refuses.borrow_mut() = None;
                self.missed_untold.set(self.missed_untold.get().saturating_sub(untold));
                let done = in_hand.min(waiting.len());
                for turn in waiting.drain(..done) {
                    self.bytes.set(self.bytes.get().saturating_sub(turn.round.bytes));
                    turn.said(self, true);
                }
                if waiting.is_empty() && self.behind.replace(false) {
                    tracing::info!(device = %self.path, "the audit device has caught up");
                }
            }
            Err(reason) => {
                *self.refuses.borrow_mut() = Some(reason);
                self.behind.set(false);
                waiting.iter().take(in_hand).for_each(|turn| turn.said(self, false));
            }
        }
    }
}

/// About how many bytes of memory an entry takes.
fn weight(entry: &Entry) -> usize {
    const BASE: usize = 512;
    BASE + match entry {
        Entry::Request { asked, .. } => heavy(&asked.data) + heavy(&asked.headers),
        Entry::Response { asked, answered, .. } => {
            [&asked.data, &asked.headers, &answered.data, &answered.auth].map(heavy).iter().sum()
        }
        Entry::TokenExpired { .. } | Entry::Event { .. } => 0,
    }
}

fn heavy(value: &Redacted) -> usize {
    const NODE: usize = 64;
    NODE + match value {
        Redacted::Null | Redacted::Hash(_) | Redacted::Hidden => 0,
        Redacted::Public(text) => text.len(),
        Redacted::List(items) => items.iter().map(heavy).sum(),
        Redacted::Map(members) => members.iter().map(|(name, item)| name.len() + heavy(item)).sum(),
        Redacted::HashedMap(members) => members.iter().map(|(_, item)| NODE + heavy(item)).sum(),
    }
}
