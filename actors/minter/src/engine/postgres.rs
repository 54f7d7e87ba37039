//! PostgreSQL: sessions over tokio-postgres.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use mssm_domain::SecretText;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{
    Client, Config, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow, Socket,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::answer::{AsksInClear, Bare, ScramAlone, in_clear};
use super::{DbError, Refusal, Row, Session};
use crate::dsn::Dsn;
use crate::record::ConnectionRecord;
use crate::spec::Lane;
use crate::tls;

/// How long one text of SQL may take until the session is given up.
///
/// Longer than the server's own limit on each statement, which ends most cases cleanly.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// Before statements of operators, which may name what lies in the schemas that the database searches;
/// until the transaction ends, or [`OUR_PATH`].
pub(crate) const OWN_PATH: &str = "SET LOCAL search_path TO DEFAULT;\n";
/// Before statements of ours that follow them.
pub(crate) const OUR_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp;\n";
/// Where a PostgreSQL server is, and how a session there begins.
#[derive(Clone)]
pub(crate) struct Place {
    /// In order of preference.
    hosts: Vec<(String, u16)>,
    config: Config,
    tls: Option<ClientConfig>,
    /// True if a server that asks for the password in clear text, or as MD5, gets it.
    clear: bool,
    /// Run first in every session.
    settings: String,
}

impl Place {
    /// Reads a definition; an error says what is wrong with it.
    pub(crate) fn new(
        dsn: &Dsn,
        record: &ConnectionRecord,
        application: &str,
        lane: Lane,
    ) -> Result<Self, String> {
        let mut config = Config::new();
        if let Some(database) = &dsn.database {
            config.dbname(database);
        }
        if let Some(options) = &dsn.options {
            config.options(options);
        }
        let clear = in_clear(dsn, record);
        let tls = tls::client(&dsn.tls(!record.tls_ca.is_empty()), &record.tls_material())?;
        let ssl = if tls.is_some() { SslMode::Require } else { SslMode::Disable };
        config
            .ssl_mode(ssl)
            .application_name(application)
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(30));
        Ok(Self { hosts: dsn.hosts.clone(), config, tls, clear, settings: settings(lane) })
    }

    pub(crate) fn application(&self) -> &str {
        self.config.get_application_name().unwrap_or_default()
    }

    pub(crate) fn with_login(mut self, user: &str, password: Option<&SecretText>) -> Self {
        self.config.user(user);
        if self.config.get_dbname().is_none() {
            self.config.dbname(user);
        }
        match password {
            Some(password) => self.with_password(password),
            None => self,
        }
    }

    pub(crate) fn with_password(mut self, password: &SecretText) -> Self {
        // EXPOSE: the driver logs in with it.
        self.config.password(password.expose());
        self
    }

    /// As an application would log in.
    pub(crate) fn for_application(&self) -> Self {
        let mut place = self.clone();
        place.config.application_name("mssm self-test");
        place
    }
}

/// What must hold in a session whatever the database's defaults are.
///
/// `synchronous_commit`: an acknowledged end of a login stays. `lock_timeout`: rung 1 of the ladder
/// finds out fast that it is blocked. `standard_conforming_strings`: our quoting holds. `search_path`:
/// what a login defines in a schema that others search is never taken for PostgreSQL's own, which would
/// run it with our rights; see [`OWN_PATH`]. The rest: who owns a database decides how sessions begin there,
/// and a login may be a member of the owner. What only new versions know is set by its name.
fn settings(lane: Lane) -> String {
    let lock_timeout_ms = match lane {
        Lane::Mint | Lane::Extend | Lane::Rotate => 5_000,
        Lane::Revoke => 500,
    };
    format!(
        "SET synchronous_commit = on; SET lock_timeout = {lock_timeout_ms}; \
         SET statement_timeout = 9000; SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; \
         SET standard_conforming_strings = on; SET client_min_messages = error; \
         SET default_transaction_read_only = off; SET search_path = pg_catalog, pg_temp; \
         SET ROLE NONE; SET default_transaction_isolation = 'read committed'; \
         SET default_transaction_deferrable = off; SET exit_on_error = off; \
         SET transform_null_equals = off; SET quote_all_identifiers = off; \
         SET idle_in_transaction_session_timeout = 0; \
         SELECT set_config(name, '0', false) FROM pg_settings \
         WHERE name IN ('idle_session_timeout', 'transaction_timeout')"
    )
}

/// Opens a session.
pub(super) async fn dial(
    place: &Place,
    database: Option<&str>,
) -> Result<Box<dyn Session>, DbError> {
    let mut tried = Err(DbError::Unreachable("no host".to_owned()));
    for (host, port) in &place.hosts {
        tried = connect_to(place, host, *port, database).await;
        if tried.is_ok() {
            break;
        }
    }
    let session = PgSession { client: tried?, given_up: AtomicBool::new(false) };
    session.run(&place.settings).await?;
    Ok(Box::new(session))
}

async fn connect_to(
    place: &Place,
    host: &str,
    port: u16,
    database: Option<&str>,
) -> Result<Client, DbError> {
    let mut config = place.config.clone();
    config.host(host).port(port);
    if let Some(database) = database {
        config.dbname(database);
    }
    let connected = match (place.tls.clone(), place.clear) {
        (Some(tls), true) => connect(&config, MakeRustlsConnect::new(tls)).await,
        (Some(tls), false) => connect(&config, ScramAlone(MakeRustlsConnect::new(tls))).await,
        (None, true) => connect(&config, NoTls).await,
        // To the driver this is a TLS that begins without being asked for. It knows none on sockets.
        (None, false) => {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            if host.starts_with('/') {
                let socket = UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await;
                let socket =
                    socket.map_err(|error| DbError::Unreachable(error.kind().to_string()))?;
                config.connect_raw(socket, ScramAlone(Bare)).await.map(drive)
            } else {
                connect(&config, ScramAlone(Bare)).await
            }
        }
    };
    connected.map_err(|error| unreachable(&error))
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    config.connect(tls).await.map(drive)
}

/// The connection lives in a task of its own, which ends with the client or the server.
fn drive<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    client
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
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    // The first words of tokio-postgres: "error connecting to server", "invalid configuration".
    let first = || error.to_string().split(':').next().unwrap_or_default().to_owned();
    DbError::Unreachable(io.and_then(explain).unwrap_or_else(first))
}

fn explain(io: &io::Error) -> Option<String> {
    match io.get_ref() {
        None => Some(io.kind().to_string()),
        Some(inner) if inner.is::<AsksInClear>() => Some(AsksInClear.to_string()),
        Some(inner) if inner.is::<rustls::Error>() => {
            Some("the server's certificate or TLS was refused, see the server's log".to_owned())
        }
        Some(_) => None,
    }
}
