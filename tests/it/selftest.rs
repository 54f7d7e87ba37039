//! A role is tried when it is written: what is broken is refused and leaves nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CREATE, Client, Database, Login, Server, eventually};

fn open(database: &Database) -> (Server, Client) {
    let server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    (server, root)
}

/// All that a login could leave: roles of ours, objects of the database, slots.
fn residue(database: &Database, root: &Client) -> Vec<String> {
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    let mut left = database.marked_roles(&cluster);
    left.extend(database.query(&format!(
        "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' \
         UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
         UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
         UNION ALL SELECT slot_name::text FROM pg_replication_slots WHERE slot_name LIKE '{0}%' \
         UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname LIKE '{0}%' \
         UNION ALL SELECT m.rolname || ' in ' || g.rolname FROM pg_auth_members a \
         JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid \
         WHERE g.rolname LIKE '{0}%' ORDER BY 1",
        database.name
    )));
    left
}

fn role(statements: &[&str]) -> Value {
    json!({"db_name": "main", "creation_statements": statements})
}

/// Second statements that are wrong in ways that PostgreSQL alone knows, or that only trying shows.
fn broken(prefix: &str) -> Vec<(String, &'static str)> {
    let each = |text: &str| text.replace("PREFIX", prefix);
    [
        ("GRANT SELECT ON nowhere TO \"{{name}}\"", "relation \"nowhere\" does not exist"),
        ("GRANTT SELECT ON orders TO \"{{name}}\"", "syntax error"),
        ("GRANT SELEKT ON orders TO \"{{name}}\"", "unrecognized privilege type"),
        ("GRANT nosuchgroup TO \"{{name}}\"", "role \"nosuchgroup\" does not exist"),
        ("GRANT USAGE ON SCHEMA nowhere TO \"{{name}}\"", "schema \"nowhere\" does not exist"),
        (
            "GRANT CONNECT ON DATABASE nowhere TO \"{{name}}\"",
            "database \"nowhere\" does not exist",
        ),
        ("GRANT SELECT (nocolumn) ON orders TO \"{{name}}\"", "column \"nocolumn\""),
        ("GRANT EXECUTE ON FUNCTION nof() TO \"{{name}}\"", "function nof() does not exist"),
        ("GRANT SELECT ON orders TO \"{{name}}\"\"", "unterminated"),
        ("GRANT SELECT ON orders TO nosuchrole", "role \"nosuchrole\" does not exist"),
        ("GRANT SELECT ON orders TO '{{name}}'", "syntax error"),
        ("GRANT SELECT ON orders TO \"{{nam}}\"", "unknown placeholder"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT nof()", "function nof() does not exist"),
        ("SELECT '{{password}}'::int", "message that holds the password"),
        ("ALTER ROLE \"{{name}}\" SET nosuchsetting = 1", "unrecognized configuration parameter"),
        ("ALTER ROLE \"{{name}}\" SET work_mem = 'much'", "invalid value for parameter"),
        ("ALTER ROLE \"{{name}}\" VALID UNTIL 'tomorrowish'", "invalid input syntax"),
        ("ALTER TABLE nowhere OWNER TO \"{{name}}\"", "relation \"nowhere\" does not exist"),
        ("CREATE TABLE PREFIX_t (a int)", "works once only"),
        ("CREATE SCHEMA PREFIX_s AUTHORIZATION \"{{name}}\"", "works once only"),
        ("CREATE DATABASE PREFIX_d", "cannot"),
        ("VACUUM orders", "cannot"),
        ("CREATE INDEX CONCURRENTLY ON orders (id)", "cannot"),
        ("DROP ROLE \"{{name}}\"", "does not exist"),
        ("SELECT pg_create_physical_replication_slot('PREFIX_slot')", ""),
        ("CREATE SCHEMA \"{{name}}\" AUTHORIZATION \"{{name}}\"", "owns 1 objects"),
        ("ALTER ROLE \"{{name}}\" NOLOGIN", "not permitted to log in"),
        ("ALTER ROLE \"{{name}}\" PASSWORD 'other'", "password authentication failed"),
        ("ALTER ROLE \"{{name}}\" VALID UNTIL '2001-01-01'", "password authentication failed"),
        ("ALTER ROLE \"{{name}}\" CONNECTION LIMIT 0", "too many connections for role"),
        ("ALTER ROLE \"{{name}}\" SUPERUSER", "SUPERUSER"),
        ("ALTER ROLE \"{{name}}\" CREATEROLE", "CREATEROLE"),
        ("ALTER ROLE \"{{name}}\" REPLICATION", "REPLICATION"),
        ("ALTER ROLE \"{{name}}\" BYPASSRLS", "BYPASSRLS"),
        ("GRANT PREFIX_group TO \"{{name}}\" WITH ADMIN OPTION", "ADMIN OPTION"),
        ("GRANT pg_execute_server_program TO \"{{name}}\"", "pg_execute_server_program"),
        ("GRANT \"pg_write_server_files\" TO \"{{name}}\"", "pg_write_server_files"),
        ("GRANT PREFIX_mighty TO \"{{name}}\"", "SUPERUSER"),
        ("GRANT PREFIX_person TO \"{{name}}\"", "it can log in"),
        ("SELECT PREFIX_make('PREFIX_second')", "works once only"),
        ("SELECT PREFIX_make('PREFIX_' || '{{name}}')", "they also make or change the role"),
        ("SELECT PREFIX_lift('{{name}}')", "CREATEROLE"),
        ("GRANT PREFIX_group TO PREFIX_other", "they also make or change the member"),
        ("ALTER ROLE PREFIX_other CREATEDB", "they also make or change the role"),
        ("COMMIT", "one transaction of ours"),
        ("SET ROLE PREFIX_group", "SET LOCAL"),
        ("DO $$ BEGIN END $$", "DO block"),
        ("COPY orders TO STDOUT", "COPY"),
    ]
    .map(|(statement, why)| (each(statement), why))
    .to_vec()
}

fn prepare(database: &Database) -> String {
    let prefix = database.name.clone();
    database.sql(&format!(
        "CREATE ROLE {prefix}_group; CREATE ROLE {prefix}_other; CREATE ROLE {prefix}_mighty SUPERUSER; \
         CREATE ROLE {prefix}_person LOGIN; \
         CREATE FUNCTION {prefix}_make(n text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN EXECUTE format('CREATE ROLE %I', n); END $$; \
         CREATE FUNCTION {prefix}_lift(n text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN EXECUTE format('ALTER ROLE %I CREATEROLE', n); END $$"
    ));
    prefix
}

fn clear(database: &Database, prefix: &str) {
    database.sql(&format!(
        "DROP ROLE {prefix}_group, {prefix}_other, {prefix}_mighty, {prefix}_person"
    ));
}

#[test]
fn every_broken_template_is_refused_with_its_statement_and_leaves_nothing() {
    let database = Database::shared();
    let (server, root) = open(&database);
    let prefix = prepare(&database);
    let before = residue(&database, &root);
    let broken = broken(&prefix);
    assert!(broken.len() >= 30);
    for (statement, why) in &broken {
        let answer = root.post("db/roles/bad", role(&[CREATE, statement]));
        assert_eq!(answer.status, 400, "{statement}: {}", answer.text);
        let text = answer.text.replace('\\', "");
        assert!(text.contains(why), "{statement}: {text}");
        assert!(!text.contains("SCRAM-SHA-256$"), "{text}");
        root.get("db/roles/bad").expect(404);
        assert_eq!(residue(&database, &root), before, "{statement}");
    }
    eventually("no lease is left", Duration::from_secs(5), || {
        (root.list("sys/leases/lookup/db").status == 404).then_some(())
    });
    drop(server);
    clear(&database, &prefix);
}

#[test]
fn statements_that_do_not_end_or_extend_a_login_are_refused() {
    let database = Database::shared();
    let (_server, root) = open(&database);
    let before = residue(&database, &root);
    let owns = "CREATE SCHEMA \"{{name}}\" AUTHORIZATION \"{{name}}\"";
    for (field, statements, why) in [
        ("revocation_statements", json!(["DROP OWNED BY nosuchrole"]), "statement 1"),
        ("revocation_statements", json!(["SELECT 1", "GRANTT"]), "statement 2"),
        ("revocation_statements", json!(["SELECT 1"]), "owns 1 objects"),
        (
            "renew_statements",
            json!(["ALTER ROLE nosuchrole VALID UNTIL '{{expiration}}'"]),
            "renew",
        ),
    ] {
        let mut body = role(&[CREATE, owns]);
        body[field] = statements;
        if field == "renew_statements" {
            body["creation_statements"] = json!([CREATE]);
        }
        let answer = root.post("db/roles/bad", body);
        assert_eq!(answer.status, 400, "{field}: {}", answer.text);
        assert!(answer.text.contains(field) || answer.text.contains(why), "{}", answer.text);
        assert!(answer.text.contains(why), "{}", answer.text);
        root.get("db/roles/bad").expect(404);
        assert_eq!(residue(&database, &root), before, "{field}");
    }
}

#[test]
fn a_good_role_is_verified_and_without_a_test_it_is_said_that_it_is_not() {
    let database = Database::shared();
    let (_server, root) = open(&database);
    root.post("db/roles/app", role(&[CREATE])).expect(204);
    assert_eq!(root.get("db/roles/app").expect(200).data()["verified"], json!(true));
    let mut body = role(&[CREATE, "SELECT 1/0"]);
    body["verify"] = json!(false);
    let answer = root.post("db/roles/blind", body).expect(200);
    assert!(answer.text.contains("not verified"), "{}", answer.text);
    assert_eq!(root.get("db/roles/blind").expect(200).data()["verified"], json!(false));
    // A change is tried anew, and a refused one changes nothing.
    let change = json!({"creation_statements": [CREATE, "SELECT 1/0"]});
    root.post("db/roles/app", change).refused(400, "statement 2");
    Login::mint(&root, "db/creds/app");
}

#[test]
fn a_grant_on_all_tables_is_warned_of_and_privileges_need_a_word() {
    let database = Database::shared();
    let (_server, root) = open(&database);
    let grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\"";
    let answer = root.post("db/roles/app", role(&[CREATE, grant])).expect(200);
    assert!(answer.text.contains("ON ALL"), "{}", answer.text);
    let mut body = role(&[CREATE, "ALTER ROLE \"{{name}}\" CREATEROLE"]);
    root.post("db/roles/boss", body.clone()).refused(400, "allow_privileged=true");
    body["allow_privileged"] = json!(true);
    let answer = root.post("db/roles/boss", body).expect(200);
    assert!(answer.text.contains("CREATEROLE"), "{}", answer.text);
    assert_eq!(root.get("db/roles/boss").expect(200).data()["allow_privileged"], json!(true));
}

#[test]
fn logins_that_may_shut_the_connections_database_are_warned_of_and_refused_where_it_is_the_only_way_in()
 {
    let database = Database::private();
    let (_server, root) = open(&database);
    let owner = format!("{}_keeper", database.name);
    database
        .sql(&format!("CREATE ROLE {owner}; ALTER DATABASE {} OWNER TO {owner}", database.name));
    let join = format!("GRANT {owner} TO \"{{{{name}}}}\"");
    let answer = root.post("db/roles/app", role(&[CREATE, &join])).expect(200);
    assert!(answer.text.contains("owns the connection's database"), "{}", answer.text);
    root.post("db/roles/plain", role(&[CREATE])).expect(204);
    database.sql(&format!(
        "ALTER DATABASE postgres OWNER TO {owner}; ALTER DATABASE template1 OWNER TO {owner}"
    ));
    let why = "which owns the connection's database";
    root.post("db/roles/app", role(&[CREATE, &join])).refused(400, why);
    let mut body = role(&[CREATE, &join]);
    body["allow_privileged"] = json!(true);
    root.post("db/roles/app", body).expect(200);
}

#[test]
fn a_database_that_is_down_says_how_a_role_is_stored_untried() {
    let database = Database::private();
    let (_server, root) = open(&database);
    database.postgres().stop();
    let answer = root.post("db/roles/app", role(&[CREATE])).expect(503);
    assert!(answer.text.contains("verify=false"), "{}", answer.text);
    root.get("db/roles/app").expect(404);
    let mut body = role(&[CREATE]);
    body["verify"] = json!(false);
    root.post("db/roles/app", body).expect(200);
    database.postgres().start();
    eventually("the role works", Duration::from_secs(10), || {
        (root.get("db/creds/app").status == 200).then_some(())
    });
    root.post("db/roles/app", role(&[CREATE])).expect(204);
}

#[test]
fn a_kill_amid_a_self_test_leaves_a_lease_that_ends_it() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    // The renewal sleeps while the login is there.
    let mut body = role(&[CREATE]);
    body["renew_statements"] = json!(["SELECT pg_sleep(5)"]);
    std::thread::scope(|scope| {
        let writer = server.root();
        scope.spawn(move || writer.try_send("POST", "db/roles/app", &[], Some(&body.to_string())));
        eventually("the login is there", Duration::from_secs(10), || {
            (!database.marked_roles(&cluster).is_empty()).then_some(())
        });
        server.kill9();
    });
    assert!(!database.marked_roles(&cluster).is_empty());
    server.again();
    server.unseal();
    let root = server.root();
    eventually("its lease is known", Duration::from_secs(10), || {
        let leases = root.list("sys/leases/lookup/db/self-test/app/");
        (leases.status == 200 && leases.keys().len() == 1).then_some(())
    });
    root.put("sys/leases/revoke-prefix/db/self-test", json!({"sync": true})).expect(204);
    eventually("and ends it", Duration::from_secs(10), || {
        database.marked_roles(&cluster).is_empty().then_some(())
    });
    root.get("db/roles/app").expect(404);
}

