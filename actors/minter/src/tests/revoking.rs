//! The ladder on a real PostgreSQL, against logins that do not want to go.

use mssm_messages::engine::Outcome;
use mssm_messages::minter::RolePatch;
use mssm_testkit::{TestDatabase, TestPostgres};

use crate::testing::{CREATE, Rig, patch};

pub(super) async fn rig(postgres: &TestPostgres) -> (Rig, TestDatabase) {
    let database = postgres.fresh_database().await;
    let rig = Rig::real(u64::from_str_radix(&database.name[1..], 16).unwrap()).open().await;
    rig.connect(patch(postgres, &database.name)).await.unwrap();
    let admin = postgres.admin(&database.name).await;
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    (rig, database)
}

#[actix_rt::test]
async fn who_owns_a_table_loses_access_and_the_table_stays() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    session.batch_execute("CREATE TABLE mine AS SELECT 7 AS a").await.unwrap();
    let outcome = rig.revoke(&login).await;
    let Outcome::AccessEnded(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("owns 1 objects") && why.contains("`owner`"), "{why}");
    assert!(session.query("SELECT 1", &[]).await.is_err());
    let again = postgres.connect(&login.username, &login.password, &database.name).await;
    assert!(again.is_err());
    let admin = postgres.admin(&database.name).await;
    admin.query_one("SELECT a FROM mine", &[]).await.unwrap();
    admin.batch_execute("DROP TABLE mine").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn what_a_login_owns_in_any_database_goes_to_the_owner() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let other = postgres.fresh_database().await;
    let admin = postgres.admin(&database.name).await;
    let elsewhere = postgres.admin(&other.name).await;
    elsewhere.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await.unwrap();
    let owner = format!("{}_owner", database.name);
    admin.batch_execute(&format!("CREATE ROLE {owner} NOLOGIN")).await.unwrap();
    let definition = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some(owner.clone()),
        ..RolePatch::default()
    };
    assert_eq!(rig.role_with("app", definition).await.unwrap(), Vec::<String>::new());
    let login = rig.mint("app").await.unwrap();
    for name in [&database.name, &other.name] {
        let session = postgres.connect(&login.username, &login.password, name).await.unwrap();
        let sql = "CREATE TABLE mine AS SELECT 7 AS a; CREATE SCHEMA \"it's \"\"mine\"\"\"";
        let sql = if name == &database.name { sql } else { "CREATE TABLE mine AS SELECT 7 AS a" };
        // Schemas need a right on the database.
        let sql = sql.split(';').next().unwrap();
        session.batch_execute(sql).await.unwrap();
        let function =
            "CREATE FUNCTION f() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'";
        session.batch_execute(function).await.unwrap();
        let defaults = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC";
        session.batch_execute(defaults).await.unwrap();
    }
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    let sql = "SELECT tableowner::text, (SELECT prosecdef FROM pg_proc WHERE proname = 'f') \
        FROM pg_tables WHERE tablename = 'mine'";
    for session in [&admin, &elsewhere] {
        let row = session.query_one(sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), owner);
        assert!(!row.get::<_, bool>(1), "no function runs with the new owner's rights");
    }
}

#[actix_rt::test]
async fn an_owner_that_can_log_in_is_refused_when_the_role_is_written() {
    let postgres = TestPostgres::shared();
    let (rig, _database) = rig(postgres).await;
    let definition = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some(postgres.admin_user().to_owned()),
        ..RolePatch::default()
    };
    assert!(rig.role_with("app", definition).await.is_err());
}

#[actix_rt::test]
async fn custom_statements_run_after_access_has_ended() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let definition = RolePatch {
        revocation_statements: Some(vec![
            "DROP OWNED BY \"{{name}}\"; DROP ROLE IF EXISTS \"{{name}}\"".to_owned(),
        ]),
        ..RolePatch::default()
    };
    rig.role_with("app", definition).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    session.batch_execute("CREATE TABLE mine (a int)").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!postgres.role_exists(&login.username).await);
}

#[actix_rt::test]
async fn a_login_that_locks_its_own_role_does_not_stop_rung_one() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let bystander = rig.mint("app").await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    let idle = format!("BEGIN; ALTER ROLE \"{}\" PASSWORD 'mine'", login.username);
    session.batch_execute(&idle).await.unwrap();
    let outcomes = rig.revoke_all(&[&bystander, &login], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone]);
    let sessions = [
        postgres.connect(&login.username, "mine", &database.name).await,
        postgres.connect(&login.username, &login.password, &database.name).await,
    ];
    assert!(sessions.iter().all(Result::is_err));
}

