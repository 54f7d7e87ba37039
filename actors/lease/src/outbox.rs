//! What the audit is told of the lease manager's own doings; ending access never waits for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::Timestamp;
use mssm_messages::Port;
use mssm_messages::audit::{Append, Entry, Event};

/// How many lines wait while the log takes none: an hour of a busy server, some MiB. More are lost,
/// and counted in a line of their own.
const WAITING_MAX: usize = 10_000;

/// How many lines go in one message.
const BATCH: usize = 256;

/// How often, and how far apart, it is looked whether the last lines are written: half a second.
const FLUSH_LOOKS: u32 = 50;
/// See [`FLUSH_LOOKS`].
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// Lines on their way to the audit, in order.
pub(crate) struct Outbox {
    audit: Port<Append>,
    waiting: RefCell<VecDeque<Entry>>,
    lost: Cell<u64>,
    late: Cell<bool>,
    sending: Cell<bool>,
}

impl Outbox {
    /// Nothing waits yet.
    pub(crate) fn new(audit: Port<Append>) -> Self {
        Self {
            audit,
            waiting: RefCell::default(),
            lost: Cell::new(0),
            late: Cell::new(false),
            sending: Cell::new(false),
        }
    }

    /// Takes a line, which leaves with the next [`Self::send`]: what a caller is answered has a
    /// record of its own, and lines that share a sync cost a busy server less.
    pub(crate) fn note(
        &self,
        time: Timestamp,
        name: &'static str,
        details: Vec<(&'static str, String)>,
    ) {
        let mut entry = Entry::Event { time, event: Event { name, details } };
        if self.late.get() {
            mark_late(&mut entry);
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX {
            self.lost.set(self.lost.get() + 1);
            return;
        }
        waiting.push_back(entry);
    }

    /// Sends what waits, unless that is being done.
    pub(crate) fn send(self: &Rc<Self>) {
        if self.sending.get() || self.waiting.borrow().is_empty() {
            return;
        }
        self.sending.set(true);
        let outbox = Rc::clone(self);
        actix_rt::spawn(async move {
            let sent = outbox.drain().await;
            if !outbox.late.replace(!sent) && !sent {
                outbox.waiting.borrow_mut().iter_mut().for_each(mark_late);
            }
            outbox.sending.set(false);
        });
    }

    /// Sends what waits and waits until the log has taken or refused it, but not for long.
    pub(crate) async fn flush(self: &Rc<Self>) {
        self.send();
        for _ in 0..FLUSH_LOOKS {
            if !self.sending.get() {
                return;
            }
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
    }

    /// Sends all that waits; false as soon as the log refuses.
    async fn drain(&self) -> bool {
        loop {
            let batch: Vec<Entry> = self.waiting.borrow().iter().take(BATCH).cloned().collect();
            let Some(Entry::Event { time, .. }) = batch.last() else { return true };
            let (time, count) = (*time, batch.len());
            if !matches!(self.audit.commit(Append(batch)).await, Ok(Ok(()))) {
                return false;
            }
            let mut waiting = self.waiting.borrow_mut();
            let sent = count.min(waiting.len());
            waiting.drain(..sent);
            let lost = self.lost.replace(0);
            if lost > 0 {
                let details = vec![("count", lost.to_string())];
                let event = Event { name: "lease-events-lost", details };
                waiting.push_back(Entry::Event { time, event });
            }
        }
    }
}

/// The log took it later than it happened; its time is that of the event.
fn mark_late(entry: &mut Entry) {
    if let Entry::Event { event, .. } = entry {
        event.details.push(("late", "true".to_owned()));
    }
}
