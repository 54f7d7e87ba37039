//! Decides, makes and extends logins.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{Random, SecretText, Timestamp, Ttl, generate_base62};
use mssm_messages::engine::{Create, CreateError, Created, EngineError, Extend, Prepare, Prepared};
use mssm_messages::{BarrierError, failpoint};
use tokio::time::Instant;

use crate::book::{Book, Role, Target, damaged};
use crate::dialect::Dialect;
use crate::engine::postgres::OWN_PATH;
use crate::engine::{DbError, Refusal, Row};
use crate::guard;
use crate::marker::markers;
use crate::mysql;
use crate::pool::{Facts, Live};
use crate::quote::{identifier, literal};
use crate::record::{CredentialRecord, Names, decode, encode};
use crate::template::{TemplateError, Values, render};
use crate::username;

/// 24 characters of 62: 143 bits, more than any verifier's rounds could add to.
const PASSWORD_LEN: usize = 24;
/// A login that a template does not bound takes at most so many of the server's slots.
pub(crate) const CONNECTION_LIMIT: u32 = 10;
/// The database's own end of a login comes so much after ours, so that ours is the one seen.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How often SQL that collided with others' is sent again.
pub(crate) const TRIES: u32 = 10;

/// No try of a mint begins later: whoever asked must hear of its end.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(10);

/// See [`Prepare`]: the database is not touched.
pub(crate) async fn prepare(book: &Book, msg: Prepare) -> Result<Prepared, EngineError> {
    let role_name = msg.role.as_str();
    let candidate = book.candidates.find(msg.mount, role_name);
    let role = match &candidate {
        Some(candidate) => Some(Rc::clone(&candidate.role)),
        None => book.role(msg.mount, role_name).await?,
    };
    let Some(role) = role else {
        return Err(EngineError::Unknown(format!("unknown role: {role_name}")));
    };
    let connection = &role.record.db_name;
    let target = find_target(book, msg.mount, connection).await?;
    let dialect = target.record.dialect().map_err(EngineError::Invalid)?;
    dialect.check_role(role.record.dialect)?;
    if candidate.is_none() && !is_allowed(&target.record.allowed_roles, role_name) {
        return Err(EngineError::Forbidden(format!("\"{role_name}\" is not an allowed role")));
    }
    // Nothing is waited for after this: once a connection is leaving, nobody is told of it.
    book.check_stays(msg.mount, connection)?;
    let who = &msg.caller.display_name;
    let shown = candidate.as_ref().map_or(role_name, |candidate| candidate.name.as_str());
    let username = match dialect {
        Dialect::Postgres => username::generate(who, shown, book.random.as_ref(), book.clock.now()),
        Dialect::MySql | Dialect::MariaDb => {
            let begins = username::beginning(who, shown);
            mysql::marker::name(book.barrier.keys(), book.cluster()?, &msg.lease, &begins)
                .await
                .map_err(BarrierError::Key)?
        }
    };
    let names = Names {
        mount: msg.mount,
        connection: target.record.id,
        connection_name: connection.clone(),
        role: shown.to_owned(),
        username,
    };
    let mut record = CredentialRecord::new(names, &role.record, role.version);
    record.probe = candidate.as_ref().map(|_| role_name.to_owned());
    let data = encode(&record).map_err(damaged)?;
    if let Some(candidate) = candidate {
        candidate.data.replace(Some(data.duplicate()));
    }
    Ok(Prepared {
        target: target.record.id,
        data,
        ttl: Ttl::from_secs(role.record.default_ttl_secs).ok(),
        max_ttl: Ttl::from_secs(role.record.max_ttl_secs).ok(),
        renewable: true,
        rules: role.record.rules(),
        name: record.username,
        warnings: Vec::new(),
    })
}

/// The connection of that name, or Vault's words for its absence.
pub(crate) async fn find_target(
    book: &Book,
    mount: mssm_domain::MountId,
    name: &str,
) -> Result<Rc<Target>, EngineError> {
    let missing = || format!("failed to find entry for connection with name: \"{name}\"");
    book.target(mount, name).await?.ok_or_else(|| EngineError::Unknown(missing()))
}

/// True if one of the patterns is the role's name; `*` stands for anything.
pub(crate) fn is_allowed(patterns: &[String], role: &str) -> bool {
    patterns.iter().any(|pattern| {
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(last) = parts.next_back() else { return pattern == role };
        let Some(rest) = role.strip_prefix(first) else { return false };
        let Some(mut rest) = rest.strip_suffix(last) else { return false };
        parts.all(|part| match rest.find(part) {
            Some(at) => {
                rest = rest.get(at + part.len()..).unwrap_or_default();
                true
            }
            None => false,
        })
    })
}

