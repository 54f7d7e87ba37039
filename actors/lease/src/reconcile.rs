//! What the minter needs to compare logins with leases, and what is done about the differences.
//!
//! A login that no lease ends gets one that is ending, durably, before anything is done to it: from
//! then on it is tried until it is gone, as any other.

use std::rc::Rc;

use actix::{Handler, ResponseFuture};
use mssm_domain::{Accessor, Lease, LeaseId, LeaseState, StoredKey, Timestamp, TokenId, Ttl};
use mssm_messages::audit::{Entry, Event};
use mssm_messages::engine::EngineKind;
use mssm_messages::reconcile::{
    Adopt, ConnectionReport, Describe, Described, EndedLease, EndedPage, FindingKind, Known,
    KnownPage, ListEnded, ListKnown, NoteReconciled, SettleAbsent, Stray,
};
use mssm_messages::{Changes, failpoint, lease::LeaseError};
use tracing::warn;

use crate::book::{Ending, Phase};
use crate::burial::lately;
use crate::manager::LeaseManager;
use crate::record::{LeaseRecord, bytes_of, ended_folder, ended_path, live_path};
use crate::revoke;
use crate::session::Session;
use crate::sweep::{ABSENT, REVOKED};

/// Places of the book in one page: a fraction of a millisecond.
const PLACES: u32 = 2_000;
/// Tombstones read at a time.
const PAGE: usize = 500;

async fn known(session: Rc<Session>, ask: ListKnown) -> Result<KnownPage, LeaseError> {
    revoke::restored(&session).await?;
    let (listed, next) = session.book.borrow().listed(ask.after, PLACES);
    let known = |listed: crate::book::Listed| Known {
        lease: listed.id.as_ref().to_owned(),
        here: listed.target == Some(ask.target),
        active: listed.active,
    };
    let mut leases: Vec<Known> = listed.into_iter().map(known).collect();
    if ask.after == 0 {
        // What cannot be read was a lease once: its login is left alone as well.
        let unreadable = session.unreadable.borrow();
        let quarantined =
            |lease: &String| Known { lease: lease.clone(), here: false, active: false };
        leases.extend(unreadable.iter().map(quarantined));
    }
    Ok(KnownPage { leases, next })
}

async fn describe(session: Rc<Session>, ask: Describe) -> Result<Vec<Described>, LeaseError> {
    let mut described = Vec::with_capacity(ask.leases.len());
    for lease in ask.leases {
        let record = match session.read(lease.as_str()).await {
            Ok(Some((_, record))) => Some(record),
            Ok(None) => tombstone(&session, &lease).await?,
            Err(_) => None,
        };
        let Some(record) = record else { continue };
        let active = session.book.borrow().phase(lease.as_str()) == Some(Phase::Active);
        let settled = active && record.state == LeaseState::Active;
        described.push(Described { lease, name: record.name, data: record.data, settled });
    }
    Ok(described)
}

async fn tombstone(session: &Session, lease: &LeaseId) -> Result<Option<LeaseRecord>, LeaseError> {
    let plain = session.ground.barrier.read(&ended_path(lease.as_str())).await?;
    Ok(plain.and_then(|plain| LeaseRecord::decode(&plain.bytes).ok()))
}

async fn ended(session: Rc<Session>, ask: ListEnded) -> Result<EndedPage, LeaseError> {
    if ask.lately {
        let (buried, next) = lately(&session, ask.after.as_ref()).await?;
        let mut leases = Vec::with_capacity(buried.len());
        for lease in buried {
            leases.extend(tombstone(&session, &lease).await?.map(remembered));
        }
        return Ok(EndedPage { leases, next });
    }
    let page = session.ground.barrier.scan(&ended_folder(), ask.after.as_ref(), PAGE).await?;
    let record = |plain: &mssm_messages::Plain| LeaseRecord::decode(&plain.bytes).ok();
    let leases = page.iter().filter_map(|(_, plain)| plain.as_ref().ok().and_then(record));
    let leases = leases.map(remembered).collect();
    let last = page.last().map(|(key, _): &(StoredKey, _)| key.clone());
    Ok(EndedPage { leases, next: last.filter(|_| page.len() == PAGE) })
}

fn remembered(record: LeaseRecord) -> EndedLease {
    EndedLease {
        ended_at: record.ended_at.unwrap_or(record.lease.expires_at),
        lease: record.lease.id,
        target: record.target,
        data: record.data,
    }
}

async fn adopt(session: Rc<Session>, ask: Adopt) -> Result<u64, LeaseError> {
    let _running = session.run();
    let mut begun = 0;
    for stray in ask.strays {
        if session.is_closed() {
            return Err(LeaseError::Sealed);
        }
        begun += u64::from(adopt_one(&session, ask.engine, stray).await?);
    }
    session.pump();
    let mut counts = session.reconciled.get();
    counts.ended_total += begun;
    session.reconciled.set(counts);
    Ok(begun)
}