#[test]
fn a_server_that_asks_for_no_password_is_warned_of() {
    let database = Database::private();
    let (_server, root) = open(&database);
    let hba = database.query("SHOW hba_file").remove(0);
    database.sql(&format!("COPY (SELECT 'host all all 127.0.0.1/32 trust') TO '{hba}'"));
    database.sql("SELECT pg_reload_conf()");
    let user = database.postgres().admin_user();
    eventually("anybody is let in", Duration::from_secs(10), || {
        database.login(user, "not the password").is_ok().then_some(())
    });
    let answer = root.post("db/roles/app", role(&[CREATE])).expect(200);
    assert!(answer.text.contains("without a password"), "{}", answer.text);
    assert_eq!(root.get("db/roles/app").expect(200).data()["verified"], json!(true));
}

#[test]
fn idle_replication_slots_are_told_when_a_login_that_may_make_some_ends() {
    let database = Database::private();
    let (server, root) = open(&database);
    database.sql("SELECT pg_create_physical_replication_slot('left_behind')");
    root.post("db/roles/plain", role(&[CREATE])).expect(204);
    let mut body = role(&[CREATE, "ALTER ROLE \"{{name}}\" REPLICATION"]);
    (body["allow_privileged"], body["verify"]) = (json!(true), json!(false));
    root.post("db/roles/replica", body).expect(200);
    for (name, told) in [("plain", false), ("replica", true)] {
        let login = Login::mint(&root, &format!("db/creds/{name}"));
        root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
        assert_eq!(server.log().contains("left_behind"), told, "{name}");
    }
}
