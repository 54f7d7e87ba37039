//! How a lease is prolonged: the new end is stored first, moved outside second, answered third.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{LeaseState, Timestamp};
use mssm_messages::engine::Extend;
use mssm_messages::lease::{LeaseError, Renew, Renewed};
use mssm_messages::{Changes, failpoint};
use tracing::warn;

use crate::issue::silent;
use crate::record::{LeaseRecord, live_path};
use crate::session::Session;
use crate::sweep::bytes_of;
use crate::terms;

/// The longest wait for the target to move an end.
const EXTEND_DEADLINE: Duration = Duration::from_secs(10);
/// The longest wait for another renewal of the same lease.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// How often the store is asked anew because the record changed meanwhile.
const TRIES: usize = 3;

/// Renews a lease. See [`Renew`].
pub(crate) async fn renew(session: Rc<Session>, ask: Renew) -> Result<Renewed, LeaseError> {
    let lease = ask.lease.as_str();
    if !session.know(lease).await? {
        return Err(LeaseError::Unknown);
    }
    failpoint::here("renew.asked");
    let turn = Turn::take(&session, lease).await?;
    let (old, mut record, warnings) = store(&session, &ask).await?;
    failpoint::here("renew.after_store");
    let before = session.book.borrow().ends_at(lease);
    let ends_at = session.shift().judged(record.lease.expires_at);
    session.book.borrow_mut().move_end(lease, ends_at);
    let message = Extend {
        lease: ask.lease.clone(),
        data: record.data.duplicate(),
        expires_at: record.lease.expires_at,
    };
    let extended = match session.ground.engines.get(&record.engine) {
        Some(ports) => {
            ports.extend.ask(message, EXTEND_DEADLINE).await.unwrap_or_else(|e| Err(silent(e)))
        }
        None => Err(mssm_messages::engine::EngineError::Internal),
    };
    failpoint::here("renew.extended");
    if let Err(error) = extended {
        if let Some(before) = before {
            session.book.borrow_mut().move_end(lease, before);
        }
        take_back(&session, lease, record.lease.expires_at, old).await;
        return Err(error.into());
    }
    drop(turn);
    if session.book.borrow().phase(lease) != Some(crate::book::Phase::Active) {
        return Err(LeaseError::Unknown);
    }
    record.state = LeaseState::Active;
    Ok(Renewed { lease: record.lease, warnings })
}

/// What a renewal changes.
#[derive(Clone, Copy)]
struct Old {
    expires_at: Timestamp,
    ends_at_most: Timestamp,
    renewed_at: Option<Timestamp>,
}

impl Old {
    const fn of(record: &LeaseRecord) -> Self {
        let lease = &record.lease;
        Self {
            expires_at: lease.expires_at,
            ends_at_most: lease.ends_at_most,
            renewed_at: lease.renewed_at,
        }
    }

    const fn restore(self, record: &mut LeaseRecord) {
        record.lease.expires_at = self.expires_at;
        record.lease.ends_at_most = self.ends_at_most;
        record.lease.renewed_at = self.renewed_at;
    }
}

/// Stores the new end, if the lease lives and may be renewed.
async fn store(
    session: &Session,
    ask: &Renew,
) -> Result<(Old, LeaseRecord, Vec<String>), LeaseError> {
    let mut result = Err(LeaseError::Unknown);
    for _ in 0..TRIES {
        let Some((version, mut record)) = session.read(ask.lease.as_str()).await? else {
            return Err(LeaseError::Unknown);
        };
        let now = session.now();
        // By the clock that it was written by: written back, it says of another nothing.
        let old = Old::of(&record);
        let ends_at = session.follow(&mut record);
        if record.state != LeaseState::Active || ends_at <= session.judged_now() {
            return Err(LeaseError::Unknown);
        }
        if !record.lease.renewable {
            return Err(LeaseError::NotRenewable("lease is not renewable"));
        }
        // Only its own token's end is known here; one that is revoked takes its leases along.
        if ask.caller.token == record.token && !record.orphan {
            record.token_ends_at = ask.caller.expires_at;
        }
        let increment = ask.increment.unwrap_or(record.lease.ttl);
        let (end, warnings) =
            terms::renew(now, increment, record.lease.ends_at_most, record.token_ends_at);
        if end <= now {
            return Err(LeaseError::NotRenewable("past its longest end"));
        }
        record.lease.expires_at = end;
        record.lease.renewed_at = Some(now);
        let changes =
            Changes::new().put(live_path(ask.lease.as_str()), version, bytes_of(&record)?);
        failpoint::here("renew.before_store");
        match session.ground.barrier.commit(changes).await {
            Ok(()) => return Ok((old, record, warnings)),
            Err(error) if error.failed_expectation().is_some() => result = Err(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    result
}

/// Writes the old end back, since the new one did not come through outside.
async fn take_back(session: &Session, lease: &str, new: Timestamp, old: Old) {
    for _ in 0..TRIES {
        let Ok(Some((version, mut record))) = session.read(lease).await else { break };
        if record.state != LeaseState::Active || record.lease.expires_at != new {
            return;
        }
        old.restore(&mut record);
        let Ok(bytes) = bytes_of(&record) else { break };
        let changes = Changes::new().put(live_path(lease), version, bytes);
        failpoint::here("renew.before_take_back");
        let written = session.ground.barrier.commit(changes).await;
        failpoint::here("renew.after_take_back");
        match written {
            Ok(()) => return,
            Err(error) if error.failed_expectation().is_some() => {}
            Err(_) => break,
        }
    }
    // The book has the old end, and it is the book that ends the lease; only a restart would take
    // the new one, which is within the lease's bounds too.
    warn!(lease, "the old end of a lease could not be written back");
}

/// A renewal's turn: a lease has one operation outside at a time.
struct Turn {
    session: Rc<Session>,
    lease: Rc<str>,
}

impl Turn {
    async fn take(session: &Rc<Session>, lease: &str) -> Result<Self, LeaseError> {
        let taken = std::cell::Cell::new(false);
        let free = session.until(TURN_PATIENCE, |session| {
            taken.set(session.book.borrow_mut().occupy(lease));
            let phase = session.book.borrow().phase(lease);
            taken.get() || phase != Some(crate::book::Phase::Active)
        });
        let waited = free.await;
        match (taken.get(), waited) {
            (true, _) => Ok(Self { session: Rc::clone(session), lease: Rc::from(lease) }),
            (false, true) => Err(LeaseError::Unknown),
            (false, false) => Err(LeaseError::Busy),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.session.book.borrow_mut().release(&self.lease);
        self.session.changed();
        self.session.pump();
    }
}
