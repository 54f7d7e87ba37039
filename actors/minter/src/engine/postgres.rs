//! PostgreSQL: sessions over tokio-postgres.

use std::error::Error;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DbError, Dialer, Refusal, Row, Session, WRONG_PASSWORD};
use crate::spec::Spec;

/// How long one text of SQL may take until the session is given up.
///
/// Longer than the server's own limit on each statement, which ends most cases cleanly.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Opens PostgreSQL sessions.
pub(crate) struct Postgres;

impl Dialer for Postgres {
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let work = async move {
            let dialing = tokio::time::timeout(CONNECT_DEADLINE, dial_any(spec, database));
            let late = |_| DbError::Unreachable("no answer in time".to_owned());
            let session = dialing.await.map_err(late)??;
            Ok(Box::new(session) as Box<dyn Session>)
        };
        work.boxed()
    }
}

/// Tries one password after the other, as long as it is the password that is refused.
async fn dial_any(spec: &Spec, database: Option<&str>) -> Result<PgSession, DbError> {
    let mut tried = dial(spec, spec.config.clone(), database).await;
    for other in &spec.others {
        match &tried {
            Err(error) if error.code() == WRONG_PASSWORD => {}
            _ => break,
        }
        let mut config = spec.config.clone();
        // EXPOSE: the driver logs in with it.
        config.password(other.expose());
        tried = dial(spec, config, database).await;
    }
    tried
}

async fn dial(
    spec: &Spec,
    mut config: Config,
    database: Option<&str>,
) -> Result<PgSession, DbError> {
    if let Some(database) = database {
        config.dbname(database);
    }
    let client = if let Some(tls) = &spec.tls {
        let connected = config.connect(MakeRustlsConnect::new(tls.clone())).await;
        let (client, connection) = connected.map_err(|error| unreachable(&error))?;
        drive(connection);
        client
    } else {
        let connected = config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|error| unreachable(&error))?;
        drive(connection);
        client
    };
    let session = PgSession { client, given_up: AtomicBool::new(false) };
    session.run(&spec.settings).await?;
    Ok(session)
}

/// The connection lives in a task of its own, which ends with the client or the server.
fn drive<S, T>(connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
}

struct PgSession {
    client: Client,
    given_up: AtomicBool,
}

impl Session for PgSession {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        let work = async move {
            // Set until the answer is complete: a run that is dropped half-way spoils the session.
            if self.given_up.swap(true, Ordering::Relaxed) {
                return Err(DbError::Lost);
            }
            let answer = tokio::time::timeout(STATEMENT_DEADLINE, self.query(sql)).await;
            let answer = answer.unwrap_or(Err(DbError::Lost));
            if !matches!(answer, Err(DbError::Lost)) {
                self.given_up.store(false, Ordering::Relaxed);
            }
            answer
        };
        work.boxed()
    }

    fn is_usable(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed) && !self.client.is_closed()
    }
}

impl PgSession {
    async fn query(&self, sql: &str) -> Result<Vec<Row>, DbError> {
        let mut rows = Vec::new();
        let mut done = 0;
        let answers = self.client.simple_query_raw(sql).await;
        let mut answers = pin!(answers.map_err(|error| refused(&error, 0))?);
        while let Some(answer) = answers.next().await {
            match answer.map_err(|error| refused(&error, done))? {
                SimpleQueryMessage::Row(row) => rows.push(texts(&row)),
                SimpleQueryMessage::CommandComplete(_) => done += 1,
                _ => {}
            }
        }
        Ok(rows)
    }
}

fn texts(row: &SimpleQueryRow) -> Row {
    let text = |index| row.try_get(index).ok().flatten().map(str::to_owned);
    (0..row.len()).map(text).collect()
}

/// A server that ends the session (`FATAL`) may have done so after it committed.
fn refused(error: &tokio_postgres::Error, done: usize) -> DbError {
    match error.as_db_error() {
        Some(said) if said.severity() == "ERROR" => DbError::Refused(refusal(said, done)),
        _ => DbError::Lost,
    }
}

fn refusal(said: &tokio_postgres::error::DbError, done: usize) -> Refusal {
    let position = match said.position() {
        Some(ErrorPosition::Original(position)) => Some(*position),
        _ => None,
    };
    let mut message = said.message().to_owned();
    // "dependent objects still exist": the detail has their names alone, and whoever is to clear
    // them away needs it.
    if let (&SqlState::DEPENDENT_OBJECTS_STILL_EXIST, Some(detail)) = (said.code(), said.detail()) {
        message = format!("{message} ({})", detail.replace('\n', ", "));
    }
    Refusal {
        code: said.code().code().to_owned(),
        severity: said.severity().to_owned(),
        message,
        done,
        position,
    }
}

/// What the caller may know of a connection that was not made; the log has the rest.
fn unreachable(error: &tokio_postgres::Error) -> DbError {
    if let Some(said) = error.as_db_error() {
        return DbError::Refused(refusal(said, 0));
    }
    let source = error.source();
    tracing::warn!(%error, cause = source.map(tracing::field::display), "no connection to a database");
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    let why = match io {
        Some(io) if io.get_ref().is_none() => io.kind().to_string(),
        Some(io) if io.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) => {
            "the server's certificate or TLS was refused, see the server's log".to_owned()
        }
        // The first words of tokio-postgres: "error connecting to server", "invalid configuration".
        _ => error.to_string().split(':').next().unwrap_or_default().to_owned(),
    };
    DbError::Unreachable(why)
}
