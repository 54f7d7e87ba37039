//! A real MariaDB: one that somebody started for the whole run, or a throw-away one of our own.
//!
//! `scripts/mariadb serve` does the work and takes the server away when this process ends, however it
//! ends.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Row, Value};

use crate::served::{Served, setting};

/// A running server and its administrator. Whatever fails while it is set up panics.
pub struct TestMariaDb {
    host: String,
    port: u16,
    user: String,
    password: String,
    log: Option<PathBuf>,
    server: Option<Served>,
}

/// An open session of a test.
pub struct MariaDbSession(Conn);

impl TestMariaDb {
    /// The server that all tests of this process share: the one `MSSM_TEST_MARIADB_URL` names, or one
    /// of our own. No test may stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestMariaDb> = OnceLock::new();
        SHARED.get_or_init(|| match setting("MSSM_TEST_MARIADB_URL") {
            Some(url) => Self::at(&url, setting("MSSM_TEST_MARIADB_LOG").map(PathBuf::from), None),
            None => Self::private(),
        })
    }

    /// A server of the caller's own, to stop, to crash and to start again.
    pub fn private() -> Self {
        Self::launch(&[])
    }

    /// The same, speaking TLS as well with this certificate and key, and with an authority for those
    /// of clients (PEM).
    pub fn private_with_tls(certificate: &str, key: &str, authority: &str) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("temp folder: {error}"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            path
        };
        let certificate = write("server.crt", certificate);
        let (key, authority) = (write("server.key", key), write("ca.crt", authority));
        Self::launch(&[Path::new("--tls"), &certificate, &key, &authority])
    }

    /// The host, an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The administrator's name.
    pub fn admin_user(&self) -> &str {
        &self.user
    }

    /// The administrator's password.
    pub fn admin_password(&self) -> &str {
        &self.password
    }

    /// Everything that the server has logged so far, statements among it, if its log can be seen.
    pub fn log(&self) -> Option<String> {
        let log = std::fs::read(self.log.as_ref()?).unwrap_or_else(|error| panic!("log: {error}"));
        Some(String::from_utf8_lossy(&log).into_owned())
    }

    /// The name of a new database for one test; lower-case letters and digits. It stays until the
    /// server goes.
    pub async fn fresh_database(&self) -> String {
        let name = format!("t{:016x}", RandomState::new().hash_one(std::process::id()));
        self.admin().await.run(&format!("CREATE DATABASE {name}")).await;
        name
    }

    /// Logs in; an error is the server's or the connection's own.
    pub async fn connect(&self, user: &str, password: &str) -> Result<MariaDbSession, String> {
        let options = OptsBuilder::default()
            .ip_or_hostname(self.host.clone())
            .tcp_port(self.port)
            .prefer_socket(false)
            .max_allowed_packet(Some(1 << 24))
            .wait_timeout(Some(28_800))
            .user(Some(user))
            .pass(Some(password));
        let conn = Conn::new(Opts::from(options)).await;
        conn.map(MariaDbSession).map_err(|error| error.to_string())
    }

    /// Logs in as the administrator.
    pub async fn admin(&self) -> MariaDbSession {
        let session = self.connect(&self.user, &self.password).await;
        session.unwrap_or_else(|error| panic!("administrator's login: {error}"))
    }

    /// True if there is a user of this name.
    pub async fn user_exists(&self, name: &str) -> bool {
        let sql = format!("SELECT User FROM mysql.user WHERE User = '{name}'");
        !self.admin().await.run(&sql).await.is_empty()
    }

    /// Stops a private server; its open sessions end.
    pub fn stop(&self) {
        self.order("stop");
    }

    /// Stops a private server as a crash would.
    pub fn crash(&self) {
        self.order("crash");
    }

    /// Starts a private server again, on the same port and data.
    pub fn start(&self) {
        self.order("start");
    }

    fn launch(options: &[&Path]) -> Self {
        let (server, url, log) = Served::launch("mariadb", options);
        Self::at(&url, Some(log), Some(server))
    }

    fn at(url: &str, log: Option<PathBuf>, server: Option<Served>) -> Self {
        let options =
            Opts::from_url(url).unwrap_or_else(|error| panic!("the server's URL: {error}"));
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            host: options.ip_or_hostname().to_owned(),
            port: options.tcp_port(),
            user: text(options.user()),
            password: text(options.pass()),
            log,
            server,
        }
    }

    fn order(&self, order: &str) {
        match &self.server {
            Some(server) => server.order(order),
            None => panic!("only a private server can be stopped and started"),
        }
    }
}

impl MariaDbSession {
    /// Runs a statement; panics if it is refused.
    pub async fn run(&mut self, sql: &str) -> Vec<Vec<String>> {
        match self.try_run(sql).await {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// Runs a statement; replies its rows as texts, with nothing for NULL.
    pub async fn try_run(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        let text = |value| match value {
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::NULL => String::new(),
            other => other.as_sql(true),
        };
        let rows: Vec<Row> = self.0.query(sql).await?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// The number by which the server knows it.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_private_server_stops_and_starts_on_the_same_port() {
        let server = TestMariaDb::private();
        let database = server.fresh_database().await;
        let mut admin = server.admin().await;
        admin.run(&format!("CREATE USER {database} IDENTIFIED BY 'right'")).await;
        assert!(server.user_exists(&database).await);
        assert!(server.connect(&database, "wrong").await.is_err());
        for end in [TestMariaDb::stop, TestMariaDb::crash] {
            end(&server);
            assert!(server.connect(&database, "right").await.is_err());
            server.start();
            assert!(server.connect(&database, "right").await.is_ok());
        }
        assert!(server.log().is_none_or(|log| log.contains("CREATE USER")));
    }
}
