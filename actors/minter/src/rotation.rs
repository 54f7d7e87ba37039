//! Passwords that change while their users stay: when they do, and what both kinds have in common.
//!
//! A new password is stored before the database hears of it, together with the backend that will be
//! told. What became of it is decided only once that backend is gone: until then it may still commit.

mod agenda;
mod members;
pub(crate) mod record;
pub(crate) mod root;
pub(crate) mod statics;

pub(crate) use agenda::{Agenda, Key, Kind};
pub(crate) use record::RootRotation;

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{MountId, RecordPath, SecretText, generate_base62};
use mssm_messages::engine::EngineError;
use mssm_messages::guarded_async;

use crate::book::{Book, connection_path};
use crate::connections::names;
use crate::dialect::Dialect;
use crate::engine::DbError;
use crate::engine::postgres::OWN_PATH;
use crate::mint::verify;
use crate::mysql;
use crate::pool::{Backend, Live};
use crate::quote::literal;
use crate::record::ConnectionRecord;
use crate::spec::{Lane, Spec, application_name};
use crate::template::{Values, render};

/// How many passwords change by themselves at once.
const AT_ONCE: usize = 8;
/// More mounts than there are.
const MOUNTS: usize = 100_000;
/// How often we look whether a backend that was told to end has: about 5 s in all.
const LOOKS: u32 = 20;
/// The pause before what is due is looked for anew, after it could not be.
const SCAN_PAUSE: Duration = Duration::from_secs(5);
/// 24 characters of 62: 143 bits.
const PASSWORD_LEN: usize = 24;

/// Reads what is due when, once the store is open; goes on until it has.
pub(crate) async fn scan(book: Rc<Book>) {
    while book.cluster().is_ok() {
        match guarded_async(scan_once(&book)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(%error, "which passwords are due cannot be read"),
            // Logged where it was caught.
            Err(_) => {}
        }
        tokio::time::sleep(SCAN_PAUSE).await;
    }
}

async fn scan_once(book: &Book) -> Result<(), EngineError> {
    for mount in mounts(book).await? {
        for name in names(book, &connection_path(mount, "")).await? {
            match book.read::<ConnectionRecord>(&connection_path(mount, &name)).await {
                Ok(Some((_, record))) => {
                    let due = record.rotation.due(book.clock.now());
                    book.agenda.offer(Key::root(mount, &name), due);
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a connection's rotation is left out"),
            }
        }
        for name in names(book, &statics::path(mount, "")).await? {
            match statics::read_record(book, mount, &name).await {
                Ok(Some((_, record))) => statics::plan(book, mount, &name, &record),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a static role's rotation is left out"),
            }
        }
    }
    Ok(())
}

/// The mounts that have definitions.
pub(crate) async fn mounts(book: &Book) -> Result<Vec<MountId>, EngineError> {
    let children = book.barrier.list(&RecordPath::new(&["db"]), None, MOUNTS).await?;
    Ok(children.iter().filter_map(|child| MountId::parse(&child.name).ok()).collect())
}

/// Changes what is due; replies when all that it began has come to an end.
pub(crate) async fn tick(book: Rc<Book>) {
    let due = book.agenda.due(book.clock.now(), AT_ONCE);
    let runs = due.into_iter().map(|key| run(Rc::clone(&book), key));
    futures_util::future::join_all(runs).await;
}

async fn run(book: Rc<Book>, key: Key) {
    let running = book.agenda.run(&key);
    let done = guarded_async(async {
        match key.kind {
            Kind::Root => root::run_due(&book, key.mount, &key.name).await,
            Kind::Static => statics::run_due(&book, key.mount, &key.name).await,
        }
    })
    .await;
    let error = match done {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(panic.into()),
    };
    if let (Some(error), Ok(_)) = (error, book.cluster()) {
        tracing::warn!(name = key.name, kind = ?key.kind, %error, "a password was not changed, and will be tried again");
        book.agenda.fail(key.clone(), book.clock.now());
    }
    drop(running);
}

/// Opens a session of its own: its backend is known before anything is sent.
async fn dial(
    book: &Book,
    record: &ConnectionRecord,
    only: Option<&SecretText>,
) -> Result<Live, DbError> {
    let sealed = || DbError::Unreachable("the server is sealed".to_owned());
    let cluster = book.cluster().map_err(|_| sealed())?;
    let application = application_name(cluster, book.boot, Lane::Rotate);
    let mut spec = Spec::new(record, &application, Lane::Rotate).map_err(DbError::Unreachable)?;
    if let Some(password) = only {
        spec = spec.with_only(password);
    }
    Live::open(book.dialer.as_ref(), &spec, None, book.clock.as_ref()).await
}

/// Ends a backend and sees it gone: what it was told has happened by then, or never will.
async fn end_backend(live: &Live, backend: &Backend) -> Result<(), EngineError> {
    if !live.facts.dialect.is_postgres() {
        let ended = mysql::locks::end_backends(live, std::slice::from_ref(backend)).await;
        return ended.map_err(EngineError::Unavailable);
    }
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE pid = {}::int AND backend_start = {}::timestamptz AND pid <> pg_backend_pid()",
        literal(&backend.pid),
        literal(&backend.started)
    );
    for look in 0..LOOKS {
        if live.run(&sql).await.map_err(unavailable)?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5 << look.min(6))).await;
    }
    Err(EngineError::Unavailable(
        "the session that was changing the password does not end".to_owned(),
    ))
}

