//! Whether a password that was handed out still is the login's, on a real PostgreSQL.

use mssm_domain::SecretText;
use mssm_messages::engine::{Confirm, EngineError};
use mssm_testkit::TestPostgres;

use super::revoking::rig;
use crate::testing::{FakeDatabase, Login, Rig, fake_patch, no};

pub(super) async fn confirm(rig: &Rig, login: &Login) -> Result<bool, EngineError> {
    let secret = vec![("password", SecretText::new(login.password.clone()))];
    rig.minter.send(Confirm { data: login.data.duplicate(), secret }).await.unwrap()
}

#[actix_rt::test]
async fn a_password_is_confirmed_until_its_user_changes_it_or_may_not_log_in() {
    let postgres = TestPostgres::shared();
    let (rig, database) = rig(postgres).await;
    let admin = postgres.admin(&database.name).await;
    let (changed, barred, gone) = (
        rig.mint("app").await.unwrap(),
        rig.mint("app").await.unwrap(),
        rig.mint("app").await.unwrap(),
    );
    for login in [&changed, &barred, &gone] {
        assert_eq!(confirm(&rig, login).await, Ok(true));
    }
    let sql = format!(
        "ALTER ROLE \"{}\" PASSWORD 'other'; ALTER ROLE \"{}\" NOLOGIN; DROP ROLE \"{}\"",
        changed.username, barred.username, gone.username
    );
    admin.batch_execute(&sql).await.unwrap();
    for login in [&changed, &barred, &gone] {
        assert_eq!(confirm(&rig, login).await, Ok(false));
    }
    rig.revoke_all(&[&changed, &barred, &gone], None).await.unwrap();
}

#[actix_rt::test]
async fn where_passwords_cannot_be_read_every_answer_holds() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[crate::testing::CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    database.answer("pg_authid WHERE", Err(no("42501", "permission denied for table pg_authid")));
    assert_eq!(confirm(&rig, &login).await, Ok(true));
}
