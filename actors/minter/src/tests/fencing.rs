//! Logins in doubt on a real PostgreSQL: fenced before they count as absent, and nobody else harmed.

use mssm_domain::{BootId, ClusterId};
use mssm_messages::engine::Outcome;
use mssm_testkit::TestPostgres;
use uuid::Uuid;

use super::revoking::rig;
use crate::spec::{Lane, application_name};
use crate::testing::Rig;

#[actix_rt::test]
async fn a_mint_in_doubt_cannot_come_through_behind_the_fence() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let prepared = rig.prepare("app").await.unwrap();
    let login = Rig::doubtful(prepared, rig.lease());
    let earlier = BootId::from_uuid(Uuid::from_u128(77));
    let application = application_name(rig.cluster, earlier, Lane::Mint);
    let late = postgres.admin(&database.name).await;
    let sql = format!(
        "SET application_name = '{application}'; BEGIN; CREATE ROLE \"{}\" LOGIN",
        login.username
    );
    late.batch_execute(&sql).await.unwrap();
    let outcomes = rig.revoke_all(&[&login], Some(earlier)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    assert!(late.batch_execute("COMMIT").await.is_err(), "the late mint was ended");
    assert!(!postgres.role_exists(&login.username).await);
}

#[actix_rt::test]
async fn a_fence_ends_no_session_of_its_own_run_and_of_no_other_cluster() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let earlier = BootId::from_uuid(Uuid::from_u128(77));
    let other = ClusterId::from_uuid(Uuid::from_u128(1 << 120));
    let names = [
        application_name(rig.cluster, rig.boot, Lane::Rotate),
        application_name(other, earlier, Lane::Mint),
        "psql".to_owned(),
    ];
    let mut sessions = Vec::new();
    for name in names {
        let session = postgres.admin(&database.name).await;
        session.batch_execute(&format!("SET application_name = '{name}'")).await.unwrap();
        sessions.push((name, session));
    }
    let login = Rig::doubtful(rig.prepare("app").await.unwrap(), rig.lease());
    let outcomes = rig.revoke_all(&[&login], Some(earlier)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    for (name, session) in sessions {
        assert!(session.batch_execute("SELECT 1").await.is_ok(), "{name}");
    }
}

#[actix_rt::test]
async fn a_mint_in_doubt_that_came_through_is_taken_down() {
    let postgres = TestPostgres::shared();
    let (rig, _database) = rig(postgres).await;
    let login = rig.mint("app").await.unwrap();
    let outcomes = rig.revoke_all(&[&login], Some(rig.boot)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    assert!(!postgres.role_exists(&login.username).await);
}
