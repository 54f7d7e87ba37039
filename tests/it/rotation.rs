//! Passwords that change while their users stay: root users and static roles.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CREATE, Client, Database, Options, Server, eventually};
use crate::victim::{Kind, Victim, on_each_kind};

const FIRST: &str = "first";

on_each_kind!(
    a_root_password_is_changed_to_one_that_nobody_else_knows,
    a_static_password_changes_by_itself_and_catches_up_after_an_outage,
    who_polls_a_pair_is_never_refused,
);

/// A connection that logs in as a user of the test's own.
pub(crate) fn connection(database: &dyn Victim) -> (String, Value) {
    let user = format!("{}_root", database.name());
    database.make_admin(&user, FIRST);
    let mut connection = database.connection();
    connection["username"] = json!(user);
    connection["password"] = json!(FIRST);
    (user, connection)
}

fn role(root: &Client) {
    let role = json!({"db_name": "main", "creation_statements": [CREATE]});
    root.post("db/roles/app", role).expect(204);
}

/// True if the server can still log in.
pub(crate) fn mints(root: &Client) -> bool {
    let answer = root.get("db/creds/app");
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text);
    answer.status == 200
}

fn a_root_password_is_changed_to_one_that_nobody_else_knows(kind: Kind) {
    let database = kind.shared();
    let mut server = Server::open();
    let root = server.root();
    let (user, connection) = connection(database.as_ref());
    root.post("db/config/main", connection).expect(204);
    root.post("db/roles/app", database.role("1h")).expect(204);
    root.post("db/rotate-root/main", json!({})).expect(204);
    assert!(!database.logs_in(&user, FIRST));
    assert!(mints(&root));
    let shown = root.get("db/config/main").expect(200);
    assert!(!shown.text_at("/data/last_vault_rotation").is_empty());
    root.post("db/rotate-root/none", json!({})).refused(400, "failed to find entry");
    // By itself from now on.
    let plan = json!({"rotation_schedule": "0 3 * * SAT", "rotation_window": "1h"});
    root.post("db/config/main", plan).expect(204);
    let shown = root.get("db/config/main").expect(200);
    assert_eq!(shown.text_at("/data/rotation_schedule"), "0 3 * * SAT");
    assert_eq!(shown.number_at("/data/rotation_window"), 3600);
    root.post("db/config/main", json!({"rotation_schedule": "0 3 * * 9"})).refused(400, "cron");
    server.kill9();
    server.again();
    server.unseal();
    eventually("it logs in", Duration::from_secs(20), || mints(&server.root()).then_some(()));
    assert!(!server.log().contains(FIRST) && !server.audit_text().contains("SCRAM-SHA-256"));
}

#[test]
fn a_password_of_the_configuration_file_is_not_rotated() {
    let database = Database::shared();
    let postgres = database.postgres();
    let more = format!(
        "[db.connections.main]\nhost = \"{}\"\nport = {}\ndatabase = \"{}\"\nusername = \"{}\"\n\
         password_file = \"{{folder}}/db.password\"\ntls = \"disable\"\nallowed_roles = [\"*\"]\n",
        postgres.host(),
        postgres.port(),
        database.name,
        postgres.admin_user()
    );
    let files = vec![("db.password", postgres.admin_password().to_owned())];
    let server = Server::ready(Options { more, files, ..Options::default() });
    let root = server.root();
    root.post("db/rotate-root/main", json!({})).refused(400, "configuration");
    // Nor is it together with one that has it from the API.
    root.post("db/config/beside", database.connection()).expect(204);
    root.post("db/rotate-root/beside", json!({})).refused(400, "configuration");
    role(&root);
    assert!(mints(&root));
}

#[test]
fn static_roles_are_what_vaults_clients_expect() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    let user = format!("{}_static", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD '{FIRST}'"));
    root.post("db/config/main", database.connection()).expect(204);
    root.list("db/static-roles").expect(404);
    root.get("db/static-creds/app").refused(400, "unknown role");
    root.post("db/rotate-role/app", json!({})).refused(400, "no static role found");
    let bad = [
        (json!({"username": user, "rotation_period": "1h"}), "db_name"),
        (json!({"db_name": "main", "rotation_period": "1h"}), "username is required"),
        (json!({"db_name": "main", "username": user}), "rotation_period"),
        (json!({"db_name": "main", "username": user, "rotation_period": 4}), "5 seconds"),
        (json!({"db_name": "main", "username": "nobody-here", "rotation_period": 60}), "no user"),
        (
            json!({"db_name": "main", "username": user, "rotation_period": 60, "scram_iterations": 1}),
            "4,096",
        ),
    ];
    for (body, words) in bad {
        root.post("db/static-roles/app", body).refused(400, words);
        root.get("db/static-roles/app").expect(404);
    }
    let body = json!({"db_name": "main", "username": user, "rotation_period": "24h"});
    root.post("db/static-roles/app", body).expect(204);
    assert_eq!(root.list("db/static-roles").expect(200).keys(), ["app"]);
    let shown = root.get("db/static-roles/app").expect(200);
    assert_eq!(shown.text_at("/data/username"), user);
    assert_eq!(shown.text_at("/data/db_name"), "main");
    assert_eq!(shown.number_at("/data/rotation_period"), 86_400);
    assert_eq!(shown.text_at("/data/credential_type"), "password");
    assert!(database.login(&user, FIRST).is_err());

    let client =
        server.limited("static", "path \"db/static-creds/app\" { capabilities = [\"read\"] }");
    let first = client.get("db/static-creds/app").expect(200);
    assert_eq!(first.text_at("/lease_id"), "");
    assert!((86_390..=86_400).contains(&first.number_at("/data/ttl")), "{}", first.text);
    assert_eq!(first.number_at("/data/rotation_period"), 86_400);
    let password = first.text_at("/data/password");
    assert!(database.login(&user, &password).is_ok());
    client.post("db/rotate-role/app", json!({})).refused(403, "permission denied");
    root.post("db/rotate-role/app", json!({})).expect(204);
    let second = client.get("db/static-creds/app").expect(200);
    assert!(
        second.text_at("/data/last_vault_rotation") > first.text_at("/data/last_vault_rotation")
    );
    assert!(database.login(&user, &password).is_err());

    server.kill9();
    server.again();
    server.unseal();
    let kept = client.get("db/static-creds/app").expect(200);
    assert_eq!(kept.text_at("/data/password"), second.text_at("/data/password"));
    let root = server.root();
    root.delete("db/config/main").refused(400, "static role");
    root.delete("db/static-roles/app").expect(204);
    root.get("db/static-creds/app").expect(400);
    assert!(database.login(&user, &kept.text_at("/data/password")).is_ok(), "the user stays");
    root.delete("db/config/main").expect(204);
    for secret in [&password, &kept.text_at("/data/password")] {
        assert!(!server.log().contains(secret) && !server.audit_text().contains(secret));
    }
}

