//! Sessions of MySQL and MariaDB over mysql_async.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_domain::SecretText;
use mssm_messages::minter::DatabaseTls;
use mysql_async::prelude::Queryable;
use mysql_async::{
    ClientIdentity, Conn, DriverError, Error, IoError, OptsBuilder, ServerError, SslOpts, Value,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::sync::Mutex;

use super::errors::{leaves_doubt, public_text};
use crate::dsn::Dsn;
use crate::engine::{DbError, Refusal, Row, Session};
use crate::record::ConnectionRecord;
use crate::spec::Lane;
use crate::tls::{self, Material};

/// How long one statement may take until the session is given up.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// As the protocol's own default; what we send is smaller by far.
const PACKET: usize = 16 << 20;

/// Where a server is, and how a session there begins.
#[derive(Clone)]
pub(crate) struct Place {
    options: OptsBuilder,
    application: String,
    lane: Lane,
}

impl Place {
    /// Reads a definition; an error says what is wrong with it.
    pub(crate) fn new(
        dsn: &Dsn,
        record: &ConnectionRecord,
        application: &str,
        lane: Lane,
    ) -> Result<Self, String> {
        let (host, port) = dsn.hosts.first().ok_or("connection_url: no host")?;
        let options = OptsBuilder::default()
            .db_name(dsn.database.clone())
            .ssl_opts(read_tls(&dsn.tls(!record.tls_ca.is_empty()), &record.tls_material())?)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .stmt_cache_size(0)
            // Known beforehand, so that the driver does not ask for them at each login.
            .max_allowed_packet(Some(PACKET))
            .wait_timeout(Some(28_800))
            .prefer_socket(false);
        let options = if host.starts_with('/') {
            options.socket(Some(host.clone()))
        } else {
            options.ip_or_hostname(host.clone()).tcp_port(*port)
        };
        let application = application.to_owned();
        Ok(Self { options, application, lane })
    }

    pub(crate) fn application(&self) -> &str {
        &self.application
    }

    pub(crate) const fn lane(&self) -> Lane {
        self.lane
    }

    pub(crate) fn with_login(mut self, user: &str, password: Option<&SecretText>) -> Self {
        self.options = self.options.user(Some(user));
        match password {
            Some(password) => self.with_password(password),
            None => self,
        }
    }

    pub(crate) fn with_password(mut self, password: &SecretText) -> Self {
        // EXPOSE: the driver logs in with it.
        self.options = self.options.pass(Some(password.expose()));
        self
    }

    /// As an application would log in that has rights nowhere yet.
    pub(crate) fn for_application(&self) -> Self {
        let mut place = self.clone();
        place.options = place.options.db_name(None::<String>);
        "mssm self-test".clone_into(&mut place.application);
        place
    }
}

fn read_tls(mode: &DatabaseTls, material: &Material<'_>) -> Result<Option<SslOpts>, String> {
    // What is wrong with the material is said now, not at each connection.
    if tls::client(mode, material)?.is_none() {
        return Ok(None);
    }
    let mut options = SslOpts::default();
    match mode {
        DatabaseTls::Disable => return Ok(None),
        DatabaseTls::Require => options = options.with_danger_accept_invalid_certs(true),
        DatabaseTls::VerifyFull => {
            let authorities = if material.ca.is_empty() {
                let native = rustls_native_certs::load_native_certs().certs;
                // The driver takes all or none; those that do not parse are of no use to anybody.
                let parses = |certificate: &CertificateDer<'static>| {
                    RootCertStore::empty().add(certificate.clone()).is_ok()
                };
                let native = native.into_iter().filter(parses);
                native.map(|certificate| certificate.to_vec().into()).collect()
            } else {
                vec![material.ca.as_bytes().to_vec().into()]
            };
            options = options.with_root_certs(authorities).with_disable_built_in_roots(true);
        }
    }
    if !material.certificate.is_empty() {
        let certificate = material.certificate.as_bytes().to_vec();
        // EXPOSE: TLS signs with the client's key.
        let key = material.key.expose().as_bytes().to_vec();
        let identity = ClientIdentity::new(certificate.into(), key.into());
        options = options.with_client_identity(Some(identity));
    }
    Ok(Some(options))
}

/// Opens a session.
pub(crate) async fn dial(
    place: &Place,
    database: Option<&str>,
) -> Result<Box<dyn Session>, DbError> {
    let options = match database {
        Some(database) if !database.is_empty() => place.options.clone().db_name(Some(database)),
        _ => place.options.clone(),
    };
    let conn = Conn::new(options).await.map_err(unreachable)?;
    Ok(Box::new(MySqlSession { conn: Mutex::new(conn), given_up: AtomicBool::new(false) }))
}

struct MySqlSession {
    conn: Mutex<Conn>,
    given_up: AtomicBool,
}

impl Session for MySqlSession {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        let work = async move {
            // Set until the answer is complete: a run that is dropped half-way spoils the session.
            if self.given_up.swap(true, Ordering::Relaxed) {
                return Err(DbError::Lost);
            }
            let asking = async { query(&mut *self.conn.lock().await, sql).await };
            let answer = tokio::time::timeout(STATEMENT_DEADLINE, asking).await;
            let answer = answer.unwrap_or(Err(DbError::Lost));
            if !matches!(answer, Err(DbError::Lost)) {
                self.given_up.store(false, Ordering::Relaxed);
            }
            answer
        };
        work.boxed()
    }

    fn is_usable(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed)
    }
}

async fn query(conn: &mut Conn, sql: &str) -> Result<Vec<Row>, DbError> {
    let mut result = conn.query_iter(sql).await.map_err(refused)?;
    let rows = result.collect::<mysql_async::Row>().await.map_err(refused)?;
    result.drop_result().await.map_err(refused)?;
    Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
}

/// In this protocol values come as texts.
fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        other => Some(other.as_sql(true)),
    }
}

fn refused(error: Error) -> DbError {
    match error {
        Error::Server(said) if !leaves_doubt(said.code) => DbError::Refused(refusal(&said)),
        _ => DbError::Lost,
    }
}

fn refusal(said: &ServerError) -> Refusal {
    Refusal {
        code: said.code.to_string(),
        severity: "ERROR".to_owned(),
        message: public_text(said.code, &said.message),
        done: 0,
        position: None,
    }
}

/// What the caller may know of a connection that was not made; the log has the rest.
fn unreachable(error: Error) -> DbError {
    let why = match error {
        Error::Server(said) => return DbError::Refused(refusal(&said)),
        Error::Io(IoError::Io(error)) => {
            tracing::warn!(%error, "no connection to a database");
            // The driver wraps what TLS says in an error of this kind.
            let tls = error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>);
            if tls { TLS_REFUSED.to_owned() } else { error.kind().to_string() }
        }
        Error::Io(IoError::Tls(error)) => {
            tracing::warn!(%error, "no connection to a database");
            TLS_REFUSED.to_owned()
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            "the server does not speak TLS".to_owned()
        }
        error => {
            tracing::warn!(%error, "no connection to a database");
            "the server and the driver do not understand each other, see the server's log"
                .to_owned()
        }
    };
    DbError::Unreachable(why)
}

const TLS_REFUSED: &str = "the server's certificate or TLS was refused, see the server's log";
