//! Logins that were renamed, and other roles that took their name or their marker.

use mssm_messages::engine::Outcome;
use mssm_testkit::{TestDatabase, TestPostgres};

use super::revoking::rig;
use crate::testing::{Login, Rig};

async fn run(database: &TestDatabase, sql: &str) {
    let admin = TestPostgres::shared().admin(&database.name).await;
    admin.batch_execute(sql).await.unwrap();
}

async fn exists(name: &str) -> bool {
    TestPostgres::shared().role_exists(name).await
}

/// The name that a login gets, and the statement that gives it.
fn renaming(login: &Login, database: &TestDatabase) -> (String, String) {
    let renamed = format!("{}_renamed", database.name);
    let sql = format!("ALTER ROLE \"{}\" RENAME TO {renamed}", login.username);
    (renamed, sql)
}

#[actix_rt::test]
async fn a_renamed_login_is_ended_by_its_oid_and_never_another_that_took_its_name() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let (login, other) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    session.batch_execute("CREATE TABLE mine (a int)").await.unwrap();
    let (renamed, rename) = renaming(&login, &database);
    run(&database, &rename).await;
    run(&database, &format!("CREATE ROLE \"{}\" LOGIN", login.username)).await;
    let outcomes = rig.revoke_all(&[&login, &other], None).await.unwrap();
    let Outcome::AccessEnded(why) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(why.contains("owns 1 objects"), "{why}");
    assert_eq!(outcomes[1], Outcome::Gone);
    assert!(session.batch_execute("SELECT 1").await.is_err(), "its session has ended");
    run(&database, "DROP TABLE mine").await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!exists(&renamed).await);
    assert!(exists(&login.username).await, "another's role of that name stays");
    run(&database, &format!("DROP ROLE \"{}\"", login.username)).await;
}

#[actix_rt::test]
async fn a_renamed_login_whose_oid_nobody_knows_is_told_and_not_touched() {
    let (rig, database) = rig(TestPostgres::shared()).await;
    let prepared = rig.prepare("app").await.unwrap();
    let lease = rig.lease();
    rig.create(&prepared, &lease).await.unwrap();
    let login = Rig::doubtful(prepared, lease);
    let (renamed, rename) = renaming(&login, &database);
    run(&database, &rename).await;
    let outcome = rig.revoke(&login).await;
    assert!(matches!(&outcome, Outcome::Failed(why) if why.contains(&renamed)), "{outcome:?}");
    run(&database, &format!("ALTER ROLE {renamed} RENAME TO \"{}\"", login.username)).await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_marker_copied_to_another_role_ends_nobody() {
    let (rig, database) = rig(TestPostgres::shared()).await;
    let login = rig.mint("app").await.unwrap();
    let victim = format!("{}_victim", database.name);
    run(
        &database,
        &format!(
            "CREATE ROLE {victim} LOGIN; DO $$ BEGIN EXECUTE format('COMMENT ON ROLE {victim} IS %L', \
             (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{login}')); \
             END $$; DROP ROLE \"{login}\"",
            login = login.username
        ),
    )
    .await;
    let outcome = rig.revoke(&login).await;
    assert!(matches!(&outcome, Outcome::Failed(why) if why.contains(&victim)), "{outcome:?}");
    assert!(exists(&victim).await);
    run(&database, &format!("DROP ROLE {victim}")).await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}
