//! MySQL logins under leases: the main job, and what must not go wrong, on a real MariaDB.

mod reconcile;

use std::time::Duration;

use mssm_testkit::{MariaDbSession, TestMariaDb};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::harness::{Client, Login, Options, Server, eventually};

pub(crate) const CREATE: &str = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'";
/// How late an end may be seen, on a busy machine.
const LATE: Duration = Duration::from_secs(10);

/// A database with orders in it, and its server.
pub(crate) struct Shop {
    pub(crate) runtime: Runtime,
    private: Option<TestMariaDb>,
    pub(crate) name: String,
}

impl Shop {
    pub(crate) fn shared() -> Self {
        Self::on(None)
    }

    pub(crate) fn private() -> Self {
        Self::on(Some(TestMariaDb::private()))
    }

    fn on(private: Option<TestMariaDb>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let server = private.as_ref().unwrap_or_else(|| TestMariaDb::shared());
        let name = runtime.block_on(server.fresh_database());
        let shop = Self { runtime, private, name };
        shop.sql(&format!("CREATE TABLE {}.orders (id int)", shop.name));
        shop.sql(&format!("INSERT INTO {}.orders VALUES (1), (2), (3)", shop.name));
        shop
    }

    pub(crate) fn server(&self) -> &TestMariaDb {
        self.private.as_ref().unwrap_or_else(|| TestMariaDb::shared())
    }

    pub(crate) fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.runtime.block_on(async { self.server().admin().await.run(sql).await })
    }

    fn login(&self, login: &Login) -> Result<MariaDbSession, String> {
        self.runtime.block_on(self.server().connect(&login.user, &login.password))
    }

    pub(crate) fn accepts(&self, login: &Login) -> bool {
        self.login(login).is_ok()
    }

    pub(crate) fn orders(&self, session: &mut MariaDbSession) -> Option<usize> {
        let sql = format!("SELECT * FROM {}.orders", self.name);
        self.runtime.block_on(session.try_run(&sql)).ok().map(|rows| rows.len())
    }

    /// The logins that there are on a server of one's own.
    pub(crate) fn minted(&self) -> Vec<String> {
        let rows = self.sql("SELECT User FROM mysql.user WHERE User LIKE 'v-%' ORDER BY 1");
        rows.into_iter().flatten().collect()
    }

    pub(crate) fn connection(&self) -> Value {
        let (host, port) = (self.server().host(), self.server().port());
        json!({
            "plugin_name": "mysql-database-plugin",
            "connection_url": format!("{{{{username}}}}:{{{{password}}}}@tcp({host}:{port})/"),
            "username": self.server().admin_user(),
            "password": self.server().admin_password(),
            "allowed_roles": ["*"],
        })
    }

    pub(crate) fn grant(&self) -> String {
        format!("GRANT SELECT ON {}.* TO '{{{{name}}}}'@'%'", self.name)
    }

    fn role(&self, ttl: &str) -> Value {
        let grant = self.grant();
        json!({
            "db_name": "main", "creation_statements": [CREATE, grant],
            "default_ttl": ttl, "max_ttl": "2h",
        })
    }

    #[track_caller]
    fn configure(&self, root: &Client, ttl: &str) {
        root.post("db/config/main", self.connection()).expect(204);
        root.post("db/roles/app", self.role(ttl)).expect(204);
    }
}

#[test]
fn names_of_plugins_that_vaults_users_write_are_known_and_others_are_told_what_there_is() {
    let shop = Shop::shared();
    let server = Server::open();
    let root = server.root();
    for kind in ["mysql", "mysql-aurora", "mysql-rds", "mysql-legacy"] {
        let mut connection = shop.connection();
        connection["plugin_name"] = json!(format!("{kind}-database-plugin"));
        root.post(&format!("db/config/{kind}"), connection).expect(204);
    }
    let mut connection = shop.connection();
    connection["plugin_name"] = json!("oracle-database-plugin");
    let refused = root.post("db/config/main", connection).refused(400, "mysql-rds-database-plugin");
    assert!(refused.text.contains("postgresql-database-plugin"), "{}", refused.text);
    let (host, port) = (shop.server().host(), shop.server().port());
    let mut connection = shop.connection();
    connection["connection_url"] = json!(format!("tcp({host}:{port})/?tls=true"));
    connection["tls_certificate_key"] = json!("-----BEGIN canary-no-pem");
    let refused = root.post("db/config/mysql", connection);
    refused.refused(400, "not PEM");
    let mut connection = shop.connection();
    connection["connection_url"] = json!("postgresql://{{username}}:{{password}}@127.0.0.1/x");
    root.post("db/config/mysql", connection).refused(400, "@tcp(host:port)");
    let shown = root.get("db/config/mysql").expect(200);
    assert_eq!(shown.data()["plugin_name"], json!("mysql-database-plugin"));
    assert!(!shown.text.contains(shop.server().admin_password()));
}

