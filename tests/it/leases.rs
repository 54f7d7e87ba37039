//! Leases: looked up, renewed, revoked one by one, by prefix and with their token.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Database, Login, Server, eventually};

const SOON: Duration = Duration::from_secs(10);

fn lookup(client: &Client, lease: &str) -> crate::harness::Answer {
    client.put("sys/leases/lookup", json!({"lease_id": lease}))
}

#[test]
fn a_renewed_lease_lives_longer_up_to_its_longest() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "4s", "1m");
    let login = Login::mint(&root, "db/creds/app");
    let renewed = root.put("sys/leases/renew", json!({"lease_id": login.lease, "increment": 30}));
    let renewed = renewed.expect(200);
    assert_eq!(renewed.text_at("/lease_id"), login.lease);
    assert!((29..=30).contains(&renewed.number_at("/lease_duration")), "{}", renewed.text);
    let until = database.query(&format!(
        "SELECT (rolvaliduntil > now() + interval '20 s')::text FROM pg_roles WHERE rolname = '{}'",
        login.user
    ));
    assert_eq!(until, ["true"], "PostgreSQL was told too");
    let capped = root.put(&format!("sys/leases/renew/{}", login.lease), json!({"increment": "2h"}));
    let capped = capped.expect(200);
    assert!((50..=60).contains(&capped.number_at("/lease_duration")), "{}", capped.text);
    assert!(capped.warnings().contains("max_ttl"), "{}", capped.text);
    let shown = lookup(&root, &login.lease).expect(200);
    assert_eq!(shown.text_at("/data/id"), login.lease);
    assert_eq!(shown.data()["renewable"], json!(true));
    for time in ["/data/issue_time", "/data/expire_time", "/data/last_renewal"] {
        assert!(shown.text_at(time).ends_with('Z'), "{}", shown.text);
    }
    // A renewal may also bring the end closer: then it ends.
    root.put("sys/leases/renew", json!({"lease_id": login.lease, "increment": 2})).expect(200);
    eventually("it ends", SOON, || (!database.has_role(&login.user)).then_some(()));
}

#[test]
fn unknown_leases_are_named_as_clients_expect() {
    let server = Server::open();
    let root = server.root();
    let id = json!({"lease_id": "db/creds/app/abcdefghijklmnopqrstuvwx"});
    root.put("sys/leases/lookup", id.clone()).refused(400, "invalid lease");
    root.put("sys/leases/renew", id.clone()).refused(400, "lease");
    root.put("sys/leases/revoke", id).expect(204);
    root.put("sys/leases/lookup", json!({})).refused(400, "lease_id");
    root.list("sys/leases/lookup/db/creds/app").expect(404);
}

#[test]
fn a_prefix_is_revoked_whole_and_nothing_beside_it() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let role = root.get("db/roles/app").expect(200).data().clone();
    root.post("db/roles/app2", role).expect(204);
    let many: Vec<Login> = (0..3).map(|_| Login::mint(&root, "db/creds/app")).collect();
    let other = Login::mint(&root, "db/creds/app2");
    let listed = root.list("sys/leases/lookup/db/creds/").expect(200).keys();
    assert_eq!(listed, ["app/", "app2/"]);
    assert_eq!(root.list("sys/leases/lookup/db/creds/app").expect(200).keys().len(), 3);
    root.put("sys/leases/revoke-prefix/db/creds/app", json!({})).expect(204);
    for login in &many {
        eventually("the role is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
        eventually("the lease is gone", SOON, || {
            (lookup(&root, &login.lease).status == 400).then_some(())
        });
    }
    assert!(database.accepts(&other));
    let force = root.put("sys/leases/revoke-force/db/creds/app2", json!({}));
    force.expect(204);
    eventually("the role is gone", SOON, || (!database.has_role(&other.user)).then_some(()));
}