/// See [`Create`].
pub(crate) async fn create(book: &Rc<Book>, msg: Create) -> Result<Created, CreateError> {
    let certain = |error| CreateError { error, in_doubt: false };
    let _making = book.make(&msg.lease);
    let begun = Instant::now();
    let mint = Mint::plan(book, &msg).await.map_err(certain)?;
    guard::allow(book, &mint.target).await.map_err(certain)?;
    if !mint.role.record.dialect.is_postgres() {
        return mysql::mint::create(book, &msg, mint).await;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        failpoint::here("mint.before_session");
        let session = mint.target.mint.lend().await;
        let session = session.map_err(|error| certain(EngineError::Unavailable(error.public())))?;
        check_server(&mint.target, &session.facts).map_err(certain)?;
        if let Some(why) = session.facts.wrong_clock() {
            return Err(certain(EngineError::Unavailable(why)));
        }
        let (sql, lengths) = mint.sql(&session.facts).map_err(certain)?;
        book.begin(&msg.lease, session.facts.backend.clone());
        failpoint::here("mint.before_sql");
        // EXPOSE: the statements go to the database.
        let result = session.run(sql.expose()).await;
        failpoint::here("mint.after_sql");
        if let Err(DbError::Lost) = result {
            let text = "the database server did not answer in time; the login is being taken back";
            let error = EngineError::Unavailable(text.to_owned());
            return Err(CreateError { error, in_doubt: true });
        }
        book.settle(&msg.lease);
        match result {
            Ok(rows) => {
                mint.after(book, &msg, &session);
                return Ok(mint.created(&rows));
            }
            Err(error) if error.is_transient() && tries < TRIES && begun.elapsed() < RETRY_FOR => {
                drop(session);
                pause(book.random.as_ref()).await;
            }
            Err(error) => return Err(certain(mint.explain(&error, &lengths))),
        }
    }
}

/// Waits 5 to 50 ms, so that those who collided do not do so again.
pub(crate) async fn pause(random: &dyn Random) {
    let mut byte = [0];
    random.fill(&mut byte);
    let [byte] = byte;
    tokio::time::sleep(Duration::from_millis(5 + u64::from(byte) % 46)).await;
}

/// A definition that leads to another server than it did makes nothing there.
pub(crate) fn check_server(target: &Target, facts: &Facts) -> Result<(), EngineError> {
    if target.is_same_server(facts) {
        return Ok(());
    }
    let text = "the connection leads to another database server than it did";
    Err(EngineError::Unavailable(text.to_owned()))
}

/// A login about to be made.
pub(crate) struct Mint {
    pub(crate) credential: CredentialRecord,
    pub(crate) target: Rc<Target>,
    pub(crate) role: Rc<Role>,
    pub(crate) password: SecretText,
    pub(crate) verifier: Option<String>,
    pub(crate) marker: String,
    pub(crate) expires_at: Timestamp,
}

impl Mint {
    async fn plan(book: &Rc<Book>, msg: &Create) -> Result<Self, EngineError> {
        let credential: CredentialRecord = decode(&msg.data).map_err(damaged)?;
        let target = find_target(book, credential.mount, &credential.connection_name).await?;
        let role = match &credential.probe {
            Some(probe) => {
                let candidate = book.candidates.find(credential.mount, probe);
                candidate.map(|candidate| Rc::clone(&candidate.role))
            }
            None => book.role(credential.mount, &credential.role).await?,
        };
        let changed = || EngineError::Unavailable("the definition changed, try again".to_owned());
        let role =
            role.filter(|role| role.version == credential.role_version).ok_or_else(changed)?;
        if target.record.id != credential.connection {
            return Err(changed());
        }
        let cluster = book.cluster()?;
        let logins = [(&msg.lease, credential.username.as_str())];
        let made = markers(book.barrier.keys(), cluster, &logins).await;
        let marker = made.map_err(BarrierError::Key)?.into_iter().next();
        let password = SecretText::new(generate_base62(book.random.as_ref(), PASSWORD_LEN));
        let plain = target.record.password_authentication == "password";
        let rounds = role.record.scram_iterations;
        let dialect = role.record.dialect;
        let verifier =
            if plain { None } else { Some(verify(book, dialect, &password, rounds).await?) };
        let marker = marker.ok_or(EngineError::Internal)?;
        let expires_at = msg.expires_at;
        Ok(Self { credential, target, role, password, verifier, marker, expires_at })
    }

