//! Two servers with the same cluster id on a real PostgreSQL: one of them stands back.

use std::time::Duration;

use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::minter::ConnectionPatch;
use mssm_messages::reconcile::Reconcile;

use super::rotation::{FIRST, Place};
use super::statics::fixed;
use crate::testing::{Rig, patch};

/// A second server on a copy of the store.
pub(super) async fn copy(rig: &Rig) -> Rig {
    let mut copy = Rig::real_over(rig.seed + 1, &rig.store.copy());
    copy.cluster = rig.cluster;
    copy.open().await
}

fn stands_back<T: std::fmt::Debug>(tried: Result<T, EngineError>) {
    let Err(EngineError::Unavailable(why)) = &tried else { panic!("{tried:?}") };
    assert!(why.contains("another server"), "{why}");
}

#[actix_rt::test]
async fn beside_a_living_server_another_makes_renews_and_ends_nothing_and_changes_no_password() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let other = format!("{}_other", place.user);
    place
        .sql(&format!(
            "CREATE ROLE {other} LOGIN PASSWORD '{FIRST}'; GRANT {other} TO {} WITH ADMIN OPTION",
            place.user
        ))
        .await;
    rig.fixed(fixed(&[&other])).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let beside = copy(&rig).await;
    let minted = beside.mint("app").await.map_err(|error| error.error);
    stands_back(minted.map(|login| login.username));
    stands_back(beside.extend(&login, Duration::from_hours(1)).await);
    stands_back(beside.revoke_all(&[&login], None).await);
    stands_back(beside.rotate_root().await);
    stands_back(beside.rotate_fixed(true).await);
    assert!(place.accepts(&place.user, FIRST).await);
    assert!(place.accepts(&login.username, &login.password).await);
    let fixed = rig.credentials().await.unwrap();
    assert!(place.accepts(&fixed.username, fixed.password.expose()).await);
    rig.extend(&login, Duration::from_hours(1)).await.unwrap();
    rig.rotate_fixed(true).await.unwrap();
    // Once the first is gone, the other may.
    rig.close().await;
    let may = async { while beside.rotate_root().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), may).await.unwrap();
    assert!(!place.accepts(&place.user, FIRST).await);
    beside.extend(&login, Duration::from_hours(1)).await.unwrap();
}

/// A copy of the store may have come with another user, or leads to another database of the server.
#[actix_rt::test]
async fn beside_a_living_server_a_copy_that_logs_in_as_somebody_else_or_elsewhere_does_nothing() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let login = rig.mint("app").await.unwrap();
    let other = format!("{}_other", place.user);
    place.sql(&format!("CREATE ROLE {other} LOGIN CREATEROLE PASSWORD '{FIRST}'")).await;
    let elsewhere = place.postgres.fresh_database().await;
    for (user, database) in [(&other, &place.database.name), (&place.user, &elsewhere.name)] {
        let beside = copy(&rig).await;
        let as_somebody = ConnectionPatch {
            username: Some(user.clone()),
            ..ConnectionPatch {
                password: place.as_user().password,
                ..patch(place.postgres, database)
            }
        };
        beside.connect(as_somebody).await.unwrap();
        let minted = beside.mint("app").await.map_err(|error| error.error);
        stands_back(minted.map(|login| login.username));
        stands_back(beside.extend(&login, Duration::from_hours(1)).await);
        stands_back(beside.revoke_all(&[&login], None).await);
        stands_back(beside.rotate_root().await);
        let all = Reconcile { mount: None, connection: None, dry_run: false, confirm: false };
        let told = beside.minter.send(all).await.unwrap().unwrap().remove(0);
        let named = format!("logged in as \"{}\" to \"{}\"", place.user, place.database.name);
        assert!(told.held_back.as_ref().is_some_and(|why| why.contains(&named)), "{told:?}");
        assert!(place.accepts(&login.username, &login.password).await);
    }
    rig.extend(&login, Duration::from_hours(1)).await.unwrap();
    rig.mint("app").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_server_keeps_its_place_while_its_root_password_changes() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    rig.mint("app").await.unwrap();
    rig.rotate_root().await.unwrap();
    assert!(!place.accepts(&place.user, FIRST).await);
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND d.datname = $1";
    let held = place.admin.query_one(locks, &[&place.database.name]).await.unwrap();
    assert_eq!(held.get::<_, i64>(0), 1);
}

#[actix_rt::test]
async fn a_server_that_says_it_has_the_lock_does_not_let_go_of_it_meanwhile() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let holder = "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND d.datname = $1";
    rig.mint("app").await.unwrap();
    let before: i32 = place.admin.query_one(holder, &[&place.database.name]).await.unwrap().get(0);
    // Its first word is due at the first tick; others ask at the same time.
    let ((), minted, ()) = tokio::join!(rig.tick(), rig.mint("app"), rig.tick());
    minted.unwrap();
    let after: i32 = place.admin.query_one(holder, &[&place.database.name]).await.unwrap().get(0);
    assert_eq!(before, after);
}
