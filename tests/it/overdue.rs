//! Revocations that fail so far: seen everywhere, tried on, and what force leaves behind.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Database, Login, Server, Stopwatch, eventually};

const SOON: Duration = Duration::from_secs(30);
/// How soon after a database's return every overdue login is refused.
const BACK: Duration = Duration::from_secs(5);

#[test]
fn overdue_logins_are_shown_everywhere_and_refused_within_seconds_of_the_databases_return() {
    let database = Database::private();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "3s", "1m");
    let logins: Vec<Login> = (0..30).map(|_| Login::mint(&root, "db/creds/app")).collect();
    // The rows that end a login at the database itself shall not do our work.
    for login in &logins {
        database.sql(&format!("ALTER ROLE \"{}\" VALID UNTIL 'infinity'", login.user));
    }
    database.postgres().stop();
    let health = || root.without_token().get("sys/health").expect(200);
    eventually("all are overdue", SOON, || {
        let health = health();
        let old = health.number_at("/oldest_overdue_seconds") >= 1;
        (health.number_at("/overdue_revocations") == 30 && old).then_some(())
    });
    let listed = root.get("sys/leases?type=irrevocable").expect(200);
    assert_eq!(listed.number_at("/data/lease_count"), 30);
    let first = &listed.data()["leases"][0];
    assert!(first["lease_id"].as_str().unwrap().starts_with("db/creds/app/"), "{first}");
    assert!(first["attempts"].as_u64().unwrap() >= 1 && first["error"] != "", "{first}");
    root.get("sys/leases").refused(400, "irrevocable");
    let connection = root.get("db/config/main").expect(200);
    assert!(connection.number_at("/data/revocations_waiting") >= 29, "{}", connection.text);
    assert!(connection.data()["unanswered_seconds"].is_u64(), "{}", connection.text);
    let id = connection.text_at("/data/connection_id");
    let metrics = root.get("sys/metrics").expect(200).text;
    for name in ["mssm_connection_unanswered_seconds", "mssm_connection_revocations_waiting"] {
        assert!(metrics.contains(&format!("{name}{{connection=\"{id}\"}}")), "{metrics}");
    }
    assert!(metrics.contains("mssm_leases_overdue 30"), "{metrics}");
    database.postgres().start();
    let watch = Stopwatch::start();
    for login in &logins {
        let left = BACK.saturating_sub(watch.elapsed());
        eventually("it is refused", left, || (!database.accepts(login)).then_some(()));
    }
    eventually("nothing is overdue", SOON, || {
        (health().number_at("/overdue_revocations") == 0).then_some(())
    });
    let connection = root.get("db/config/main").expect(200);
    assert_eq!(connection.data()["unanswered_seconds"], Value::Null);
}

#[test]
fn force_says_what_it_leaves_behind_and_that_is_ended_when_the_database_is_back() {
    let database = Database::private();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let login = Login::mint(&root, "db/creds/app");
    database.postgres().stop();
    let forced = root.put("sys/leases/revoke-force/db", json!({})).expect(200);
    let said = forced.warnings();
    assert!(said.contains(&login.user) && said.contains(&login.lease), "{said}");
    root.put("sys/leases/lookup", json!({"lease_id": login.lease})).refused(400, "invalid lease");
    database.postgres().start();
    eventually("it can be compared", SOON, || {
        let told = root.post("sys/leases/reconcile", json!({})).expect(200);
        (told.data()["connections"][0]["held_back"] == Value::Null).then_some(())
    });
    eventually("the login is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
}
