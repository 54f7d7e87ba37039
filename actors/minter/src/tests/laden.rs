//! The ladder on logins that have all that a login can have, in three databases of the server; by a
//! superuser, and by an admin that may only create roles.

use std::time::Duration;

use mssm_domain::SecretText;
use mssm_messages::engine::Outcome;
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::TestPostgres;

use super::estate::{Admin, Estate, build};
use super::revoking::preparing;
use crate::testing::{CREATE, patch};

/// A login with all there is, sessions that hold locks and a prepared transaction among it.
async fn everything_goes(admin: Admin) {
    let postgres = preparing().await;
    let estate = Estate::new(&postgres, admin).await;
    estate.role(true).await;
    let (login, bystander) =
        (estate.rig.mint("app").await.unwrap(), estate.rig.mint("app").await.unwrap());
    estate.grant(&login).await;
    let mut sessions = Vec::new();
    for place in 0..3 {
        let session = estate.open(&login, place).await;
        build(&session, &estate.team).await;
        let prepared =
            format!("BEGIN; CREATE TABLE mine.later (a int); PREPARE TRANSACTION 'p{place}'");
        for sql in prepared.split_inclusive(';').collect::<Vec<_>>() {
            session.batch_execute(sql).await.unwrap();
        }
        let holding = "BEGIN; LOCK TABLE mine.t, orders IN ACCESS SHARE MODE; LOCK TABLE mine.t";
        session.batch_execute(holding).await.unwrap();
        sessions.push(session);
        // A schema that became the login's after what is in it.
        let name = &login.username;
        let later = format!(
            "CREATE SCHEMA later; CREATE FUNCTION later.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             ALTER FUNCTION later.f() OWNER TO \"{name}\"; ALTER SCHEMA later OWNER TO \"{name}\""
        );
        estate.supers[place].batch_execute(&later).await.unwrap();
    }
    let itself = estate.open(&login, 0).await;
    let idle = format!("BEGIN; ALTER ROLE \"{}\" PASSWORD 'mine'", login.username);
    itself.batch_execute(&idle).await.unwrap();
    sessions.push(itself);
    let owned = estate.count(&login.username, true).await;
    assert!(owned.iter().all(|count| *count > 15), "{owned:?}");
    assert!(estate.count(&login.username, false).await.iter().all(|count| *count > 5));

    let outcomes = estate.rig.revoke_all(&[&bystander, &login], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone], "{admin:?}");
    for session in &sessions {
        assert!(session.query("SELECT 1", &[]).await.is_err());
    }
    assert!(!postgres.role_exists(&login.username).await);
    for session in &estate.supers {
        let row = session.query_one("SELECT a FROM mine.t", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 7, "nothing is lost");
        let sql =
            "SELECT count(*) FROM pg_proc WHERE prosecdef AND pronamespace = 'mine'::regnamespace";
        assert_eq!(session.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
        let sql = "SELECT count(*) FROM pg_prepared_xacts";
        assert_eq!(session.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
        // No default privileges but the team's own, which name the login no more.
        let sql = "SELECT count(*) FROM pg_default_acl WHERE defaclrole <> $1::text::regrole";
        let row = session.query_one(sql, &[&estate.team]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
    }
    // All but default privileges, which nobody inherits.
    let handed = estate.count(&estate.owner, true).await;
    let expected: Vec<i64> = owned.iter().map(|count| count - 2).collect();
    assert_eq!(handed, expected);
}

#[actix_rt::test]
async fn all_that_a_login_has_in_three_databases_goes_by_a_superuser() {
    everything_goes(Admin::Superuser).await;
}

#[actix_rt::test]
async fn all_that_a_login_has_in_three_databases_goes_by_an_admin_that_may_only_create_roles() {
    everything_goes(Admin::Limited).await;
}

#[actix_rt::test]
async fn grants_in_three_databases_need_no_owner_to_go() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        estate.role(false).await;
        let login = estate.rig.mint("app").await.unwrap();
        estate.grant(&login).await;
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{admin:?}");
        assert!(!postgres.role_exists(&login.username).await);
    }
}

