//! Passwords that change while their users stay: root users and static roles.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Database, Login, Options, Server, Stopwatch, eventually, stays};

const ALTER: &str = "ALTER ROLE {{name}} PASSWORD '{{password}}'";
const FIRST: &str = "first";

/// A connection that logs in as a user of the test's own.
fn connection(database: &Database) -> (String, Value) {
    let user = format!("{}_root", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN CREATEROLE PASSWORD '{FIRST}'"));
    let mut connection = database.connection();
    connection["username"] = json!(user);
    connection["password"] = json!(FIRST);
    (user, connection)
}

fn role(root: &Client) {
    let role = json!({"db_name": "main", "creation_statements": [crate::harness::CREATE]});
    root.post("db/roles/app", role).expect(204);
}

/// True if the server can still log in.
fn mints(root: &Client) -> bool {
    let answer = root.get("db/creds/app");
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text);
    answer.status == 200
}

fn sleeps(database: &Database) -> bool {
    let name = &database.name;
    let sql = format!(
        "SELECT pid::text FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
    );
    !database.query(&sql).is_empty()
}

#[test]
fn a_root_password_is_changed_to_one_that_nobody_else_knows() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    let (user, connection) = connection(&database);
    root.post("db/config/main", connection).expect(204);
    role(&root);
    root.post("db/rotate-root/main", json!({})).expect(204);
    assert!(database.login(&user, FIRST).is_err());
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
    assert!(mints(&server.root()));
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
fn a_server_killed_mid_rotation_behind_a_sleep_of_two_seconds_is_not_locked_out() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    let (_, mut connection) = connection(&database);
    connection["root_rotation_statements"] = json!(["SELECT pg_sleep(2)", ALTER]);
    root.post("db/config/main", connection).expect(204);
    role(&root);
    std::thread::scope(|scope| {
        let client = root.clone();
        scope.spawn(move || client.try_send("POST", "db/rotate-root/main", &[], Some("{}")));
        eventually("it sleeps", Duration::from_secs(10), || sleeps(&database).then_some(()));
        let since = Stopwatch::start();
        server.kill9();
        server.again();
        server.unseal();
        assert!(mints(&server.root()), "while nobody knows which password holds");
        eventually("it is settled", Duration::from_secs(20), || {
            let shown = server.root().get("db/config/main").expect(200);
            shown.json["data"].get("rotation_in_doubt").is_none().then_some(())
        });
        let rest = Duration::from_millis(2_500).saturating_sub(since.elapsed());
        stays("the password is known", rest, || {
            server.root().post("db/reset/main", json!({})).expect(204);
            mints(&server.root())
        });
    });
    server.root().post("db/config/main", json!({"root_rotation_statements": [ALTER]})).expect(204);
    server.root().post("db/rotate-root/main", json!({})).expect(204);
    assert!(mints(&server.root()));
}

/// How often the server is killed: 6 times, or as often as `MSSM_TORTURE_ROTATIONS` says.
#[expect(clippy::disallowed_methods, reason = "how scripts/torture asks for the long form")]
fn kills() -> u32 {
    std::env::var("MSSM_TORTURE_ROTATIONS").ok().map_or(6, |text| text.parse().unwrap())
}

