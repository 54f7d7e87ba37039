//! Three databases of one server, and logins that have all that a login can have in them.

use mssm_domain::SecretText;
use mssm_messages::minter::{ConnectionPatch, RolePatch};
use mssm_testkit::{TestDatabase, TestPostgres};
use tokio_postgres::Client;

use crate::testing::{CREATE, Login, Rig, patch};

/// Who ends the logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    Superuser,
    /// CREATEROLE, and what handing over needs: no more.
    Limited,
}

/// Three databases of a team's own, and a minter whose connection is to the first.
pub(super) struct Estate<'a> {
    postgres: &'a TestPostgres,
    pub(super) rig: Rig,
    pub(super) databases: Vec<TestDatabase>,
    pub(super) supers: Vec<Client>,
    /// Is handed what logins own.
    pub(super) owner: String,
    /// Owns the databases and what is in them.
    pub(super) team: String,
}

impl<'a> Estate<'a> {
    pub(super) async fn new(postgres: &'a TestPostgres, admin: Admin) -> Self {
        let (mut databases, mut supers) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let database = postgres.fresh_database().await;
            supers.push(postgres.admin(&database.name).await);
            databases.push(database);
        }
        let prefix = databases[0].name.clone();
        let (owner, team) = (format!("{prefix}_owner"), format!("{prefix}_team"));
        let create = format!("CREATE ROLE {owner} NOLOGIN; CREATE ROLE {team} NOLOGIN");
        supers[0].batch_execute(&create).await.unwrap();
        for (database, session) in databases.iter().zip(&supers) {
            let sql = format!(
                "ALTER DATABASE {} OWNER TO {team}; ALTER SCHEMA public OWNER TO {team}; \
                 SET ROLE {team}; GRANT CREATE ON SCHEMA public TO PUBLIC; \
                 GRANT CREATE ON DATABASE {0} TO PUBLIC; CREATE TABLE orders (id int, note text); \
                 ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE SEQUENCE numbers; \
                 CREATE TYPE mood AS ENUM ('good'); CREATE FUNCTION work() RETURNS int LANGUAGE sql \
                 AS 'SELECT 1'; RESET ROLE",
                database.name
            );
            session.batch_execute(&sql).await.unwrap();
        }
        let rig = Rig::real(u64::from_str_radix(&prefix[1..], 16).unwrap()).open().await;
        let mut definition = patch(postgres, &prefix);
        if admin == Admin::Limited {
            let name = format!("{prefix}_admin");
            let sql = format!(
                "CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'limited'; GRANT {owner}, {team} TO {name}"
            );
            supers[0].batch_execute(&sql).await.unwrap();
            definition = ConnectionPatch {
                username: Some(name),
                password: Some(SecretText::new("limited".to_owned())),
                ..definition
            };
        }
        rig.connect(definition).await.unwrap();
        Self { postgres, rig, databases, supers, owner, team }
    }

    pub(super) fn database(&self, place: usize) -> &str {
        &self.databases[place].name
    }

    pub(super) async fn role(&self, owner: bool) {
        let definition = RolePatch {
            creation_statements: Some(vec![CREATE.to_owned()]),
            owner: owner.then(|| self.owner.clone()),
            ..RolePatch::default()
        };
        assert_eq!(self.rig.role_with("app", definition).await.unwrap(), Vec::<String>::new());
    }

    pub(super) async fn open(&self, login: &Login, place: usize) -> Client {
        let (user, password) = (&login.username, &login.password);
        self.postgres.connect(user, password, self.database(place)).await.unwrap()
    }

    /// Everything that can be granted, in all three databases.
    pub(super) async fn grant(&self, login: &Login) {
        for (database, session) in self.databases.iter().zip(&self.supers) {
            let (name, team) = (&login.username, &self.team);
            let sql = format!(
                "SET ROLE {team}; GRANT ALL ON DATABASE {} TO \"{name}\"; \
                 GRANT ALL ON SCHEMA public TO \"{name}\"; \
                 GRANT SELECT, UPDATE ON orders TO \"{name}\" WITH GRANT OPTION; \
                 GRANT SELECT (note) ON orders TO \"{name}\"; GRANT ALL ON numbers TO \"{name}\"; \
                 GRANT USAGE ON TYPE mood TO \"{name}\"; GRANT EXECUTE ON FUNCTION work() TO \"{name}\"; \
                 SELECT lo_create(77); GRANT ALL ON LARGE OBJECT 77 TO \"{name}\"; \
                 ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{name}\"; \
                 ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO \"{name}\"; \
                 CREATE POLICY theirs ON orders TO \"{name}\" USING (true); RESET ROLE",
                database.name
            );
            session.batch_execute(&sql).await.unwrap();
            let given_on = format!(
                "SET ROLE \"{name}\"; GRANT SELECT ON orders TO {}; RESET ROLE",
                self.owner
            );
            session.batch_execute(&given_on).await.unwrap();
        }
    }

    /// What the roles own, and what depends on them in any other way, in all three databases.
    pub(super) async fn count(&self, role: &str, owned: bool) -> Vec<i64> {
        let sql = "SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
            WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = $1 AND (s.deptype = 'o') = $2 \
            AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let mut counts = Vec::new();
        for session in &self.supers {
            counts.push(session.query_one(sql, &[&role, &owned]).await.unwrap().get(0));
        }
        counts
    }
}

/// Everything that a login can make that needs no rights of its own, as the login itself.
pub(super) async fn build(session: &Client, team: &str) {
    let sql = format!(
        "CREATE SCHEMA mine; CREATE TABLE mine.t AS SELECT 7 AS a; CREATE SEQUENCE mine.s; \
         CREATE TYPE mine.mood AS ENUM ('a'); CREATE TYPE mine.pair AS (a int, b int); \
         CREATE DOMAIN mine.even AS int CHECK (VALUE % 2 = 0); \
         CREATE FUNCTION mine.f() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'; \
         CREATE FUNCTION mine.\"it's\"(\"a b\" int) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'; \
         CREATE PROCEDURE mine.p() SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'; \
         CREATE AGGREGATE mine.total (int) (SFUNC = int4pl, STYPE = int); \
         CREATE FUNCTION mine.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER fires BEFORE INSERT ON mine.t FOR EACH ROW EXECUTE FUNCTION mine.fire(); \
         CREATE VIEW mine.v AS SELECT * FROM mine.t; \
         CREATE MATERIALIZED VIEW mine.m AS SELECT * FROM mine.t; \
         CREATE INDEX ON mine.t ((a + 1)); \
         CREATE STATISTICS mine.st (dependencies) ON a, (a + 1) FROM mine.t; \
         CREATE COLLATION mine.c FROM \"C\"; \
         CREATE TEXT SEARCH CONFIGURATION mine.words (COPY = simple); \
         CREATE OPERATOR mine.### (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl); \
         CREATE TABLE loose (a int); CREATE FUNCTION loose() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         SELECT lo_create(78); \
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; \
         ALTER DEFAULT PRIVILEGES IN SCHEMA mine GRANT EXECUTE ON FUNCTIONS TO {team}; \
         GRANT SELECT ON mine.t TO {team}; GRANT USAGE ON SCHEMA mine TO {team}"
    );
    session.batch_execute(&sql).await.unwrap();
}