#[actix_rt::test]
async fn without_an_owner_nothing_is_dropped_and_every_database_is_named() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        estate.role(false).await;
        let login = estate.rig.mint("app").await.unwrap();
        for place in 0..3 {
            build(&estate.open(&login, place).await, &estate.team).await;
        }
        let before = estate.count(&login.username, true).await;
        let outcome = estate.rig.revoke(&login).await;
        let Outcome::AccessEnded(why) = outcome else { panic!("{admin:?}: {outcome:?}") };
        for database in &estate.databases {
            assert!(why.contains(&database.name), "{why}");
        }
        assert_eq!(estate.count(&login.username, true).await, before);
        for session in &estate.supers {
            let sql = format!(
                "REASSIGN OWNED BY \"{0}\" TO {1}; DROP OWNED BY \"{0}\"",
                login.username, estate.owner
            );
            session.batch_execute(&sql).await.unwrap();
        }
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
    }
}

#[actix_rt::test]
async fn a_database_that_lets_nobody_in_is_named_and_the_others_are_done() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    estate.role(true).await;
    let login = estate.rig.mint("app").await.unwrap();
    for place in 0..3 {
        build(&estate.open(&login, place).await, &estate.team).await;
    }
    let closed = estate.database(1);
    let allow = |allowed: bool| format!("ALTER DATABASE {closed} ALLOW_CONNECTIONS {allowed}");
    estate.supers[0].batch_execute(&allow(false)).await.unwrap();
    let outcome = estate.rig.revoke(&login).await;
    let Outcome::AccessEnded(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(closed) && why.contains("not currently accepting connections"), "{why}");
    let left = estate.count(&login.username, true).await;
    assert!(left[0] == 0 && left[1] > 15 && left[2] == 0, "{left:?}");
    estate.supers[0].batch_execute(&allow(true)).await.unwrap();
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
}

/// Access ends at once, whatever keeps the role: here a reader whom the hand-over waits for.
#[actix_rt::test]
async fn nobody_can_query_within_a_second_though_the_role_cannot_go() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        estate.role(true).await;
        let login = estate.rig.mint("app").await.unwrap();
        let session = estate.open(&login, 0).await;
        build(&estate.open(&login, 1).await, &estate.team).await;
        let reader = &estate.supers[1];
        reader.batch_execute("BEGIN; SELECT FROM mine.t").await.unwrap();
        let ended = async {
            while session.query("SELECT 1", &[]).await.is_ok() {
                tokio::task::yield_now().await;
            }
            let (user, password) = (&login.username, &login.password);
            let again = postgres.connect(user, password, estate.database(0)).await;
            assert!(again.is_err(), "{admin:?}");
            assert!(postgres.role_exists(&login.username).await);
        };
        let watching = tokio::time::timeout(Duration::from_secs(1), ended);
        let (outcome, in_time) = tokio::join!(estate.rig.revoke(&login), watching);
        assert!(in_time.is_ok(), "{admin:?}");
        assert!(matches!(outcome, Outcome::AccessEnded(_)), "{outcome:?}");
        assert!(postgres.role_exists(&login.username).await);
        reader.batch_execute("COMMIT").await.unwrap();
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
    }
}

