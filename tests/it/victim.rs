//! What tests ask of a database, whichever kind it is: one body, a test for each kind.

use serde_json::{Value, json};

use crate::harness::{CREATE, Client, Database, Login};
use crate::mysql::{self, Shop};

/// Which kind of database.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Postgres,
    MySql,
}

impl Kind {
    /// A database on the server that all tests share.
    pub(crate) fn shared(self) -> Box<dyn Victim> {
        match self {
            Self::Postgres => Box::new(Database::shared()),
            Self::MySql => Box::new(Shop::shared()),
        }
    }

    /// A database on a server of its own, to stop and to start, and with no logins of other tests.
    pub(crate) fn private(self) -> Box<dyn Victim> {
        match self {
            Self::Postgres => Box::new(Database::private()),
            Self::MySql => Box::new(Shop::private()),
        }
    }
}

/// Makes of each body a test for each kind of database.
macro_rules! on_each_kind {
    ($($body:ident),* $(,)?) => {
        mod on_postgres {
            $(#[test] fn $body() { super::$body($crate::victim::Kind::Postgres); })*
        }
        mod on_mysql {
            $(#[test] fn $body() { super::$body($crate::victim::Kind::MySql); })*
        }
    };
}
pub(crate) use on_each_kind;

/// An open session: how many orders it sees, `None` once it has ended.
pub(crate) type Session<'a> = Box<dyn FnMut() -> Option<usize> + 'a>;

/// A database whose logins are looked at from outside.
pub(crate) trait Victim {
    /// What `POST db/config/:name` wants to hear.
    fn connection(&self) -> Value;

    fn admin_password(&self) -> &str;

    /// The connection, as the configuration file defines it, with its password in a file `db.password`.
    fn in_file(&self, name: &str) -> String;

    /// Letters and digits that no other test has.
    fn name(&self) -> &str;

    /// What makes a login that sees the orders.
    fn creation(&self) -> Vec<String>;

    /// The roles of the kill suite, in the order of their names there.
    fn definitions(&self) -> [Value; 7];

    /// A statement that takes so many seconds.
    fn sleep(&self, secs: f64) -> String;

    /// How many sessions are at such a statement.
    fn sleepers(&self) -> usize;

    /// The logins that are there and a server's own.
    fn marked(&self, cluster: &str) -> Vec<String>;

    fn has(&self, user: &str) -> bool;

    fn open(&self, user: &str, password: &str) -> Option<Session<'_>>;

    /// True if the database itself refuses a login from its end on.
    fn ends_by_itself(&self) -> bool;

    /// What makes a login the server's, but for its name.
    fn marker(&self, user: &str) -> String;

    fn drop_login(&self, user: &str);

    /// Makes a login that had been dropped, with its marker.
    fn make_again(&self, user: &str, marker: &str);

    /// Makes a user that may make logins, and pass the orders on.
    fn make_admin(&self, user: &str, password: &str);

    /// Makes a user that may nothing, for a static role.
    fn make_user(&self, user: &str);

    /// How many passwords a user has, by where it comes from.
    fn passwords(&self, user: &str) -> usize;

    /// What changes a user's password.
    fn alter(&self) -> &'static str;

    fn stop(&self);

    fn crash(&self);

    fn start(&self);

    /// What the database has logged, if its log can be seen.
    fn log(&self) -> Option<String>;

    fn accepts(&self, login: &Login) -> bool {
        self.logs_in(&login.user, &login.password)
    }

    fn logs_in(&self, user: &str, password: &str) -> bool {
        self.open(user, password).is_some()
    }

    /// A role `app` of a connection `main` as an operator defines it.
    fn role(&self, ttl: &str) -> Value {
        let creation = self.creation();
        json!({"db_name": "main", "creation_statements": creation,
            "default_ttl": ttl, "max_ttl": "2h"})
    }

    /// Makes that connection and that role.
    #[track_caller]
    fn define(&self, root: &Client, ttl: &str) {
        root.post("db/config/main", self.connection()).expect(204);
        root.post("db/roles/app", self.role(ttl)).expect(204);
    }
}

fn in_file(
    kind: &str,
    name: &str,
    (host, port): (&str, u16),
    (user, database): (&str, &str),
) -> String {
    format!(
        "[db.connections.{name}]\nkind = \"{kind}\"\nhost = \"{host}\"\nport = {port}\n\
         database = \"{database}\"\nusername = \"{user}\"\ntls = \"disable\"\n\
         password_file = \"{{folder}}/db.password\"\nallowed_roles = [\"*\"]\n\n"
    )
}

impl Victim for Database {
    fn connection(&self) -> Value {
        Self::connection(self)
    }

    fn admin_password(&self) -> &str {
        self.postgres().admin_password()
    }

    fn in_file(&self, name: &str) -> String {
        let postgres = self.postgres();
        let (host, port, user) = (postgres.host(), postgres.port(), postgres.admin_user());
        in_file("postgresql", name, (host, port), (user, &self.name))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn creation(&self) -> Vec<String> {
        vec![CREATE.to_owned(), "GRANT SELECT ON orders TO \"{{name}}\"".to_owned()]
    }

    fn definitions(&self) -> [Value; 7] {
        let grant = "GRANT SELECT ON orders TO \"{{name}}\"";
        let fails = ["SELECT 1 / 0"];
        // Fails now and then: five times in a row, after which half a minute is waited, never.
        let end = "DROP OWNED BY \"{{name}}\"; DROP ROLE IF EXISTS \"{{name}}\"";
        [
            json!({"creation_statements": [CREATE, grant]}),
            json!({"creation_statements": [CREATE]}),
            json!({"creation_statements": [CREATE, grant], "default_ttl": "1s"}),
            json!({"creation_statements": [CREATE], "renew_statements": fails}),
            json!({"creation_statements": [CREATE],
                "revocation_statements": ["SELECT 1 / (random() < 0.9)::int", end]}),
            json!({"creation_statements": [CREATE, "SELECT 1 / 0"]}),
            json!({"creation_statements": [CREATE], "reuse_window": "10m"}),
        ]
    }

    fn sleep(&self, secs: f64) -> String {
        format!("SELECT pg_sleep({secs})")
    }

    fn sleepers(&self) -> usize {
        let sql = format!(
            "SELECT pid::text FROM pg_stat_activity \
             WHERE datname = '{}' AND wait_event = 'PgSleep'",
            self.name
        );
        self.query(&sql).len()
    }

    fn marked(&self, cluster: &str) -> Vec<String> {
        self.marked_roles(cluster)
    }

    fn has(&self, user: &str) -> bool {
        self.has_role(user)
    }

    fn open(&self, user: &str, password: &str) -> Option<Session<'_>> {
        let session = self.login(user, password).ok()?;
        Some(Box::new(move || usize::try_from(session.orders().ok()?).ok()))
    }

    fn ends_by_itself(&self) -> bool {
        true
    }

    fn marker(&self, user: &str) -> String {
        self.query(&format!(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{user}'"
        ))
        .remove(0)
    }

    fn drop_login(&self, user: &str) {
        self.sql(&format!("DROP ROLE \"{user}\""));
    }

    fn make_again(&self, user: &str, marker: &str) {
        self.sql(&format!(
            "CREATE ROLE \"{user}\" LOGIN; COMMENT ON ROLE \"{user}\" IS '{marker}'"
        ));
    }

    fn make_admin(&self, user: &str, password: &str) {
        self.sql(&format!(
            "CREATE ROLE {user} LOGIN CREATEROLE PASSWORD '{password}'; \
             GRANT SELECT ON orders TO {user} WITH GRANT OPTION"
        ));
    }

    fn make_user(&self, user: &str) {
        self.sql(&format!("CREATE ROLE {user} LOGIN"));
    }

    fn passwords(&self, _user: &str) -> usize {
        1
    }

    fn alter(&self) -> &'static str {
        "ALTER ROLE {{name}} PASSWORD '{{password}}'"
    }

    fn stop(&self) {
        self.postgres().stop();
    }

    fn crash(&self) {
        self.postgres().crash();
    }

    fn start(&self) {
        self.postgres().start();
    }

    fn log(&self) -> Option<String> {
        Self::log(self)
    }
}

impl Victim for Shop {
    fn connection(&self) -> Value {
        Self::connection(self)
    }

    fn admin_password(&self) -> &str {
        self.server().admin_password()
    }

    fn in_file(&self, name: &str) -> String {
        let server = self.server();
        let (host, port, user) = (server.host(), server.port(), server.admin_user());
        in_file("mysql", name, (host, port), (user, &self.name))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn creation(&self) -> Vec<String> {
        vec![mysql::CREATE.to_owned(), self.grant()]
    }

    fn definitions(&self) -> [Value; 7] {
        let create = mysql::CREATE;
        let grant = self.grant();
        let fails = "SELECT * FROM nowhere.nothing";
        // Fails now and then, for it overflows.
        let moody = ["SELECT EXP(IF(RAND() < 0.9, 1, 1000))", "DROP USER IF EXISTS '{{name}}'@'%'"];
        [
            json!({"creation_statements": [create, grant]}),
            json!({"creation_statements": [create]}),
            json!({"creation_statements": [create, grant], "default_ttl": "1s"}),
            json!({"creation_statements": [create], "renew_statements": [fails]}),
            json!({"creation_statements": [create], "revocation_statements": moody}),
            json!({"creation_statements": [create, fails]}),
            json!({"creation_statements": [create], "reuse_window": "10m"}),
        ]
    }

    fn sleep(&self, secs: f64) -> String {
        format!("DO /* {} */ SLEEP({secs})", self.name)
    }

    fn sleepers(&self) -> usize {
        let sql = format!(
            "SELECT ID FROM information_schema.PROCESSLIST \
             WHERE INFO LIKE 'DO /* {} */ SLEEP(%'",
            self.name
        );
        self.sql(&sql).len()
    }

    /// All of them: on a server of its own. Nothing but the names says whose the logins are.
    fn marked(&self, _cluster: &str) -> Vec<String> {
        self.minted()
    }

    fn has(&self, user: &str) -> bool {
        self.runtime.block_on(self.server().user_exists(user))
    }

    fn open(&self, user: &str, password: &str) -> Option<Session<'_>> {
        let mut session = self.runtime.block_on(self.server().connect(user, password)).ok()?;
        Some(Box::new(move || self.orders(&mut session)))
    }

    fn ends_by_itself(&self) -> bool {
        false
    }

    fn marker(&self, _user: &str) -> String {
        String::new()
    }

    fn drop_login(&self, user: &str) {
        self.sql(&format!("DROP USER '{user}'@'%'"));
    }

    fn make_again(&self, user: &str, _marker: &str) {
        self.sql(&format!("CREATE USER '{user}'@'%'"));
    }

    fn make_admin(&self, user: &str, password: &str) {
        let rights = "GRANT ALL ON *.*";
        self.sql(&format!("{rights} TO '{user}'@'%' IDENTIFIED BY '{password}' WITH GRANT OPTION"));
    }

    /// From two hosts: each has a password of its own, and no statement changes both or none.
    fn make_user(&self, user: &str) {
        self.sql(&format!("CREATE USER '{user}'@'%', '{user}'@'127.0.0.1'"));
    }

    fn passwords(&self, user: &str) -> usize {
        let sql = format!("SELECT DISTINCT Password FROM mysql.user WHERE User = '{user}'");
        self.sql(&sql).len()
    }

    fn alter(&self) -> &'static str {
        "ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'"
    }

    fn stop(&self) {
        self.server().stop();
    }

    fn crash(&self) {
        self.server().crash();
    }

    fn start(&self) {
        self.server().start();
    }

    fn log(&self) -> Option<String> {
        self.server().log()
    }
}
