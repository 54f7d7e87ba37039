//! What the lease manager holds from opening to closing, and what all of its flows share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{BootId, Clock, ConnectionId, LeaseState, Random, Timestamp};
use mssm_messages::audit::{Entry, Event};
use mssm_messages::engine::{EngineKind, EnginePorts};
use mssm_messages::keys::KeyError;
use mssm_messages::lease::LeaseError;
use mssm_messages::reconcile::ReconcileCounts;
use mssm_messages::{Barrier, BarrierError, Changes};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::warn;

use crate::book::Book;
use crate::outbox::Outbox;
use crate::places::Place;
use crate::record::{LeaseRecord, live_path};
use crate::repeats::Repeats;
use crate::timeline::{Shift, Timeline};

/// What the lease manager stands on.
pub(crate) struct Ground {
    pub(crate) boot: BootId,
    pub(crate) barrier: Barrier,
    pub(crate) engines: BTreeMap<EngineKind, EnginePorts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) outbox: Rc<Outbox>,
}

/// How the first try after a call for it went: access has ended, or why it has not.
type Verdict = Result<(), String>;

/// One time between opening and closing. What comes back late finds its own session closed, and
/// can no longer touch the book of the next.
pub(crate) struct Session {
    pub(crate) ground: Rc<Ground>,
    pub(crate) book: RefCell<Book>,
    pub(crate) repeats: Repeats,
    pub(crate) issuing: Cell<usize>,
    pub(crate) marking: Cell<usize>,
    pub(crate) issued_total: Cell<u64>,
    pub(crate) ended_total: Cell<u64>,
    pub(crate) failures_total: Cell<u64>,
    pub(crate) unreadable: RefCell<BTreeSet<String>>,
    pub(crate) tidying: Cell<bool>,
    pub(crate) reconciled: Cell<ReconcileCounts>,
    /// What the audit was told of each connection's last comparison.
    pub(crate) reconcile_told: RefCell<HashMap<String, String>>,
    began: Instant,
    timeline: RefCell<Timeline>,
    /// Leases that an engine is deciding on, by the order in which they began.
    deciding: RefCell<BTreeSet<u64>>,
    decided_next: Cell<u64>,
    waiters: RefCell<HashMap<Rc<str>, Vec<oneshot::Sender<Verdict>>>>,
    changed: Notify,
    restored: Cell<bool>,
    closed: Cell<bool>,
    over: Cell<bool>,
    running: Cell<usize>,
}

impl Session {
    /// A session that knows no lease yet.
    pub(crate) fn new(ground: Rc<Ground>) -> Rc<Self> {
        let timeline = Timeline::new(ground.clock.now(), ground.clock.steady());
        Rc::new(Self {
            ground,
            timeline: RefCell::new(timeline),
            began: Instant::now(),
            book: RefCell::default(),
            repeats: Repeats::default(),
            issuing: Cell::new(0),
            marking: Cell::new(0),
            issued_total: Cell::new(0),
            ended_total: Cell::new(0),
            failures_total: Cell::new(0),
            unreadable: RefCell::default(),
            tidying: Cell::new(false),
            reconciled: Cell::default(),
            reconcile_told: RefCell::default(),
            deciding: RefCell::default(),
            decided_next: Cell::new(0),
            waiters: RefCell::default(),
            changed: Notify::new(),
            restored: Cell::new(false),
            closed: Cell::new(false),
            over: Cell::new(false),
            running: Cell::new(0),
        })
    }

    /// The wall-clock time, in which records are written.
    pub(crate) fn now(&self) -> Timestamp {
        self.ground.clock.now()
    }

    /// The time by which ends are judged, and by which the book has them.
    pub(crate) fn judged_now(&self) -> Timestamp {
        self.timeline.borrow().now(self.ground.clock.steady())
    }

    /// What the wall clock is ahead by.
    pub(crate) fn shift(&self) -> Shift {
        let clock = &self.ground.clock;
        self.timeline.borrow().shift(clock.now(), clock.steady())
    }

    /// Says a record's times by today's wall clock; the judged end, and how the book has it.
    pub(crate) fn follow(&self, record: &mut LeaseRecord) -> Timestamp {
        let known = self.book.borrow().ends_at(record.lease.id.as_str());
        let ends_at = known.unwrap_or(record.lease.expires_at);
        self.shift().follow(&mut record.lease, ends_at);
        ends_at
    }

    /// Says in the log that the wall clock jumped.
    pub(crate) fn watch_clock(&self) {
        let shift = self.shift();
        if let Some(ms) = self.timeline.borrow_mut().jump(shift) {
            warn!(ms, "the wall clock jumped; running leases keep their ends");
        }
    }

    /// The time since the session began, which no jump of the wall clock moves.
    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// True once nothing may be done any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Lets what is under way finish, at most `patience` long, and forgets everything.
    pub(crate) async fn close(&self, patience: Duration) {
        self.closed.set(true);
        self.until(patience, |session| session.running.get() == 0).await;
        self.over.set(true);
        self.waiters.take();
        self.book.take();
        self.repeats.clear();
        self.changed.notify_waiters();
    }

