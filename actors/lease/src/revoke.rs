//! How leases are ended on request: one, a prefix, a token's, a mount's.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{LeaseId, LeaseState, StoredKey};
use mssm_messages::failpoint;
use mssm_messages::lease::{
    LeaseError, LeftBehind, PrefixRevoked, Revoke, RevokeMount, RevokePrefix, RevokeToken,
};
use tracing::warn;

use crate::book::{Ending, Phase};
use crate::record::{LeaseRecord, live_folder, token_folder};
use crate::session::Session;
use crate::sweep::REVOKED;

/// The longest that a caller waits for access to end; it is tried on after that.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);
/// Leases whose pause one request cuts short; the others wait for their own, a minute at most.
const HURRY_MAX: usize = 64;
/// Logins left behind that an answer names.
const LEFT_MAX: usize = 100;
/// Records read at a time.
const PAGE: usize = 500;

/// Ends a lease. See [`Revoke`].
pub(crate) async fn revoke(session: Rc<Session>, ask: Revoke) -> Result<(), LeaseError> {
    if !session.know(ask.lease.as_str()).await? {
        return Ok(());
    }
    failpoint::here("revoke.asked");
    let lease: Rc<str> = Rc::from(ask.lease.as_str());
    let verdict = ask.sync.then(|| session.listen(&lease));
    end(&session, vec![Rc::clone(&lease)]).await?;
    failpoint::here("revoke.recorded");
    match verdict {
        None => Ok(()),
        Some(verdict) => match tokio::time::timeout(SYNC_PATIENCE, verdict).await {
            Ok(Ok(verdict)) => verdict.map_err(LeaseError::NotYet),
            Ok(Err(_)) => Err(LeaseError::NotYet("the server is closing".to_owned())),
            // What it left may take longer than its access.
            Err(_) if session.book.borrow().access_ended(&lease) => Ok(()),
            Err(_) => Err(LeaseError::NotYet("no answer from the target in time".to_owned())),
        },
    }
}

/// Ends every lease below a prefix. See [`RevokePrefix`].
pub(crate) async fn revoke_prefix(
    session: Rc<Session>,
    ask: RevokePrefix,
) -> Result<PrefixRevoked, LeaseError> {
    let leases = below(&session, &ask.prefix).await?;
    let count = leases.len() as u64;
    let verdicts: Vec<_> = if ask.sync || ask.force {
        leases.iter().map(|lease| session.listen(lease)).collect()
    } else {
        Vec::new()
    };
    end(&session, leases.clone()).await?;
    let deadline = tokio::time::Instant::now() + SYNC_PATIENCE;
    let mut missing: u64 = 0;
    let mut reason = "no answer from the target in time".to_owned();
    for (lease, verdict) in leases.iter().zip(verdicts) {
        match tokio::time::timeout_at(deadline, verdict).await {
            Ok(Ok(Ok(()))) => {}
            Err(_) if session.book.borrow().access_ended(lease) => {}
            Ok(Ok(Err(why))) => {
                missing += 1;
                reason = why;
            }
            Ok(Err(_)) | Err(_) => missing += 1,
        }
    }
    if ask.force {
        let idle: Vec<Rc<str>> =
            leases.into_iter().filter(|lease| session.book.borrow_mut().force(lease)).collect();
        let left = left_behind(&session, &idle, &reason).await;
        session.bury_forced(&idle).await;
        return Ok(PrefixRevoked { count, left });
    } else if missing > 0 {
        return Err(LeaseError::NotYet(format!("{missing} of {count} leases: {reason}")));
    }
    Ok(PrefixRevoked { count, left: Vec::new() })
}

/// What is about to be given up.
async fn left_behind(session: &Session, leases: &[Rc<str>], reason: &str) -> Vec<LeftBehind> {
    let mut left = Vec::new();
    for lease in leases.iter().take(LEFT_MAX) {
        let Ok(Some((_, record))) = session.read(lease).await else { continue };
        let why = record.error.unwrap_or_else(|| reason.to_owned());
        left.push(LeftBehind { lease: lease.as_ref().to_owned(), name: record.name, why });
    }
    left
}