#[actix_rt::test]
async fn many_that_lock_their_own_roles_let_go_together() {
    let postgres = TestPostgres::private();
    let (rig, database) = rig(&postgres).await;
    let mut logins = vec![rig.mint("app").await.unwrap()];
    let mut sessions = Vec::new();
    for _ in 0..8 {
        let login = rig.mint("app").await.unwrap();
        let session = postgres.connect(&login.username, &login.password, &database.name).await;
        let idle = format!("BEGIN; ALTER ROLE \"{}\" PASSWORD 'mine'", login.username);
        session.as_ref().unwrap().batch_execute(&idle).await.unwrap();
        sessions.push(session);
        logins.push(login);
    }
    let all: Vec<_> = logins.iter().collect();
    let outcomes = rig.revoke_all(&all, None).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Gone), "{outcomes:?}");
    if let Some(log) = postgres.log() {
        assert!(!log.contains("lock_timeout = '4s'"), "nobody was barred one by one");
    }
}

/// A server that lets transactions be prepared.
pub(super) async fn preparing() -> TestPostgres {
    let postgres = TestPostgres::private();
    let admin = postgres.admin("postgres").await;
    admin.batch_execute("ALTER SYSTEM SET max_prepared_transactions = 8").await.unwrap();
    drop(admin);
    postgres.stop();
    postgres.start();
    postgres
}

#[actix_rt::test]
async fn a_prepared_transaction_does_not_stop_the_ladder() {
    let postgres = preparing().await;
    let (rig, database) = rig(&postgres).await;
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    let name = &login.username;
    for sql in [
        format!("BEGIN; ALTER ROLE \"{name}\" PASSWORD 'mine'"),
        "PREPARE TRANSACTION 'it''s mine'".to_owned(),
    ] {
        session.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!postgres.role_exists(name).await);
}

#[actix_rt::test]
async fn what_a_login_prepares_in_another_roles_name_does_not_stop_the_ladder() {
    let postgres = preparing().await;
    let (rig, database) = rig(&postgres).await;
    let admin = postgres.admin(&database.name).await;
    admin.batch_execute("CREATE ROLE readers").await.unwrap();
    rig.role("app", &[CREATE, "GRANT readers TO \"{{name}}\""]).await.unwrap();
    // One holds the row of its role, the other a lock that only its removal meets.
    for held in ["ALTER ROLE \"{}\" PASSWORD 'mine'", "CREATE TABLE mine (a int)"] {
        let (login, bystander) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
        let name = &login.username;
        let session = postgres.connect(name, &login.password, &database.name).await.unwrap();
        for sql in [
            format!("BEGIN; {}; SET LOCAL ROLE readers", held.replace("{}", name)),
            "PREPARE TRANSACTION 'theirs'".to_owned(),
        ] {
            session.batch_execute(&sql).await.unwrap();
        }
        let outcomes = rig.revoke_all(&[&bystander, &login], None).await.unwrap();
        assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone], "{held}");
        assert!(!postgres.role_exists(name).await);
    }
}

#[actix_rt::test]
async fn a_session_that_outlives_its_role_is_swept_away() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    let admin = postgres.admin(&database.name).await;
    admin.batch_execute(&format!("DROP ROLE \"{}\"", login.username)).await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    session.batch_execute("SELECT 1").await.unwrap();
    // Somebody else's, whose role somebody else dropped: none of ours.
    let foreign = format!("other_{}", database.name);
    let create = format!("CREATE ROLE \"{foreign}\" LOGIN PASSWORD 'x'");
    admin.batch_execute(&create).await.unwrap();
    let other = postgres.connect(&foreign, "x", &database.name).await.unwrap();
    admin.batch_execute(&format!("DROP ROLE \"{foreign}\"")).await.unwrap();
    rig.minter.send(crate::minter::Tick).await.unwrap();
    let ended = async { while session.batch_execute("SELECT pg_sleep(0.01)").await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    other.batch_execute("SELECT 1").await.unwrap();
}

