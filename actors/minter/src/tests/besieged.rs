//! Logins that would rather stay: they pose as another server, bend the sessions that are to end them,
//! and own more than a transaction can lock.

use mssm_messages::engine::Outcome;
use mssm_messages::minter::RolePatch;
use mssm_testkit::TestPostgres;
use tokio_postgres::Client;

use super::estate::{Admin, Estate};
use super::guarding::copy;
use super::reconciling::{held, reconcile};
use super::revoking::rig;
use crate::spec::cluster_prefix;
use crate::testing::{CREATE, patch};

#[actix_rt::test]
async fn a_login_that_poses_as_another_server_keeps_nobody_from_ending_it() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    // It waits for the lock, and says what who has it says, in the name of a run.
    let prefix = cluster_prefix(rig.cluster);
    let half = prefix.trim_start_matches("mssm:").trim_end_matches(':').to_owned();
    let pose = format!(
        "SET application_name = '{prefix}00000000:mint'; \
         SELECT pg_advisory_lock(('x{half}')::bit(64)::bigint)"
    );
    let admin = postgres.admin(&database.name).await;
    let hand_over = async {
        let holder = "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND d.datname = $1 AND l.granted = $2";
        while admin.query(holder, &[&database.name, &false]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let held: i32 = admin.query_one(holder, &[&database.name, &true]).await.unwrap().get(0);
        admin.execute("SELECT pg_terminate_backend($1)", &[&held]).await.unwrap();
    };
    let (posed, ()) = tokio::join!(session.batch_execute(&pose), hand_over);
    posed.unwrap();
    // Unless it has lost its session for it by then.
    let _ = session.batch_execute("SELECT 'mssm guard'").await;
    while rig.mint("app").await.is_err() {
        let _ = session.batch_execute("SELECT 'mssm guard'").await;
    }
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    session.batch_execute("SELECT 1").await.unwrap_err();
}

/// Everybody sees what who has the lock calls itself.
#[actix_rt::test]
async fn a_login_that_calls_itself_what_another_server_did_keeps_nobody_from_ending_it() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    let read = "SELECT a.application_name, l.classid, l.objid FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND d.datname = $1";
    let row = session.query_one(read, &[&database.name]).await.unwrap();
    let (badge, high, low): (String, u32, u32) = (row.get(0), row.get(1), row.get(2));
    assert!(badge.starts_with("mssm:guard:"), "{badge}");
    rig.close().await;
    let pose = format!(
        "SET application_name = '{badge}'; SELECT pg_advisory_lock({high}::bigint << 32 | {low}::bigint)"
    );
    session.batch_execute(&pose).await.unwrap();
    let next = copy(&rig).await;
    next.mint("app").await.unwrap();
    assert_eq!(next.revoke(&login).await, Outcome::Gone);
    session.batch_execute("SELECT 1").await.unwrap_err();
}

#[actix_rt::test]
async fn logins_that_take_the_lock_lose_their_sessions_and_keep_nothing_from_being_compared() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Limited).await;
    estate.role(false).await;
    let login = held(&estate.rig).await;
    let lock = i64::from_ne_bytes(estate.rig.cluster.uuid().as_u64_pair().0.to_ne_bytes());
    for mode in ["", "_shared"] {
        estate.rig.close().await;
        let take = format!("SELECT pg_advisory_lock{mode}({lock})");
        let (one, other) = (estate.open(&login, 0).await, estate.open(&login, 0).await);
        one.batch_execute(&take).await.unwrap();
        let next = copy(&estate.rig).await;
        let compared = async {
            // It waits for the first, or shares with it.
            let asked = "SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                 WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND d.datname = current_database()";
            while estate.supers[0].query(asked, &[]).await.unwrap().len() < 2 {}
            reconcile(&next, true).await;
        };
        let _ = tokio::join!(other.batch_execute(&take), compared);
        for session in [one, other] {
            session.batch_execute("SELECT 1").await.unwrap_err();
        }
        next.close().await;
    }
}