    /// All statements as one text, and how many characters each of the role's own takes.
    ///
    /// Sent as one message they are one transaction, in one round trip.
    fn sql(&self, facts: &Facts) -> Result<(SecretText, Vec<usize>), EngineError> {
        let expiration = expiration(facts, self.expires_at);
        let values = Values {
            dialect: Dialect::Postgres,
            name: &self.credential.username,
            role: &self.credential.role,
            expiration: Some(&expiration),
            password: Some(&self.password),
            verifier: self.verifier.as_deref(),
        };
        let mut lengths = Vec::new();
        let room = self.role.statements.iter().map(|text| text.len() * 2 + 1024).sum();
        // Room for all of it at once: growing would leave copies of the password behind.
        let mut sql = String::with_capacity(room);
        let more = self.role.statements.len() > 1;
        if more {
            sql.push_str(OWN_PATH);
            lengths.push(OWN_PATH.len());
        }
        for (index, statement) in self.role.statements.iter().enumerate() {
            let text = render(statement, &values).map_err(template)?;
            let before = sql.chars().count();
            // EXPOSE: it is joined with the others.
            sql.push_str(text.expose());
            if index == 0 && !self.role.limits {
                let _ = write!(sql, "\nCONNECTION LIMIT {CONNECTION_LIMIT}");
            }
            if index == 0 && !self.role.ends {
                let _ = write!(sql, "\nVALID UNTIL {}", literal(&expiration));
            }
            // On a line of its own: the statement may end in a comment.
            sql.push_str("\n;\n");
            lengths.push(sql.chars().count() - before);
        }
        // What follows looks up nothing in the path.
        let name = identifier(&self.credential.username);
        if !facts.superuser {
            sql.push_str(&grant_to_us(&name, facts));
        }
        let (marker, login) = (literal(&self.marker), literal(&name));
        let _ = writeln!(sql, "COMMENT ON ROLE {name} IS {marker};");
        let _ = write!(sql, "SELECT {login}::pg_catalog.regrole::pg_catalog.oid");
        Ok((SecretText::new(sql), lengths))
    }

    /// The database's own words and the statement they are about; never the password.
    fn explain(&self, error: &DbError, lengths: &[usize]) -> EngineError {
        let DbError::Refused(refusal) = error else {
            return EngineError::Unavailable(error.public());
        };
        let ours = lengths.len().saturating_sub(self.role.statements.len());
        let number = failed_statement(refusal, lengths).filter(|number| *number > ours);
        let place = match number.map(|number| number - ours) {
            Some(number) => format!("creation_statements: statement {number}: "),
            None => String::new(),
        };
        let said = error.public_without(&self.password, self.verifier.as_deref());
        EngineError::Refused(format!("{place}{said}"))
    }

    /// What can be done once the login is there.
    pub(crate) fn after(&self, book: &Rc<Book>, msg: &Create, session: &Live) {
        tracing::debug!(lease = %msg.lease, "login made");
        self.target.warm();
        if let Some(seen) = session.facts.system_identifier.clone() {
            let (book, target) = (Rc::clone(book), Rc::clone(&self.target));
            let (mount, name) = (self.credential.mount, self.credential.connection_name.clone());
            actix_rt::spawn(async move { book.learn(mount, &name, &target, &seen).await });
        }
    }

    /// What the caller gets, and what the lease remembers from now on: the role's oid, by which it
    /// is found under whatever name.
    pub(crate) fn created(mut self, rows: &[Row]) -> Created {
        let oid = rows.last().and_then(|row| row.first().cloned().flatten());
        self.credential.oid = oid.filter(|oid| oid.bytes().all(|byte| byte.is_ascii_digit()));
        let data = encode(&self.credential).ok();
        let username = SecretText::new(self.credential.username);
        Created { secret: vec![("username", username), ("password", self.password)], data }
    }
}

/// Lets us end the login's sessions and take over what it owns, where we are no superuser.
pub(crate) fn grant_to_us(name: &str, facts: &Facts) -> String {
    // From 16 on, membership alone lets its holder do nothing.
    let how = if facts.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    format!("GRANT {name} TO CURRENT_USER{how};\n")
}

/// Which of the statements failed, from 1; `None` for one of ours.
pub(crate) fn failed_statement(refusal: &Refusal, lengths: &[usize]) -> Option<usize> {
    let mut index = refusal.done;
    if let (0, Some(position)) = (refusal.done, refusal.position) {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let mut end = 0;
        index = lengths
            .iter()
            .take_while(|length| {
                end += **length;
                end < position
            })
            .count();
    }
    (index < lengths.len()).then_some(index + 1)
}

