//! One connection: what is there, what differs, and what is done about it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use mssm_domain::{ClusterId, LeaseId, RoleName, same_in_constant_time};
use mssm_messages::engine::{EngineError, EngineKind};
use mssm_messages::failpoint;
use mssm_messages::lease::LeaseError;
use mssm_messages::reconcile::{
    Adopt, ConnectionReport, Describe, Described, Finding, FindingKind, Known, ListEnded,
    ListKnown, SettleAbsent, Stray,
};
use mssm_messages::{Port, PortError};

use super::survey::{Marked, Owners, Survey, adopted, keys_of, look_again};
use super::{DEADLINE, Trouble, words};
use crate::book::{Book, Target};
use crate::dialect::Dialect;
use crate::engine::Row;
use crate::marker::{Marker, macs, prefix};
use crate::mint::find_target;
use crate::mysql;
use crate::pool::Lent;
use crate::quote::literals;
use crate::record::{CredentialRecord, Names, RoleRecord, decode, encode};

/// Differences of a kind that one run names and acts on; the next takes the others.
const MOST: usize = 1_000;
/// How many at a time the lease manager is told of.
const BATCH: usize = 100;
/// What stands for the role of a login that nobody remembers.
const NO_ROLE: &str = "unknown";

struct Comparing<'a> {
    book: &'a Rc<Book>,
    cluster: ClusterId,
    target: Rc<Target>,
    session: Lent,
    report: &'a mut ConnectionReport,
    acts: bool,
}

/// Fills the report; replies why nothing was done, if so.
pub(super) async fn compare(
    book: &Rc<Book>,
    report: &mut ConnectionReport,
    dry_run: bool,
    held: Option<&str>,
) -> Result<Option<String>, Trouble> {
    let cluster = book.cluster()?;
    let target = find_target(book, report.mount, &report.connection).await;
    let target = target.map_err(|error| Trouble::Here(error.to_string()))?;
    let session = target.revoke.lend().await.map_err(words)?;
    if !target.is_same_server(&session.facts) {
        let text = "the connection leads to another database server than it did";
        return Err(Trouble::Here(text.to_owned()));
    }
    let standing = target.guard.check(book, &target).await.map_err(words)?;
    let held_back = standing.holds_back().or_else(|| held.map(str::to_owned));
    let acts = !dry_run && held_back.is_none();
    let mut comparing = Comparing { book, cluster, target, session, report, acts };
    comparing.all().await?;
    Ok(held_back)
}

/// Asks the lease manager.
async fn ask<M, T>(port: &Port<M>, message: M) -> Result<T, Trouble>
where
    M: actix::Message<Result = Result<T, LeaseError>> + Send + 'static,
    M::Result: Send,
{
    let silent = |error: PortError| {
        EngineError::Unavailable(format!("the lease manager does not answer: {error}"))
    };
    let told = port.ask(message, DEADLINE).await.map_err(silent)?;
    told.map_err(|error| match error {
        LeaseError::Engine(error) => Trouble::Everywhere(error),
        LeaseError::Barrier(error) => Trouble::Everywhere(error.into()),
        error => Trouble::Everywhere(EngineError::Unavailable(error.to_string())),
    })
}

