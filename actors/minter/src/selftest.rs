//! The self-test of a role: what it says is tried in the real database before it is stored.
//!
//! First a rehearsal that is rolled back: two logins must come of the statements, and nothing else. Then
//! a login is made under a lease of its own; it logs in, is ended, and nothing may be left.

mod queries;
mod slots;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::rc::Rc;

use mssm_domain::{MountId, RoleName, SecretBytes, SecretText, Ttl, generate_base62};
use mssm_messages::BarrierError;
use mssm_messages::engine::{EngineError, EngineKind, Extend};
use mssm_messages::keys::KeyError;
use mssm_messages::lease::{Issue, Issued, LeaseError, Revoke};
use mssm_messages::minter::Tester;

use self::queries::{notes, rights, snapshot};
use crate::book::{Book, Role, Target};
use crate::dialect::Dialect;
use crate::engine::postgres::{OUR_PATH, OWN_PATH};
use crate::engine::{DbError, Row};
use crate::mint::{expiration, extend, failed_statement, template};
use crate::mysql;
use crate::pool::Live;
use crate::record::RoleRecord;
use crate::template::{Values, render};
use crate::username;

/// How long the lease of a self-test's login is: it is ended long before.
const PROBE_SECS: u64 = 30;
/// What stays different so often is not others' work at the same time.
const TRIES: usize = 3;
/// What every refusal for want of a database ends in.
const HINT: &str = "; verify=false stores the role without trying it";

/// A definition on trial, known by a name of its own while it lasts.
pub(crate) struct Candidate {
    /// The role's name, as statements are told it.
    pub(crate) name: String,
    pub(crate) role: Rc<Role>,
    /// What was decided on its login.
    pub(crate) data: RefCell<Option<SecretBytes>>,
    finding: RefCell<Option<String>>,
}

/// All definitions on trial.
#[derive(Default)]
pub(crate) struct Candidates(RefCell<HashMap<(MountId, String), Rc<Candidate>>>);

impl Candidates {
    /// The one of that name, while it lasts.
    pub(crate) fn find(&self, mount: MountId, key: &str) -> Option<Rc<Candidate>> {
        self.0.borrow().get(&(mount, key.to_owned())).cloned()
    }

    /// Notes why a login on trial could not be ended as its role says.
    pub(crate) fn note(&self, mount: MountId, key: &str, finding: &str) {
        if let Some(candidate) = self.find(mount, key) {
            candidate.finding.borrow_mut().get_or_insert_with(|| finding.to_owned());
        }
    }
}

/// A trial; its candidate is forgotten when this is dropped.
struct Trial<'a> {
    book: &'a Rc<Book>,
    target: &'a Target,
    /// Whom its logins are named after.
    who: &'a str,
    mount: MountId,
    key: String,
    candidate: Rc<Candidate>,
    /// Of logins that are never there.
    password: SecretText,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.book.candidates.0.borrow_mut().remove(&(self.mount, self.key.clone()));
    }
}

/// Tries a definition; replies warnings, or why it must not be stored.
///
/// Where the server asks, a rehearsal is enough: it does so at each start.
pub(crate) async fn try_out(
    book: &Rc<Book>,
    target: &Target,
    (mount, name): (MountId, &str),
    record: &RoleRecord,
    tester: &Tester,
) -> Result<Vec<String>, EngineError> {
    let mut record = record.clone();
    (record.default_ttl_secs, record.max_ttl_secs) = (PROBE_SECS, PROBE_SECS);
    (record.reuse_window_secs, record.orphan_leases) = (0, false);
    (record.max_leases, record.max_leases_per_token) = (0, 0);
    let key = format!("self-test-{}", generate_base62(book.random.as_ref(), 16));
    let candidate = Rc::new(Candidate {
        name: name.to_owned(),
        role: Rc::new(Role::new(record, 0)?),
        data: RefCell::default(),
        finding: RefCell::default(),
    });
    book.candidates.0.borrow_mut().insert((mount, key.clone()), Rc::clone(&candidate));
    let password = SecretText::new(generate_base62(book.random.as_ref(), 24));
    let who = tester.caller.display_name.as_str();
    let trial = Trial { book, target, who, mount, key, candidate, password };
    let mut warnings = if trial.dialect().is_postgres() {
        trial.rehearse().await?
    } else {
        // Nothing undoes a rehearsal there: a second login is made as the first will be.
        trial.perform(tester).await?.0
    };
    if trial.dialect().is_postgres() && tester.caller.is_server() {
        return Ok(warnings);
    }
    // Others may change roles at the same time: what is different each time is the role's doing.
    for _ in 1..TRIES {
        let (told, left) = trial.perform(tester).await?;
        if left.is_none() {
            warnings.extend(told);
            return Ok(warnings);
        }
    }
    let (told, left) = trial.perform(tester).await?;
    warnings.extend(told);
    match left {
        None => Ok(warnings),
        Some(left) => Err(EngineError::Refused(format!(
            "its statements change users, roles, memberships or slots other than the login ({left})"
        ))),
    }
}