#[test]
fn revoking_a_token_ends_its_leases_and_those_of_its_children() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let parent = server.with_new_token(json!({"policies": ["root"], "ttl": "1h"}));
    let child = parent.post("auth/token/create", json!({"ttl": "1h"})).expect(200);
    let child = parent.with_token(&child.text_at("/auth/client_token"));
    let logins = [&parent, &child].map(|client| Login::mint(client, "db/creds/app"));
    parent.post("auth/token/revoke-self", json!({})).expect(204);
    child.get("auth/token/lookup-self").refused(403, "permission denied");
    for login in &logins {
        eventually("the login is refused", SOON, || (!database.accepts(login)).then_some(()));
        eventually("the role is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
    }
}

/// Catalogue: CVE-2020-25816.
#[test]
fn a_lease_never_outlives_its_token() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let short = server.with_new_token(json!({"policies": ["root"], "ttl": "3s"}));
    let answer = short.get("db/creds/app").expect(200);
    assert!(answer.number_at("/lease_duration") <= 3, "{}", answer.text);
    let login = Login::of(&answer);
    let renew = json!({"lease_id": login.lease, "increment": "1h"});
    let renewed = server.root().put("sys/leases/renew", renew).expect(200);
    assert!(renewed.number_at("/lease_duration") <= 3, "{}", renewed.text);
    assert!(database.accepts(&login));
    eventually("the role is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
    short.get("auth/token/lookup-self").refused(403, "permission denied");
}

#[test]
fn leases_survive_a_restart_and_end_when_they_should() {
    let database = Database::shared();
    let mut server = Server::open();
    database.configure(&server.root(), "db", "6s", "1m");
    let login = Login::mint(&server.root(), "db/creds/app");
    server.stop();
    server.again();
    server.unseal();
    assert!(lookup(&server.root(), &login.lease).expect(200).number_at("/data/ttl") <= 6);
    assert!(database.accepts(&login));
    eventually("the role is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
}

#[test]
fn leases_are_counted() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let _logins = [Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app")];
    let metrics = root.get("sys/metrics?format=prometheus").expect(200).text;
    let line =
        |name: &str| metrics.lines().any(|line| line.starts_with(name) && line.ends_with(" 2"));
    assert!(line("mssm_leases_active") || line("mssm_leases{state=\"active\"}"), "{metrics}");
}

#[test]
fn a_repeated_request_is_one_login_and_the_same_answer() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let ask = |key| root.send("GET", "db/creds/app", &[("Idempotency-Key", key)], None);
    let first = ask("one").expect(200);
    let again = ask("one").expect(200);
    assert_eq!(first.data(), again.data());
    assert_eq!(first.text_at("/lease_id"), again.text_at("/lease_id"));
    assert!(again.number_at("/lease_duration") <= first.number_at("/lease_duration"));
    assert!(database.accepts(&Login::of(&again)));
    assert_ne!(ask("two").expect(200).data(), first.data());
    assert_ne!(root.get("db/creds/app").expect(200).data(), first.data());
    ask("not a key").refused(400, "Idempotency-Key");
    // Lease events and answers name one lease; its password stands nowhere.
    let log: String = server.audit_lines().iter().map(ToString::to_string).collect();
    assert!(!log.contains(&Login::of(&first).password));
}

#[test]
fn a_role_says_how_many_leases_there_may_be_and_whether_they_are_shared() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    root.post("db/roles/app", json!({"max_leases": 2})).expect(204);
    let logins = [Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app")];
    root.get("db/creds/app").refused(429, "max_leases");
    root.put("sys/leases/revoke", json!({"lease_id": logins[0].lease})).expect(204);
    eventually("there is room", SOON, || (root.get("db/creds/app").status == 200).then_some(()));
    let more = json!({"max_leases": 0, "max_leases_per_token": 2, "reuse_window": "10m"});
    root.post("db/roles/app", more).expect(204);
    let shown = root.get("db/roles/app").expect(200);
    assert_eq!(shown.data()["reuse_window"], json!(600));
    assert_eq!(shown.data()["max_leases_per_token"], json!(2));
    root.get("db/creds/app").refused(429, "max_leases_per_token");
    let other = server.with_new_token(json!({"policies": ["root"], "ttl": "1h"}));
    let first = other.get("db/creds/app").expect(200);
    assert_eq!(first.data(), other.get("db/creds/app").expect(200).data());
    root.post("db/roles/app", json!({"reuse_window": "2h"})).refused(400, "reuse_window");
}

