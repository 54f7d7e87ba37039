//! A real PostgreSQL: one that somebody started for the whole run, or a throw-away one of our own.
//!
//! `scripts/postgres serve` does the work and takes the server away when this process ends, however
//! it ends. A server in a container is used through `MSSM_TEST_POSTGRES_URL`.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::served::{Served, setting};

/// A running server and its superuser. Whatever fails while it is set up panics.
pub struct TestPostgres {
    config: Config,
    host: String,
    port: u16,
    user: String,
    password: String,
    log: Option<PathBuf>,
    server: Option<Served>,
}

/// A fresh, empty database.
#[derive(Clone, Debug)]
pub struct TestDatabase {
    /// Its name, also good as part of role names: lower-case letters and digits.
    pub name: String,
    /// Where it is, as the superuser reaches it: `postgresql://user:password@host:port/name`.
    pub url: String,
}

impl TestPostgres {
    /// The server that all tests of this process share.
    ///
    /// It is the one `MSSM_TEST_POSTGRES_URL` names (as `scripts/test` sets it); without that, one
    /// of our own. No test may stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestPostgres> = OnceLock::new();
        SHARED.get_or_init(|| match setting("MSSM_TEST_POSTGRES_URL") {
            Some(url) => {
                let log = setting("MSSM_TEST_POSTGRES_LOG").map(PathBuf::from);
                Self::at(&url, log, None)
            }
            None => Self::private(),
        })
    }

    /// A server of the caller's own, to stop, to crash and to start again.
    ///
    /// Goes away with this value.
    pub fn private() -> Self {
        Self::launch(&[])
    }

    /// The same, speaking TLS as well with this certificate and key (PEM).
    pub fn private_with_tls(certificate: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("temp folder: {error}"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            path
        };
        let certificate = write("server.crt", certificate);
        let key = write("server.key", key);
        Self::launch(&[Path::new("--tls"), &certificate, &key])
    }

    /// The host, an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    pub fn admin_user(&self) -> &str {
        &self.user
    }

    /// The superuser's password.
    pub fn admin_password(&self) -> &str {
        &self.password
    }

    /// Where the superuser reaches the database `postgres`.
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// Where the superuser reaches a database.
    pub fn url(&self, database: &str) -> String {
        let Self { host, port, user, password, .. } = self;
        format!("postgresql://{user}:{password}@{host}:{port}/{database}")
    }

    /// Everything that the server has logged so far, statements among it.
    ///
    /// `None` where the server is not ours and nobody said where its log is.
    pub fn log(&self) -> Option<String> {
        let log = std::fs::read(self.log.as_ref()?).unwrap_or_else(|error| panic!("log: {error}"));
        Some(String::from_utf8_lossy(&log).into_owned())
    }

    /// A new database for one test. It stays until the server goes.
    pub async fn fresh_database(&self) -> TestDatabase {
        // Unique among all processes that share the server; random std has at hand.
        let name = format!("t{:016x}", RandomState::new().hash_one(std::process::id()));
        let admin = self.admin("postgres").await;
        let created = admin.batch_execute(&format!("CREATE DATABASE {name}")).await;
        created.unwrap_or_else(|error| panic!("CREATE DATABASE: {error:?}"));
        TestDatabase { url: self.url(&name), name }
    }

    /// Logs in; the connection lives as long as the client.
    pub async fn connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect_with(user, password, database, "").await
    }

    /// Logs in with settings for the session, as `-c name=value`.
    pub async fn connect_with(
        &self,
        user: &str,
        password: &str,
        database: &str,
        options: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.user(user).password(password).dbname(database).options(options);
        let (client, connection) = config.connect(NoTls).await?;
        // Its end is the client's to notice.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Logs in as the superuser.
    pub async fn admin(&self, database: &str) -> Client {
        let client = self.connect(&self.user, &self.password, database).await;
        client.unwrap_or_else(|error| panic!("superuser's login: {error:?}"))
    }

    /// True if there is a role of this name.
    pub async fn role_exists(&self, name: &str) -> bool {
        let query = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
        let rows = self.admin("postgres").await.query(query, &[&name]).await;
        !rows.unwrap_or_else(|error| panic!("pg_roles: {error:?}")).is_empty()
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
        let (server, url, log) = Served::launch("postgres", options);
        Self::at(&url, Some(log), Some(server))
    }

    fn at(url: &str, log: Option<PathBuf>, server: Option<Served>) -> Self {
        let config: Config = match url.parse() {
            Ok(config) => config,
            Err(error) => panic!("the database's URL: {error}"),
        };
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            _ => panic!("the database's URL names no host"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or("postgres").to_owned();
        let password = config.get_password().unwrap_or_default();
        let password = String::from_utf8_lossy(password).into_owned();
        Self { config, host, port, user, password, log, server }
    }

    fn order(&self, order: &str) {
        match &self.server {
            Some(server) => server.order(order),
            None => panic!("only a private server can be stopped and started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_fresh_database_is_empty_and_knows_its_roles() {
        let postgres = TestPostgres::shared();
        let database = postgres.fresh_database().await;
        let admin = postgres.admin(&database.name).await;
        let role = format!("{}_app", database.name);
        let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'right'");
        admin.batch_execute(&create).await.unwrap();
        assert!(postgres.role_exists(&role).await);
        assert!(postgres.connect(&role, "right", &database.name).await.is_ok());
        assert!(postgres.connect(&role, "wrong", &database.name).await.is_err());
        assert!(postgres.log().is_none_or(|log| log.contains(&create)));
        admin.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
        assert!(!postgres.role_exists(&role).await);
    }

    #[actix_rt::test]
    async fn a_private_server_stops_and_starts_on_the_same_port() {
        let postgres = TestPostgres::private();
        let database = postgres.fresh_database().await;
        let login = || postgres.connect(&postgres.user, &postgres.password, &database.name);
        for end in [TestPostgres::stop, TestPostgres::crash] {
            end(&postgres);
            assert!(login().await.is_err());
            postgres.start();
            assert!(login().await.is_ok());
        }
    }
}