/// What a stranger granted only a stranger can take back; the answer says what it is.
#[actix_rt::test]
async fn a_grant_that_an_admin_may_not_take_back_is_named() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Limited).await;
    estate.role(true).await;
    let login = estate.rig.mint("app").await.unwrap();
    let session = estate.open(&login, 0).await;
    let secrets =
        format!("CREATE TABLE theirs (a int); GRANT SELECT ON theirs TO \"{}\"", login.username);
    estate.supers[2].batch_execute(&secrets).await.unwrap();
    let outcome = estate.rig.revoke(&login).await;
    let Outcome::AccessEnded(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(estate.database(2)), "{why}");
    assert!(session.query("SELECT 1", &[]).await.is_err());
    estate.supers[2].batch_execute("DROP TABLE theirs").await.unwrap();
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_login_that_was_taken_from_its_maker_goes_all_the_same() {
    let postgres = preparing().await;
    let estate = Estate::new(&postgres, Admin::Limited).await;
    estate.role(true).await;
    let maker = format!("{}_admin", estate.database(0));
    for with_session in [false, true] {
        let login = estate.rig.mint("app").await.unwrap();
        let session = estate.open(&login, 0).await;
        let take_back = format!(
            "SET SESSION AUTHORIZATION {maker}; REVOKE \"{}\" FROM {maker}; RESET SESSION AUTHORIZATION",
            login.username
        );
        estate.supers[0].batch_execute(&take_back).await.unwrap();
        session.batch_execute("CREATE TABLE IF NOT EXISTS loose (a int)").await.unwrap();
        session.batch_execute("BEGIN; CREATE TABLE later (a int)").await.unwrap();
        session.batch_execute("PREPARE TRANSACTION 'left'").await.unwrap();
        let session = with_session.then_some(session);
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{with_session}");
        drop(session);
    }
}

/// From PostgreSQL 16 on a user may end only what it made, or was given with the ADMIN OPTION.
#[actix_rt::test]
async fn a_connection_gets_no_user_that_may_not_end_what_the_one_before_made() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Limited).await;
    estate.role(false).await;
    let login = estate.rig.mint("app").await.unwrap();
    estate.rig.leases.count.store(1, std::sync::atomic::Ordering::SeqCst);
    let (nobody, heir) =
        (format!("{}_nobody", estate.database(0)), format!("{}_heir", estate.database(0)));
    let users = format!(
        "CREATE ROLE {nobody} LOGIN PASSWORD 'other'; CREATE ROLE {heir} LOGIN CREATEROLE PASSWORD 'other'"
    );
    estate.supers[0].batch_execute(&users).await.unwrap();
    let definition = |user: &str| ConnectionPatch {
        username: Some(user.to_owned()),
        password: Some(SecretText::new("other".to_owned())),
        ..patch(postgres, estate.database(0))
    };
    let error = estate.rig.connect(definition(&nobody)).await.unwrap_err().to_string();
    assert!(error.contains("may not end 1 logins"), "{error}");
    let version = estate.supers[0].query_one("SHOW server_version_num", &[]).await.unwrap();
    if version.get::<_, String>(0).parse::<u32>().unwrap() >= 160_000 {
        let error = estate.rig.connect(definition(&heir)).await.unwrap_err().to_string();
        assert!(error.contains("ADMIN OPTION"), "{error}");
        let grant = format!("GRANT \"{}\" TO {heir} WITH ADMIN OPTION", login.username);
        estate.supers[0].batch_execute(&grant).await.unwrap();
    }
    estate.rig.connect(definition(&heir)).await.unwrap();
    let session = estate.open(&login, 0).await;
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
    assert!(session.query("SELECT 1", &[]).await.is_err());
}

/// A user mapping is nobody's data: it goes with its login, as does whatever the template gave it.
#[actix_rt::test]
async fn a_user_mapping_of_a_template_does_not_keep_its_login() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    // No library of a wrapper is needed for a wrapper without one.
    let server =
        "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER far FOREIGN DATA WRAPPER nothing";
    estate.supers[0].batch_execute(server).await.unwrap();
    let mapping =
        "CREATE USER MAPPING FOR \"{{name}}\" SERVER far OPTIONS (password '{{password}}')";
    estate.rig.role("app", &[CREATE, mapping]).await.unwrap();
    let login = estate.rig.mint("app").await.unwrap();
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
}