/// Who owns a database decides how sessions begin there, and a login may be a member of the owner.
#[actix_rt::test]
async fn what_the_owner_of_a_database_sets_for_it_does_not_hold_in_our_sessions() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    let join = format!("GRANT {} TO \"{{{{name}}}}\"", estate.team);
    let definition = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned(), join]),
        owner: Some(estate.owner.clone()),
        ..RolePatch::default()
    };
    estate.rig.role_with("app", definition).await.unwrap();
    let login = estate.rig.mint("app").await.unwrap();
    let session = estate.open(&login, 0).await;
    session.batch_execute("CREATE TABLE mine (a int)").await.unwrap();
    let become_owner = format!("SET ROLE {}", estate.team);
    session.batch_execute(&become_owner).await.unwrap();
    for setting in [
        format!("role = '{}'", estate.team),
        "default_transaction_read_only = on".to_owned(),
        "default_transaction_isolation = 'serializable'".to_owned(),
        "exit_on_error = on".to_owned(),
        "quote_all_identifiers = on".to_owned(),
        "standard_conforming_strings = off".to_owned(),
        "transform_null_equals = on".to_owned(),
        "idle_session_timeout = '2s'".to_owned(),
        "idle_in_transaction_session_timeout = '2s'".to_owned(),
        "search_path = 'nowhere'".to_owned(),
    ] {
        let set = format!("ALTER DATABASE {} SET {setting}", estate.database(0));
        session.batch_execute(&set).await.unwrap();
    }
    // Sessions that begin from now on, as after a restart.
    estate.rig.connect(patch(postgres, estate.database(0))).await.unwrap();
    let other = estate.rig.mint("app").await.unwrap();
    assert_eq!(estate.rig.revoke(&other).await, Outcome::Gone);
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
    session.batch_execute("SELECT 1").await.unwrap_err();
}

/// Who owns a database decides who may come in, and a login may be a member of the owner. Or somebody drops it.
#[actix_rt::test]
async fn a_database_that_lets_nobody_in_any_more_keeps_no_login() {
    let postgres = TestPostgres::shared();
    for change in [
        "ALTER DATABASE {} ALLOW_CONNECTIONS false",
        "ALTER DATABASE {} CONNECTION LIMIT 0",
        "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
        "ALTER DATABASE {} SET local_preload_libraries = 'nothing'",
        "DROP DATABASE {} WITH (FORCE)",
    ] {
        let estate = Estate::new(postgres, Admin::Limited).await;
        let (first, prefix) = (estate.database(0), &estate.team);
        estate.supers[0]
            .batch_execute(&format!("GRANT CONNECT ON DATABASE {first} TO {prefix}"))
            .await
            .unwrap();
        estate.role(true).await;
        let login = estate.rig.mint("app").await.unwrap();
        estate.open(&login, 1).await.batch_execute("CREATE TABLE mine (a int)").await.unwrap();
        let session = estate.open(&login, 1).await;
        let admin = postgres.admin("postgres").await;
        let close = change.replace("{}", first);
        let limited = format!("REVOKE {prefix} FROM {first}_admin");
        // Sessions that begin from now on, as after a restart.
        estate.rig.close().await;
        admin.batch_execute(&limited).await.unwrap();
        admin.batch_execute(&close).await.unwrap();
        let next = copy(&estate.rig).await;
        assert_eq!(next.revoke(&login).await, Outcome::Gone, "{change}");
        session.batch_execute("SELECT 1").await.unwrap_err();
        assert!(!postgres.role_exists(&login.username).await, "{change}");
    }
}

/// They name what lies in the connection's own database.
#[actix_rt::test]
async fn a_roles_own_statements_wait_for_its_database() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let admin = postgres.admin("postgres").await;
    let definition = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        revocation_statements: Some(vec!["SELECT count(*) FROM noted".to_owned()]),
        ..RolePatch::default()
    };
    postgres.admin(&database.name).await.batch_execute("CREATE TABLE noted ()").await.unwrap();
    rig.role_with("app", definition).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    rig.close().await;
    let allow =
        |allowed: bool| format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}", database.name);
    admin.batch_execute(&allow(false)).await.unwrap();
    let next = copy(&rig).await;
    let outcome = next.revoke(&login).await;
    let Outcome::AccessEnded(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("lets nobody in"), "{why}");
    admin.batch_execute(&allow(true)).await.unwrap();
    assert_eq!(next.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_login_that_owns_more_than_the_server_can_lock_goes_and_all_of_it_is_handed_over() {
    let postgres = TestPostgres::private();
    let admin = postgres.admin("postgres").await;
    for few in ["max_locks_per_transaction = 10", "max_connections = 60"] {
        admin.batch_execute(&format!("ALTER SYSTEM SET {few}")).await.unwrap();
    }
    drop(admin);
    postgres.stop();
    postgres.start();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(&postgres, admin).await;
        estate.role(true).await;
        let login = estate.rig.mint("app").await.unwrap();
        let session = estate.open(&login, 0).await;
        session.batch_execute("CREATE SCHEMA mine; CREATE TABLE mine.s (a serial)").await.unwrap();
        for part in 0..5 {
            let tables = format!(
                "DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE mine.t_{part}_%s ()', i); \
                 END LOOP; END $$"
            );
            session.batch_execute(&tables).await.unwrap();
        }
        session.batch_execute("SELECT lo_create(0) FROM generate_series(1, 300)").await.unwrap();
        let owned = estate.count(&login.username, true).await[0];
        assert!(owned > 2_300, "{owned}");
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{admin:?}");
        assert_eq!(estate.count(&estate.owner, true).await[0], owned);
    }
}