#[actix_rt::test]
async fn another_servers_word_does_not_count() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let elsewhere = TestPostgres::private();
    let definition = mssm_messages::minter::ConnectionPatch {
        verify_connection: Some(false),
        ..patch(&elsewhere, "postgres")
    };
    rig.connect(definition).await.unwrap();
    let outcome = rig.revoke(&login).await;
    assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("another")), "{outcome:?}");
    assert!(rig.mint("app").await.is_err());
    rig.connect(patch(postgres, &database.name)).await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_mint_whose_session_is_killed_is_in_doubt_and_settled() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    rig.role("app", &[CREATE, "SELECT pg_sleep(8) /* slow */"]).await.unwrap();
    let prepared = rig.prepare("app").await.unwrap();
    let lease = rig.lease();
    let admin = postgres.admin(&database.name).await;
    let kill = async {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE application_name LIKE 'mssm:%:m' AND query LIKE '%/* slow */%' \
            AND wait_event = 'PgSleep' AND datname = $1";
        while admin.query(sql, &[&database.name]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let (made, ()) = futures_util::future::join(rig.create(&prepared, &lease), kill).await;
    assert!(made.unwrap_err().in_doubt);
    let login = Rig::doubtful(prepared, lease);
    let outcomes = rig.revoke_all(&[&login], Some(rig.boot)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    assert!(!postgres.role_exists(&login.username).await);
}

#[actix_rt::test]
async fn a_login_that_is_being_made_is_not_declared_gone() {
    let postgres = TestPostgres::shared();
    let (rig, _database) = rig(postgres).await;
    rig.role("app", &[CREATE, "SELECT pg_sleep(0.3)"]).await.unwrap();
    let prepared = rig.prepare("app").await.unwrap();
    let lease = rig.lease();
    let login = Rig::doubtful(
        mssm_messages::engine::Prepared {
            rules: mssm_messages::engine::LeaseRules::default(),
            name: String::new(),
            target: prepared.target,
            data: prepared.data.duplicate(),
            ttl: None,
            max_ttl: None,
            renewable: true,
            warnings: Vec::new(),
        },
        lease.clone(),
    );
    let logins = [&login];
    let revoking = rig.revoke_all(&logins, Some(rig.boot));
    let (made, early) = futures_util::future::join(rig.create(&prepared, &lease), revoking).await;
    made.unwrap();
    assert!(matches!(early.unwrap()[0], Outcome::Failed(_)));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn an_admin_who_may_only_create_roles_can_take_everything_back() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let admin = postgres.admin(&database.name).await;
    let (limited, owner) = (format!("{}_admin", database.name), format!("{}_own", database.name));
    let setting = format!(
        "CREATE ROLE {limited} LOGIN CREATEROLE PASSWORD 'limited'; CREATE ROLE {owner} NOLOGIN; \
         GRANT {owner} TO {limited}"
    );
    admin.batch_execute(&setting).await.unwrap();
    let definition = mssm_messages::minter::ConnectionPatch {
        username: Some(limited),
        password: Some(mssm_domain::SecretText::new("limited".to_owned())),
        ..patch(postgres, &database.name)
    };
    rig.connect(definition).await.unwrap();
    let definition = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some(owner.clone()),
        ..RolePatch::default()
    };
    assert_eq!(rig.role_with("app", definition).await.unwrap(), Vec::<String>::new());
    let (first, second) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
    let session = postgres.connect(&first.username, &first.password, &database.name).await.unwrap();
    session.batch_execute("CREATE TABLE mine AS SELECT 7 AS a").await.unwrap();
    let idle = format!("BEGIN; ALTER ROLE \"{}\" PASSWORD 'mine'", first.username);
    session.batch_execute(&idle).await.unwrap();
    let outcomes = rig.revoke_all(&[&first, &second], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone]);
    assert!(session.query("SELECT 1", &[]).await.is_err());
    let sql = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'mine'";
    assert_eq!(admin.query_one(sql, &[]).await.unwrap().get::<_, String>(0), owner);
}

#[actix_rt::test]
async fn what_was_ended_stays_ended_though_the_admins_commits_are_not_synchronous() {
    let postgres = TestPostgres::private();
    let admin = postgres.admin("postgres").await;
    // Nothing else is to write the log out in time.
    for sql in [
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "ALTER SYSTEM SET full_page_writes = off",
        "SELECT pg_reload_conf()",
        "ALTER ROLE CURRENT_USER SET synchronous_commit = off",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let (rig, _database) = rig(&postgres).await;
    let login = rig.mint("app").await.unwrap();
    admin.batch_execute("CHECKPOINT").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    postgres.crash();
    postgres.start();
    assert!(!postgres.role_exists(&login.username).await);
}