#[test]
fn a_mysql_connection_of_the_configuration_file_does_the_same() {
    let shop = Shop::shared();
    let (host, port, name) = (shop.server().host(), shop.server().port(), &shop.name);
    let password = "canary-5b4a3c2d1e0f";
    shop.sql(&format!("CREATE USER '{name}_mssm'@'%' IDENTIFIED BY '{password}'"));
    let rights = "CREATE USER, PROCESS, CONNECTION ADMIN ON *.*";
    shop.sql(&format!("GRANT {rights} TO '{name}_mssm'@'%'"));
    shop.sql(&format!("GRANT SELECT ON mysql.* TO '{name}_mssm'@'%'"));
    shop.sql(&format!("GRANT SELECT ON {name}.* TO '{name}_mssm'@'%' WITH GRANT OPTION"));
    let more = format!(
        r#"[db.connections.main]
kind = "mysql"
host = "{host}"
port = {port}
database = "{name}"
username = "{name}_mssm"
password_file = "{{folder}}/db.password"
tls = "disable"
allowed_roles = ["app"]

[db.roles.app]
connection = "main"
creation = ["{CREATE}", "GRANT SELECT ON {name}.* TO '{{{{name}}}}'@'%'"]
default_ttl = "3s"
max_ttl = "1m"
"#
    );
    let files = vec![("db.password", password.to_owned())];
    let server = Server::ready(Options { more, files, ..Options::default() });
    let login = Login::mint(&server.root(), "db/creds/app");
    assert_eq!(shop.orders(&mut shop.login(&login).unwrap()), Some(3));
    eventually("the login is refused", LATE, || (!shop.accepts(&login)).then_some(()));
    let shown = server.root().get("db/config/main").expect(200);
    assert!(!shown.text.contains(password), "{}", shown.text);
    assert!(!server.log().contains(password));
}

#[test]
fn a_role_that_is_broken_or_mighty_is_refused_with_the_servers_words() {
    let shop = Shop::shared();
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", shop.connection()).expect(204);
    // Of the role that the login is given, nothing can be seen in the statements.
    let (boss, team) = (format!("{}_boss", shop.name), format!("{}_team", shop.name));
    for sql in [
        format!("CREATE ROLE {boss}, {team}"),
        format!("GRANT CREATE USER ON *.* TO {boss}"),
        format!("GRANT {boss} TO {team}"),
    ] {
        shop.sql(&sql);
    }
    let cases = [
        (json!([CREATE, format!("GRANT {team} TO '{{{{name}}}}'@'%'")]), "would have CREATE USER"),
        (json!([CREATE, "GRANT SELECT ON nowhere.nothing TO '{{name}}'@'%'"]), "statement 2"),
        (json!([CREATE, "GRANTT SELECT"]), "You have an error in your SQL syntax"),
        (json!([CREATE, "COMMIT"]), "COMMIT is refused"),
        (json!([CREATE, "GRANT ALL ON *.* TO '{{name}}'@'%'"]), "allow_privileged=true"),
        (json!([CREATE, format!("CREATE DATABASE {}_once", shop.name)]), "database exists"),
    ];
    for (statements, words) in cases {
        let role = json!({"db_name": "main", "creation_statements": statements});
        root.post("db/roles/bad", role).refused(400, words);
        root.get("db/roles/bad").expect(404);
    }
    let rights = "GRANT SUPER ON *.* TO '{{name}}'@'%'";
    let role = json!({"db_name": "main", "creation_statements": [CREATE, rights], "allow_privileged": true});
    let written = root.post("db/roles/mighty", role).expect(200);
    assert!(written.warnings().contains("SUPER"), "{}", written.text);
    eventually("no lease is left", LATE, || {
        (root.list("sys/leases/lookup/db/self-test").status == 404).then_some(())
    });
}

#[test]
fn statements_as_vaults_users_write_them_make_end_and_rotate() {
    let shop = Shop::shared();
    let server = Server::open();
    let root = server.root();
    let user = format!("{}_vault", shop.name);
    shop.sql(&format!("GRANT ALL ON *.* TO '{user}'@'%' IDENTIFIED BY 'first' WITH GRANT OPTION"));
    let mut connection = shop.connection();
    connection["username"] = json!(user);
    connection["password"] = json!("first");
    connection["root_rotation_statements"] =
        json!("ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}';");
    root.post("db/config/main", connection).expect(204);
    let role = json!({
        "db_name": "main", "default_ttl": "1h", "max_ttl": "24h",
        "creation_statements": "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}';\
            GRANT SELECT ON *.* TO '{{name}}'@'%';",
        "revocation_statements": "REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{{name}}'@'%';\
            DROP USER '{{name}}'@'%'",
    });
    root.post("db/roles/app", role).expect(204);
    root.post("db/rotate-root/main", json!({})).expect(204);
    let login = Login::mint(&root, "db/creds/app");
    let mut session = shop.login(&login).unwrap();
    assert_eq!(shop.orders(&mut session), Some(3));
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    assert!(!shop.accepts(&login) && shop.orders(&mut session).is_none());
    assert!(!shop.runtime.block_on(shop.server().user_exists(&login.user)));
}