fn a_static_password_changes_by_itself_and_catches_up_after_an_outage(kind: Kind) {
    let database = kind.private();
    let server = Server::open();
    let root = server.root();
    let user = format!("{}_static", database.name());
    database.make_user(&user);
    root.post("db/config/main", database.connection()).expect(204);
    let body = json!({"db_name": "main", "username": user, "rotation_period": 5});
    root.post("db/static-roles/app", body).expect(204);
    let read = || root.get("db/static-creds/app").expect(200).text_at("/data/password");
    let first = read();
    assert!(database.logs_in(&user, &first));
    database.crash();
    eventually("it is overdue", Duration::from_secs(20), || {
        (root.get("db/static-creds/app").number_at("/data/ttl") == 0).then_some(())
    });
    database.start();
    eventually("it has changed", Duration::from_secs(20), || (read() != first).then_some(()));
    assert!(!database.logs_in(&user, &first));
    eventually("what is handed out logs in", Duration::from_secs(5), || {
        database.logs_in(&user, &read()).then_some(())
    });
    if let Some(log) = database.log() {
        assert!(!log.contains(&read()), "what proves a password was sent, and not the password");
    }
}

/// As often as a client that polls has logged in twice, the other user's password changes.
fn who_polls_a_pair_is_never_refused(kind: Kind) {
    const ROTATIONS: u32 = 20;
    let database = kind.shared();
    let server = Server::open();
    let root = server.root();
    let users = ["blue", "green"].map(|color| format!("{}_{color}", database.name()));
    for user in &users {
        database.make_user(user);
    }
    root.post("db/config/main", database.connection()).expect(204);
    let pair = json!({"db_name": "main", "usernames": users, "rotation_period": "24h"});
    root.post("db/static-roles/pair", pair).expect(204);
    let (polled, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        let (client, polled, done) = (root.clone(), &polled, &done);
        scope.spawn(move || {
            for _ in 0..ROTATIONS {
                let before = polled.load(Ordering::SeqCst);
                eventually("the client has logged in twice", Duration::from_secs(20), || {
                    (polled.load(Ordering::SeqCst) >= before + 2).then_some(())
                });
                client.post("db/rotate-role/pair", json!({"force": true})).expect(204);
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let handed = root.get("db/static-creds/pair").expect(200);
            let (user, password) =
                (handed.text_at("/data/username"), handed.text_at("/data/password"));
            assert!(database.logs_in(&user, &password), "{user} is refused");
            polled.fetch_add(1, Ordering::SeqCst);
            seen.insert(user);
        }
    });
    assert_eq!(seen.len(), 2);
}

#[test]
fn static_roles_and_root_passwords_are_changed_from_the_command_line() {
    let database = Database::shared();
    let server = Server::open();
    let (user, connection) = connection(&database);
    let (blue, green) = (format!("{}_blue", database.name), format!("{}_green", database.name));
    database.sql(&format!("CREATE ROLE {blue} LOGIN; CREATE ROLE {green} LOGIN"));
    server.root().post("db/config/main", connection).expect(204);
    server.root().post("db/config/super", database.connection()).expect(204);
    let good = |arguments: &[&str]| {
        let output = server.cli(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    good(&["db", "rotate-root", "main"]);
    assert!(database.login(&user, FIRST).is_err());
    let users = format!("usernames={blue},{green}");
    let schedule = "rotation_schedule=0 3 * * *";
    good(&["db", "static-role", "write", "app", "db_name=super", &users, schedule]);
    assert!(good(&["db", "static-role", "list"]).contains("app"));
    assert!(good(&["db", "static-role", "read", "app"]).contains(&green));
    let read = || {
        let read = good(&["db", "static-creds", "-format=json", "app"]);
        let read: Value = serde_json::from_str(&read).unwrap();
        let text = |name: &str| read["data"][name].as_str().unwrap().to_owned();
        (text("username"), text("password"))
    };
    let first = read();
    assert!(!server.cli(&["db", "rotate-role", "app"]).status.success(), "in use for a day");
    good(&["db", "rotate-role", "-force", "app"]);
    let second = read();
    assert_eq!((first.0.as_str(), second.0.as_str()), (blue.as_str(), green.as_str()));
    for (user, password) in [first, second] {
        assert!(database.login(&user, &password).is_ok(), "{user}");
    }
    good(&["db", "static-role", "delete", "app"]);
}
