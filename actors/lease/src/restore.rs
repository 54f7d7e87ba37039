//! What the store knows of leases, read page by page behind the server's back; and what is tidied.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{LeaseId, RecordPath, StoredKey};
use mssm_messages::keys::ShowNames;
use mssm_messages::lease::LeaseError;
use mssm_messages::storage::Expect;
use mssm_messages::{BarrierError, Changes, failpoint, guarded_async};
use tracing::{info, warn};

use crate::burial::tidy_notes;
use crate::record::{LeaseRecord, ended_folder, ended_path, live_folder, live_path, token_root};
use crate::session::Session;
use crate::sweep::FAILED;

/// Records read at a time: some milliseconds of an arbiter.
const PAGE: usize = 500;
/// Names of unreadable records that are kept.
const UNREADABLE_MAX: usize = 1_000;
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
    load(&session).await;
}

/// Reads every record of a live lease, and enters those that the book does not know.
async fn load(session: &Rc<Session>) {
    let mut after: Option<StoredKey> = None;
    let mut loaded: u64 = 0;
    let mut unreadable = BTreeSet::new();
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
                let lease = name_of(session, key).await;
                warn!(lease, "a lease's record cannot be read; it is left alone, nothing ends it");
                if unreadable.len() < UNREADABLE_MAX {
                    unreadable.insert(lease);
                }
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
            info!(loaded, unreadable = unreadable.len(), "all leases are loaded");
            session.unreadable.replace(unreadable);
            session.set_restored();
            failpoint::here("restore.done");
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The lease's id that a stored key hides; readable even where the record is not.
async fn name_of(session: &Session, key: &StoredKey) -> String {
    let bytes = key.as_bytes();
    let mut segments = Vec::new();
    let mut at = 0;
    while let Some(Ok(length)) = bytes.get(at..at + 2).map(<[u8; 2]>::try_from) {
        at += 2 + usize::from(u16::from_be_bytes(length));
        let Some(segment) = bytes.get(..at) else { break };
        segments.push(StoredKey::new(segment.to_vec()));
    }
    let shown = session.ground.barrier.keys().show(ShowNames(segments)).await.unwrap_or_default();
    let names: Vec<String> =
        shown.into_iter().skip(1).map(|name| name.unwrap_or_else(|_| "?".to_owned())).collect();
    if names.is_empty() { "?".to_owned() } else { names.join("/") }
}

/// Reads everything anew, and removes indexes and tombstones that nothing needs. See
/// [`mssm_messages::lease::Tidy`].
pub(crate) async fn tidy_all(session: Rc<Session>, tidy: Rc<Tidy>) {
    load(&session).await;
    match tidy_index(&session).await {
        Ok(removed) => info!(removed, "indexes of leases that are gone are removed"),
        Err(error) => warn!(%error, "the leases' indexes could not be tidied"),
    }
    tidy.after.replace(None);
    while !session.is_closed() && Rc::clone(&tidy).sweep(Rc::clone(&session)).await {}
    session.tidying.set(false);
}

/// Removes what says that a token has a lease that is not there.
async fn tidy_index(session: &Session) -> Result<u64, BarrierError> {
    let (mut removed, mut after) = (0, None::<StoredKey>);
    while !session.is_closed() {
        let page = session.ground.barrier.scan(&token_root(), after.as_ref(), PAGE).await?;
        for (key, plain) in &page {
            // EXPOSE: the index holds a lease's id, which is no secret.
            let id = plain
                .as_ref()
                .ok()
                .and_then(|plain| std::str::from_utf8(plain.bytes.expose()).ok());
            let Some(id) = id.and_then(|id| LeaseId::parse(id).ok()) else { continue };
            let known = session.book.borrow().phase(id.as_str()).is_some();
            if known || session.ground.barrier.exists(&live_path(id.as_str())).await? {
                continue;
            }
            let path = RecordPath::new(&[&token_root_name(session, key).await, id.as_str()]);
            let changes =
                Changes::new().expect(live_path(id.as_str()), Expect::Absent).delete(path);
            session.ground.barrier.commit(changes).await?;
            removed += 1;
        }
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < PAGE {
            break;
        }
        tokio::time::sleep(TIDY_PAUSE).await;
    }
    Ok(removed)
}

/// The folder of a token in the index, from a key below it.
async fn token_root_name(session: &Session, key: &StoredKey) -> String {
    let below = name_of(session, key).await;
    let token = below.split('/').next().unwrap_or_default();
    format!("lease-by-token/{token}")
}

/// Finds a lease by the name of what was made, among the living and then among the ended.
pub(crate) async fn by_name(session: &Session, name: &str) -> Result<LeaseRecord, LeaseError> {
    for folder in [live_folder(), ended_folder()] {
        let mut after: Option<StoredKey> = None;
        loop {
            let page = session.ground.barrier.scan(&folder, after.as_ref(), PAGE).await?;
            for (_, plain) in &page {
                let Ok(plain) = plain else { continue };
                let Ok(record) = LeaseRecord::decode(&plain.bytes) else { continue };
                if record.name == name {
                    return Ok(record);
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if page.len() < PAGE {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Err(LeaseError::Unknown)
}

/// Where the last sweep over the tombstones stopped.
#[derive(Default)]
pub(crate) struct Tidy {
    after: RefCell<Option<StoredKey>>,
}

impl Tidy {
    /// Removes tombstones that are old enough; a bounded number of pages. True if there are more.
    pub(crate) async fn sweep(self: Rc<Self>, session: Rc<Session>) -> bool {
        let swept = guarded_async(async {
            tidy_notes(&session).await?;
            for _ in 0..TIDY_PAGES {
                if session.is_closed() || !self.page(&session).await? {
                    return Ok(false);
                }
                tokio::time::sleep(TIDY_PAUSE).await;
            }
            Ok::<bool, BarrierError>(true)
        });
        match swept.await {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                warn!(%error, "ended leases could not be tidied, trying again later");
                false
            }
            Err(_) => false,
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
