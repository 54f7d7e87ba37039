//! Minting on a real PostgreSQL.

use std::time::Duration;

use futures_util::future::join_all;
use mssm_domain::SecretText;
use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::{TestDatabase, TestPostgres};

use crate::testing::{CREATE, Rig, patch};

async fn rig(postgres: &TestPostgres) -> (Rig, TestDatabase) {
    let database = postgres.fresh_database().await;
    let rig = Rig::real(seed(&database)).open().await;
    rig.connect(patch(postgres, &database.name)).await.unwrap();
    (rig, database)
}

/// Of the database's name, which is random: names of logins must differ from test to test.
fn seed(database: &TestDatabase) -> u64 {
    u64::from_str_radix(&database.name[1..], 16).unwrap()
}

#[actix_rt::test]
async fn a_login_works_until_it_is_revoked() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    let row = session.query_one("SELECT current_user::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), login.username);
    let admin = postgres.admin(&database.name).await;
    let sql = "SELECT rolpassword, rolvaliduntil > now() + interval '55 s' AND rolvaliduntil < \
        now() + interval '75 s', rolconnlimit, shobj_description(oid, 'pg_authid') \
        FROM pg_authid WHERE rolname = $1";
    let row = admin.query_one(sql, &[&login.username]).await.unwrap();
    assert!(row.get::<_, String>(0).starts_with("SCRAM-SHA-256$4096:"));
    assert!(row.get::<_, bool>(1), "the end is on the database's own clock");
    assert_eq!(row.get::<_, i32>(2), 10);
    assert!(row.get::<_, String>(3).starts_with("mssm2:"));
    rig.extend(&login, Duration::from_hours(1)).await.unwrap();
    let sql = "SELECT rolvaliduntil > now() + interval '59 min' FROM pg_authid WHERE rolname = $1";
    assert!(admin.query_one(sql, &[&login.username]).await.unwrap().get::<_, bool>(0));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(session.query_one("SELECT 1", &[]).await.is_err(), "the open session ends too");
    assert!(!postgres.role_exists(&login.username).await);
    assert_eq!(rig.revoke(&login).await, Outcome::Gone, "done twice is done once");
    if let Some(log) = postgres.log() {
        assert!(log.contains(&login.username), "statements are logged");
        assert!(!log.contains(&login.password));
    }
}

#[actix_rt::test]
async fn broken_sql_says_why_and_leaves_nothing() {
    let postgres = TestPostgres::shared();
    let (rig, _database) = rig(postgres).await;
    let cases = [
        (
            "GRANT nosuchrole TO \"{{name}}\"",
            "statement 2: ERROR: role \"nosuchrole\" does not exist",
        ),
        ("GARNT a TO \"{{name}}\"", "statement 2: ERROR: syntax error at or near \"GARNT\""),
        (
            "SELECT '{{password}}'::int",
            "statement 2: the database refused it with a message that holds",
        ),
    ];
    for (statement, why) in cases {
        rig.role("app", &[CREATE, statement]).await.unwrap();
        let prepared = rig.prepare("app").await.unwrap();
        let lease = rig.lease();
        let error = rig.create(&prepared, &lease).await.unwrap_err();
        assert!(!error.in_doubt);
        assert!(error.to_string().contains(why), "{error}");
        let login = Rig::doubtful(prepared, lease);
        assert!(!postgres.role_exists(&login.username).await);
    }
    // The session is good for the next one.
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_server_that_is_down_is_unavailable_in_time_and_comes_back() {
    let postgres = TestPostgres::private();
    let (rig, _database) = rig(&postgres).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    postgres.crash();
    let refused = tokio::time::timeout(Duration::from_secs(8), rig.mint("app")).await.unwrap();
    let error = refused.err().unwrap();
    assert!(matches!(error.error, EngineError::Unavailable(_)), "{error}");
    let error = rig.revoke_all(&[&login], None).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable(_)), "{error}");
    postgres.start();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    let next = rig.mint("app").await.unwrap();
    assert_eq!(rig.revoke(&next).await, Outcome::Gone);
}

#[actix_rt::test]
async fn sixteen_at_once_with_colliding_grants_all_succeed() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let admin = postgres.admin(&database.name).await;
    for table in 0..8 {
        admin.batch_execute(&format!("CREATE TABLE t{table} (a int)")).await.unwrap();
    }
    let grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\"";
    rig.role("app", &[CREATE, grant]).await.unwrap();
    let logins = join_all((0..16).map(|_| rig.mint("app"))).await;
    let logins: Vec<_> = logins.into_iter().map(Result::unwrap).collect();
    let session = postgres.connect(&logins[0].username, &logins[0].password, &database.name).await;
    session.unwrap().query("SELECT * FROM t3", &[]).await.unwrap();
    let all: Vec<_> = logins.iter().collect();
    let outcomes = rig.revoke_all(&all, None).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Gone), "{outcomes:?}");
    assert!(!postgres.role_exists(&logins[0].username).await);
}

#[actix_rt::test]
async fn a_wrong_password_of_the_admin_is_told_as_postgresql_tells_it() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let wrong = ConnectionPatch {
        password: Some(SecretText::new("wrong@:/%'\"".to_owned())),
        ..patch(postgres, &database.name)
    };
    let error = rig.connect(wrong).await.unwrap_err().to_string();
    let begins = "error creating database object: error verifying connection: FATAL: password \
        authentication failed for user";
    assert!(error.starts_with(begins), "{error}");
}

#[actix_rt::test]
async fn credentials_with_every_special_character_log_in() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let admin = postgres.admin(&database.name).await;
    let user = format!("a'd\"m@i:n/% {}", database.name);
    let password = "p'a\"s@s:w/o%r d\\";
    let quoted = crate::quote::identifier(&user);
    let sql = format!(
        "CREATE ROLE {quoted} LOGIN CREATEROLE PASSWORD {}",
        crate::quote::literal(password)
    );
    admin.batch_execute(&sql).await.unwrap();
    let definition = ConnectionPatch {
        username: Some(user),
        password: Some(SecretText::new(password.to_owned())),
        ..patch(postgres, &database.name)
    };
    rig.connect(definition).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone, "without superuser too");
    assert!(session.query_one("SELECT 1", &[]).await.is_err());
    admin.batch_execute(&format!("DROP ROLE {quoted}")).await.unwrap();
}

/// Catalogue: CVE-2026-39946.
#[actix_rt::test]
async fn hostile_names_of_callers_and_roles_make_a_plain_login() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    rig.role("_.@-a", &[CREATE, "COMMENT ON DATABASE {{db}} IS 'x'"]).await.unwrap_err();
    let comment = "COMMENT ON ROLE \"{{name}}\" IS E'\\'{{role}}; -- {{name}}'";
    rig.role("_.@-a", &[CREATE, comment]).await.unwrap();
    let prepared = rig.prepare_as("a'\"\n$$;--\u{202e}", "_.@-a").await.unwrap();
    let lease = rig.lease();
    rig.create(&prepared, &lease).await.unwrap();
    let login = Rig::doubtful(prepared, lease);
    assert!(login.username.starts_with("v-a___"), "{}", login.username);
    assert!(postgres.role_exists(&login.username).await);
    drop(database);
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}