#[test]
fn an_orphan_lease_outlives_its_token_where_its_role_says_so() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    root.post("db/roles/app", json!({"orphan_leases": true})).expect(204);
    let token = server.with_new_token(json!({"policies": ["root"], "ttl": "1m"}));
    let answer = token.get("db/creds/app").expect(200);
    assert_eq!(answer.number_at("/lease_duration"), 3600);
    let login = Login::of(&answer);
    token.post("auth/token/revoke-self", json!({})).expect(204);
    token.get("auth/token/lookup-self").refused(403, "permission denied");
    assert!(database.accepts(&login));
    lookup(&root, &login.lease).expect(200);
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
    eventually("the role is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
}

#[test]
fn a_lease_is_found_by_its_database_username_and_lists_come_in_pages() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let logins: Vec<Login> = (0..5).map(|_| Login::mint(&root, "db/creds/app")).collect();
    let by_name = |login: &Login| root.put("sys/leases/lookup", json!({"username": login.user}));
    let found = by_name(&logins[3]).expect(200);
    assert_eq!(found.text_at("/data/id"), logins[3].lease);
    assert_eq!(found.text_at("/data/username"), logins[3].user);
    root.put("sys/leases/revoke", json!({"lease_id": logins[3].lease})).expect(204);
    eventually("its end is known", SOON, || {
        (by_name(&logins[3]).expect(200).text_at("/data/state") == "ended").then_some(())
    });
    let ended = by_name(&logins[3]);
    assert_eq!(ended.number_at("/data/ttl"), 0);
    assert!(ended.text_at("/data/end_time") < ended.text_at("/data/expire_time"), "{}", ended.text);
    root.get("sys/leases/count?type=irrevocabel").refused(400, "irrevocable");
    root.put("sys/leases/lookup", json!({"username": "nobody"})).refused(400, "invalid lease");
    let all = root.list("sys/leases/lookup/db/creds/app").expect(200).keys();
    let mut paged = Vec::new();
    while paged.len() < all.len() {
        let after = paged.last().cloned().unwrap_or_default();
        let page = format!("sys/leases/lookup/db/creds/app?limit=3&after={after}");
        paged.extend(root.list(&page).expect(200).keys());
    }
    assert_eq!((all.len(), &paged), (4, &all));
    let quarantine = root.get("sys/leases/quarantine").expect(200);
    assert_eq!(quarantine.data(), &json!({"lease_count": 0, "leases": []}));
    let tidy = root.post("sys/leases/tidy", json!({})).expect(202);
    assert!(tidy.warnings().contains("started"), "{}", tidy.text);
    assert_eq!(root.get("sys/leases/count").expect(200).number_at("/data/lease_count"), 4);
}

#[test]
fn a_session_whose_login_is_gone_is_looked_for_after_a_restart_too() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let login = Login::mint(&root, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    // Somebody drops it: no ladder sees its session.
    database.sql(&format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", login.user));
    session.run("SELECT 1").unwrap();
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
    eventually("its end is stored", SOON, || {
        let shown = root.put("sys/leases/lookup", json!({"username": login.user})).expect(200);
        (shown.text_at("/data/state") == "ended").then_some(())
    });
    server.kill9();
    server.again();
    server.unseal();
    eventually("its session ends", SOON, || session.run("SELECT 1").is_err().then_some(()));
}