/// A new password's verifier.
pub(crate) async fn verify(
    book: &Book,
    dialect: Dialect,
    password: &SecretText,
    rounds: u32,
) -> Result<String, EngineError> {
    if !dialect.is_postgres() {
        return Ok(mysql::password::verifier(password));
    }
    let (password, random) = (password.duplicate(), std::sync::Arc::clone(&book.random));
    // Half a millisecond at 4,096 rounds, and roles may ask for more: not on the actor's thread.
    let work = move || mssm_crypto::scram::generate_verifier(&password, rounds, random.as_ref());
    let made = tokio::task::spawn_blocking(work).await;
    made.map_err(|_| EngineError::Internal)?.map_err(|_| EngineError::Internal)
}

pub(crate) fn template(error: TemplateError) -> EngineError {
    EngineError::Invalid(error.to_string())
}

/// The end on the database's clock, with its offset: `2006-01-02 15:04:05+00`.
pub(crate) fn expiration(facts: &Facts, expires_at: Timestamp) -> String {
    let theirs = facts.on_their_clock(expires_at.after(GRACE)).rfc3339();
    let seconds = theirs.get(..19).unwrap_or_default();
    format!("{}+00", seconds.replace('T', " "))
}

/// See [`Extend`].
pub(crate) async fn extend(book: &Book, msg: Extend) -> Result<(), EngineError> {
    let credential: CredentialRecord = decode(&msg.data).map_err(damaged)?;
    let target = find_target(book, credential.mount, &credential.connection_name).await?;
    if target.record.id != credential.connection {
        return Err(EngineError::Unavailable("the connection's definition changed".to_owned()));
    }
    guard::allow(book, &target).await?;
    if !target.record.dialect().map_err(EngineError::Invalid)?.is_postgres() {
        return mysql::mint::extend(&msg, &credential, &target).await;
    }
    let unavailable = |error: DbError| EngineError::Unavailable(error.public());
    let mut tries = 0;
    loop {
        tries += 1;
        let session = target.extend.lend().await.map_err(unavailable)?;
        check_server(&target, &session.facts)?;
        let end = expiration(&session.facts, msg.expires_at);
        let sql = extending(&credential, &end)?;
        failpoint::here("renew.before_sql");
        let extended = session.run(&sql).await;
        failpoint::here("renew.after_sql");
        match extended {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() && tries < TRIES => {
                drop(session);
                pause(book.random.as_ref()).await;
            }
            Err(error @ DbError::Refused(_)) => return Err(EngineError::Refused(error.public())),
            Err(error) => return Err(unavailable(error)),
        }
    }
}

fn extending(credential: &CredentialRecord, end: &str) -> Result<String, EngineError> {
    if credential.renew_statements.is_empty() {
        let name = identifier(&credential.username);
        return Ok(format!("ALTER ROLE {name} VALID UNTIL {}", literal(end)));
    }
    let text = run_later(credential, &credential.renew_statements, Some(end))?;
    Ok(format!("{OWN_PATH}{text}"))
}

/// A role's own statements about a login that is there, as one text.
pub(crate) fn run_later(
    credential: &CredentialRecord,
    texts: &[String],
    expiration: Option<&str>,
) -> Result<String, EngineError> {
    let values = Values {
        dialect: Dialect::Postgres,
        name: &credential.username,
        role: &credential.role,
        expiration,
        password: None,
        verifier: None,
    };
    let statements = Dialect::Postgres.split_all(texts).map_err(|error| template(error.into()))?;
    let mut sql = String::new();
    for statement in &statements {
        let text = render(statement, &values).map_err(template)?;
        // EXPOSE: no password is in it; the values above have none.
        sql.push_str(text.expose());
        sql.push_str("\n;\n");
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_allowed_by_name_or_pattern() {
        let cases = [
            ("*", "app", true),
            ("app", "app", true),
            ("app", "apple", false),
            ("app*", "apple", true),
            ("*le", "apple", true),
            ("a*e", "apple", true),
            ("a*x*e", "apple", false),
            ("", "app", false),
            ("a*p*e", "apple", true),
            ("aa*aa", "aaa", false),
        ];
        for (pattern, role, allowed) in cases {
            assert_eq!(is_allowed(&[pattern.to_owned()], role), allowed, "{pattern} {role}");
        }
        assert!(!is_allowed(&[], "app"));
    }

    #[test]
    fn the_statement_that_failed_is_found() {
        let refusal = |done, position| Refusal {
            code: String::new(),
            severity: String::new(),
            message: String::new(),
            done,
            position,
        };
        let lengths = [10, 10];
        let cases = [
            (0, None, Some(1)),
            (1, None, Some(2)),
            (2, None, None),
            (0, Some(3), Some(1)),
            (0, Some(10), Some(1)),
            (0, Some(11), Some(2)),
            (0, Some(21), None),
            (1, Some(3), Some(2)),
        ];
        for (done, position, statement) in cases {
            assert_eq!(failed_statement(&refusal(done, position), &lengths), statement);
        }
    }
}
