//! Answers that may be given again: to a request that is repeated under its key, and to one that
//! comes within its role's reuse window.
//!
//! They are kept in memory only, in texts that wipe themselves, for their window and not across a
//! seal: what was never written cannot be found in a store or a backup, and a mint costs no write
//! more. After a restart a repeated request gets a new lease; the old one ends in its time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{Lease, MountId, SecretText, TokenId};
use mssm_messages::engine::{Confirm, EnginePorts};
use mssm_messages::lease::{Issued, LeaseError};

use crate::book::Phase;
use crate::session::Session;

/// How long a request may be repeated under its key.
pub(crate) const KEY_WINDOW: Duration = Duration::from_mins(5);
/// Answers that are kept at once.
const KEPT_MAX: usize = 10_000;
/// How long it may take to say whether an answer still holds; then it is given again.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);
/// The longest wait for the first of two equal requests: a little more than a creation takes.
const TURN_PATIENCE: Duration = Duration::from_secs(40);

/// What makes two requests one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sameness {
    /// The token and the key that it sent.
    Key(TokenId, String),
    /// The token and the role.
    Role(TokenId, MountId, String),
}

/// An answer that may be given again.
pub(crate) struct Kept {
    prefix: String,
    lease: Lease,
    secret: Vec<(&'static str, SecretText)>,
    by_key: bool,
    handed: Cell<u32>,
    lost: Cell<u32>,
}

enum Slot {
    Making,
    Kept(Rc<Kept>, Duration),
}

/// All answers that may be given again.
#[derive(Default)]
pub(crate) struct Repeats(RefCell<HashMap<Sameness, Slot>>);

/// What a request finds.
pub(crate) enum Turn {
    /// It is the first: whoever holds the claim makes the lease.
    First(Claim),
    /// It was answered before.
    Again(Issued),
    /// Too many answers are kept.
    Full,
}

/// The right to be the first; gone unless it is kept.
pub(crate) struct Claim {
    session: Rc<Session>,
    same: Sameness,
    kept: bool,
}

impl Claim {
    /// Keeps the answer for a window.
    pub(crate) fn keep(mut self, kept: &Rc<Kept>, window: Duration) {
        self.kept = true;
        let until = self.session.uptime() + window;
        let slot = Slot::Kept(Rc::clone(kept), until);
        self.session.repeats.0.borrow_mut().insert(self.same.clone(), slot);
        self.session.changed();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.session.repeats.0.borrow_mut().remove(&self.same);
            self.session.changed();
        }
    }
}

/// An answer to be kept.
pub(crate) fn kept(prefix: &str, issued: &Issued, by_key: bool) -> Rc<Kept> {
    Rc::new(Kept {
        prefix: prefix.to_owned(),
        lease: issued.lease.clone(),
        secret: copy(&issued.secret),
        by_key,
        handed: Cell::new(1),
        lost: Cell::new(0),
    })
}

/// Takes a turn: waits until the first of equal requests has been answered. An answer that does not
/// hold any more, since the password was changed, is not given again.
pub(crate) async fn turn(
    session: &Rc<Session>,
    ports: &EnginePorts,
    same: Sameness,
    prefix: &str,
) -> Result<Turn, LeaseError> {
    loop {
        match take(session, same.clone(), prefix).await? {
            Turn::Again(issued) if !holds(session, ports, &issued).await => {
                session.repeats.forget(issued.lease.id.as_str());
            }
            turn => return Ok(turn),
        }
    }
}

async fn holds(session: &Session, ports: &EnginePorts, issued: &Issued) -> bool {
    let found = session.read(issued.lease.id.as_str()).await;
    let Ok(Some((_, record))) = found else { return true };
    let message = Confirm { data: record.data, secret: copy(&issued.secret) };
    !matches!(ports.confirm.ask(message, CONFIRM_DEADLINE).await, Ok(Ok(false)))
}

