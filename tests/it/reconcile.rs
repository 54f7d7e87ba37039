//! Logins and leases compared over HTTPS: who is ended, who is told, who is left alone.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, Database, Login, Options, Server, eventually};

const SOON: Duration = Duration::from_secs(15);

fn marker(database: &Database, role: &str) -> String {
    database
        .query(&format!(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{role}'"
        ))
        .remove(0)
}

pub(crate) fn reconcile(root: &Client, dry_run: bool) -> Answer {
    root.post("sys/leases/reconcile", json!({"dry_run": dry_run, "connection": "main"})).expect(200)
}

/// The logins of one kind in an answer.
pub(crate) fn found<'a>(answer: &'a Answer, kind: &str) -> Vec<&'a str> {
    let connections = answer.data()["connections"].as_array().unwrap();
    let findings = connections.iter().flat_map(|one| one["findings"].as_array().unwrap());
    let of_kind = findings.filter(|finding| finding["kind"] == kind);
    of_kind.map(|finding| finding["username"].as_str().unwrap()).collect()
}

fn is_gone(database: &Database, role: &str) {
    eventually("the role is gone", SOON, || (!database.has_role(role)).then_some(()));
}

pub(crate) fn events<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == name).collect()
}

/// Ends a login, and has it back by hand with its marker, as a restored backup would.
fn bring_back(database: &Database, root: &Client, login: &Login) {
    let marker = marker(database, &login.user);
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
    is_gone(database, &login.user);
    database.sql(&format!(
        "CREATE ROLE \"{0}\" LOGIN PASSWORD '{1}'; COMMENT ON ROLE \"{0}\" IS '{marker}'",
        login.user, login.password
    ));
}

#[test]
fn a_login_that_came_back_is_told_in_a_dry_run_and_then_ended_again() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let (login, other) = (Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app"));
    bring_back(&database, &root, &login);
    let session = database.login(&login.user, &login.password).unwrap();
    let dry = reconcile(&root, true);
    assert_eq!(found(&dry, "came_back"), [&login.user], "{}", dry.text);
    assert_eq!(dry.number_at("/data/came_back"), 1);
    assert!(session.run("SELECT 1").is_ok(), "a dry run touches nothing");
    let told = reconcile(&root, false);
    assert_eq!(found(&told, "came_back"), [&login.user], "{}", told.text);
    is_gone(&database, &login.user);
    assert!(session.run("SELECT 1").is_err());
    assert!(database.accepts(&other));
    let state = || {
        let shown = root.put("sys/leases/lookup", json!({"username": login.user})).expect(200);
        (shown.text_at("/data/state") == "ended").then(|| shown.text_at("/data/id"))
    };
    assert_eq!(eventually("it has ended", SOON, state), login.lease, "under its own lease");
    assert_eq!(found(&reconcile(&root, false), "came_back"), [""; 0]);
    let metrics = root.get("sys/metrics").expect(200).text;
    for line in ["mssm_reconcile_ended_total 1", "mssm_reconcile_found{kind=\"came_back\"} 0"] {
        assert!(metrics.lines().any(|one| one == line), "{line} in {metrics}");
    }
    eventually("the audit is told", SOON, || {
        let lines = server.audit_lines();
        let reopened = events(&lines, "lease-reopened");
        (reopened.first()?["details"]["lease_id"] == login.lease.as_str()).then_some(())
    });
}

#[test]
fn forged_and_renamed_logins_are_told_and_others_are_not_touched() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    let login = Login::mint(&root, "db/creds/app");
    let (copy, forged, foreign, renamed) = (
        format!("{}_copy", database.name),
        format!("{}_forged", database.name),
        format!("{}_foreign", database.name),
        format!("{}_renamed", database.name),
    );
    let (marker, digits) = (marker(&database, &login.user), "ab".repeat(32));
    database.sql(&format!(
        "CREATE ROLE {copy} LOGIN; COMMENT ON ROLE {copy} IS '{marker}'; \
         CREATE ROLE {forged} LOGIN; COMMENT ON ROLE {forged} IS 'mssm2:{cluster}:{digits}:{digits}'; \
         CREATE ROLE {foreign} LOGIN; COMMENT ON ROLE {foreign} IS \
         'mssm2:00000000-0000-0000-0000-000000000001:{digits}:{digits}'; \
         ALTER ROLE \"{}\" RENAME TO {renamed}",
        login.user
    ));
    let told = reconcile(&root, false);
    let mut bad = found(&told, "forged");
    bad.sort_unstable();
    assert_eq!(bad, [&copy, &forged], "{}", told.text);
    assert_eq!(found(&told, "renamed"), [&renamed], "{}", told.text);
    assert!(database.has_role(&renamed), "its lease lives");
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
    is_gone(&database, &renamed);
    assert_eq!(found(&reconcile(&root, false), "forged").len(), 2);
    for role in [&copy, &forged, &foreign] {
        assert!(database.has_role(role), "{role}");
        database.sql(&format!("DROP ROLE {role}"));
    }
}