#[test]
fn no_kill_at_any_moment_of_a_rotation_locks_the_server_out() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    let (_, mut connection) = connection(&database);
    // Longer than it would be, so that kills find it in every stage.
    connection["root_rotation_statements"] =
        json!(["SELECT pg_sleep(0.01)", ALTER, "SELECT pg_sleep(0.01)"]);
    root.post("db/config/main", connection).expect(204);
    role(&root);
    for kill in 0..kills() {
        let rotated = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let (client, rotated) = (root.clone(), &rotated);
            scope.spawn(move || {
                while let Ok(answer) =
                    client.try_send("POST", "db/rotate-root/main", &[], Some("{}"))
                {
                    match answer.status {
                        204 => _ = rotated.fetch_add(1, Ordering::SeqCst),
                        503 => {}
                        _ => panic!("{}", answer.text),
                    }
                }
            });
            if kill % 2 == 0 {
                eventually("one comes to its end", Duration::from_secs(20), || {
                    (rotated.load(Ordering::SeqCst) > 0).then_some(())
                });
            }
            // Spread over more than one rotation; where each ends is chance enough.
            let wait = Duration::from_millis(u64::from(kill * 37 % 200));
            let since = Stopwatch::start();
            eventually("the moment comes", Duration::from_secs(5), || {
                (since.elapsed() >= wait).then_some(())
            });
            server.kill9();
        });
        server.again();
        server.unseal();
        assert!(mints(&server.root()), "locked out after kill {kill}");
        eventually("it is settled", Duration::from_secs(20), || {
            let shown = server.root().get("db/config/main").expect(200);
            shown.json["data"].get("rotation_in_doubt").is_none().then_some(())
        });
        server.root().post("db/reset/main", json!({})).expect(204);
        assert!(mints(&server.root()), "locked out after kill {kill} was settled");
    }
    server.root().post("db/rotate-root/main", json!({})).expect(204);
}

/// The fail-points of rotations, as the sources name them.
fn failpoints() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/actors/minter/src/rotation");
    let files = ["root.rs", "statics/change.rs"].map(|file| format!("{folder}/{file}"));
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let names = texts.split("failpoint::here(\"").skip(1);
    names.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect()
}

#[test]
fn killed_at_every_step_of_a_rotation_nobody_is_locked_out() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    let user = format!("{}_static", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN"));
    root.post("db/config/main", connection(&database).1).expect(204);
    root.post("db/config/super", database.connection()).expect(204);
    role(&root);
    let fixed = json!({"db_name": "super", "username": user, "rotation_period": "24h"});
    root.post("db/static-roles/fixed", fixed).expect(204);
    let points = failpoints();
    assert!(points.len() >= 10, "{points:?}");
    for point in points {
        server.kill9();
        assert!(server.again_until(&point), "{point}");
        server.unseal();
        for path in ["db/rotate-root/main", "db/rotate-role/fixed"] {
            if server
                .client()
                .with_token(root.token())
                .try_send("POST", path, &[], Some("{}"))
                .is_err()
            {
                break;
            }
        }
        let ended = eventually("it is met", Duration::from_secs(20), || server.ended());
        assert!(!ended.success(), "{point}");
        server.again();
        server.unseal();
        let root = server.root();
        assert!(mints(&root), "locked out after {point}");
        let handed = root.get("db/static-creds/fixed").expect(200);
        assert!(database.login(&user, &handed.text_at("/data/password")).is_ok(), "{point}");
        eventually("it is settled", Duration::from_secs(20), || {
            let shown = root.get("db/config/main").expect(200);
            shown.json["data"].get("rotation_in_doubt").is_none().then_some(())
        });
        root.post("db/reset/main", json!({})).expect(204);
        assert!(mints(&root), "locked out after {point} was settled");
    }
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

#[test]
fn a_static_password_changes_by_itself_and_catches_up_after_an_outage() {
    let database = Database::private();
    let server = Server::open();
    let root = server.root();
    let user = format!("{}_static", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN"));
    root.post("db/config/main", database.connection()).expect(204);
    let body = json!({"db_name": "main", "username": user, "rotation_period": 5});
    root.post("db/static-roles/app", body).expect(204);
    let read = || Login {
        lease: String::new(),
        user: user.clone(),
        password: root.get("db/static-creds/app").expect(200).text_at("/data/password"),
    };
    let first = read();
    assert!(database.accepts(&first));
    database.postgres().crash();
    eventually("it is overdue", Duration::from_secs(20), || {
        (root.get("db/static-creds/app").number_at("/data/ttl") == 0).then_some(())
    });
    database.postgres().start();
    eventually("it has changed", Duration::from_secs(20), || {
        (read().password != first.password).then_some(())
    });
    assert!(!database.accepts(&first));
    eventually("what is handed out logs in", Duration::from_secs(5), || {
        database.accepts(&read()).then_some(())
    });
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