fn unavailable(error: DbError) -> EngineError {
    EngineError::Unavailable(error.public())
}

/// A new password: letters and digits, so that it stands anywhere.
fn generate_password(book: &Book) -> SecretText {
    SecretText::new(generate_base62(book.random.as_ref(), PASSWORD_LEN))
}

/// A user's new password, and how the database is told.
struct Change {
    password: SecretText,
    verifier: Option<String>,
    /// Each is sent by itself.
    texts: Vec<SecretText>,
}

impl Change {
    /// As one text, which is one transaction; with MySQL, as one for each statement.
    async fn new(
        book: &Book,
        how: &How<'_>,
        username: &str,
        password: SecretText,
    ) -> Result<Self, EngineError> {
        const DEFAULT: &str = "ALTER ROLE {{name}} PASSWORD '{{password}}'";
        let dialect = how.dialect;
        let verifier = if how.plain {
            None
        } else {
            Some(verify(book, dialect, &password, how.rounds).await?)
        };
        let invalid = |error: &dyn std::fmt::Display| EngineError::Invalid(error.to_string());
        let mut statements = dialect.split_all(how.statements).map_err(|error| invalid(&error))?;
        if statements.is_empty() {
            let default = how.default.as_deref().unwrap_or(DEFAULT);
            statements.push(default.to_owned());
        }
        let values = Values {
            dialect,
            name: username,
            role: username,
            expiration: None,
            password: Some(&password),
            verifier: verifier.as_deref(),
        };
        if !dialect.is_postgres() {
            let texts = statements.iter().map(|text| render(text, &values));
            let texts = texts.collect::<Result<_, _>>().map_err(|error| invalid(&error))?;
            return Ok(Self { password, verifier, texts });
        }
        let room = statements.iter().map(|text| text.len() * 2 + 1024).sum();
        // Room for all of it at once: growing would leave copies of the password behind.
        let mut sql = String::with_capacity(room);
        sql.push_str(OWN_PATH);
        for statement in &statements {
            let text = render(statement, &values).map_err(|error| invalid(&error))?;
            // EXPOSE: it is joined with the others.
            sql.push_str(text.expose());
            sql.push_str("\n;\n");
        }
        let texts = vec![SecretText::new(sql)];
        Ok(Self { password, verifier, texts })
    }

    /// Tells the database.
    async fn send(&self, live: &Live) -> Result<(), DbError> {
        for (index, text) in self.texts.iter().enumerate() {
            // EXPOSE: the statements go to the database.
            match live.run(text.expose()).await {
                Err(DbError::Refused(refusal)) if index > 0 => {
                    // What went before is not undone: which password holds is not known.
                    tracing::warn!(
                        code = refusal.code,
                        statement = index + 1,
                        "a change of a password stopped half-way"
                    );
                    return Err(DbError::Lost);
                }
                done => done.map(|_| ())?,
            }
        }
        Ok(())
    }

    /// The database's words, without the password.
    fn explain(&self, error: &DbError) -> EngineError {
        let text = error.public_without(&self.password, self.verifier.as_deref());
        match error {
            DbError::Refused(_) => EngineError::Refused(text),
            DbError::Unreachable(_) | DbError::Lost | DbError::Busy => {
                EngineError::Unavailable(text)
            }
        }
    }
}

/// How a password reaches the database.
struct How<'a> {
    dialect: Dialect,
    statements: &'a [String],
    /// Instead of PostgreSQL's own, where there are no statements.
    default: Option<String>,
    /// True to send the password itself.
    plain: bool,
    rounds: u32,
}