#[test]
fn a_lease_whose_login_was_dropped_is_settled_and_the_command_line_says_so() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let (dropped, other) = (Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app"));
    database.sql(&format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", dropped.user));
    let dry = server.cli(&["lease", "reconcile", "-dry-run", "-format=json"]);
    let text = String::from_utf8(dry.stdout).unwrap();
    assert!(dry.status.success() && text.contains(&dropped.user), "{text}");
    root.put("sys/leases/lookup", json!({"lease_id": dropped.lease})).expect(200);
    let told = server.cli(&["lease", "reconcile", "-connection=main"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    eventually("the lease is settled", SOON, || {
        let status = root.put("sys/leases/lookup", json!({"lease_id": dropped.lease})).status;
        (status == 400).then_some(())
    });
    root.put("sys/leases/lookup", json!({"lease_id": other.lease})).expect(200);
    assert!(database.accepts(&other));
    let nobody = root.post("sys/leases/reconcile", json!({"connection": "nope"}));
    nobody.refused(400, "nope");
    root.post("sys/leases/reconcile", json!({"mount": "nope/"})).refused(400, "nope");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A server that is stopped, its store set back to before a login was made.
pub(crate) fn forgetful(configure: impl FnOnce(&Client)) -> (Server, Login) {
    let mut server = Server::open();
    configure(&server.root());
    server.stop();
    keep(&server);
    server.again();
    server.unseal();
    let login = Login::mint(&server.root(), "db/creds/app");
    server.stop();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(&server.path("copied"), &server.data());
    (server, login)
}

/// A copy of a stopped server's store, and of the log that belongs to it.
pub(crate) fn keep(server: &Server) {
    copy(&server.data(), &server.path("copied"));
    std::fs::copy(server.audit(), server.path("copied.log")).unwrap();
}

#[test]
fn a_restored_store_ends_nothing_that_it_does_not_know_until_that_is_confirmed() {
    let database = Database::shared();
    let (mut server, login) = forgetful(|root| database.configure(root, "db", "1h", "2h"));
    server.arguments = vec!["--accept-rollback"];
    server.again();
    server.arguments.clear();
    server.unseal();
    let told = reconcile(&server.root(), false);
    assert_eq!(found(&told, "orphan"), [&login.user], "{}", told.text);
    assert!(told.warnings().contains("restored"), "{}", told.text);
    // It is remembered.
    server.stop();
    server.again();
    server.unseal();
    assert!(reconcile(&server.root(), false).warnings().contains("restored"));
    assert!(database.accepts(&login));
    let other = Login::mint(&server.root(), "db/creds/app");
    let confirmed = server.cli(&["lease", "reconcile", "-confirm"]);
    assert!(confirmed.status.success(), "{}", String::from_utf8_lossy(&confirmed.stderr));
    is_gone(&database, &login.user);
    assert!(database.accepts(&other));
}

#[test]
fn a_login_whose_lease_is_lost_is_ended_by_itself_after_the_unseal() {
    let database = Database::shared();
    let (mut server, login) = forgetful(|root| database.configure(root, "db", "1h", "2h"));
    std::fs::copy(server.path("copied.log"), server.audit()).unwrap();
    server.again();
    server.unseal();
    is_gone(&database, &login.user);
    eventually("the audit is told", SOON, || {
        let lines = server.audit_lines();
        let found = !events(&lines, "leases-reconciled").is_empty();
        (found && !events(&lines, "lease-adopted").is_empty()).then_some(())
    });
    let root = server.root();
    eventually("its lease has ended", SOON, || {
        (root.list("sys/leases/lookup/orphan").status == 404).then_some(())
    });
    assert!(database.accepts(&Login::mint(&root, "db/creds/app")));
}

/// A second server on a copy of a store, with the log that belongs to it.
pub(crate) fn second(server: &Server) -> Server {
    let (folder, audit) = (server.path("copied"), server.path("copied.log"));
    let options = Options { data: Some(folder), audit: Some(audit), ..Options::default() };
    let mut second = Server::start(options);
    second.shares.clone_from(&server.shares);
    second.root_token.clone_from(&server.root_token);
    second.unseal();
    second
}

#[test]
fn beside_a_living_server_a_copy_of_its_store_makes_ends_and_reconciles_nothing() {
    let database = Database::shared();
    let mut server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let old = Login::mint(&server.root(), "db/creds/app");
    server.stop();
    keep(&server);
    server.again();
    server.unseal();
    let new = Login::mint(&server.root(), "db/creds/app");
    let second = second(&server);
    let beside = second.root();
    beside.get("db/creds/app").refused(503, "another server");
    let told = reconcile(&beside, false);
    assert_eq!(found(&told, "orphan"), [&new.user], "{}", told.text);
    assert!(told.warnings().contains("another server"), "{}", told.text);
    beside.put("sys/leases/renew", json!({"lease_id": old.lease})).refused(503, "another server");
    beside.post("db/rotate-root/main", json!({})).refused(503, "another server");
    beside.put("sys/leases/revoke", json!({"lease_id": old.lease})).refused(400, "another server");
    for login in [&old, &new] {
        assert!(database.accepts(login), "{}", login.user);
    }
    assert!(database.accepts(&Login::mint(&server.root(), "db/creds/app")));
    // Once the first is gone, the second may.
    server.kill9();
    eventually("the second server mints", SOON, || {
        (beside.get("db/creds/app").status == 200).then_some(())
    });
    is_gone(&database, &old.user);
}
