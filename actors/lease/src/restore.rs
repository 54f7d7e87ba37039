//! What the store knows of leases, read page by page behind the server's back; and what is tidied.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::StoredKey;
use mssm_messages::{BarrierError, Changes, failpoint, guarded_async};
use tracing::{info, warn};

use crate::record::{LeaseRecord, ended_folder, ended_path, live_folder};
use crate::revoke::unreadable;
use crate::session::{Session, bump};
use crate::sweep::FAILED;

/// Records read at a time: some milliseconds of an arbiter.
const PAGE: usize = 500;
/// The pause before a page that could not be read is tried anew.
const RETRY: Duration = Duration::from_secs(1);
/// How long an ended lease is remembered, so that a credential that comes back is known.
const TOMBSTONE_LIFE: Duration = Duration::from_hours(7 * 24);
/// Pages of tombstones looked at in one sweep: a store of millions takes several.
const TIDY_PAGES: usize = 100;
/// The pause between two pages, for the others on this arbiter.
const TIDY_PAUSE: Duration = Duration::from_millis(50);

/// Loads every lease. Serving does not wait for it.
pub(crate) async fn restore(session: Rc<Session>) {
    while let Err(error) = session.ground.outbox.restore().await {
        if session.is_closed() {
            return;
        }
        warn!(%error, "lines for the audit cannot be loaded, trying again");
        tokio::time::sleep(RETRY).await;
    }
    let mut after: Option<StoredKey> = None;
    let mut loaded: u64 = 0;
    while !session.is_closed() {
        failpoint::here("restore.before_page");
        let page = session.ground.barrier.scan(&live_folder(), after.as_ref(), PAGE).await;
        failpoint::here("restore.after_page");
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                warn!(%error, "leases cannot be loaded, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let mut interrupted: Vec<Rc<str>> = Vec::new();
        for (key, plain) in &page {
            let decoded = plain.as_ref().ok().map(|plain| LeaseRecord::decode(&plain.bytes));
            let Some(Ok(record)) = decoded else {
                bump(&session.unreadable);
                unreadable(key);
                continue;
            };
            loaded += 1;
            if session.enter(&record) {
                interrupted.push(Rc::from(record.lease.id.as_str()));
            }
        }
        if !interrupted.is_empty() {
            failpoint::here("restore.interrupted");
            session.mark_soon(interrupted, FAILED);
        }
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < PAGE {
            info!(loaded, unreadable = session.unreadable.get(), "all leases are loaded");
            session.set_restored();
            failpoint::here("restore.done");
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Where the last sweep over the tombstones stopped.
#[derive(Default)]
pub(crate) struct Tidy {
    after: RefCell<Option<StoredKey>>,
}

impl Tidy {
    /// Removes tombstones that are old enough; a bounded number of pages.
    pub(crate) async fn sweep(self: Rc<Self>, session: Rc<Session>) {
        let swept = guarded_async(async {
            for _ in 0..TIDY_PAGES {
                if session.is_closed() || !self.page(&session).await? {
                    break;
                }
                tokio::time::sleep(TIDY_PAUSE).await;
            }
            Ok::<(), BarrierError>(())
        });
        if let Ok(Err(error)) = swept.await {
            warn!(%error, "ended leases could not be tidied, trying again later");
        }
    }

    /// One page; false at the end.
    async fn page(&self, session: &Session) -> Result<bool, BarrierError> {
        let after = self.after.borrow().clone();
        let page = session.ground.barrier.scan(&ended_folder(), after.as_ref(), PAGE).await?;
        let now = session.now();
        let mut changes = Changes::new();
        for (_, plain) in &page {
            let Ok(plain) = plain else { continue };
            let Ok(record) = LeaseRecord::decode(&plain.bytes) else { continue };
            if record.ended_at.is_some_and(|ended| ended.after(TOMBSTONE_LIFE) <= now) {
                changes = changes.delete(ended_path(record.lease.id.as_str()));
            }
        }
        if !changes.is_empty() {
            session.ground.barrier.commit(changes).await?;
        }
        let more = page.len() == PAGE;
        let last = page.into_iter().next_back().map(|(key, _)| key);
        *self.after.borrow_mut() = last.filter(|_| more);
        Ok(more)
    }
}