/// Ends every lease of a token. See [`RevokeToken`].
pub(crate) async fn revoke_token(
    session: Rc<Session>,
    ask: RevokeToken,
) -> Result<u64, LeaseError> {
    let folder = token_folder(ask.token);
    let mut leases = Vec::new();
    let mut after: Option<StoredKey> = None;
    loop {
        let page = session.ground.barrier.scan(&folder, after.as_ref(), PAGE).await?;
        for (key, plain) in &page {
            // EXPOSE: the index holds a lease's id, which is no secret.
            let id = plain.as_ref().ok().and_then(|plain| {
                std::str::from_utf8(plain.bytes.expose())
                    .ok()
                    .and_then(|id| LeaseId::parse(id).ok())
            });
            match id {
                Some(id) => leases.push(id),
                None => unreadable(key),
            }
        }
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < PAGE {
            break;
        }
    }
    let mut known = Vec::with_capacity(leases.len());
    for id in leases {
        if session.know(id.as_str()).await? {
            known.push(Rc::from(id.as_str()));
        }
    }
    let count = known.len() as u64;
    end(&session, known).await?;
    Ok(count)
}

/// Ends every lease of a mount; replies how many are left. See [`RevokeMount`].
pub(crate) async fn revoke_mount(
    session: Rc<Session>,
    ask: RevokeMount,
) -> Result<u64, LeaseError> {
    restored(&session).await?;
    let leases = session.book.borrow().of_mount(ask.mount);
    end(&session, leases).await?;
    let count = |session: &Session| {
        session.book.borrow().places().count_where(|place| place.mount == ask.mount)
    };
    session.until(SYNC_PATIENCE, |session| count(session) == 0).await;
    Ok(count(&session))
}

/// Waits until all leases are known: before that, none can be counted.
pub(crate) async fn restored(session: &Session) -> Result<(), LeaseError> {
    if session.until(SYNC_PATIENCE, Session::is_restored).await {
        Ok(())
    } else {
        Err(LeaseError::NotYet("the leases are still being loaded".to_owned()))
    }
}

/// Has leases ending, durably, and tries at once those that were before.
async fn end(session: &Rc<Session>, leases: Vec<Rc<str>>) -> Result<(), LeaseError> {
    let begun: Vec<Rc<str>> = {
        let mut book = session.book.borrow_mut();
        let mut hurried = 0;
        let begins = |lease: &&Rc<str>| match book.end(lease) {
            Ending::Begun => true,
            Ending::Already => {
                if hurried < HURRY_MAX {
                    book.hurry(lease);
                    hurried += 1;
                }
                false
            }
            Ending::Unknown => false,
        };
        leases.iter().filter(begins).cloned().collect()
    };
    let marked = session.mark(&begun, REVOKED).await;
    // Another may have begun: its mark is waited for all the same.
    let durable = session
        .until(SYNC_PATIENCE, |session| {
            let book = session.book.borrow();
            leases.iter().all(|lease| book.phase(lease) != Some(Phase::Marking))
        })
        .await;
    session.pump();
    marked?;
    if durable { Ok(()) } else { Err(LeaseError::NotYet("the store does not answer".to_owned())) }
}

/// The leases below a prefix of whole segments, all known to the book from now on.
async fn below(session: &Rc<Session>, prefix: &str) -> Result<Vec<Rc<str>>, LeaseError> {
    let folder = live_folder().child(prefix);
    let mut leases = Vec::new();
    let mut after: Option<StoredKey> = None;
    loop {
        let page = session.ground.barrier.scan(&folder, after.as_ref(), PAGE).await?;
        for (key, plain) in &page {
            let decoded = plain.as_ref().ok().map(|plain| LeaseRecord::decode(&plain.bytes));
            let Some(Ok(record)) = decoded else {
                unreadable(key);
                continue;
            };
            if record.state != LeaseState::Ended {
                let lease: Rc<str> = Rc::from(record.lease.id.as_str());
                if session.enter(&record) {
                    session.mark_soon(vec![Rc::clone(&lease)], crate::sweep::FAILED);
                }
                leases.push(lease);
            }
        }
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < PAGE {
            return Ok(leases);
        }
    }
}

/// Says of a record that it cannot be read; it is left alone, and counted where all are loaded.
pub(crate) fn unreadable(key: &StoredKey) {
    warn!(key_length = key.as_bytes().len(), "a lease's record cannot be read; it is left alone");
}
