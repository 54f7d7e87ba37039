//! How a lease begins: decided, written down, made, handed out; and ended if any of it fails.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{Lease, LeaseId, LeaseState, Timestamp, generate_base62};
use mssm_messages::engine::{
    Create, CreateError, Created, EngineError, EnginePorts, LeaseRules, Prepare, Prepared,
};
use mssm_messages::lease::{Issue, Issued, LeaseError};
use mssm_messages::storage::Expect;
use mssm_messages::{BarrierError, Changes, PortError, access, failpoint};
use tracing::warn;

use crate::book::{Book, Phase};
use crate::places::Place;
use crate::record::{LeaseRecord, live_path, token_path};
use crate::repeats::{self, KEY_WINDOW, Sameness, Turn};
use crate::revoke;
use crate::session::{Deciding, Session, bump};
use crate::sweep::bytes_of;
use crate::terms::{self, Bounds};

/// Credentials being made at once: what PostgreSQL makes in less than a second, so that nobody
/// waits for long.
const ISSUING_MAX: usize = 256;
/// Deciding touches nothing outside.
const PREPARE_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than the engine's own bound on a creation, so that its word is heard.
const CREATE_DEADLINE: Duration = Duration::from_secs(30);
/// 143 random bits, as Vault's.
const TAIL_CHARS: usize = 24;

/// Issues a lease, or hands out one that the same request was given before. See [`Issue`].
pub(crate) async fn issue(session: Rc<Session>, ask: Issue) -> Result<Issued, LeaseError> {
    let _running = session.run();
    let _place = Seat::take(&session).ok_or(LeaseError::Busy)?;
    let ports = session.ground.engines.get(&ask.engine).cloned();
    let ports = ports.ok_or_else(|| unknown("no engine of this kind is running"))?;
    let mut claims = Vec::new();
    if let Some(key) = &ask.key {
        let same = Sameness::Key(ask.caller.token, key.clone());
        match repeats::turn(&session, &ports, same, &ask.prefix).await? {
            Turn::Again(issued) => return Ok(issued),
            Turn::First(claim) => claims.push((claim, KEY_WINDOW)),
            Turn::Full => return Err(LeaseError::Busy),
        }
    }
    let deciding = session.decide();
    failpoint::here("mint.asked");
    let lease = name_lease(&session, &ask)?;
    let prepared = prepare(&ports, &ask, lease.clone()).await?;
    failpoint::here("mint.prepared");
    let rules = prepared.rules;
    if rules.max_leases > 0 || rules.max_leases_per_token > 0 {
        revoke::restored(&session).await?;
    }
    if let Some(window) = rules.reuse_window {
        let role = ask.role.as_str().to_owned();
        let same = Sameness::Role(ask.caller.token, ask.mount, role);
        match repeats::turn(&session, &ports, same, &ask.prefix).await? {
            Turn::Again(issued) => return Ok(issued),
            Turn::First(claim) => claims.push((claim, window.duration())),
            // Then it is a lease like any other.
            Turn::Full => {}
        }
    }
    let issued = make(&session, &ports, &ask, (lease, prepared), deciding).await?;
    if !claims.is_empty() {
        let kept = repeats::kept(&ask.prefix, &issued, ask.key.is_some());
        for (claim, window) in claims {
            claim.keep(&kept, window);
        }
    }
    Ok(issued)
}

/// Writes a lease down, has its credential made, and hands it out.
async fn make(
    session: &Rc<Session>,
    ports: &EnginePorts,
    ask: &Issue,
    (lease, prepared): (LeaseId, Prepared),
    deciding: Deciding,
) -> Result<Issued, LeaseError> {
    let rules = prepared.rules;
    let (mut record, prepared_warnings, warnings) = draft(session, ask, lease, prepared)?;
    let mut making = Making::begin(session, &record, rules)?;
    drop(deciding);

    let lease = &record.lease;
    let mut changes = Changes::new().put(live_path(lease.id.as_str()), 0, bytes_of(&record)?);
    if !ask.caller.is_server() {
        changes = changes.expect(access::token_record(record.token), Expect::Present);
    }
    if !record.orphan {
        let id = lease.id.as_str().as_bytes().to_vec().into();
        changes = changes.put(token_path(record.token, lease.id.as_str()), 0, id);
    }
    let early = if failpoint::is_planted(failpoint::Fault::CredentialFirst) {
        Some(create(ports, ask, &record).await)
    } else {
        None
    };
    failpoint::here("mint.before_lease");
    if let Err(error) = session.commit(changes, Vec::new()).await {
        if error.failed_expectation().is_none() {
            // It may have been written all the same: whoever ends it looks.
            return Err(error.into());
        }
        making.forget();
        return Err(LeaseError::TokenEnded);
    }

    failpoint::here("mint.after_lease");
    let made = match early {
        Some(made) => made,
        None => create(ports, ask, &record).await,
    };
    let created = match made {
        Ok(created) => created,
        Err(failed) => {
            if !failed.in_doubt && withdraw(session, &record).await.is_ok() {
                making.forget();
            }
            return Err(failed.error.into());
        }
    };
    failpoint::here("mint.created");
    record.data = created.data.unwrap_or(record.data);
    let record = hand_out(session, record, making.ends_at).await?;
    if !making.complete() {
        return Err(revoked_meanwhile());
    }
    failpoint::here("mint.active");
    bump(&session.issued_total);
    let warnings = prepared_warnings.into_iter().chain(warnings).collect();
    Ok(Issued { lease: record.lease, secret: created.secret, warnings, again: false })
}

