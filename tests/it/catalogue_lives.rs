//! Security catalogue: what was given ends, and names that databases hold are no commands.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Database, Login, Server, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Catalogue: CVE-2020-12757, CVE-2020-25816.
#[test]
fn a_lease_that_nobody_gave_a_length_ends_all_the_same() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    for (ttl, max) in [("", ""), ("0", "0"), ("0s", "")] {
        database.configure(&root, "db", ttl, max);
        let answer = root.get("db/creds/app").expect(200);
        let seconds = answer.number_at("/lease_duration");
        assert!((1..=32 * 86_400).contains(&seconds), "{ttl:?} {max:?}: {seconds}");
        let login = Login::of(&answer);
        let until = database.query(&format!(
            "SELECT rolvaliduntil::text FROM pg_roles WHERE rolname = '{}'",
            login.user
        ));
        assert!(!until[0].contains("infinity"), "{until:?}");
    }
    // A login of a token that ends in a moment ends with it.
    let short = server.with_new_token(json!({"policies": ["root"], "ttl": "2s"}));
    let login = Login::mint(&short, "db/creds/app");
    eventually("it ends with its token", SOON, || (!database.has_role(&login.user)).then_some(()));
}

/// Catalogue: CVE-2023-0620, CVE-2026-39946.
#[test]
fn names_in_a_database_that_look_like_commands_are_names() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    let owner = format!("own\"er'; DROP TABLE orders; --\n{}", database.name);
    let quoted = format!("\"{}\"", owner.replace('"', "\"\""));
    database.sql(&format!("CREATE ROLE {quoted} NOLOGIN"));
    database.sql("GRANT CREATE ON DATABASE \"$\" TO PUBLIC".replace('$', &database.name).as_str());
    root.post("db/config/main", database.connection()).expect(204);
    let creation = json!([crate::harness::CREATE, "GRANT SELECT ON orders TO \"{{name}}\"",]);
    let role = json!({
        "db_name": "main", "creation_statements": creation, "owner": owner,
        "default_ttl": "1h", "max_ttl": "2h",
    });
    root.post("db/roles/app", role).expect(204);
    let login = Login::mint(&root, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    let hostile = "x\"\"y'; DROP TABLE orders; --\n$$ \u{202e}\\";
    session.run(&format!("CREATE SCHEMA \"{hostile}\"")).unwrap();
    session.run(&format!("CREATE TABLE \"{hostile}\".\"{hostile}\" (\"{hostile}\" int)")).unwrap();
    session
        .run(&format!(
            "CREATE FUNCTION \"{hostile}\".\"{hostile}\"() RETURNS int LANGUAGE sql \
             SECURITY DEFINER AS 'SELECT 1'"
        ))
        .unwrap();
    drop(session);
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    eventually("the login is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
    assert_eq!(database.query("SELECT count(*)::text FROM orders"), ["3"]);
    let owners = database.query(
        "SELECT r.rolname::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner \
         WHERE c.relname LIKE 'x\"y%'",
    );
    assert_eq!(owners, [owner]);
    database.sql(&format!("DROP OWNED BY {quoted} CASCADE; DROP ROLE {quoted}"));
}

/// Catalogue: CVE-2022-40186, CVE-2026-42186, GHSA-vv66.
#[test]
fn a_mount_of_the_same_name_has_nothing_of_the_one_before() {
    let server = Server::open();
    let root = server.root();
    for _ in 0..3 {
        for (path, kind) in [("again", "kv"), ("again2", "kv-v2")] {
            root.post(&format!("sys/mounts/{path}"), json!({"type": kind})).expect(204);
        }
        root.list("again").expect(404);
        root.list("again2/metadata").expect(404);
        root.post("again/x", json!({"v": 1})).expect(204);
        root.post("again2/data/x", json!({"data": {"v": 1}})).expect(200);
        for path in ["again", "again2"] {
            root.delete(&format!("sys/mounts/{path}")).expect(204);
        }
    }
}

/// Catalogue: CVE-2022-30689, CVE-2022-41316.
#[test]
fn what_bounds_a_token_bounds_it_after_a_restart() {
    let mut server = Server::open();
    let limited = server.limited("only", "path \"secret/data/a\" { capabilities = [\"read\"] }");
    let once = server.with_new_token(json!({"policies": ["root"], "num_uses": 1}));
    let short = server.with_new_token(json!({"policies": ["root"], "ttl": "1s"}));
    eventually("the short one ends", SOON, || {
        (short.get("sys/mounts").status == 403).then_some(())
    });
    let revoked = server.with_new_token(json!({"policies": ["root"]}));
    revoked.post("auth/token/revoke-self", json!({})).expect(204);
    server.kill9();
    server.again();
    server.unseal();
    limited.get("secret/data/a").expect(404);
    limited.get("secret/data/b").expect(403);
    once.get("sys/mounts").expect(200);
    once.get("sys/mounts").expect(403);
    short.get("sys/mounts").expect(403);
    revoked.get("sys/mounts").expect(403);
}

/// Catalogue: CVE-2021-3024.
#[test]
fn who_may_only_ask_for_logins_learns_no_address() {
    let database = Database::private();
    let server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let asker = server.limited("asker", "path \"db/creds/app\" { capabilities = [\"read\"] }");
    database.postgres().stop();
    let answer = asker.get("db/creds/app");
    assert!(answer.status >= 500, "{}", answer.text);
    let port = database.postgres().port().to_string();
    for word in [database.postgres().host(), &port, database.postgres().admin_user()] {
        assert!(!answer.text.contains(word), "{word}: {}", answer.text);
    }
    for path in ["sys/health", "sys/leader", "sys/seal-status", "nope/x"] {
        let text = server.client().get(path).text;
        assert!(!text.contains("127.0.0.1") && !text.contains(&port), "{path}: {text}");
    }
}