impl Comparing<'_> {
    async fn all(&mut self) -> Result<(), Trouble> {
        failpoint::here("reconcile.before_survey");
        self.refuse_standby().await?;
        let keys = self.book.barrier.keys();
        let mut survey = Survey::take(keys, self.cluster, &self.session).await?;
        failpoint::here("reconcile.after_survey");
        self.report.marked = survey.count();
        let odd = std::mem::take(&mut survey.odd);
        let mut owners =
            Owners::asking(self.dialect(), odd.iter().filter_map(|role| role.marker.as_ref()));
        let absent = self.read_leases(&mut survey, &mut owners).await?;
        failpoint::here("reconcile.after_leases");
        let unseen = survey.unseen(MOST);
        drop(survey);
        let orphans = look_again(keys, self.cluster, &self.session, &unseen).await?;
        self.orphans(orphans).await?;
        self.odd(odd, owners).await?;
        self.absent(absent).await
    }

    fn dialect(&self) -> Dialect {
        self.session.facts.dialect
    }

    async fn refuse_standby(&self) -> Result<(), Trouble> {
        if !self.dialect().is_postgres() {
            return mysql::survey::check_place(&self.session).await.map_err(Trouble::Here);
        }
        let rows = self.session.run("SELECT 'role', pg_is_in_recovery()").await.map_err(words)?;
        let answer = rows.first().and_then(|row| row.get(1).cloned().flatten());
        match answer.as_deref() {
            Some("f") => Ok(()),
            _ => Err(Trouble::Here("the connection leads to a standby".to_owned())),
        }
    }

    /// Has every living lease seen; replies the active ones of this connection without a login.
    async fn read_leases(
        &mut self,
        survey: &mut Survey,
        owners: &mut Owners,
    ) -> Result<Vec<LeaseId>, Trouble> {
        let (mut absent, mut after) = (Vec::new(), 0);
        loop {
            let list = ListKnown { target: self.target.record.id, after };
            let page = ask(&self.book.leases.reconcile.known, list).await?;
            let names: Vec<&str> = page.leases.iter().map(|known| known.lease.as_str()).collect();
            let keys = keys_of(self.book.barrier.keys(), self.dialect(), &names).await?;
            for (Known { lease, here, active }, key) in page.leases.iter().zip(keys) {
                let Some(key) = key else { continue };
                self.report.leases += u64::from(*here);
                owners.offer(key, lease);
                let missing = !survey.see(key) && *here && *active && absent.len() < MOST;
                absent.extend(LeaseId::parse(lease).ok().filter(|_| missing));
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(absent),
            }
        }
    }

    fn find(&mut self, kind: FindingKind, login: &str, lease: Option<&LeaseId>, acts: bool) {
        let lease = lease.map(|lease| lease.as_str().to_owned());
        tracing::warn!(
            connection = self.report.connection,
            kind = kind.name(),
            login,
            lease,
            "logins and leases differ"
        );
        self.report.findings.push(Finding { kind, login: login.to_owned(), lease, acts });
    }

    /// Logins of ours that no lease ends.
    async fn orphans(&mut self, orphans: Vec<Marked>) -> Result<(), Trouble> {
        let mut owners =
            Owners::asking(self.dialect(), orphans.iter().filter_map(|role| role.marker.as_ref()));
        self.read_ended(&mut owners).await?;
        let mut strays = Vec::with_capacity(orphans.len());
        for role in orphans {
            let Some(marker) = role.marker.clone() else { continue };
            let ended = owners.of(&marker).cloned();
            let kind = if ended.is_some() { FindingKind::CameBack } else { FindingKind::Orphan };
            let connection = self.target.record.id.to_string();
            let lease = ended.or_else(|| adopted(self.dialect(), &connection, &marker));
            self.find(kind, &role.name, lease.as_ref(), true);
            strays.extend(lease.and_then(|lease| self.stray(lease, &role, &marker)));
        }
        self.adopt(strays).await
    }

    fn stray(&self, lease: LeaseId, role: &Marked, marker: &Marker) -> Option<Stray> {
        let names = Names {
            mount: self.report.mount,
            connection: self.target.record.id,
            connection_name: self.report.connection.clone(),
            role: NO_ROLE.to_owned(),
            username: role.name.clone(),
        };
        let mut record = CredentialRecord::new(names, &RoleRecord::new(), 0);
        if self.dialect().is_postgres() {
            record.oid = Some(role.oid.clone());
            let Marker { hash, mac } = marker;
            record.marker = Some(format!("{}{hash}:{mac}", prefix(self.cluster)));
        }
        Some(Stray {
            lease,
            mount: self.report.mount,
            target: self.target.record.id,
            role: RoleName::parse(NO_ROLE).ok()?,
            name: role.name.clone(),
            data: encode(&record).ok()?,
        })
    }

    async fn adopt(&self, strays: Vec<Stray>) -> Result<(), Trouble> {
        if !self.acts {
            return Ok(());
        }
        let mut strays = strays.into_iter().peekable();
        while strays.peek().is_some() {
            let some = strays.by_ref().take(BATCH).collect();
            let adopt = Adopt { engine: EngineKind::Database, strays: some };
            ask(&self.book.leases.reconcile.adopt, adopt).await?;
        }
        Ok(())
    }

    /// Looks among the leases that have ended for those that are asked after.
    async fn read_ended(&self, owners: &mut Owners) -> Result<(), Trouble> {
        let mut after = None;
        while !owners.is_complete() {
            let list = ListEnded { after, lately: false };
            let page = ask(&self.book.leases.reconcile.ended, list).await?;
            let names: Vec<&str> = page.leases.iter().map(|ended| ended.lease.as_str()).collect();
            let keys = keys_of(self.book.barrier.keys(), self.dialect(), &names).await?;
            for (ended, key) in page.leases.iter().zip(keys) {
                if let Some(key) = key {
                    owners.offer(key, ended.lease.as_str());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn describe(&self, leases: &[LeaseId]) -> Result<Vec<Described>, Trouble> {
        let mut described = Vec::with_capacity(leases.len());
        for some in leases.chunks(BATCH) {
            let describe = Describe { leases: some.to_vec() };
            described.extend(ask(&self.book.leases.reconcile.describe, describe).await?);
        }
        Ok(described)
    }

    /// Roles whose marker is not theirs: a renamed login, if the lease knows its oid; or a forgery.
    async fn odd(&mut self, odd: Vec<Marked>, mut owners: Owners) -> Result<(), Trouble> {
        if odd.is_empty() {
            return Ok(());
        }
        let living: HashSet<LeaseId> = owned(&odd, &owners);
        self.read_ended(&mut owners).await?;
        let named: Vec<LeaseId> = owned(&odd, &owners).into_iter().collect();
        let described: HashMap<LeaseId, Described> =
            self.describe(&named).await?.into_iter().map(|one| (one.lease.clone(), one)).collect();
        let mut strays = Vec::new();
        for role in odd {
            let marker = role.marker.clone();
            let lease = marker.as_ref().and_then(|marker| owners.of(marker)).cloned();
            let known = lease.as_ref().and_then(|lease| described.get(lease));
            let renamed = match (&marker, known) {
                (Some(marker), Some(known)) => self.is_renamed(&role, marker, known).await?,
                _ => false,
            };
            let (Some(lease), Some(marker), true) = (lease, marker, renamed) else {
                self.find(FindingKind::Forged, &role.name, None, false);
                continue;
            };
            // What lives is ended by its own lease, when that ends.
            let ended = !living.contains(&lease);
            self.find(FindingKind::Renamed, &role.name, Some(&lease), ended);
            strays.extend(self.stray(lease, &role, &marker).filter(|_| ended));
        }
        self.adopt(strays).await
    }

    /// True if a marker is the one that a lease's login got, and the role is that login.
    async fn is_renamed(
        &self,
        role: &Marked,
        marker: &Marker,
        known: &Described,
    ) -> Result<bool, Trouble> {
        let Ok(credential) = decode::<CredentialRecord>(&known.data) else { return Ok(false) };
        let claim = [(marker.hash.as_str(), credential.username.as_str())];
        let made = macs(self.book.barrier.keys(), self.cluster, &claim).await?;
        let genuine = made.first().is_some_and(|mac| same_in_constant_time(mac, &marker.mac));
        Ok(genuine && credential.oid.as_deref() == Some(role.oid.as_str()))
    }

    /// Active leases of this connection for which no marked login was listed.
    async fn absent(&mut self, absent: Vec<LeaseId>) -> Result<(), Trouble> {
        let described = self.describe(&absent).await?;
        let candidates: Vec<Candidate> =
            described.into_iter().filter(|one| one.settled).map(Candidate::new).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let there = self.still_there(&candidates).await?;
        let mut settled = Vec::new();
        for Candidate { lease, name, oid } in candidates {
            // By its oid, where that is known: another role may have taken its name.
            let is_it = |(named, number): &&(String, String)| match &oid {
                Some(oid) => number == oid,
                None => *named == name,
            };
            match there.iter().find(is_it) {
                Some((named, _)) if *named == name => {
                    self.find(FindingKind::Unmarked, &name, Some(&lease), false);
                }
                // Renamed, which its marker said.
                Some(_) => {}
                None => {
                    self.find(FindingKind::Absent, &name, Some(&lease), true);
                    settled.push(lease);
                }
            }
        }
        if !self.acts {
            return Ok(());
        }
        for some in settled.chunks(BATCH) {
            let settle = SettleAbsent { leases: some.to_vec() };
            ask(&self.book.leases.reconcile.settle, settle).await?;
        }
        Ok(())
    }

    /// The names and the oids of roles that are there, whatever their marker.
    async fn still_there(
        &self,
        candidates: &[Candidate],
    ) -> Result<Vec<(String, String)>, Trouble> {
        let mut there = Vec::new();
        for some in candidates.chunks(BATCH) {
            let names = literals(some.iter().map(|one| one.name.as_str()));
            let oids = literals(some.iter().filter_map(|one| one.oid.as_deref()));
            let sql = if self.dialect().is_postgres() {
                format!(
                    "SELECT r.rolname, r.oid FROM pg_roles r \
                     WHERE r.rolname = ANY (ARRAY[{names}]::text[]) OR r.oid = ANY (ARRAY[{oids}]::oid[])"
                )
            } else {
                mysql::survey::there(some.iter().map(|one| one.name.as_str()))
            };
            let rows = self.session.run(&sql).await.map_err(words)?;
            let role = |row: Row| {
                let mut fields = row.into_iter().flatten();
                Some((fields.next()?, fields.next()?))
            };
            there.extend(rows.into_iter().filter_map(role));
        }
        Ok(there)
    }
}

/// The leases that roles say they have.
fn owned(odd: &[Marked], owners: &Owners) -> HashSet<LeaseId> {
    let markers = odd.iter().filter_map(|role| role.marker.as_ref());
    markers.filter_map(|marker| owners.of(marker).cloned()).collect()
}

/// An active lease whose login may be gone.
struct Candidate {
    lease: LeaseId,
    name: String,
    oid: Option<String>,
}

impl Candidate {
    fn new(known: Described) -> Self {
        let credential = decode::<CredentialRecord>(&known.data).ok();
        let oid = credential.and_then(|credential| credential.oid);
        Self { lease: known.lease, name: known.name, oid }
    }
}
