//! How leases end by themselves: marked in the store first, then revoked in batches; see [`crate::burial`].

use std::rc::Rc;
use std::time::Duration;

use mssm_messages::engine::{EngineError, Outcome, Revocation, Revoke};
use mssm_messages::{BarrierError, Changes, failpoint, guarded_async};
use tracing::{info, warn};

use crate::book::{Batch, Ending, Reply};
use crate::lane::Rank;
pub(crate) use crate::record::bytes_of;
use crate::record::{LeaseRecord, live_path};
use crate::session::{Session, bump};

/// Why a lease ended: somebody revoked it.
pub(crate) const REVOKED: &str = "revoked";
/// Why a lease ended: its credential was not made, or not handed out.
pub(crate) const FAILED: &str = "failed";
/// Why a lease ended: its login was not there.
pub(crate) const ABSENT: &str = "absent";
/// Why a lease ended: its time was over.
pub(crate) const EXPIRED: &str = "";

/// Leases marked in one commit: what the store's writer takes together.
const MARK_BATCH: usize = 256;
/// Commits of marks under way: the store is never flooded, and still always has the next one.
const MARKS_MAX: usize = 8;
/// The longest wait for one batch; the engine bounds each statement itself.
const REVOKE_DEADLINE: Duration = Duration::from_mins(1);
/// The longest text of a failure that is kept.
const ERROR_CHARS: usize = 512;
/// How often a write is tried anew because the record changed meanwhile.
const TRIES: usize = 4;

/// A lease's record with its version.
pub(crate) type Found = (u64, LeaseRecord);

impl Session {
    /// Ends what is due and sends what may go; called several times a second.
    pub(crate) fn tick(self: &Rc<Self>) {
        self.watch_clock();
        let now = self.judged_now();
        while self.marking.get() < MARKS_MAX {
            let due = self.book.borrow_mut().take_due(now, MARK_BATCH);
            if due.is_empty() {
                break;
            }
            self.mark_soon(due, EXPIRED);
        }
        self.repeats.prune(self.uptime()).iter().for_each(|lost| self.abandon(lost));
        self.pump();
    }

    /// Marks leases in a task of its own.
    pub(crate) fn mark_soon(self: &Rc<Self>, leases: Vec<Rc<str>>, cause: &'static str) {
        let session = Rc::clone(self);
        self.marking.set(self.marking.get() + 1);
        actix_rt::spawn(async move {
            let marked = guarded_async(session.mark(&leases, cause)).await;
            if !matches!(marked, Ok(Ok(()))) {
                // Ending access wins: what cannot be written down is revoked all the same.
                warn!(count = leases.len(), "ending leases whose end could not be stored");
                session.marked(&leases);
            }
            session.marking.set(session.marking.get().saturating_sub(1));
        });
    }

    /// Writes down that leases are ending, and has them revoked whether or not that succeeds.
    ///
    /// The leases are those for which the book said that their ending began here.
    pub(crate) async fn mark(
        self: &Rc<Self>,
        leases: &[Rc<str>],
        cause: &'static str,
    ) -> Result<(), BarrierError> {
        let _running = self.run();
        let mut result = Ok(());
        for chunk in leases.chunks(MARK_BATCH) {
            if let Err(error) = self.mark_together(chunk, cause).await {
                let several = chunk.len() > 1 && error.failed_expectation().is_some();
                if several {
                    for lease in chunk {
                        let alone = self.mark_together(std::slice::from_ref(lease), cause).await;
                        result = result.and(alone);
                    }
                } else {
                    result = Err(error);
                }
            }
            self.marked(chunk);
        }
        result
    }

