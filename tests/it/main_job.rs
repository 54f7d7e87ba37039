//! The main job: a login that lives for seconds, and then does not, with nobody asking.

use std::time::Duration;

use serde_json::json;

use crate::harness::{CREATE, Database, Login, Options, Server, Stopwatch, eventually, stays};
use crate::victim::{Kind, Victim};

/// Lifetime of most logins here.
const TTL: Duration = Duration::from_secs(3);
/// How late an end may be seen, on a busy machine.
const LATE: Duration = Duration::from_secs(7);

/// A login is refused and its user gone soon after its end, and not before.
#[track_caller]
fn ends_by_itself(database: &dyn Victim, login: &Login, since: Stopwatch) {
    let left = TTL.saturating_sub(since.elapsed() + Duration::from_millis(500));
    stays("the login works", left, || database.accepts(login));
    eventually("the login is refused", LATE, || (!database.accepts(login)).then_some(()));
    eventually("the user is gone", LATE, || (!database.has(&login.user)).then_some(()));
}

/// The whole job, on a database and a store of either kind.
fn the_main_job(kind: Kind, storage: &'static str) {
    let database = kind.shared();
    let server = Server::ready(Options { storage, ..Options::default() });
    let root = server.root();
    database.define(&root, "3s");
    assert_eq!(root.get("db/roles/app").expect(200).data()["verified"], json!(true));
    let client = server.limited("app", "path \"db/creds/app\" { capabilities = [\"read\"] }");

    let since = Stopwatch::start();
    let answer = client.get("db/creds/app").expect(200);
    assert_eq!(answer.number_at("/lease_duration"), 3);
    assert_eq!(answer.json["renewable"], json!(true));
    let login = Login::of(&answer);
    assert!(login.lease.starts_with("db/creds/app/"), "{}", login.lease);
    let mut orders = database.open(&login.user, &login.password).unwrap();
    assert_eq!(orders(), Some(3));

    client.get("sys/policies/acl/app").refused(403, "permission denied");
    let look = json!({"lease_id": login.lease});
    let left = || root.put("sys/leases/lookup", look.clone()).number_at("/data/ttl");
    let first = left();
    assert!((1..=3).contains(&first), "{first}");
    eventually("the lease counts down", TTL, || (left() < first).then_some(()));
    ends_by_itself(database.as_ref(), &login, since);
    eventually("the session ends", LATE, || orders().is_none().then_some(()));
    eventually("the lease is gone", LATE, || {
        let answer = root.put("sys/leases/lookup", look.clone());
        (answer.status == 400).then(|| answer.refused(400, "invalid lease"))
    });

    let verified = server.verify_audit(&server.audit_key(), &server.audit());
    assert!(verified.status.success(), "{verified:?}");
    let audit = server.audit_text();
    assert!(audit.contains(&login.lease), "the audit names the lease");
    for (log, what) in [(audit, "audit"), (server.log(), "server")] {
        assert!(!log.contains(&login.password), "the password stands in the {what} log");
        assert!(!log.contains(database.admin_password()), "{what} log");
    }
    if let Some(log) = database.log() {
        assert!(log.contains(&login.user), "the database's log holds the statements");
        assert!(!log.contains(&login.password), "the password stands in the database's log");
    }
}

#[test]
fn a_login_works_and_then_does_not_with_nobody_asking() {
    the_main_job(Kind::Postgres, "embedded");
}

#[test]
fn a_mysql_login_works_and_then_does_not_with_nobody_asking() {
    the_main_job(Kind::MySql, "embedded");
}

#[test]
fn the_main_job_is_done_on_a_store_of_files_as_well() {
    the_main_job(Kind::Postgres, "file");
}