    /// True once every record of a lease has been read.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.get()
    }

    /// Every record of a lease has been read.
    pub(crate) fn set_restored(&self) {
        self.restored.set(true);
        self.changed.notify_waiters();
    }

    /// Something changed that somebody may wait for.
    pub(crate) fn changed(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until something holds, at most `patience` long; true if it does.
    pub(crate) async fn until(&self, patience: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let wait = async {
            while !holds(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Notes that an engine decides on a lease that is not in the book yet, while the guard lives.
    pub(crate) fn decide(self: &Rc<Self>) -> Deciding {
        let order = self.decided_next.get();
        self.decided_next.set(order + 1);
        self.deciding.borrow_mut().insert(order);
        Deciding { session: Rc::clone(self), order }
    }

    /// Waits until every lease that an engine decides on now is in the book or will never be.
    /// Those that begin meanwhile are not waited for.
    pub(crate) async fn until_decided(&self, patience: Duration) -> bool {
        let begun = self.decided_next.get();
        let earlier = |session: &Self| session.deciding.borrow().range(..begun).next().is_some();
        self.until(patience, |session| !earlier(session)).await
    }

    /// Waits for the verdict of the next try on a lease.
    pub(crate) fn listen(&self, lease: &Rc<str>) -> oneshot::Receiver<Verdict> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().entry(Rc::clone(lease)).or_default().push(sender);
        receiver
    }

    /// Tells those who wait how a try went.
    pub(crate) fn tell(&self, lease: &str, verdict: &Verdict) {
        let waiters = self.waiters.borrow_mut().remove(lease);
        for waiter in waiters.into_iter().flatten() {
            // Whoever gave up waiting needs no answer.
            let _ = waiter.send(verdict.clone());
        }
    }

    /// Tells all who wait for a lease of a target that it does not answer.
    pub(crate) fn tell_target(&self, target: ConnectionId, why: &str) {
        let waiting: Vec<Rc<str>> = {
            let (waiters, book) = (self.waiters.borrow(), self.book.borrow());
            let of_target = |lease: &&Rc<str>| book.target(lease) == Some(target);
            waiters.keys().filter(of_target).cloned().collect()
        };
        for lease in waiting {
            self.tell(&lease, &Err(why.to_owned()));
        }
    }

    /// Counts something that closing waits for, while the guard lives.
    pub(crate) fn run(self: &Rc<Self>) -> Running {
        self.running.set(self.running.get() + 1);
        Running(Rc::clone(self))
    }

    /// Reads a live lease's record and its version.
    pub(crate) async fn read(
        &self,
        lease: &str,
    ) -> Result<Option<(u64, LeaseRecord)>, BarrierError> {
        let Some(plain) = self.ground.barrier.read(&live_path(lease)).await? else {
            return Ok(None);
        };
        match LeaseRecord::decode(&plain.bytes) {
            Ok(record) => Ok(Some((plain.version, record))),
            Err(error) => {
                warn!(%error, "a lease's record cannot be read; it is left alone");
                Err(KeyError::Damaged.into())
            }
        }
    }

    /// Enters a lease that was read from the store. True if it must be marked as ending.
    pub(crate) fn enter(&self, record: &LeaseRecord) -> bool {
        if self.book.borrow().phase(record.lease.id.as_str()).is_some() {
            return false;
        }
        // What this run wrote says nothing of how the clock stood before.
        if record.boot != self.ground.boot {
            let written = record.lease.renewed_at.unwrap_or(record.lease.issued_at);
            let steady = self.ground.clock.steady();
            self.timeline.borrow_mut().not_before(written, steady);
        }
        let (id, ends_at) = (record.lease.id.as_str(), record.lease.expires_at);
        let place = Place::of(record);
        self.book.borrow_mut().restore(id, place, record.token, ends_at, record.state)
    }

    /// Has the book know a lease, from the store if need be; false if there is none.
    pub(crate) async fn know(self: &Rc<Self>, lease: &str) -> Result<bool, LeaseError> {
        if self.book.borrow().phase(lease).is_some() {
            return Ok(true);
        }
        let Some((_, record)) = self.read(lease).await? else { return Ok(false) };
        if record.state == LeaseState::Ended {
            return Ok(false);
        }
        if self.enter(&record) {
            self.mark_soon(vec![Rc::from(lease)], crate::sweep::FAILED);
        }
        Ok(true)
    }

    /// Makes changes durable together with the lines that tell the audit of them. Refused once the
    /// session is over: the next one may be ending the same leases.
    pub(crate) async fn commit(
        &self,
        changes: Changes,
        lines: Vec<Entry>,
    ) -> Result<(), BarrierError> {
        if self.over.get() {
            return Err(KeyError::Sealed.into());
        }
        self.ground.outbox.commit(changes, lines).await
    }

    /// A line for the audit of something that happens to a lease now.
    pub(crate) fn line(
        &self,
        name: &'static str,
        record: &LeaseRecord,
        why: Option<&str>,
    ) -> Entry {
        let mut details = vec![
            ("lease_id", record.lease.id.as_str().to_owned()),
            ("role", record.role.as_str().to_owned()),
            ("mount", record.mount.to_string()),
        ];
        details.extend(why.map(|why| ("reason", why.to_owned())));
        Entry::Event { time: self.now(), event: Event { name, details } }
    }
}

/// Something is under way that closing waits for.
pub(crate) struct Running(Rc<Session>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
        self.0.changed.notify_waiters();
    }
}

/// An engine decides on a lease that is not in the book yet.
pub(crate) struct Deciding {
    session: Rc<Session>,
    order: u64,
}

impl Drop for Deciding {
    fn drop(&mut self) {
        self.session.deciding.borrow_mut().remove(&self.order);
        self.session.changed.notify_waiters();
    }
}

/// Adds one to a counter.
pub(crate) fn bump(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