    /// One commit for all; a single lease is tried anew if its record changes meanwhile.
    async fn mark_together(
        &self,
        leases: &[Rc<str>],
        cause: &'static str,
    ) -> Result<(), BarrierError> {
        let tries = if leases.len() == 1 { TRIES } else { 1 };
        let mut result = Ok(());
        for _ in 0..tries {
            let mut changes = Changes::new();
            let mut unread = Ok(());
            for lease in leases {
                match self.read(lease).await {
                    Ok(None) => {
                        self.book.borrow_mut().remove(lease);
                        self.tell(lease, &Ok(()));
                    }
                    Ok(Some((version, mut record))) => {
                        if record.begin_ending(self.ground.boot, cause) {
                            changes = changes.put(live_path(lease), version, bytes_of(&record)?);
                        }
                    }
                    Err(error) => unread = Err(error),
                }
            }
            failpoint::here("revoke.before_mark");
            result =
                if changes.is_empty() { Ok(()) } else { self.ground.barrier.commit(changes).await };
            failpoint::here("revoke.after_mark");
            match &result {
                Err(error) if error.failed_expectation().is_some() => {}
                Err(_) => return result,
                Ok(()) => return unread,
            }
        }
        result
    }

    fn marked(self: &Rc<Self>, leases: &[Rc<str>]) {
        {
            let mut book = self.book.borrow_mut();
            for lease in leases {
                book.marked(lease);
            }
        }
        self.changed();
        self.pump();
    }

    /// Ends a lease that nobody will get, whatever became of it.
    pub(crate) fn abandon(self: &Rc<Self>, lease: &Rc<str>) {
        let ending = {
            let mut book = self.book.borrow_mut();
            let ending = book.end(lease);
            book.release(lease);
            ending
        };
        if ending == Ending::Begun {
            self.mark_soon(vec![Rc::clone(lease)], FAILED);
        } else {
            self.pump();
        }
    }

    /// Sends every batch that may go now.
    pub(crate) fn pump(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        let batches = self.book.borrow_mut().next_batches(self.uptime());
        for batch in batches {
            let session = Rc::clone(self);
            let running = self.run();
            actix_rt::spawn(async move {
                if guarded_async(session.revoke_batch(&batch)).await.is_err() {
                    session.return_batch(&batch.leases, &batch, Reply::Refused, "internal error");
                }
                session.changed();
                session.pump();
                drop(running);
            });
        }
    }

    async fn revoke_batch(self: &Rc<Self>, batch: &Batch) {
        let found = self.find(batch).await;
        if found.is_empty() {
            self.book.borrow_mut().returned(batch, Reply::Refused, self.uptime());
            return;
        }
        let credentials = found.iter().map(|(_, record)| Revocation {
            lease: record.lease.id.clone(),
            data: record.data.duplicate(),
            in_doubt: record.doubt(self.ground.boot),
        });
        failpoint::here("revoke.before_ladder");
        let message = Revoke {
            target: batch.target,
            credentials: credentials.collect(),
            access_only: batch.rank != Rank::Cleaning,
        };
        let (reply, why) = match self.ground.engines.get(&batch.engine) {
            None => (Reply::Refused, "no engine of this kind is running".to_owned()),
            Some(ports) => match ports.revoke.ask(message, REVOKE_DEADLINE).await {
                Ok(Ok(outcomes)) if outcomes.len() == found.len() => {
                    return self.settle(batch, found, outcomes).await;
                }
                Ok(Ok(_)) => (Reply::Refused, "the engine lost count".to_owned()),
                Ok(Err(error @ EngineError::Unavailable(_))) => {
                    (Reply::Unanswered, error.to_string())
                }
                Ok(Err(error)) => (Reply::Refused, error.to_string()),
                // The target answered when access ended: what is left of them takes long.
                Err(error) if batch.rank == Rank::Cleaning => {
                    (Reply::Refused, format!("the engine: {error}"))
                }
                Err(error) => (Reply::Unanswered, format!("the engine: {error}")),
            },
        };
        let leases: Vec<Rc<str>> =
            found.iter().map(|(_, record)| Rc::from(record.lease.id.as_str())).collect();
        let failed = self.return_batch(&leases, batch, reply, &why);
        self.after_failures(found, &failed).await;
    }

    /// The records of a batch. Those that are not there any more have ended; those that cannot be
    /// read are tried again like all others.
    async fn find(self: &Rc<Self>, batch: &Batch) -> Vec<Found> {
        let mut found = Vec::with_capacity(batch.leases.len());
        for lease in &batch.leases {
            match self.read(lease).await {
                Ok(Some(record)) => found.push(record),
                Ok(None) => {
                    self.book.borrow_mut().remove(lease);
                    self.tell(lease, &Ok(()));
                }
                Err(_) => {
                    let why = "its record cannot be read";
                    self.fail(lease, Reply::Answered, false, why);
                }
            }
        }
        found
    }