/// Refuses what would be one lease too many.
fn check_quota(book: &Book, record: &LeaseRecord, rules: LeaseRules) -> Result<(), LeaseError> {
    let role = record.role.as_str();
    if rules.max_leases > 0 {
        let of_role = |place: &Place| place.mount == record.mount && *place.role == *role;
        let count = book.places().count_where(of_role);
        if count >= rules.max_leases.into() {
            let max = rules.max_leases;
            let text =
                format!("role \"{role}\" has {count} leases, and may have {max} (max_leases)");
            return Err(LeaseError::Quota(text));
        }
    }
    let count = book.of_token(record.token);
    if rules.max_leases_per_token > 0 && count >= rules.max_leases_per_token {
        let max = rules.max_leases_per_token;
        return Err(LeaseError::Quota(format!(
            "this token has {count} leases, and role \"{role}\" allows {max} (max_leases_per_token)"
        )));
    }
    Ok(())
}

/// An id that no lease has had.
fn name_lease(session: &Session, ask: &Issue) -> Result<LeaseId, LeaseError> {
    let tail = generate_base62(&*session.ground.random, TAIL_CHARS);
    let id = format!("{}/{tail}", ask.prefix.trim_end_matches('/'));
    LeaseId::parse(&id).map_err(|error| unknown(&error.to_string()))
}

async fn prepare(ports: &EnginePorts, ask: &Issue, lease: LeaseId) -> Result<Prepared, LeaseError> {
    let (role, caller) = (ask.role.clone(), ask.caller.clone());
    let message = Prepare { mount: ask.mount, role, caller, lease };
    match ports.prepare.ask(message, PREPARE_DEADLINE).await {
        Ok(prepared) => Ok(prepared?),
        Err(error) => Err(LeaseError::Engine(silent(error))),
    }
}

/// The record of a lease that is about to be made, and what its answer should warn of.
fn draft(
    session: &Session,
    ask: &Issue,
    id: LeaseId,
    prepared: Prepared,
) -> Result<(LeaseRecord, Vec<String>, Vec<String>), LeaseError> {
    let now = session.now();
    let bounds = Bounds {
        ttl: prepared.ttl.unwrap_or(ask.default_ttl),
        max_ttl: prepared.max_ttl.map_or(ask.max_ttl, |max| max.min(ask.max_ttl)),
        token_ends_at: ask.caller.expires_at.filter(|_| !prepared.rules.orphan),
    };
    let terms = terms::issue(now, bounds).ok_or(LeaseError::TokenEnded)?;
    let record = LeaseRecord {
        lease: Lease {
            id,
            issued_at: now,
            expires_at: terms.expires_at,
            ends_at_most: terms.ends_at_most,
            ttl: terms.ttl,
            renewable: prepared.renewable,
            renewed_at: None,
            holder: ask.caller.accessor.clone(),
        },
        state: LeaseState::Pending,
        engine: ask.engine,
        mount: ask.mount,
        target: prepared.target,
        role: ask.role.clone(),
        token: ask.caller.token,
        orphan: prepared.rules.orphan || ask.caller.is_server(),
        name: prepared.name,
        token_ends_at: bounds.token_ends_at,
        boot: session.ground.boot,
        in_doubt: true,
        cause: String::new(),
        error: None,
        attempts: 0,
        ended_at: None,
        left_behind: false,
        data: prepared.data,
    };
    Ok((record, prepared.warnings, terms.warnings))
}

