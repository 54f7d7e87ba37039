//! What is promised of logins on every kind of database: downtime, kills, many at once.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Login, Server, Stopwatch, eventually};
use crate::victim::{Kind, Victim, on_each_kind};

/// How late something may be seen, on a busy machine.
const LATE: Duration = Duration::from_secs(20);

on_each_kind!(
    a_database_that_is_down_is_said_in_time_and_catches_up_later,
    what_expires_while_the_server_is_dead_is_gone_after_the_unseal,
    after_kill_9_amid_minting_every_login_has_a_lease_or_goes,
    revoking_ends_an_open_session,
    many_mints_at_once_all_come_through_and_a_prefix_ends_them,
    eight_mints_of_a_second_take_a_second,
    a_revocation_does_not_wait_for_mints,
);

/// Nothing is left in the database nor among the leases.
#[track_caller]
fn nothing_left(database: &dyn Victim, root: &Client) {
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    eventually("no login is left", LATE, || database.marked(&cluster).is_empty().then_some(()));
    eventually("no lease is left", LATE, || {
        (root.list("sys/leases/lookup/db/creds").status == 404).then_some(())
    });
}

fn a_database_that_is_down_is_said_in_time_and_catches_up_later(kind: Kind) {
    let database = kind.private();
    let server = Server::open();
    let root = server.root();
    database.define(&root, "2s");
    let login = Login::mint(&root, "db/creds/app");
    database.stop();
    let watch = Stopwatch::start();
    let refused = root.get("db/creds/app").expect(503);
    assert!(!refused.errors().is_empty(), "{}", refused.text);
    assert!(watch.elapsed() < Duration::from_secs(15), "{:?}", watch.elapsed());
    assert!(!refused.text.contains(database.admin_password()));
    root.get("secret/metadata?list=true").expect(404);
    root.without_token().get("sys/health").expect(200);
    // It expires meanwhile, and is tried until it is done.
    eventually("it is due", LATE, || {
        let look = json!({"lease_id": login.lease});
        let answer = root.put("sys/leases/lookup", look);
        (answer.status == 400 || answer.number_at("/data/ttl") <= 0).then_some(())
    });
    database.start();
    eventually("the login is gone", LATE, || (!database.has(&login.user)).then_some(()));
    nothing_left(database.as_ref(), &root);
    let login = Login::mint(&root, "db/creds/app");
    assert!(database.accepts(&login), "and minting goes on");
}

fn what_expires_while_the_server_is_dead_is_gone_after_the_unseal(kind: Kind) {
    const TTL: Duration = Duration::from_secs(2);
    let database = kind.shared();
    let mut server = Server::open();
    database.define(&server.root(), "2s");
    let since = Stopwatch::start();
    let login = Login::mint(&server.root(), "db/creds/app");
    server.kill9();
    eventually("it is due", LATE, || {
        let over = !database.ends_by_itself() || !database.accepts(&login);
        (over && since.elapsed() > TTL).then_some(())
    });
    assert_eq!(database.accepts(&login), !database.ends_by_itself(), "nobody was there to end it");
    assert!(database.has(&login.user));
    server.again();
    assert!(database.has(&login.user), "nothing happens while sealed");
    server.unseal();
    eventually("the login is gone", LATE, || (!database.has(&login.user)).then_some(()));
    assert!(!database.accepts(&login));
    let look = json!({"lease_id": login.lease});
    eventually("the lease is gone", LATE, || {
        let answer = server.root().put("sys/leases/lookup", look.clone());
        (answer.status == 400).then_some(())
    });
}

