//! The standing sweep: sessions that begin after their login has gone.
//!
//! Who has logged in and sleeps before it shows (`post_auth_delay`, at most 2,147 s) may show itself
//! long after the ladder's last look. So a connection is looked at every few seconds, for as long as
//! such a session can sleep after its last login ended, or after it was first used. Which logins those
//! are outlives a restart: the tombstones of their leases say it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::ConnectionId;
use mssm_messages::reconcile::{EndedLease, ListEnded};
use mssm_messages::{failpoint, guarded_async};
use tokio::time::Instant;

use crate::book::{Book, Target};
use crate::guard::Standing;
use crate::ladder;
use crate::mysql;
use crate::record::{CredentialRecord, decode};

/// How often a connection is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// The pause after a look that failed.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest sleep that PostgreSQL lets anybody ask for, and a minute: within the hour for which the
/// lease manager knows without reading all its tombstones.
const LASTS: Duration = Duration::from_secs(2_147 + 60);
/// How long the lease manager may take for a page of tombstones.
const DEADLINE: Duration = Duration::from_secs(30);
/// The pause before it is asked again: it opens after us.
const PAUSE: Duration = Duration::from_secs(1);

/// So many logins of a connection are remembered; of more in that time the oldest are forgotten first.
const KEPT_MAX: usize = 65_536;

/// The logins that were ended, and until when their sessions can show themselves. Outlives the
/// connections' definitions, which a rotation changes.
#[derive(Default)]
pub(crate) struct Ended(RefCell<HashMap<ConnectionId, BTreeMap<String, Instant>>>);

impl Ended {
    /// A login is being ended: its sessions are looked for from now on. Nobody else's are, for a
    /// role that somebody else dropped is none of ours.
    pub(crate) fn keep(&self, connection: ConnectionId, oid: &str) {
        self.keep_for(connection, oid, LASTS);
    }

    fn keep_for(&self, connection: ConnectionId, oid: &str, left: Duration) {
        let until = Instant::now() + left;
        let mut all = self.0.borrow_mut();
        let ended = all.entry(connection).or_default();
        if ended.len() >= KEPT_MAX && !ended.contains_key(oid) {
            let first = ended.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(oid, _)| oid.clone()) {
                ended.remove(&first);
            }
        }
        let known = ended.entry(oid.to_owned()).or_insert(until);
        *known = until.max(*known);
    }

    /// The oids of a connection's logins whose sessions can still show themselves.
    pub(crate) fn kept(&self, connection: ConnectionId) -> Vec<String> {
        let now = Instant::now();
        let mut all = self.0.borrow_mut();
        let Some(ended) = all.get_mut(&connection) else { return Vec::new() };
        ended.retain(|_, until| *until > now);
        let kept = ended.keys().cloned().collect::<Vec<_>>();
        if kept.is_empty() {
            all.remove(&connection);
        }
        kept
    }

    fn has(&self, connection: ConnectionId, now: Instant) -> bool {
        let all = self.0.borrow();
        all.get(&connection).is_some_and(|ended| ended.values().any(|until| *until > now))
    }
}

/// When one connection is looked at.
pub(crate) struct Sweep {
    due: Cell<Instant>,
    /// Until then an earlier run may have ended logins of which nothing is known.
    until: Instant,
    sweeping: Cell<bool>,
}

impl Sweep {
    /// From now on.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { due: Cell::new(now), until: now + LASTS, sweeping: Cell::default() }
    }

    fn begins(&self, now: Instant, has_ended: bool) -> bool {
        let wanted = now < self.until || has_ended;
        let begins = wanted && now >= self.due.get() && !self.sweeping.get();
        if begins {
            self.due.set(now + EVERY);
            self.sweeping.set(true);
        }
        begins
    }

    fn ended(&self, well: bool) {
        if !well {
            self.due.set(Instant::now() + AGAIN);
        }
        self.sweeping.set(false);
    }
}