impl Trial<'_> {
    /// Everything but the commit: two logins, since what works only once is broken too.
    async fn rehearse(&self) -> Result<Vec<String>, EngineError> {
        let here = self.target.mint.lend().await.map_err(|error| unavailable(&error))?;
        let database = here.facts.database.clone();
        drop(here);
        // A session of its own, whose transaction is gone with it.
        let session = self.target.mint.visit(&database).await;
        let session = session.map_err(|error| unavailable(&error))?;
        let names: Vec<String> = (0..2).map(|_| self.username()).collect();
        let (sql, lengths) = self.rehearsal(&session, &names)?;
        let slots = slots::before(&session, &self.candidate.role.statements).await;
        // EXPOSE: the statements go to the database; the password in them is nobody's.
        let rows = session.run(sql.expose()).await.map_err(|error| self.explain(&error, &lengths));
        slots::take_away(&session, slots).await;
        self.judge(&rows?, &names)
    }

    fn dialect(&self) -> Dialect {
        self.candidate.role.record.dialect
    }

    fn username(&self) -> String {
        let book = self.book;
        let (who, name) = (self.who, &self.candidate.name);
        username::generate(who, name, book.random.as_ref(), book.clock.now())
    }

    fn rehearsal(
        &self,
        session: &Live,
        names: &[String],
    ) -> Result<(SecretText, Vec<usize>), EngineError> {
        let expiration = expiration(&session.facts, self.book.clock.now());
        // Others' changes at the same time are not seen in it.
        let mut sql = "BEGIN ISOLATION LEVEL REPEATABLE READ;\n".to_owned();
        let _ = writeln!(sql, "{};", snapshot("before"));
        sql.push_str(OWN_PATH);
        let mut lengths = vec![sql.chars().count(), 0, 0];
        for name in names {
            let values = Values {
                dialect: Dialect::Postgres,
                name,
                role: &self.candidate.name,
                expiration: Some(&expiration),
                password: Some(&self.password),
                verifier: None,
            };
            for statement in &self.candidate.role.statements {
                let text = render(statement, &values).map_err(template)?;
                // EXPOSE: it is joined with the others.
                let text = text.expose();
                let _ = write!(sql, "{text}\n;\n");
                lengths.push(text.chars().count() + 3);
            }
        }
        let _ = write!(sql, "{OUR_PATH}{};\n{};\nROLLBACK", snapshot("after"), rights(names));
        Ok((SecretText::new(sql), lengths))
    }

    /// The database's own words and the statement they are about.
    fn explain(&self, error: &DbError, lengths: &[usize]) -> EngineError {
        let DbError::Refused(refusal) = error else { return unavailable(error) };
        let count = self.candidate.role.statements.len().max(1);
        let place = match failed_statement(refusal, lengths) {
            Some(place) if place > 3 => {
                let (index, again) = ((place - 4) % count, place - 4 >= count);
                let second =
                    if again { "works once only: a second login is refused: " } else { "" };
                format!("creation_statements: statement {}: {second}", index + 1)
            }
            _ => "creation_statements: ".to_owned(),
        };
        EngineError::Refused(format!("{place}{}", error.public_without(&self.password, None)))
    }

    /// What came of the statements, by what the server's own catalogues say.
    fn judge(&self, rows: &[Row], names: &[String]) -> Result<Vec<String>, EngineError> {
        let fact = |row: &Row| {
            let field = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
            (field(0), [field(1), field(2), field(3)])
        };
        let facts: Vec<(String, [String; 3])> = rows.iter().map(fact).collect();
        let of = |time: &str| -> BTreeSet<[String; 3]> {
            facts.iter().filter(|(when, _)| when == time).map(|(_, what)| what.clone()).collect()
        };
        let (before, after) = (of("before"), of("after"));
        let mut wrongs = Vec::new();
        for [kind, name, detail] in after.difference(&before) {
            let ours = names.contains(name) || (kind == "member" && names.contains(detail));
            if !ours {
                wrongs.push(format!("they also make or change the {kind} {name} ({detail})"));
            }
        }
        for [kind, name, _] in before.difference(&after) {
            let still = after.iter().any(|[there, it, _]| there == kind && it == name);
            if !still {
                wrongs.push(format!("they also remove the {kind} {name}"));
            }
        }
        for (_, [_, right, _]) in facts.iter().filter(|(what, _)| what == "right") {
            wrongs.push(format!("the login would have {right}, which outlives its revocation"));
        }
        wrongs.sort();
        wrongs.dedup();
        if wrongs.is_empty() || self.candidate.role.record.allow_privileged {
            wrongs.extend(notes(&facts));
            return Ok(wrongs);
        }
        Err(EngineError::Refused(format!(
            "creation_statements: {}; allow_privileged=true permits it",
            wrongs.join("; ")
        )))
    }

    /// The real thing: made under a lease, used, ended, and nothing left.
    async fn perform(&self, tester: &Tester) -> Result<(Vec<String>, Option<String>), EngineError> {
        let before = self.look().await?;
        let issue = Issue {
            engine: EngineKind::Database,
            mount: self.mount,
            prefix: format!("{}self-test/{}/", tester.prefix, self.candidate.name),
            role: RoleName::parse(&self.key).map_err(|_| EngineError::Internal)?,
            caller: tester.caller.clone(),
            default_ttl: Ttl::from_secs(PROBE_SECS).map_err(|_| EngineError::Internal)?,
            max_ttl: Ttl::from_secs(PROBE_SECS).map_err(|_| EngineError::Internal)?,
            key: None,
        };
        let issued = self.book.leases.issue.commit(issue).await;
        let issued = issued.map_err(|_| EngineError::Internal)?.map_err(refused)?;
        let lease = issued.lease.id.clone();
        let used = self.make_use(issued).await;
        let revoke = Revoke { lease: lease.clone(), sync: true };
        let revoked = self.book.leases.revoke.commit(revoke).await;
        let revoked = revoked.map_err(|_| EngineError::Internal)?;
        let warnings = used?;
        if let Some(finding) = self.candidate.finding.borrow().as_ref() {
            return Err(EngineError::Refused(format!(
                "a login that the role made could not be ended as it says: {finding}"
            )));
        }
        revoked.map_err(|error| {
            EngineError::Unavailable(format!("the self-test's login is still there: {error}"))
        })?;
        Ok((warnings, self.compare(&before).await?))
    }

    /// Logs in as an application would, and has the login's end moved.
    async fn make_use(&self, issued: Issued) -> Result<Vec<String>, EngineError> {
        let value = |name: &str| {
            let pair = issued.secret.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| value).ok_or(EngineError::Internal)
        };
        let (user, password) = (value("username")?, value("password")?);
        let mut warnings = Vec::new();
        // EXPOSE: it logs in with them.
        let (user, password) = (user.expose(), password.expose());
        let tried = self.target.mint.try_login(user, password).await;
        if let Err(error) = tried {
            let said = error.public();
            let text = format!("a login that the role made is not let in: {said}");
            let statement = self.candidate.role.statements.first();
            let anywhere =
                statement.is_none_or(|statement| mysql::rolecheck::host(statement) == "%");
            if self.dialect().is_postgres() || anywhere {
                return Err(EngineError::Refused(text));
            }
            warnings.push(format!("{text}; this server's host may not be among its hosts"));
        }
        self.check_rights(user, &mut warnings).await?;
        if self.target.mint.try_login(user, "not the password").await.is_ok() {
            warnings.push(
                "the server lets this connection in without a password (pg_hba.conf: trust or \
                 the like): neither a password nor its end protects logins"
                    .to_owned(),
            );
        }
        let data = self.candidate.data.take();
        let renews = !self.candidate.role.record.renew_statements.is_empty();
        if let (Some(data), true) = (data, renews) {
            let (lease, expires_at) = (issued.lease.id.clone(), issued.lease.expires_at);
            extend(self.book, Extend { lease, data, expires_at })
                .await
                .map_err(|error| EngineError::Refused(format!("renew_statements: {error}")))?;
        }
        Ok(warnings)
    }

    /// Rights that the rehearsal would have told of.
    async fn check_rights(
        &self,
        user: &str,
        warnings: &mut Vec<String>,
    ) -> Result<(), EngineError> {
        if self.dialect().is_postgres() {
            return Ok(());
        }
        let session = self.target.mint.lend().await.map_err(|error| unavailable(&error))?;
        let rights = mysql::selftest::rights(&session, user).await;
        let rights = rights.map_err(|error| unavailable(&error))?;
        if rights.is_empty() {
            Ok(())
        } else if self.candidate.role.record.allow_privileged {
            warnings.push(format!("the login has {}, which outlives its lease", rights.join(", ")));
            Ok(())
        } else {
            Err(mysql::selftest::refuse(&rights))
        }
    }

    /// What is not as it was. The rehearsal has told of what creation does, whoever else was at
    /// work: this is for what the role says of a login's renewal and end.
    async fn compare(&self, before: &BTreeSet<Row>) -> Result<Option<String>, EngineError> {
        let record = &self.candidate.role.record;
        let later = !record.revocation_statements.is_empty() || !record.renew_statements.is_empty();
        if self.dialect().is_postgres() && !later {
            return Ok(None);
        }
        let after = self.look().await?;
        let said = |row: &Row| row.iter().skip(1).flatten().cloned().collect::<Vec<_>>().join(" ");
        let more: Vec<String> = after.difference(before).map(said).collect();
        let less: Vec<String> = before.difference(&after).map(said).collect();
        if more.is_empty() && less.is_empty() {
            return Ok(None);
        }
        let (more, less) = (more.join(", "), less.join(", "));
        Ok(Some(format!("new: {more}; gone: {less}")))
    }

    async fn look(&self) -> Result<BTreeSet<Row>, EngineError> {
        let session = self.target.mint.lend().await.map_err(|error| unavailable(&error))?;
        let snapshot = match self.dialect() {
            Dialect::Postgres => snapshot("now"),
            Dialect::MySql | Dialect::MariaDb => mysql::selftest::snapshot("now"),
        };
        let rows = session.run(&snapshot).await.map_err(|error| unavailable(&error))?;
        Ok(rows.into_iter().collect())
    }
}

fn unavailable(error: &DbError) -> EngineError {
    EngineError::Unavailable(format!("the role could not be tried: {}{HINT}", error.public()))
}

/// What the lease manager says of a login that was not made.
fn refused(error: LeaseError) -> EngineError {
    let sealed = || EngineError::Barrier(BarrierError::Key(KeyError::Sealed));
    match error {
        LeaseError::Engine(EngineError::Unavailable(why)) => {
            EngineError::Unavailable(format!("the role could not be tried: {why}{HINT}"))
        }
        LeaseError::Engine(error) => error,
        LeaseError::Barrier(error) => error.into(),
        LeaseError::Sealed => sealed(),
        LeaseError::TokenEnded => EngineError::Invalid(format!(
            "a token at its last use cannot hold the self-test's lease{HINT}"
        )),
        other => EngineError::Unavailable(format!("the role could not be tried: {other}{HINT}")),
    }
}
