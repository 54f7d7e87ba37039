//! A database of the test's own on a real PostgreSQL, and logins to it.

use mssm_testkit::TestPostgres;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Client;

use super::client::{Answer, Client as Https};

/// The plainest template.
pub(crate) const CREATE: &str =
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

/// One database and its superuser.
pub(crate) struct Database {
    runtime: Runtime,
    private: Option<TestPostgres>,
    pub(crate) name: String,
}

/// A login as it was handed out.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) lease: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// An open session.
pub(crate) struct Session<'a> {
    database: &'a Database,
    client: Client,
}

impl Database {
    /// A fresh database on the server that all tests share.
    pub(crate) fn shared() -> Self {
        Self::on(None)
    }

    /// A fresh database on a server that the test may stop.
    pub(crate) fn private() -> Self {
        Self::on(Some(TestPostgres::private()))
    }

    fn on(private: Option<TestPostgres>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let postgres = private.as_ref().unwrap_or_else(|| TestPostgres::shared());
        let name = runtime.block_on(postgres.fresh_database()).name;
        let database = Self { runtime, private, name };
        database.sql("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (2), (3)");
        database
    }

    /// Another handle on the same, on the server that all tests share.
    pub(crate) fn again(&self) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, private: None, name: self.name.clone() }
    }

    pub(crate) fn postgres(&self) -> &TestPostgres {
        self.private.as_ref().unwrap_or_else(|| TestPostgres::shared())
    }

    /// Logs in; the error is PostgreSQL's own text.
    pub(crate) fn login(&self, user: &str, password: &str) -> Result<Session<'_>, String> {
        let connected = self.postgres().connect(user, password, &self.name);
        let client = self.runtime.block_on(connected).map_err(|error| {
            error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| error.message().to_owned())
        })?;
        Ok(Session { database: self, client })
    }

    pub(crate) fn accepts(&self, login: &Login) -> bool {
        self.login(&login.user, &login.password).is_ok()
    }

    /// Runs statements as the superuser.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) {
        let admin = self.runtime.block_on(self.postgres().admin(&self.name));
        if let Err(error) = self.runtime.block_on(admin.batch_execute(sql)) {
            panic!("{sql}: {error:?}");
        }
    }

    /// A session of the superuser's that has done something and stays open until it is dropped.
    pub(crate) fn hold(&self, sql: &str) -> Option<Client> {
        let admin = self.runtime.block_on(self.postgres().admin(&self.name));
        self.runtime.block_on(admin.batch_execute(sql)).is_ok().then_some(admin)
    }

    /// The first column of a query's rows, as the superuser.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<String> {
        let admin = self.runtime.block_on(self.postgres().admin(&self.name));
        match self.runtime.block_on(admin.query(sql, &[])) {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }

    pub(crate) fn has_role(&self, name: &str) -> bool {
        self.runtime.block_on(self.postgres().role_exists(name))
    }

    /// The roles that a server has marked as its own.
    pub(crate) fn marked_roles(&self, cluster: &str) -> Vec<String> {
        self.query(&format!(
            "SELECT r.rolname::text FROM pg_roles r \
             JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass \
             WHERE d.description LIKE 'mssm2:{cluster}:%' ORDER BY 1"
        ))
    }

    /// What `POST db/config/:name` wants to hear.
    pub(crate) fn connection(&self) -> Value {
        let postgres = self.postgres();
        json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": self.url(),
            "username": postgres.admin_user(),
            "password": postgres.admin_password(),
            "allowed_roles": ["*"],
        })
    }

    pub(crate) fn url(&self) -> String {
        let (host, port) = (self.postgres().host(), self.postgres().port());
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{}?sslmode=disable",
            self.name
        )
    }

    /// Makes a connection `main` and a role `app` on a mount, as an operator does.
    #[track_caller]
    pub(crate) fn configure(&self, root: &Https, mount: &str, ttl: &str, max: &str) {
        root.post(&format!("{mount}/config/main"), self.connection()).expect(204);
        root.post(
            &format!("{mount}/roles/app"),
            json!({
                "db_name": "main",
                "creation_statements": [CREATE, "GRANT SELECT ON orders TO \"{{name}}\""],
                "default_ttl": ttl,
                "max_ttl": max,
            }),
        )
        .expect(204);
    }

    /// What PostgreSQL has logged, if its log can be seen.
    pub(crate) fn log(&self) -> Option<String> {
        self.postgres().log()
    }
}

impl Login {
    /// The login in an answer to `creds`.
    #[track_caller]
    pub(crate) fn of(answer: &Answer) -> Self {
        Self {
            lease: answer.text_at("/lease_id"),
            user: answer.text_at("/data/username"),
            password: answer.text_at("/data/password"),
        }
    }

    /// Asks for one.
    #[track_caller]
    pub(crate) fn mint(client: &Https, path: &str) -> Self {
        Self::of(&client.get(path).expect(200))
    }
}

impl Session<'_> {
    /// How many orders this session sees.
    pub(crate) fn orders(&self) -> Result<i64, String> {
        let counted = self.client.query_one("SELECT count(*) FROM orders", &[]);
        match self.database.runtime.block_on(counted) {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn run(&self, sql: &str) -> Result<(), String> {
        let ran = self.database.runtime.block_on(self.client.batch_execute(sql));
        ran.map_err(|error| error.to_string())
    }
}