async fn take(session: &Rc<Session>, same: Sameness, prefix: &str) -> Result<Turn, LeaseError> {
    let free =
        |session: &Session| !matches!(session.repeats.0.borrow().get(&same), Some(Slot::Making));
    if !session.until(TURN_PATIENCE, free).await {
        return Err(LeaseError::Busy);
    }
    if session.is_closed() {
        return Err(LeaseError::Sealed);
    }
    let found = match session.repeats.0.borrow().get(&same) {
        Some(Slot::Kept(kept, until)) if session.uptime() < *until => Some(Rc::clone(kept)),
        _ => None,
    };
    if let Some(kept) = found {
        if kept.prefix != prefix {
            return Err(LeaseError::OtherRequest);
        }
        let whole = matches!(same, Sameness::Key(..));
        if let Some(issued) = again(session, &kept, whole) {
            return Ok(Turn::Again(issued));
        }
    }
    let mut slots = session.repeats.0.borrow_mut();
    if slots.len() >= KEPT_MAX {
        return Ok(Turn::Full);
    }
    slots.insert(same.clone(), Slot::Making);
    Ok(Turn::First(Claim { session: Rc::clone(session), same, kept: false }))
}

/// The answer once more, if its lease lives; a lease is shared only while half of its life is left.
fn again(session: &Session, kept: &Kept, whole: bool) -> Option<Issued> {
    let id = kept.lease.id.as_str();
    let (phase, ends_at) = {
        let book = session.book.borrow();
        (book.phase(id)?, book.ends_at(id)?)
    };
    let left = session.judged_now().until(ends_at);
    let half = kept.lease.issued_at.until(kept.lease.expires_at) / 2;
    if phase != Phase::Active || left.is_zero() || (!whole && left < half) {
        return None;
    }
    kept.handed.set(kept.handed.get() + 1);
    let mut lease = kept.lease.clone();
    lease.expires_at = session.shift().wall(ends_at);
    Some(Issued { lease, secret: copy(&kept.secret), warnings: Vec::new(), again: true })
}

impl Repeats {
    /// Forgets what is over; returns leases of which no answer arrived and none was asked for again.
    pub(crate) fn prune(&self, uptime: Duration) -> Vec<Rc<str>> {
        let mut lost = Vec::new();
        self.0.borrow_mut().retain(|_, slot| match slot {
            Slot::Making => true,
            Slot::Kept(_, until) if uptime < *until => true,
            Slot::Kept(kept, _) => {
                if kept.lost.get() >= kept.handed.get() {
                    lost.push(Rc::from(kept.lease.id.as_str()));
                }
                false
            }
        });
        lost
    }

    /// An answer did not arrive; true if its lease is to end now, since nobody has it or will ask
    /// for it again.
    pub(crate) fn lose(&self, lease: &str) -> bool {
        let mut slots = self.0.borrow_mut();
        let kept = slots.values().find_map(|slot| match slot {
            Slot::Kept(kept, _) if kept.lease.id.as_str() == lease => Some(Rc::clone(kept)),
            _ => None,
        });
        let Some(kept) = kept else { return true };
        kept.lost.set(kept.lost.get() + 1);
        let ends = !kept.by_key && kept.lost.get() >= kept.handed.get();
        if ends {
            slots.retain(
                |_, slot| !matches!(slot, Slot::Kept(other, _) if Rc::ptr_eq(other, &kept)),
            );
        }
        ends
    }

    /// Forgets a lease's answer.
    fn forget(&self, lease: &str) {
        let kept =
            |slot: &Slot| matches!(slot, Slot::Kept(kept, _) if kept.lease.id.as_str() == lease);
        self.0.borrow_mut().retain(|_, slot| !kept(slot));
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

fn copy(secret: &[(&'static str, SecretText)]) -> Vec<(&'static str, SecretText)> {
    secret.iter().map(|(name, value)| (*name, value.duplicate())).collect()
}