fn after_kill_9_amid_minting_every_login_has_a_lease_or_goes(kind: Kind) {
    let database = kind.private();
    let mut server = Server::open();
    let root = server.root();
    database.define(&root, "1h");
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    let minted = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let client = root.clone();
                scope.spawn(move || {
                    let mut logins = Vec::new();
                    while let Ok(answer) = client.try_send("GET", "db/creds/app", &[], None) {
                        if answer.status != 200 {
                            break;
                        }
                        logins.push(Login::of(&answer));
                    }
                    logins
                })
            })
            .collect();
        eventually("some logins are made", Duration::from_secs(30), || {
            (database.marked(&cluster).len() > 20).then_some(())
        });
        server.kill9();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(!minted.is_empty());
    server.again();
    server.unseal();
    let root = server.root();
    // What was answered lives on; what was not is gone.
    eventually("only what was answered is left", Duration::from_mins(1), || {
        let alive = root.list("sys/leases/lookup/db/creds/app/").keys().len();
        let marked = database.marked(&cluster);
        // An answer may have been lost on its way: then the login is there with its lease.
        let all_known = minted.iter().all(|login| marked.contains(&login.user));
        (all_known && alive == marked.len()).then_some(())
    });
    for login in minted.iter().take(3) {
        assert!(database.accepts(login));
    }
    root.put("sys/leases/revoke-prefix/db/creds/app", json!({"sync": true})).expect(204);
    nothing_left(database.as_ref(), &root);
}

fn revoking_ends_an_open_session(kind: Kind) {
    let database = kind.shared();
    let server = Server::open();
    let root = server.root();
    database.define(&root, "1h");
    let login = Login::mint(&root, "db/creds/app");
    let mut orders = database.open(&login.user, &login.password).unwrap();
    assert_eq!(orders(), Some(3));
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    assert!(orders().is_none(), "the session goes on");
    assert!(!database.accepts(&login));
    assert!(!database.has(&login.user));
    // Done twice is done once.
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
}

fn many_mints_at_once_all_come_through_and_a_prefix_ends_them(kind: Kind) {
    let database = kind.private();
    let server = Server::open();
    let root = server.root();
    database.define(&root, "1h");
    let mint = || (0..4).map(|_| Login::mint(&root, "db/creds/app")).collect::<Vec<_>>();
    let many: Vec<Login> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(mint)).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(many.len(), 32);
    assert!(many.iter().all(|login| database.accepts(login)));
    root.put("sys/leases/revoke-prefix/db", json!({"sync": true})).expect(204);
    nothing_left(database.as_ref(), &root);
}

/// Beside `app` a role `slow` whose mint takes so many seconds, on a connection of so many sessions.
#[track_caller]
fn define_slow(database: &dyn Victim, root: &Client, secs: f64, sessions: usize) {
    let mut connection = database.connection();
    connection["max_open_connections"] = json!(sessions);
    root.post("db/config/main", connection).expect(204);
    let mut role = database.role("1h");
    root.post("db/roles/app", role.clone()).expect(204);
    // Before the grant: PostgreSQL lets one transaction at a time change a table's rights.
    let mut creation = database.creation();
    creation.insert(1, database.sleep(secs));
    role["creation_statements"] = json!(creation);
    role["verify"] = json!(false);
    root.post("db/roles/slow", role).expect(200);
}

fn eight_mints_of_a_second_take_a_second(kind: Kind) {
    let database = kind.shared();
    let server = Server::open();
    let root = server.root();
    define_slow(database.as_ref(), &root, 1.0, 8);
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Login::mint(&root, "db/creds/slow"));
        }
    });
    // One after the other they would take eight: the rest is what a busy machine may add.
    let took = watch.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    root.put("sys/leases/revoke-prefix/db", json!({"sync": true})).expect(204);
}

/// With every session that mints at work, a login is ended before any of them is done.
fn a_revocation_does_not_wait_for_mints(kind: Kind) {
    const MINTS: usize = 4;
    let database = kind.shared();
    let server = Server::open();
    let root = server.root();
    define_slow(database.as_ref(), &root, 6.0, MINTS);
    let login = Login::mint(&root, "db/creds/app");
    std::thread::scope(|scope| {
        for _ in 0..2 * MINTS {
            scope.spawn(|| root.get("db/creds/slow"));
        }
        eventually("the mints are at work", LATE, || (database.sleepers() == MINTS).then_some(()));
        root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
        assert_eq!(database.sleepers(), MINTS, "it waited for them");
        assert!(!database.has(&login.user));
    });
    root.put("sys/leases/revoke-prefix/db", json!({"sync": true})).expect(204);
}