/// False if a lease is ending the login already.
async fn adopt_one(
    session: &Rc<Session>,
    engine: EngineKind,
    stray: Stray,
) -> Result<bool, LeaseError> {
    if session.know(stray.lease.as_str()).await? {
        return Ok(false);
    }
    let remembered = tombstone(session, &stray.lease).await?;
    let (name, why) = match &remembered {
        Some(_) => ("lease-reopened", "its login is there though it had ended"),
        None => ("lease-adopted", "a login of ours that no lease ended"),
    };
    let mut record = match remembered {
        Some(record) => record,
        None => fresh(session, engine, stray)?,
    };
    record.state = LeaseState::Ending;
    REVOKED.clone_into(&mut record.cause);
    (record.boot, record.in_doubt) = (session.ground.boot, false);
    (record.ended_at, record.left_behind) = (None, false);
    (record.error, record.attempts) = (None, 0);
    let id = record.lease.id.as_str();
    let line = session.line(name, &record, Some(why));
    let changes = Changes::new().delete(ended_path(id)).put(live_path(id), 0, bytes_of(&record)?);
    failpoint::here("reconcile.before_adoption");
    session.commit(changes, vec![line]).await?;
    failpoint::here("reconcile.after_adoption");
    warn!(lease = id, login = record.name, why, "a login is ended by the reconciler");
    session.enter(&record);
    Ok(true)
}

/// A lease for a login of which nothing is remembered; nobody holds it.
fn fresh(session: &Session, engine: EngineKind, stray: Stray) -> Result<LeaseRecord, LeaseError> {
    let now: Timestamp = session.now();
    let (Ok(holder), Ok(ttl)) = (Accessor::parse(&"0".repeat(24)), Ttl::from_secs(1)) else {
        return Err(LeaseError::Internal);
    };
    Ok(LeaseRecord {
        lease: Lease {
            id: stray.lease,
            issued_at: now,
            expires_at: now,
            ends_at_most: now,
            ttl,
            renewable: false,
            renewed_at: None,
            holder,
        },
        state: LeaseState::Ending,
        engine,
        mount: stray.mount,
        target: stray.target,
        role: stray.role,
        token: TokenId::SERVER,
        orphan: true,
        name: stray.name,
        token_ends_at: None,
        boot: session.ground.boot,
        in_doubt: false,
        cause: String::new(),
        error: None,
        attempts: 0,
        ended_at: None,
        left_behind: false,
        data: stray.data,
    })
}

async fn settle(session: Rc<Session>, ask: SettleAbsent) -> Result<u64, LeaseError> {
    let begun: Vec<Rc<str>> = {
        let mut book = session.book.borrow_mut();
        let begins = |lease: &LeaseId| book.end(lease.as_str()) == Ending::Begun;
        let leases: Vec<LeaseId> = ask.leases.into_iter().filter(begins).collect();
        leases.iter().map(|lease| Rc::from(lease.as_str())).collect()
    };
    failpoint::here("reconcile.before_settling");
    // What cannot be written down is ended all the same, and the next run begins anew.
    session.mark(&begun, ABSENT).await?;
    failpoint::here("reconcile.after_settling");
    let count = begun.len() as u64;
    let mut counts = session.reconciled.get();
    counts.settled_total += count;
    session.reconciled.set(counts);
    Ok(count)
}

/// Counts a run. What the server found by itself is written down, and again when that changes.
fn note(session: &Session, ask: &NoteReconciled) {
    let mut counts = session.reconciled.get();
    counts.runs += 1;
    counts.last_unix_secs = session.now().unix_secs();
    let findings = || ask.reports.iter().flat_map(|report| &report.findings);
    for (kind, found) in FindingKind::ALL.into_iter().zip(&mut counts.found) {
        *found = findings().filter(|finding| finding.kind == kind).count() as u64;
    }
    counts.held_back =
        ask.reports.iter().filter(|report| report.held_back.is_some()).count() as u64;
    session.reconciled.set(counts);
    if !ask.automatic {
        return;
    }
    let mut told = session.reconcile_told.borrow_mut();
    for report in &ask.reports {
        let said = summary(report);
        let place = format!("{}/{}", report.mount, report.connection);
        let before = told.insert(place, said.clone());
        if said.is_empty() || before.as_ref() == Some(&said) {
            continue;
        }
        let details = vec![
            ("mount", report.mount.to_string()),
            ("connection", report.connection.clone()),
            ("reason", said),
        ];
        let event = Event { name: "leases-reconciled", details };
        session.ground.outbox.note(vec![Entry::Event { time: session.now(), event }]);
    }
}

/// What was found, in words; nothing if all agrees.
fn summary(report: &ConnectionReport) -> String {
    let mut parts = Vec::new();
    for kind in FindingKind::ALL {
        let logins: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.kind == kind)
            .map(|finding| finding.login.as_str())
            .collect();
        if !logins.is_empty() {
            let some = logins.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            parts.push(format!("{}: {} ({some})", kind.name(), logins.len()));
        }
    }
    if let Some(why) = report.held_back.as_ref().filter(|_| !parts.is_empty()) {
        parts.push(format!("nothing was done: {why}"));
    }
    parts.join("; ")
}

macro_rules! handle {
    ($message:ty, $reply:ty, $work:expr) => {
        impl Handler<$message> for LeaseManager {
            type Result = ResponseFuture<Result<$reply, LeaseError>>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                self.serve(|session| $work(session, msg))
            }
        }
    };
}

handle!(ListKnown, KnownPage, known);
handle!(Describe, Vec<Described>, describe);
handle!(ListEnded, EndedPage, ended);
handle!(Adopt, u64, adopt);
handle!(SettleAbsent, u64, settle);
handle!(NoteReconciled, (), |session: Rc<Session>, msg| async move {
    note(&session, &msg);
    Ok(())
});