/// Looks at what is due; called every second.
pub(crate) fn tick(book: &Rc<Book>) {
    let now = Instant::now();
    for target in book.targets() {
        // On MySQL sessions are known by their names, and nobody knows how long one can hide.
        let wanted = !target.record.is_postgres() || book.ended.has(target.record.id, now);
        if !target.sweep.begins(now, wanted) {
            continue;
        }
        let book = Rc::clone(book);
        actix_rt::spawn(async move {
            let swept = guarded_async(sweep(&book, &target)).await;
            match &swept {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(count)) => {
                    tracing::warn!(count, "sessions of logins that are gone were ended");
                }
                Ok(Err(why)) => tracing::debug!(why, "sessions could not be looked at"),
            }
            target.sweep.ended(matches!(swept, Ok(Ok(_))));
        });
    }
}

async fn sweep(book: &Rc<Book>, target: &Rc<Target>) -> Result<usize, String> {
    let standing = target.guard.check(book, target).await.map_err(|error| error.public())?;
    if standing != Standing::Ours {
        return Ok(0);
    }
    failpoint::here("sweep.before_look");
    let swept = if target.record.is_postgres() {
        ladder::sweep(book, target).await
    } else {
        mysql::sweep::sweep(book, target).await
    };
    failpoint::here("sweep.after_look");
    swept
}

/// Learns from the tombstones whose sessions an earlier run was still looking for.
pub(crate) async fn remember(book: Rc<Book>) {
    let mut after = None;
    while book.cluster().is_ok() {
        failpoint::here("sweep.before_page");
        let list = ListEnded { after: after.clone(), lately: true };
        let page = book.leases.reconcile.ended.ask(list, DEADLINE).await;
        failpoint::here("sweep.after_page");
        let Ok(Ok(page)) = page else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        for lease in &page.leases {
            remember_one(&book, lease);
        }
        after = page.next;
        if after.is_none() {
            return;
        }
    }
}

fn remember_one(book: &Book, lease: &EndedLease) {
    let left = book.clock.now().until(lease.ended_at.after(LASTS));
    let credential = decode::<CredentialRecord>(&lease.data);
    if let (false, Some(oid)) =
        (left.is_zero(), credential.ok().and_then(|credential| credential.oid))
    {
        // A wall clock that was set back must not make it longer.
        book.ended.keep_for(lease.target, &oid, left.min(LASTS));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_swept_every_few_seconds_until_nobody_can_sleep_any_more() {
        let sweep = Sweep::new();
        assert!(sweep.begins(Instant::now(), false) && !sweep.begins(Instant::now(), false));
        sweep.ended(true);
        assert!(!sweep.begins(Instant::now(), false));
        tokio::time::advance(EVERY).await;
        assert!(sweep.begins(Instant::now(), false));
        sweep.ended(false);
        tokio::time::advance(EVERY).await;
        assert!(!sweep.begins(Instant::now(), false), "a database that is down is not kept busy");
        tokio::time::advance(LASTS).await;
        assert!(!sweep.begins(Instant::now(), false));
        assert!(sweep.begins(Instant::now(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn logins_that_ended_are_kept_as_long_as_their_sessions_can_sleep_and_never_too_many() {
        let [one, other] = [1, 2].map(|id| ConnectionId::from_uuid(Uuid::from_u128(id)));
        let ended = Ended::default();
        ended.keep(one, "16384");
        ended.keep_for(one, "16384", Duration::from_secs(1));
        ended.keep_for(one, "16385", Duration::from_secs(1));
        assert!(ended.has(one, Instant::now()) && !ended.has(other, Instant::now()));
        assert_eq!(ended.kept(other), Vec::<String>::new());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ended.kept(one), ["16384"]);
        tokio::time::advance(LASTS).await;
        assert!(!ended.has(one, Instant::now()) && ended.kept(one).is_empty());
        ended.keep_for(one, "first", Duration::from_secs(1));
        (0..KEPT_MAX).for_each(|oid| ended.keep(one, &oid.to_string()));
        let kept = ended.kept(one);
        assert!(kept.len() == KEPT_MAX && !kept.contains(&"first".to_owned()));
    }
}
