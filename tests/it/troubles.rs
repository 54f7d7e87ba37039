//! A database that refuses, is down, or comes back: clear errors, and nothing left behind.

use std::time::Duration;

use serde_json::json;

use crate::harness::{CREATE, Client, Database, Login, Server, eventually};

/// Nothing is left in the database nor among the leases.
fn nothing_left(database: &Database, root: &Client) {
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    eventually("no role is left", Duration::from_secs(15), || {
        database.marked_roles(&cluster).is_empty().then_some(())
    });
    eventually("no lease is left", Duration::from_secs(15), || {
        (root.list("sys/leases/lookup/db/creds").status == 404).then_some(())
    });
}

#[test]
fn unknown_roles_and_connections_are_named() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.get("db/creds/none").refused(400, "unknown role: none");
    root.get("db/roles/none").expect(404);
    root.get("db/config/none").expect(404);
    let role = json!({"db_name": "none", "creation_statements": [CREATE]});
    let written = root.post("db/roles/lost", role);
    assert!([200, 204, 400].contains(&written.status), "{}", written.text);
    root.get("db/creds/lost").expect(400);
    root.post("db/config/main", database.connection()).expect(204);
    let mut narrow = database.connection();
    narrow["allowed_roles"] = json!(["other"]);
    root.post("db/config/narrow", narrow).expect(204);
    let role = json!({"db_name": "narrow", "creation_statements": [CREATE]});
    let _ = root.post("db/roles/kept-out", role);
    root.get("db/creds/kept-out").refused(403, "not an allowed role");
    nothing_left(&database, &root);
}

/// Catalogue: CVE-2026-115363.
#[test]
fn a_connection_is_tried_before_it_is_kept_and_shows_no_password() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    let mut wrong = database.connection();
    wrong["password"] = json!("canary-password");
    let answer = root.post("db/config/main", wrong).refused(400, "error creating database object");
    assert!(answer.text.contains("password authentication failed"), "{}", answer.text);
    assert!(!answer.text.contains("canary-password"));
    root.get("db/config/main").expect(404);
    let mut other = database.connection();
    other["plugin_name"] = json!("oracle-database-plugin");
    root.post("db/config/main", other).expect(400);
    root.post("db/config/main", database.connection()).expect(204);
    let shown = root.get("db/config/main").expect(200);
    assert!(!shown.text.contains(database.postgres().admin_password()));
    assert_eq!(
        shown.data()["connection_details"]["username"],
        json!(database.postgres().admin_user())
    );
    assert_eq!(root.list("db/config").expect(200).keys(), ["main"]);
    assert!(!server.log().contains("canary-password"));
    assert!(!server.audit_text().contains("canary-password"));
}

/// Catalogue: MEASURED-3.
#[test]
fn statements_that_fail_are_told_in_postgresqls_words_and_leave_nothing() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    for (number, (statement, words)) in [
        ("GRANT SELECT ON nowhere TO \"{{name}}\"", "relation \"nowhere\" does not exist"),
        ("GRANTT SELECT ON orders TO \"{{name}}\"", "syntax error"),
        ("SELECT 1/0", "division by zero"),
    ]
    .into_iter()
    .enumerate()
    {
        let role = json!({"db_name": "main", "creation_statements": [CREATE, statement]});
        let written = root.post(&format!("db/roles/bad{number}"), role);
        // Refused when it is written, or when it is used.
        let answer = if written.status == 400 {
            written
        } else {
            root.get(&format!("db/creds/bad{number}")).expect(400)
        };
        assert!(answer.text.replace('\\', "").contains(words), "{}", answer.text);
        assert!(!answer.text.contains("SCRAM-SHA-256"), "{}", answer.text);
    }
    nothing_left(&database, &root);
    for log in [server.log(), server.audit_text()] {
        assert!(!log.contains("SCRAM-SHA-256"), "not even the verifier is logged");
    }
}

#[test]
fn statements_that_would_void_the_promise_are_refused() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    for statements in [
        json!(["COMMIT"]),
        json!([CREATE, "COMMIT"]),
        json!([]),
        json!(["SELECT 1"]),
        json!(["CREATE ROLE fixed LOGIN PASSWORD '{{password}}'"]),
    ] {
        let role = json!({"db_name": "main", "creation_statements": statements});
        root.post("db/roles/bad", role).expect(400);
    }
    root.get("db/roles/bad").expect(404);
}

#[test]
fn quotes_dollars_and_comments_in_statements_are_understood() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    let text = format!(
        "{CREATE}; -- a comment; with a semicolon\n\
         /* another; /* nested; */ one */\n\
         COMMENT ON TABLE orders IS 'it''s; fine';\n\
         COMMENT ON COLUMN orders.id IS $body$a;b $1 ''$body$;\n\
         GRANT SELECT ON orders TO \"{{{{name}}}}\";"
    );
    let role = json!({"db_name": "main", "creation_statements": text, "default_ttl": "1h"});
    let written = root.post("db/roles/app", role);
    assert!(written.status < 300, "{}", written.text);
    let login = Login::mint(&root, "db/creds/app");
    let session = database.login(&login.user, &login.password).unwrap();
    assert_eq!(session.orders(), Ok(3));
    let comment = database.query("SELECT obj_description('orders'::regclass)");
    assert_eq!(comment, ["it's; fine"]);
}

#[test]
fn a_connection_in_use_is_not_deleted_under_its_leases() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let login = Login::mint(&root, "db/creds/app");
    root.delete("db/config/main").refused(400, "lease");
    // The role's definition may go: the lease knows what it needs.
    root.delete("db/roles/app").expect(204);
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    assert!(!database.has_role(&login.user));
    root.delete("db/config/main").expect(204);
    root.delete("db/config/main").expect(204);
}
