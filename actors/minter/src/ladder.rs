//! Ends logins: no login, no session, nothing owned, no role. Each rung is committed by itself.
//!
//! After rung 2 nobody can begin a session with the secret and none is left, whatever follows.

mod access;
mod cleanup;
mod estate;
mod fence;
mod pressing;

pub(crate) use cleanup::{owner_query, unfit_owner};

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{BootId, LeaseId, same_in_constant_time};
use mssm_messages::engine::{EngineError, Outcome, Revoke};
use mssm_messages::{BarrierError, failpoint};
use tokio::time::Instant;

use crate::book::{Book, Making, Target, damaged};
use crate::engine::{DbError, Row};
use crate::guard::{self, NO_ROOM, has_room};
use crate::marker::markers;
use crate::mint::find_target;
use crate::mysql;
use crate::pool::{Lent, Live};
use crate::quote::{identifier, literal, literals};
use crate::record::{CredentialRecord, decode};

/// One login to end.
pub(crate) struct Case {
    /// Its place in the batch.
    index: usize,
    pub(crate) lease: LeaseId,
    pub(crate) credential: CredentialRecord,
    pub(crate) marker: String,
    pub(crate) in_doubt: Option<BootId>,
    /// The role's oid, once it has been seen.
    oid: String,
    /// True if it has another name by now; `login` is that name.
    renamed: bool,
    /// True if it may make replication slots.
    replicates: bool,
    /// While it is held, no other ladder for this lease begins: whoever gave up waiting for this
    /// one, or was sealed meanwhile, asks again, and a fence of ours may still be on its way.
    _alone: Making,
}

impl Case {
    pub(crate) fn login(&self) -> &str {
        &self.credential.username
    }

    /// False if the role that has its name is certainly another.
    fn is_it(&self, oid: &str, marker: Option<&str>) -> bool {
        let known = self.credential.oid.as_deref();
        known.is_none_or(|known| known == oid) || marker.is_some_and(|marker| self.bears(marker))
    }

    /// True if this is the marker that its login got.
    fn bears(&self, marker: &str) -> bool {
        same_in_constant_time(&self.marker, marker)
    }

    /// Keeps a renamed login's name as it is until the transaction ends, and fails if that name is
    /// another role's by now; nothing for others.
    fn hold(&self) -> String {
        if !self.renamed {
            return String::new();
        }
        let (name, login, oid) =
            (identifier(self.login()), literal(self.login()), literal(&self.oid));
        // Whoever would rename it waits for the row that the first statement changed.
        format!(
            "ALTER ROLE {name} NOLOGIN;\nSELECT (CASE WHEN EXISTS (SELECT FROM pg_roles \
             WHERE rolname = {login} AND oid = {oid}::oid) THEN '1' \
             ELSE 'the login was renamed meanwhile' END)::int;\n"
        )
    }
}

/// A role that may be a login of ours under another name.
struct Renamed {
    name: String,
    oid: String,
    marker: String,
}

/// What has become of the members of a batch.
pub(crate) struct Verdicts(Vec<Option<Outcome>>);

impl Verdicts {
    pub(crate) fn set(&mut self, case: &Case, outcome: Outcome) {
        if let Some(slot) = self.0.get_mut(case.index) {
            *slot = Some(outcome);
        }
    }

    pub(crate) fn fail(&mut self, case: &Case, why: impl Into<String>) {
        self.set(case, Outcome::Failed(why.into()));
    }

    fn finish(self) -> Vec<Outcome> {
        let open = || Outcome::Failed("not tried".to_owned());
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(open)).collect()
    }
}

/// What every rung needs.
pub(crate) struct Ladder {
    book: Rc<Book>,
    target: Rc<Target>,
    session: Lent,
    /// True if others may be waiting for their access to end: what takes long is left for later.
    access_only: bool,
    begun: Instant,
}

/// See [`Revoke`].
pub(crate) async fn revoke(book: &Rc<Book>, msg: Revoke) -> Result<Vec<Outcome>, EngineError> {
    let (access_only, begun) = (msg.access_only, Instant::now());
    let mut verdicts = Verdicts(msg.credentials.iter().map(|_| None).collect());
    let mut cases = read_cases(book, msg, &mut verdicts).await?;
    let Some(first) = cases.first() else { return Ok(verdicts.finish()) };
    let (mount, name) = (first.credential.mount, first.credential.connection_name.clone());
    let target = find_target(book, mount, &name).await?;
    cases.retain(|case| {
        let here = case.credential.mount == mount && target.record.id == case.credential.connection;
        if !here {
            verdicts.fail(case, "its connection's definition is gone");
        }
        here
    });
    guard::allow_ending(book, &target).await?;
    let session = match target.revoke.lend().await {
        Err(error) if error.code() == NO_ROOM => {
            target.guard.make_room(book.cluster()?).await;
            target.revoke.lend().await
        }
        lent => lent,
    };
    let session = session.map_err(|error| EngineError::Unavailable(error.public()))?;
    let ladder = Ladder { book: Rc::clone(book), target, session, access_only, begun };
    for oid in cases.iter().filter_map(|case| case.credential.oid.as_deref()) {
        book.ended.keep(ladder.target.record.id, oid);
    }
    if let Err(why) = ladder.climb(cases, &mut verdicts).await {
        // Whoever has no verdict yet shares this one.
        for verdict in &mut verdicts.0 {
            verdict.get_or_insert_with(|| Outcome::Failed(why.clone()));
        }
    }
    Ok(verdicts.finish())
}

