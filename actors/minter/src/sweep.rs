//! The standing sweep: sessions that begin after their login has gone.
//!
//! Who has logged in and sleeps before it shows (`post_auth_delay`, at most 2,147 s) may show itself
//! long after the ladder's last look. So a connection is looked at every few seconds, for as long as
//! such a session can sleep after its last login ended, or after it was first used.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use mssm_messages::guarded_async;
use tokio::time::Instant;

use crate::book::Book;
use crate::ladder;

/// How often a connection is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// The longest sleep that PostgreSQL lets anybody ask for, and a minute.
const LASTS: Duration = Duration::from_secs(2_147 + 60);

/// So many logins are remembered; of more in that time the oldest are forgotten first.
const KEPT_MAX: usize = 65_536;

/// When one connection is looked at, and for whose sessions.
pub(crate) struct Sweep {
    /// The oids of logins that were ended, and until when their sessions can show themselves.
    ended: RefCell<VecDeque<(Instant, String)>>,
    last: Cell<Option<Instant>>,
    until: Cell<Instant>,
    sweeping: Cell<bool>,
}

impl Sweep {
    /// From now on: an earlier run may have ended logins.
    pub(crate) fn new() -> Self {
        let until = Cell::new(Instant::now() + LASTS);
        let (ended, last, sweeping) = (RefCell::default(), Cell::default(), Cell::default());
        Self { ended, last, until, sweeping }
    }

    /// A login is being ended: its sessions are looked for from now on. Nobody else's are, for a
    /// role that somebody else dropped is none of ours.
    pub(crate) fn keep(&self, oid: &str) {
        let until = Instant::now() + LASTS;
        self.until.set(until);
        let mut ended = self.ended.borrow_mut();
        if ended.len() >= KEPT_MAX {
            ended.pop_front();
        }
        ended.push_back((until, oid.to_owned()));
    }

    /// The oids whose sessions can still show themselves.
    pub(crate) fn kept(&self) -> Vec<String> {
        let now = Instant::now();
        let mut ended = self.ended.borrow_mut();
        while ended.front().is_some_and(|(until, _)| *until <= now) {
            ended.pop_front();
        }
        ended.iter().map(|(_, oid)| oid.clone()).collect()
    }

    fn begins(&self, now: Instant) -> bool {
        let due = self.last.get().is_none_or(|last| now.duration_since(last) >= EVERY);
        let begins = due && now < self.until.get() && !self.sweeping.get();
        if begins {
            self.last.set(Some(now));
            self.sweeping.set(true);
        }
        begins
    }
}

/// Looks at what is due; called every second.
pub(crate) fn tick(book: &Rc<Book>) {
    let now = Instant::now();
    for target in book.targets() {
        let ours = target.record.is_postgres() && target.guard.is_ours();
        if !ours || !target.sweep.begins(now) {
            continue;
        }
        let book = Rc::clone(book);
        actix_rt::spawn(async move {
            match guarded_async(ladder::sweep(&book, &target)).await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(count)) => {
                    tracing::warn!(count, "sessions of logins that are gone were ended");
                }
                Ok(Err(why)) => tracing::debug!(why, "sessions could not be looked at"),
            }
            target.sweep.sweeping.set(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_swept_every_few_seconds_until_nobody_can_sleep_any_more() {
        let sweep = Sweep::new();
        assert!(sweep.begins(Instant::now()) && !sweep.begins(Instant::now()));
        sweep.sweeping.set(false);
        assert!(!sweep.begins(Instant::now()));
        tokio::time::advance(EVERY).await;
        assert!(sweep.begins(Instant::now()));
        sweep.sweeping.set(false);
        tokio::time::advance(LASTS).await;
        assert!(!sweep.begins(Instant::now()));
        sweep.keep("16384");
        assert!(sweep.begins(Instant::now()));
        assert_eq!(sweep.kept(), ["16384"]);
        tokio::time::advance(LASTS).await;
        assert!(sweep.kept().is_empty());
    }
}