#[test]
fn a_connection_and_a_role_from_the_configuration_file_do_the_same() {
    let database = Database::shared();
    let (host, port) = (database.postgres().host(), database.postgres().port());
    let name = &database.name;
    // As in production: no superuser, but a role that may make roles and pass on a reader's rights.
    let password = "canary-0f1e2d3c4b5a";
    database.sql(&format!(
        "CREATE ROLE {name}_reader; GRANT SELECT ON orders TO {name}_reader; \
         CREATE ROLE {name}_admin LOGIN CREATEROLE PASSWORD '{password}'; \
         GRANT {name}_reader TO {name}_admin WITH ADMIN OPTION"
    ));
    let create = CREATE.replace('"', "\\\"");
    let more = format!(
        r#"[db.connections.main]
host = "{host}"
port = {port}
database = "{name}"
username = "{name}_admin"
password_file = "{{folder}}/db.password"
tls = "disable"
allowed_roles = ["app"]

[db.roles.app]
connection = "main"
creation = ["{create}", "GRANT {name}_reader TO \"{{{{name}}}}\""]
default_ttl = "3s"
max_ttl = "1m"
"#
    );
    let files = vec![("db.password", password.to_owned())];
    let mut server = Server::ready(Options { more, files, ..Options::default() });
    let client = server.limited("app", "path \"db/creds/app\" { capabilities = [\"read\"] }");
    let since = Stopwatch::start();
    let login = Login::mint(&client, "db/creds/app");
    assert!(database.accepts(&login));
    ends_by_itself(&database, &login, since);

    let root = server.root();
    assert_eq!(root.list("db/roles").expect(200).keys(), ["app"]);
    let shown = root.get("db/config/main").expect(200);
    assert!(!shown.text.contains(password), "{}", shown.text);
    // What the file says is changed in the file.
    root.post("db/roles/app", json!({"db_name": "main", "default_ttl": "9h"}))
        .refused(400, "configuration");
    root.delete("db/config/main").refused(400, "configuration");

    server.kill9();
    server.again();
    server.unseal();
    let login = Login::mint(&client, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    assert_eq!(session.orders(), Ok(3));
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    assert!(session.orders().is_err(), "an admin without superuser's rights ends sessions too");
    assert!(!database.has_role(&login.user));
    assert!(!server.log().contains(password) && !server.audit_text().contains(password));
}

#[test]
fn what_an_ended_login_owned_belongs_to_the_owner_its_role_names() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    let owner = format!("{}_owner", database.name);
    database.sql(&format!("CREATE ROLE {owner} NOLOGIN; GRANT CREATE ON SCHEMA public TO {owner}"));
    root.post("db/config/main", database.connection()).expect(204);
    let role = json!({
        "db_name": "main",
        "creation_statements": [CREATE, "GRANT CREATE, USAGE ON SCHEMA public TO \"{{name}}\""],
        "owner": owner,
        "default_ttl": "1h",
    });
    root.post("db/roles/app", role).expect(204);
    let login = Login::mint(&root, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    session.run("CREATE TABLE mine (id int); INSERT INTO mine VALUES (7)").unwrap();
    drop(session);
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    eventually("the role is gone", LATE, || (!database.has_role(&login.user)).then_some(()));
    let owners = database.query("SELECT tableowner::text FROM pg_tables WHERE tablename = 'mine'");
    assert_eq!(owners, std::slice::from_ref(&owner));
    database.sql(&format!("DROP TABLE mine; DROP OWNED BY {owner}; DROP ROLE {owner}"));
}

#[test]
fn access_ends_though_the_login_owns_something_that_nobody_takes() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    let role = json!({
        "db_name": "main",
        "creation_statements": [CREATE, "GRANT CREATE, USAGE ON SCHEMA public TO \"{{name}}\""],
        "default_ttl": "1h",
    });
    root.post("db/roles/app", role).expect(204);
    let login = Login::mint(&root, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    session.run("CREATE TABLE kept (id int)").unwrap();
    let _ = root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true}));
    assert!(session.orders().is_err(), "the session goes on");
    assert!(!database.accepts(&login));
    // The data are still there: nobody asked to drop them.
    let tables = database.query("SELECT tablename::text FROM pg_tables WHERE tablename = 'kept'");
    assert_eq!(tables, ["kept"]);
    database.sql("DROP TABLE kept");
    eventually("it is tried until it is done", Duration::from_mins(1), || {
        (!database.has_role(&login.user)).then_some(())
    });
}