/// What needs no rights but on the database: a trusted extension, a publication, servers and who may use
/// them, with a session that came in through the database itself.
#[actix_rt::test]
async fn extensions_publications_and_servers_of_a_login_go_to_its_owner() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    estate.role(true).await;
    let wrapper = "CREATE FOREIGN DATA WRAPPER nothing; GRANT USAGE ON FOREIGN DATA WRAPPER nothing TO PUBLIC";
    estate.supers[0].batch_execute(wrapper).await.unwrap();
    let login = estate.rig.mint("app").await.unwrap();
    let session = estate.open(&login, 0).await;
    let name = &login.username;
    let sql = format!(
        "CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t; \
         CREATE SERVER back FOREIGN DATA WRAPPER nothing; CREATE USER MAPPING FOR PUBLIC SERVER back; \
         CREATE USER MAPPING FOR \"{name}\" SERVER back OPTIONS (password 'x'); \
         GRANT USAGE ON FOREIGN SERVER back TO {}; \
         CREATE FOREIGN TABLE far (a int) SERVER back; CREATE TYPE span AS RANGE (subtype = int); \
         CREATE DOMAIN plus AS int CHECK (VALUE > 0); CREATE CAST (plus AS text) WITH INOUT; \
         CREATE CONVERSION turned FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; \
         CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple); \
         ALTER ROLE \"{name}\" SET work_mem = '1MB'; LISTEN x; SELECT pg_advisory_lock(7)",
        estate.team
    );
    session.batch_execute(&sql).await.unwrap();
    // Where the server's programs come without extensions there is none to try.
    let there = "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'";
    let extended = !estate.supers[0].query(there, &[]).await.unwrap().is_empty();
    if extended {
        session.batch_execute("CREATE EXTENSION hstore").await.unwrap();
    }
    assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
    session.batch_execute("SELECT 1").await.unwrap_err();
    let owned = "SELECT (SELECT count(*) FROM pg_publication WHERE pubowner = o.oid) \
         + (SELECT count(*) FROM pg_foreign_server WHERE srvowner = o.oid) \
         + (SELECT count(*) FROM pg_extension WHERE extowner = o.oid) FROM pg_roles o WHERE rolname = $1";
    let row = estate.supers[0].query_one(owned, &[&estate.owner]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2 + i64::from(extended));
}

/// Takes advisory locks until the server has no room for another one.
async fn hoard(session: &Client) {
    let all = "SELECT count(pg_advisory_lock(g)) FROM generate_series(1, 1000000) g";
    session.batch_execute(all).await.unwrap_err();
    let mut next = 1_000_000;
    while session.batch_execute(&format!("SELECT pg_advisory_lock({next})")).await.is_ok() {
        next += 1;
    }
    session.batch_execute("SELECT 1").await.unwrap();
}

/// Nobody else can begin a session then, or look at a role.
#[actix_rt::test]
async fn a_login_that_takes_all_locks_that_the_server_has_keeps_nobody_from_being_ended() {
    let postgres = TestPostgres::private();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(&postgres, admin).await;
        estate.role(true).await;
        for itself in [true, false] {
            let login = estate.rig.mint("app").await.unwrap();
            let other = estate.rig.mint("app").await.unwrap();
            let session = estate.open(&login, 0).await;
            hoard(&session).await;
            let (user, password) = (&other.username, &other.password);
            assert!(postgres.connect(user, password, estate.database(0)).await.is_err());
            let ending = if itself { &login } else { &other };
            assert_eq!(estate.rig.revoke(ending).await, Outcome::Gone, "{admin:?} {itself}");
            session.batch_execute("SELECT 1").await.unwrap_err();
            assert!(!postgres.role_exists(&ending.username).await);
            // The room is kept anew.
            estate.rig.tick().await;
        }
        estate.rig.close().await;
    }
}