    /// The batch failed as a whole.
    fn return_batch(
        self: &Rc<Self>,
        leases: &[Rc<str>],
        batch: &Batch,
        reply: Reply,
        why: &str,
    ) -> Vec<(u16, String)> {
        warn!(target_id = %batch.target, count = leases.len(), why, "revocation did not come through");
        let failed = leases
            .iter()
            .map(|lease| (self.fail(lease, reply, false, why), why.to_owned()))
            .collect();
        self.book.borrow_mut().returned(batch, reply, self.uptime());
        if reply == Reply::Unanswered {
            self.tell_target(batch.target, why);
        }
        failed
    }

    pub(crate) fn fail(&self, lease: &str, reply: Reply, ended: bool, why: &str) -> u16 {
        bump(&self.failures_total);
        let attempts = self.book.borrow_mut().failed(lease, reply, ended, self.uptime());
        if attempts > 3 && failpoint::is_planted(failpoint::Fault::GivenUp) {
            self.book.borrow_mut().remove(lease);
        }
        self.tell(lease, &Err(why.to_owned()));
        attempts
    }

    /// The target answered: sorts what has ended from what is tried again.
    async fn settle(self: &Rc<Self>, batch: &Batch, found: Vec<Found>, outcomes: Vec<Outcome>) {
        failpoint::here("revoke.after_ladder");
        let mut gone = Vec::new();
        let (mut left, mut failed) = (Vec::new(), Vec::new());
        for ((version, record), outcome) in found.into_iter().zip(outcomes) {
            let lease = record.lease.id.as_str();
            let (ended, why) = match outcome {
                Outcome::Gone => {
                    gone.push((version, record));
                    continue;
                }
                Outcome::Unfinished if !self.book.borrow().is_forced(lease) => {
                    self.book.borrow_mut().unfinished(lease);
                    continue;
                }
                Outcome::Unfinished => (true, "what it left was given up".to_owned()),
                Outcome::AccessEnded(why) => {
                    self.tell(lease, &Ok(()));
                    (true, why)
                }
                Outcome::Failed(why) => (false, why),
            };
            failed.push((self.fail(lease, Reply::Answered, ended, &why), why));
            left.push((version, record));
        }
        self.book.borrow_mut().returned(batch, Reply::Answered, self.uptime());
        self.pump();
        if !gone.is_empty() {
            self.bury(gone).await;
        }
        self.after_failures(left, &failed).await;
    }

    /// Keeps why revocations failed, at the first, second, fourth, eighth .. failure of each; and
    /// ends those that somebody has given up.
    async fn after_failures(self: &Rc<Self>, found: Vec<Found>, failed: &[(u16, String)]) {
        let mut changes = Changes::new();
        let mut lines = Vec::new();
        let mut forced = Vec::new();
        for ((version, mut record), (attempts, why)) in found.into_iter().zip(failed) {
            if self.is_closed() {
                return;
            }
            let lease: Rc<str> = Rc::from(record.lease.id.as_str());
            let given_up = self.book.borrow().is_forced(&lease);
            if given_up && self.book.borrow_mut().force(&lease) {
                forced.push(lease);
                continue;
            }
            if !attempts.is_power_of_two() {
                continue;
            }
            warn!(%lease, attempts, why, "a lease's end failed; it is tried on");
            lines.push(self.line("lease-revocation-failed", &record, Some(why)));
            record.begin_ending(self.ground.boot, REVOKED);
            record.error = Some(why.chars().take(ERROR_CHARS).collect());
            record.attempts = (*attempts).into();
            if let Ok(bytes) = bytes_of(&record) {
                changes = changes.put(live_path(&lease), version, bytes);
            }
        }
        if !changes.is_empty() {
            failpoint::here("revoke.before_failure");
            if self.commit(changes, lines.clone()).await.is_err() {
                self.ground.outbox.note(lines);
                info!("the reasons of failed revocations could not be stored");
            }
            failpoint::here("revoke.after_failure");
        }
        self.bury_forced(&forced).await;
    }
}
