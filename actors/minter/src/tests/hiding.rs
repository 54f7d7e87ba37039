//! Logins whose sessions are past their password and do not show yet.

use std::time::Duration;

use mssm_messages::engine::Outcome;
use mssm_testkit::{TestDatabase, TestPostgres};
use tokio_postgres::Client;

use super::estate::{Admin, Estate};
use super::revoking::rig;
use crate::testing::{Login, Rig};

/// Waits for somebody who is past authentication, and nobody's to see, in several looks: others are
/// hidden for milliseconds. Or for who shows already, where the looks took too long.
async fn until_hidden(admin: &Client, user: &str, database: &str) {
    let sql = "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.objid \
        WHERE l.locktype = 'object' AND d.datname = $1 AND l.pid NOT IN (SELECT pid \
        FROM pg_stat_activity WHERE usesysid IS NOT NULL OR datid IS NOT NULL)";
    let shows = "SELECT 1 FROM pg_stat_activity WHERE usename = $1";
    let (mut seen, mut looks): (Vec<i32>, u32) = (Vec::new(), 0);
    while looks < 6 && admin.query(shows, &[&user]).await.unwrap().is_empty() {
        let now = admin.query(sql, &[&database]).await.unwrap();
        let now: Vec<i32> = now.iter().map(|row| row.get(0)).collect();
        seen.retain(|pid| now.contains(pid));
        looks = if seen.is_empty() { 0 } else { looks + 1 };
        if seen.is_empty() {
            seen = now;
        }
        admin.batch_execute("SELECT pg_sleep(0.02)").await.unwrap();
    }
}

#[actix_rt::test]
async fn a_login_that_sleeps_before_it_shows_is_ended_too() {
    // Not the shared one: others' sweeps end whoever hides there.
    let postgres = TestPostgres::private();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(&postgres, admin).await;
        estate.role(false).await;
        let login = estate.rig.mint("app").await.unwrap();
        let database = estate.database(0);
        let (user, password) = (&login.username, &login.password);
        let hiding = postgres.connect_with(user, password, database, "-c post_auth_delay=20");
        let revoking = async {
            until_hidden(&estate.supers[0], user, database).await;
            estate.rig.revoke(&login).await
        };
        let (session, outcome) = tokio::join!(hiding, revoking);
        assert_eq!(outcome, Outcome::Gone, "{admin:?}");
        if let Ok(session) = session {
            let asked = session.query("SELECT 1", &[]).await;
            assert!(asked.is_err(), "{admin:?}: it cannot do anything");
        }
    }
}

/// A login, dropped by somebody else while it hides, and its session, which shows itself only then.
async fn late(postgres: &TestPostgres, rig: &Rig, database: &TestDatabase) -> (Login, Client) {
    let login = rig.mint("app").await.unwrap();
    // Nobody looks for who hides from now on.
    rig.close().await;
    let admin = postgres.admin(&database.name).await;
    let (user, password) = (&login.username, &login.password);
    let hiding = postgres.connect_with(user, password, &database.name, "-c post_auth_delay=2");
    let dropping = async {
        until_hidden(&admin, user, &database.name).await;
        admin.batch_execute(&format!("DROP ROLE \"{user}\"")).await.unwrap();
    };
    let (session, ()) = tokio::join!(hiding, dropping);
    let session = session.unwrap();
    session.batch_execute("SELECT 1").await.unwrap();
    (login, session)
}

async fn ends(session: &Client) {
    let ended = async { while session.batch_execute("SELECT pg_sleep(0.01)").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

#[actix_rt::test]
async fn a_session_that_shows_itself_after_its_login_is_gone_is_ended() {
    let postgres = TestPostgres::private();
    let (rig, database) = rig(&postgres).await;
    let (login, session) = late(&postgres, &rig, &database).await;
    let rig = rig.open().await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    ends(&session).await;
}

#[actix_rt::test]
async fn a_session_that_shows_itself_after_a_restart_is_known_by_the_tombstone_of_its_lease() {
    let postgres = TestPostgres::private();
    let (rig, database) = rig(&postgres).await;
    let (login, session) = late(&postgres, &rig, &database).await;
    // Of another cluster, and nobody here knows it.
    let (other, place) = super::revoking::rig(&postgres).await;
    let (_, foreign) = late(&postgres, &other, &place).await;
    let next = Rig::real_over(1 + rig.seed, &rig.store);
    let held = (login.username.clone(), login.data.duplicate());
    next.leases.books.lock().unwrap().ended.insert(login.lease.clone(), held);
    let next = next.open().await;
    // A rotation changes the definition; what is known of the logins outlives it.
    next.connect(super::rotation::statements(&[])).await.unwrap();
    next.mint("app").await.unwrap();
    ends(&session).await;
    foreign.batch_execute("SELECT 1").await.unwrap();
}