/// Ends sessions of logins that were ended and are not there any more, and those that hide; replies
/// how many of the first there were.
pub(crate) async fn sweep(book: &Rc<Book>, target: &Rc<Target>) -> Result<usize, String> {
    let kept = book.ended.kept(target.record.id);
    let oids = literals(kept.iter().map(String::as_str));
    let gone = format!(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a \
         WHERE a.usesysid IN (SELECT unnest(ARRAY[{oids}]::oid[])) \
         AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)"
    );
    let session = target.revoke.lend().await.map_err(words)?;
    let (access_only, begun) = (true, Instant::now());
    let ladder =
        Ladder { book: Rc::clone(book), target: Rc::clone(target), session, access_only, begun };
    let gone = match ladder.session.run(&gone).await {
        Ok(rows) => rows.len(),
        // Of roles that are gone only who may signal all backends can end sessions.
        Err(error) if error.code() == "42501" => 0,
        Err(error) => return Err(words(error)),
    };
    ladder.end_hidden(&[]).await?;
    Ok(gone)
}

async fn read_cases(
    book: &Rc<Book>,
    msg: Revoke,
    verdicts: &mut Verdicts,
) -> Result<Vec<Case>, EngineError> {
    let cluster = book.cluster()?;
    let mut cases = Vec::with_capacity(msg.credentials.len());
    for (index, revocation) in msg.credentials.into_iter().enumerate() {
        let (lease, in_doubt) = (revocation.lease, revocation.in_doubt);
        if book.is_making(&lease) {
            if let Some(verdict) = verdicts.0.get_mut(index) {
                *verdict =
                    Some(Outcome::Failed("the login is still being made, or ended".to_owned()));
            }
            continue;
        }
        let alone = book.make(&lease);
        match decode(&revocation.data).map_err(damaged) {
            Ok(credential) => cases.push(Case {
                index,
                lease,
                credential,
                marker: String::new(),
                in_doubt,
                oid: String::new(),
                renamed: false,
                replicates: false,
                _alone: alone,
            }),
            Err(error) => {
                if let Some(verdict) = verdicts.0.get_mut(index) {
                    *verdict = Some(Outcome::Failed(error.to_string()));
                }
            }
        }
    }
    let logins: Vec<(&LeaseId, &str)> =
        cases.iter().map(|case| (&case.lease, case.login())).collect();
    let made = markers(book.barrier.keys(), cluster, &logins).await.map_err(BarrierError::Key)?;
    for (case, marker) in cases.iter_mut().zip(made) {
        case.marker = case.credential.marker.clone().unwrap_or(marker);
    }
    Ok(cases)
}

/// What a rung that met the database's no says.
fn words(error: DbError) -> String {
    error.public()
}

impl Ladder {
    async fn climb(&self, cases: Vec<Case>, verdicts: &mut Verdicts) -> Result<(), String> {
        if !self.target.is_same_server(&self.session.facts) {
            return Err("the connection leads to another database server than it did".to_owned());
        }
        if !self.session.facts.dialect.is_postgres() {
            let (book, target) = (self.book.as_ref(), self.target.as_ref());
            let (session, access_only) = (&*self.session, self.access_only);
            let climb = mysql::ladder::Climb { book, target, session, access_only };
            return climb.climb(cases, verdicts).await;
        }
        failpoint::here("revoke.before_look");
        let (mut there, absent) = self.look(cases).await?;
        failpoint::here("revoke.after_look");
        self.end_late(&there).await?;
        there.extend(self.settle_absent(absent, verdicts).await?);
        failpoint::here("revoke.before_access");
        let there = self.end_access(there, verdicts).await;
        failpoint::here("revoke.after_access");
        self.clean_up(there, verdicts).await;
        Ok(())
    }