async fn create(
    ports: &EnginePorts,
    ask: &Issue,
    record: &LeaseRecord,
) -> Result<Created, CreateError> {
    let message = Create {
        mount: ask.mount,
        lease: record.lease.id.clone(),
        data: record.data.duplicate(),
        expires_at: record.lease.expires_at,
    };
    match ports.create.ask(message, CREATE_DEADLINE).await {
        Ok(created) => created,
        // What was never handed over was never begun; of all else nobody knows.
        Err(error) => {
            let in_doubt = error != PortError::Busy;
            Err(CreateError { error: silent(error), in_doubt })
        }
    }
}

/// Forgets a lease whose credential was certainly not made.
async fn withdraw(session: &Session, record: &LeaseRecord) -> Result<(), BarrierError> {
    let lease = record.lease.id.as_str();
    let changes = Changes::new().delete(live_path(lease)).delete(token_path(record.token, lease));
    failpoint::here("mint.before_withdrawal");
    let withdrawn = session.commit(changes, Vec::new()).await;
    failpoint::here("mint.after_withdrawal");
    withdrawn
}

/// Writes down that the credential may be handed out, unless it was revoked meanwhile.
async fn hand_out(
    session: &Session,
    mut record: LeaseRecord,
    ends_at: Timestamp,
) -> Result<LeaseRecord, LeaseError> {
    if session.is_closed() {
        return Err(LeaseError::Sealed);
    }
    if session.judged_now() >= ends_at {
        return Err(unavailable("the lease ended while its credential was being made"));
    }
    record.state = LeaseState::Active;
    record.in_doubt = false;
    let changes = Changes::new().put(live_path(record.lease.id.as_str()), 1, bytes_of(&record)?);
    let created = session.line("lease-created", &record, None);
    failpoint::here("mint.before_active");
    match session.commit(changes, vec![created]).await {
        Ok(()) => Ok(record),
        Err(error) if error.failed_expectation().is_some() => Err(revoked_meanwhile()),
        Err(error) => Err(error.into()),
    }
}

/// One of the places at the door.
struct Seat(Rc<Session>);

impl Seat {
    fn take(session: &Rc<Session>) -> Option<Self> {
        let taken = session.issuing.get();
        if taken >= ISSUING_MAX {
            return None;
        }
        session.issuing.set(taken + 1);
        Some(Self(Rc::clone(session)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.issuing.set(self.0.issuing.get().saturating_sub(1));
    }
}

/// A lease that is being made. Unless it was handed out, or is known to protect nothing, it is
/// ended when this is dropped: by an error, a panic, or a future that nobody polls any more.
struct Making {
    session: Rc<Session>,
    lease: Rc<str>,
    /// Its end in judged time.
    ends_at: Timestamp,
    open: bool,
}

impl Making {
    fn begin(
        session: &Rc<Session>,
        record: &LeaseRecord,
        rules: LeaseRules,
    ) -> Result<Self, LeaseError> {
        let lease: Rc<str> = Rc::from(record.lease.id.as_str());
        let ends_at = session.shift().judged(record.lease.expires_at);
        let mut book = session.book.borrow_mut();
        check_quota(&book, record, rules)?;
        if !book.add_pending(&lease, Place::of(record), record.token, ends_at) {
            warn!("a new lease got a name that is taken");
            return Err(LeaseError::Internal);
        }
        drop(book);
        Ok(Self { session: Rc::clone(session), lease, ends_at, open: true })
    }

    /// Nothing was made, and no record is left.
    fn forget(&mut self) {
        self.open = false;
        self.session.book.borrow_mut().remove(&self.lease);
        self.session.tell(&self.lease, &Ok(()));
        self.session.changed();
    }

    /// It is handed out; false if it was ended meanwhile (and is being revoked).
    fn complete(&mut self) -> bool {
        self.open = false;
        let active = self.session.book.borrow_mut().activate(&self.lease);
        debug_assert!(
            active || self.session.book.borrow().phase(&self.lease) != Some(Phase::Pending)
        );
        self.session.pump();
        active
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.open {
            self.session.abandon(&self.lease);
        }
    }
}

fn revoked_meanwhile() -> LeaseError {
    unavailable("the lease was revoked while its credential was being made")
}

fn unavailable(text: &str) -> LeaseError {
    LeaseError::Engine(EngineError::Unavailable(text.to_owned()))
}

fn unknown(text: &str) -> LeaseError {
    LeaseError::Engine(EngineError::Invalid(text.to_owned()))
}

/// An engine that gave no answer.
pub(crate) fn silent(error: PortError) -> EngineError {
    EngineError::Unavailable(match error {
        PortError::Busy => "too much waits for the engine, try again".to_owned(),
        PortError::Stopped => "the engine is not running".to_owned(),
        PortError::TimedOut => "the target did not answer in time".to_owned(),
    })
}
