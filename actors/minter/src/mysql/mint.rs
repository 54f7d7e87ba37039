//! Makes and extends logins where each statement is final: what fails is undone by statements.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{SecretText, Timestamp};
use mssm_messages::engine::{Create, CreateError, Created, EngineError, Extend};
use mssm_messages::failpoint;
use tokio::time::Instant;

use super::errors::USER_FAILED;
use super::facts::LACKS;
use super::quote::{account, literal};
use super::rolecheck::host;
use crate::book::{Book, Target};
use crate::dialect::Dialect;
use crate::engine::DbError;
use crate::mint::{CONNECTION_LIMIT, GRACE, Mint, RETRY_FOR, TRIES, check_server, pause, template};
use crate::pool::{Facts, Live};
use crate::record::CredentialRecord;
use crate::template::{Values, render};

/// A day, in which MySQL counts the life of passwords.
const DAY_MS: u128 = 86_400_000;
/// The longest life that it counts.
const DAYS_MAX: u128 = 65_535;

/// True for names such as we give to logins.
pub(crate) fn is_minted(name: &str) -> bool {
    let tail = name.strip_prefix("v-").and_then(|rest| rest.rsplit_once('-'));
    tail.is_some_and(|(_, tail)| {
        tail.len() == 20 && tail.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// One statement of a mint.
struct Step {
    text: SecretText,
    /// Which of the role's own it is, from 1.
    number: Option<usize>,
}

/// See [`Create`].
pub(crate) async fn create(
    book: &Rc<Book>,
    msg: &Create,
    mint: Mint,
) -> Result<Created, CreateError> {
    let certain = |error| CreateError { error, in_doubt: false };
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        failpoint::here("mysql.mint_before_session");
        let session = mint.target.mint.lend().await;
        let session = session.map_err(|error| certain(EngineError::Unavailable(error.public())))?;
        check_server(&mint.target, &session.facts).map_err(certain)?;
        if !session.facts.superuser {
            return Err(certain(EngineError::Invalid(LACKS.to_owned())));
        }
        let now = book.clock.now();
        let steps = steps(&mint, &session.facts, now).map_err(certain)?;
        book.begin(&msg.lease, session.facts.backend.clone());
        failpoint::here("mysql.mint_before_sql");
        let failed = run(&session, &steps).await;
        failpoint::here("mysql.mint_after_sql");
        let Some((index, error)) = failed else {
            book.settle(&msg.lease);
            mint.after(book, msg, &session);
            return Ok(mint.created(&[]));
        };
        if error == DbError::Lost {
            return Err(lost());
        }
        match undo(&session, &mint, &error, index).await {
            Ok(()) => book.settle(&msg.lease),
            Err(DbError::Lost) => return Err(lost()),
            Err(refused) => {
                tracing::warn!(
                    code = refused.code(),
                    "a login that failed could not be taken back"
                );
                book.settle(&msg.lease);
                let error = explain(&mint, &error, steps.get(index));
                return Err(CreateError { error, in_doubt: true });
            }
        }
        if !(error.is_transient() && tries < TRIES && begun.elapsed() < RETRY_FOR) {
            return Err(certain(explain(&mint, &error, steps.get(index))));
        }
        drop(session);
        pause(book.random.as_ref()).await;
    }
}

fn lost() -> CreateError {
    let text = "the database server did not answer in time; the login is being taken back";
    CreateError { error: EngineError::Unavailable(text.to_owned()), in_doubt: true }
}

/// Replies which statement failed, and why.
async fn run(session: &Live, steps: &[Step]) -> Option<(usize, DbError)> {
    for (index, step) in steps.iter().enumerate() {
        // EXPOSE: the statement goes to the database.
        if let Err(error) = session.run(step.text.expose()).await {
            return Some((index, error));
        }
        failpoint::here("mysql.mint_between_statements");
    }
    None
}

/// Takes back what was done before a statement failed: first what the role says, then the login.
async fn undo(session: &Live, mint: &Mint, error: &DbError, index: usize) -> Result<(), DbError> {
    if failpoint::is_planted(failpoint::Fault::NotUndone) {
        return Ok(());
    }
    if index == 0 && error.code() == USER_FAILED {
        // Somebody else's user has that name.
        return Ok(());
    }
    let credential = &mint.credential;
    let dialect = session.facts.dialect;
    for text in
        later(dialect, credential, &mint.role.record.rollback_statements, None).unwrap_or_default()
    {
        match session.run(&text).await {
            Ok(_) => {}
            Err(DbError::Lost) => return Err(DbError::Lost),
            // It undoes what there may be, and not all of it may be there.
            Err(error) => tracing::debug!(code = error.code(), "a rollback statement was refused"),
        }
    }
    let login = account(&credential.username, &host_of(mint));
    session.run(&format!("DROP USER IF EXISTS {login}")).await.map(|_| ())
}

fn host_of(mint: &Mint) -> String {
    mint.role.statements.first().map_or_else(String::new, |statement| host(statement))
}

/// The role's statements, and behind the first what bounds and marks the login.
fn steps(mint: &Mint, facts: &Facts, now: Timestamp) -> Result<Vec<Step>, EngineError> {
    let end = mint.expires_at.after(GRACE);
    let expiration = timestamp(facts, end);
    let values = Values {
        dialect: facts.dialect,
        name: &mint.credential.username,
        role: &mint.credential.role,
        expiration: Some(&expiration),
        password: Some(&mint.password),
        verifier: mint.verifier.as_deref(),
    };
    let mut steps = Vec::with_capacity(mint.role.statements.len() + 1);
    for (index, statement) in mint.role.statements.iter().enumerate() {
        let text = render(statement, &values).map_err(template)?;
        steps.push(Step { text, number: Some(index + 1) });
        if index == 0 {
            let login = account(&mint.credential.username, &host_of(mint));
            let text = bounds(facts, &login, days(now.until(end)), &mint.marker);
            steps.push(Step { text: SecretText::new(text), number: None });
        }
    }
    Ok(steps)
}

/// Bounds a login's sessions and its password's life, and marks it where the server can hold a mark.
fn bounds(facts: &Facts, login: &str, days: u128, marker: &str) -> String {
    let marks = facts.dialect == Dialect::MySql && facts.version >= 80_021;
    let mark = if marks {
        format!(" ATTRIBUTE {}", literal(&format!("{{\"mssm\": \"{marker}\"}}")))
    } else {
        String::new()
    };
    format!(
        "ALTER USER {login} WITH MAX_USER_CONNECTIONS {CONNECTION_LIMIT} \
         PASSWORD EXPIRE INTERVAL {days} DAY{mark}"
    )
}

/// Whole days, rounded up: the server's own end of a password never comes before ours.
fn days(span: Duration) -> u128 {
    span.as_millis().div_ceil(DAY_MS).clamp(1, DAYS_MAX)
}

/// An instant on the server's clock, as it writes them: in UTC, the zone of our sessions.
fn timestamp(facts: &Facts, at: Timestamp) -> String {
    let theirs = facts.on_their_clock(at).rfc3339();
    theirs.get(..19).unwrap_or_default().replace('T', " ")
}

/// The server's own words and the statement they are about; never the password.
fn explain(mint: &Mint, error: &DbError, step: Option<&Step>) -> EngineError {
    let DbError::Refused(_) = error else { return EngineError::Unavailable(error.public()) };
    let place = match step.and_then(|step| step.number) {
        Some(number) => format!("creation_statements: statement {number}: "),
        None => "creation_statements: bounding the login: ".to_owned(),
    };
    let said = error.public_without(&mint.password, mint.verifier.as_deref());
    EngineError::Refused(format!("{place}{said}"))
}

/// A role's own statements about a login that is there.
pub(crate) fn later(
    dialect: Dialect,
    credential: &CredentialRecord,
    texts: &[String],
    expiration: Option<&str>,
) -> Result<Vec<String>, EngineError> {
    let values = Values {
        dialect,
        name: &credential.username,
        role: &credential.role,
        expiration,
        password: None,
        verifier: None,
    };
    let statements = dialect.split_all(texts).map_err(|error| template(error.into()))?;
    let render = |statement: &String| {
        let text = render(statement, &values).map_err(template)?;
        // EXPOSE: no password is in it; the values above have none.
        Ok(text.expose().to_owned())
    };
    statements.iter().map(render).collect()
}

/// See [`Extend`].
pub(crate) async fn extend(
    msg: &Extend,
    credential: &CredentialRecord,
    target: &Target,
) -> Result<(), EngineError> {
    let unavailable = |error: DbError| match error {
        DbError::Refused(_) => EngineError::Refused(error.public()),
        _ => EngineError::Unavailable(error.public()),
    };
    let session = target.extend.lend().await.map_err(unavailable)?;
    check_server(target, &session.facts)?;
    let end = msg.expires_at.after(GRACE);
    let dialect = session.facts.dialect;
    let texts = if credential.renew_statements.is_empty() {
        let sql = last_change(dialect, &credential.username);
        let rows = session.run(&sql).await.map_err(unavailable)?;
        if rows.is_empty() {
            return Err(EngineError::Refused("the login is not there".to_owned()));
        }
        let theirs = session.facts.on_their_clock(end);
        rows.iter().map(|row| prolong(&credential.username, row, theirs)).collect()
    } else {
        let expiration = timestamp(&session.facts, end);
        later(dialect, credential, &credential.renew_statements, Some(&expiration))?
    };
    failpoint::here("mysql.renew_before_sql");
    for text in texts {
        session.run(&text).await.map_err(unavailable)?;
    }
    failpoint::here("mysql.renew_after_sql");
    Ok(())
}

/// Asks for a login's accounts, and when their passwords were set, in seconds.
fn last_change(dialect: Dialect, username: &str) -> String {
    let (changed, table) = if dialect == Dialect::MariaDb {
        ("JSON_VALUE(Priv, '$.password_last_changed')", "mysql.global_priv")
    } else {
        ("UNIX_TIMESTAMP(password_last_changed)", "mysql.user")
    };
    format!("SELECT Host, {changed} FROM {table} WHERE User = {}", literal(username))
}

/// Lets a password live until an instant; its life counts from when it was set.
fn prolong(username: &str, row: &[Option<String>], end: Timestamp) -> String {
    let text = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
    let changed = text(1).split('.').next().and_then(|secs| secs.parse::<u64>().ok());
    let changed = Timestamp::from_unix_ms(changed.unwrap_or(0).saturating_mul(1000));
    let days = days(changed.until(end));
    format!("ALTER USER {} PASSWORD EXPIRE INTERVAL {days} DAY", account(username, &text(0)))
}