    /// Parts the logins that are there from those that are not. A standby's word does not count.
    async fn look(&self, mut cases: Vec<Case>) -> Result<(Vec<Case>, Vec<Case>), String> {
        let names = literals(cases.iter().map(Case::login));
        let sql = format!(
            "SELECT pg_is_in_recovery(), r.rolname, r.oid, shobj_description(r.oid, 'pg_authid'), \
             r.rolreplication, room FROM ({}) one LEFT JOIN pg_roles r ON r.rolname IN ({names})",
            has_room()
        );
        let rows = match (self.session.run(&sql).await, self.book.cluster()) {
            (Err(error), Ok(cluster)) if error.code() == NO_ROOM => {
                self.target.guard.make_room(cluster).await;
                self.session.run(&sql).await
            }
            (looked, _) => looked,
        };
        let rows = rows.map_err(words)?;
        let mut roles = HashMap::new();
        for row in rows {
            let mut fields = row.into_iter();
            if fields.next().flatten().as_deref() != Some("f") {
                return Err("the connection leads to a standby".to_owned());
            }
            if let (Some(Some(name)), Some(Some(oid))) = (fields.next(), fields.next()) {
                let marker = fields.next().flatten();
                roles.insert(name, (oid, marker, fields.next().flatten().as_deref() == Some("t")));
            }
        }
        for case in &mut cases {
            let role = roles.remove(case.login());
            let role = role.filter(|(oid, marker, _)| case.is_it(oid, marker.as_deref()));
            (case.oid, _, case.replicates) = role.unwrap_or_default();
            if !case.oid.is_empty() && case.credential.oid.as_ref() != Some(&case.oid) {
                self.book.ended.keep(self.target.record.id, &case.oid);
            }
        }
        Ok(cases.into_iter().partition(|case| !case.oid.is_empty()))
    }

    /// Replies those that turn out to be there.
    async fn settle_absent(
        &self,
        absent: Vec<Case>,
        verdicts: &mut Verdicts,
    ) -> Result<Vec<Case>, String> {
        if absent.is_empty() {
            return Ok(absent);
        }
        let renamed = self.find_renamed(&absent).await?;
        let (mut appeared, mut present) = (Vec::new(), Vec::new());
        for mut case in absent {
            let oid = case.credential.oid.as_deref();
            let is_it = |role: &&Renamed| oid == Some(&role.oid) || case.bears(&role.marker);
            let same = |role: &&Renamed| oid == Some(&role.oid) && case.bears(&role.marker);
            let found = renamed.iter().find(same).or_else(|| renamed.iter().find(is_it));
            if let Some(role) = found.filter(same) {
                tracing::warn!(lease = %case.lease, name = role.name, "a login was renamed, and is ended");
                (case.oid, case.renamed) = (role.oid.clone(), true);
                case.credential.username.clone_from(&role.name);
                present.push(case);
            } else if let Some(Renamed { name, .. }) = found {
                // Anybody may copy a marker onto another role on old servers: not touched, told.
                verdicts.fail(&case, format!("the login seems to have been renamed to \"{name}\""));
            } else if let Some(boot) = case.in_doubt {
                match self.fence(&case, boot).await {
                    Ok(true) => appeared.push(case),
                    Ok(false) => verdicts.set(&case, Outcome::Gone),
                    Err(why) => verdicts.fail(&case, why),
                }
            } else {
                verdicts.set(&case, Outcome::Gone);
            }
        }
        if appeared.is_empty() {
            return Ok(present);
        }
        let (there, gone) = self.look(appeared).await?;
        for case in gone {
            verdicts.fail(&case, "the login appeared and vanished");
        }
        present.extend(there);
        Ok(present)
    }

    /// Roles that have a login's marker or its oid, under another name.
    async fn find_renamed(&self, absent: &[Case]) -> Result<Vec<Renamed>, String> {
        let markers = literals(absent.iter().map(|case| case.marker.as_str()));
        let oids = literals(absent.iter().filter_map(|case| case.credential.oid.as_deref()));
        let sql = format!(
            "SELECT r.rolname, r.oid, d.description FROM pg_roles r \
             LEFT JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass \
             WHERE d.description IN ({markers}) OR r.oid IN (SELECT unnest(ARRAY[{oids}]::oid[]))"
        );
        let rows = self.session.run(&sql).await.map_err(words)?;
        let role = |row: Row| {
            let mut fields = row.into_iter();
            let (name, oid) = (fields.next()??, fields.next()??);
            Some(Renamed { name, oid, marker: fields.next().flatten().unwrap_or_default() })
        };
        Ok(rows.into_iter().filter_map(role).collect())
    }

    /// True if whatever may take long is to be left for another time.
    fn is_late(&self, patience: Duration) -> bool {
        self.begun.elapsed() > patience
    }

    /// A session of its own, for what must not wait behind others of the lane.
    async fn visit(&self, database: &str) -> Result<Live, String> {
        self.target.revoke.visit(database).await.map_err(words)
    }
}
