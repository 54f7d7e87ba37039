//! Static roles on a real PostgreSQL.

use std::time::Duration;

use mssm_domain::RoleName;
use mssm_messages::engine::EngineError;
use mssm_messages::rotation::{
    PlanPatch, ReadStaticCredentials, RotateStaticRole, StaticCredentials, StaticRolePatch,
    WriteStaticRole,
};
use mssm_messages::storage::StorageError;

use super::rotation::{ALTER, FIRST, Place};
use crate::minter::Tick;
use crate::testing::{Rig, patch};

impl Rig {
    pub(super) async fn fixed(&self, patch: StaticRolePatch) -> Result<Vec<String>, EngineError> {
        let (mount, name) = (self.mount, RoleName::parse("fixed").unwrap());
        self.minter.send(WriteStaticRole { mount, name, patch }).await.unwrap()
    }

    pub(super) async fn credentials(&self) -> Result<StaticCredentials, EngineError> {
        let (mount, name) = (self.mount, RoleName::parse("fixed").unwrap());
        self.minter.send(ReadStaticCredentials { mount, name }).await.unwrap()
    }

    pub(super) async fn rotate_fixed(&self, force: bool) -> Result<(), EngineError> {
        let (mount, name) = (self.mount, RoleName::parse("fixed").unwrap());
        self.minter.send(RotateStaticRole { mount, name, force }).await.unwrap()
    }
}

pub(super) fn fixed(users: &[&str]) -> StaticRolePatch {
    StaticRolePatch {
        db_name: Some("main".to_owned()),
        usernames: Some(users.iter().map(|user| (*user).to_owned()).collect()),
        plan: PlanPatch { rotation_period_secs: Some(3600), ..PlanPatch::default() },
        ..StaticRolePatch::default()
    }
}

#[actix_rt::test]
async fn a_static_role_has_its_password_changed_by_its_plan_and_by_hand() {
    let place = Place::new().await;
    let rig = place.rig(patch(place.postgres, &place.database.name)).await;
    rig.fixed(fixed(&[&place.user])).await.unwrap();
    assert!(!place.accepts(&place.user, FIRST).await, "changed at once");
    let first = rig.credentials().await.unwrap();
    assert_eq!((first.username.as_str(), first.ttl_secs), (place.user.as_str(), 3600));
    assert!(place.accepts(&place.user, first.password.expose()).await);
    rig.rotate_fixed(false).await.unwrap();
    let second = rig.credentials().await.unwrap();
    assert!(!place.accepts(&place.user, first.password.expose()).await);
    assert!(place.accepts(&place.user, second.password.expose()).await);
    let next = place.rig_over(&rig.store).await;
    let kept = next.credentials().await.unwrap();
    assert_eq!(kept.password.expose(), second.password.expose());
    next.clock.advance(Duration::from_hours(1));
    while place.accepts(&place.user, second.password.expose()).await {
        next.tick().await;
    }
    let third = next.credentials().await.unwrap();
    assert!(place.accepts(&place.user, third.password.expose()).await);
    let rounds = "SELECT split_part(split_part(rolpassword, '$', 2), ':', 1) FROM pg_authid WHERE rolname = $1";
    let rounds = place.admin.query_one(rounds, &[&place.user]).await.unwrap();
    assert_eq!(rounds.get::<_, String>(0), "4096");
}

#[actix_rt::test]
async fn static_roles_that_would_lock_somebody_out_are_refused() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let refused = |patch| async { rig.fixed(patch).await.unwrap_err().to_string() };
    assert!(refused(fixed(&[&place.user])).await.contains("connection's own user"));
    assert!(refused(fixed(&["no such user"])).await.contains("has no user"));
    assert!(refused(fixed(&["a", "a"])).await.contains("two different users"));
    assert!(
        refused(StaticRolePatch { scram_iterations: Some(4095), ..fixed(&["a"]) })
            .await
            .contains("4,096")
    );
    assert!(
        refused(StaticRolePatch { plan: PlanPatch::default(), ..fixed(&["a"]) })
            .await
            .contains("rotation_period")
    );
    let leased = rig.mint("app").await.unwrap().username;
    assert!(refused(fixed(&[&leased])).await.contains("lease"));
    assert!(rig.credentials().await.is_err(), "nothing was kept");
}

#[actix_rt::test]
async fn a_static_password_that_the_store_did_not_hear_of_is_set_again_before_it_is_handed_out() {
    let place = Place::new().await;
    let rig = place.rig(patch(place.postgres, &place.database.name)).await;
    rig.fixed(fixed(&[&place.user])).await.unwrap();
    rig.store.pass_next();
    rig.store.fail_next(StorageError::NoSpace("full".to_owned()));
    rig.rotate_fixed(false).await.unwrap_err();
    let handed = rig.credentials().await.unwrap();
    assert!(place.accepts(&place.user, handed.password.expose()).await);
    assert_eq!(handed.warnings, [""; 0]);
}

#[actix_rt::test]
async fn a_late_change_of_an_earlier_run_never_comes_through_behind_a_newer_one() {
    let place = Place::new().await;
    let rig = place.rig(patch(place.postgres, &place.database.name)).await;
    rig.fixed(fixed(&[&place.user])).await.unwrap();
    let slow = |texts: &[&str]| StaticRolePatch {
        rotation_statements: Some(texts.iter().map(|text| (*text).to_owned()).collect()),
        ..StaticRolePatch::default()
    };
    rig.fixed(slow(&["SELECT pg_sleep(1)", ALTER])).await.unwrap();
    let (mount, name) = (rig.mount, RoleName::parse("fixed").unwrap());
    let lost = actix_rt::spawn(rig.minter.send(RotateStaticRole { mount, name, force: false }));
    place.until_asleep().await;
    let next = place.rig_over(&rig.store.copy()).await;
    next.fixed(slow(&[ALTER])).await.unwrap();
    next.rotate_fixed(false).await.unwrap();
    next.rotate_fixed(false).await.unwrap();
    assert!(lost.await.unwrap().unwrap().is_err());
    let handed = next.credentials().await.unwrap();
    assert!(place.accepts(&place.user, handed.password.expose()).await);
}

/// How many rotations a pair is put through: 40, or as many as `MSSM_TORTURE_ROTATIONS` says.
#[expect(clippy::disallowed_methods, reason = "how scripts/torture asks for the long form")]
fn rotations() -> usize {
    std::env::var("MSSM_TORTURE_ROTATIONS").ok().map_or(40, |text| text.parse().unwrap())
}

#[actix_rt::test]
async fn who_polls_a_pair_never_sees_a_refused_login() {
    let place = Place::new().await;
    let (blue, green) = (format!("{}_blue", place.user), format!("{}_green", place.user));
    place.sql(&format!("CREATE ROLE {blue} LOGIN; CREATE ROLE {green} LOGIN")).await;
    let mut rig = place.rig(patch(place.postgres, &place.database.name)).await;
    rig.fixed(fixed(&[&blue, &green])).await.unwrap();
    let mut held = rig.credentials().await.unwrap();
    let mut users = std::collections::BTreeSet::new();
    for turn in 0..rotations() {
        assert!(rig.rotate_fixed(false).await.is_err(), "the other one may still be in use");
        // Just before it is due, in the middle of it, and for as long as it was promised.
        rig.clock.advance(Duration::from_secs(held.ttl_secs));
        let minter = rig.minter.clone();
        let changing = actix_rt::spawn(async move { minter.send(Tick).await });
        for _ in 0..2 {
            assert!(place.accepts(&held.username, held.password.expose()).await, "turn {turn}");
        }
        changing.await.unwrap().unwrap();
        let mut next = rig.credentials().await.unwrap();
        // The minter's own tick may have been the first.
        while next.username == held.username {
            rig.tick().await;
            next = rig.credentials().await.unwrap();
        }
        assert!(place.accepts(&held.username, held.password.expose()).await, "turn {turn}");
        assert!(place.accepts(&next.username, next.password.expose()).await, "turn {turn}");
        users.insert(next.username.clone());
        held = next;
        if turn % 16 == 7 {
            let now = mssm_domain::Clock::now(&rig.clock);
            rig = place.rig_over(&rig.store).await;
            rig.clock.set(now);
            // Until it knows again what is due when.
            rig.tick().await;
        }
    }
    assert_eq!(users.len(), 2);
    rig.rotate_fixed(true).await.unwrap();
}

#[actix_rt::test]
async fn a_new_password_that_is_not_let_in_is_told() {
    let place = Place::new().await;
    let rig = place.rig(patch(place.postgres, &place.database.name)).await;
    // Forgets to set it.
    let statements = Some(vec!["SELECT '{{password}}' <> ''".to_owned()]);
    let definition = StaticRolePatch { rotation_statements: statements, ..fixed(&[&place.user]) };
    let warnings = rig.fixed(definition).await.unwrap();
    assert!(
        warnings.iter().any(|text| text.contains("not let in with its new password")),
        "{warnings:?}"
    );
}

/// From PostgreSQL 16 on it takes the ADMIN OPTION on the user; before, the right to make roles.
#[actix_rt::test]
async fn an_admin_who_may_only_create_roles_changes_static_users_and_itself() {
    let place = Place::new().await;
    let fixed_user = format!("{}_fixed", place.database.name);
    place.sql(&format!("CREATE ROLE {fixed_user} LOGIN PASSWORD '{FIRST}'")).await;
    let rig = place.rig(place.as_user()).await;
    let version = place.admin.query_one("SHOW server_version_num", &[]).await.unwrap();
    if version.get::<_, String>(0).parse::<u32>().unwrap() >= 160_000 {
        let error = rig.fixed(fixed(&[&fixed_user])).await.unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{error}");
        place.sql(&format!("GRANT {fixed_user} TO {} WITH ADMIN OPTION", place.user)).await;
    }
    rig.fixed(fixed(&[&fixed_user])).await.unwrap();
    let credentials = rig.credentials().await.unwrap();
    assert!(place.accepts(&fixed_user, credentials.password.expose()).await);
    rig.rotate_fixed(false).await.unwrap();
    assert!(!place.accepts(&fixed_user, credentials.password.expose()).await);
    rig.rotate_root().await.unwrap();
    assert!(!place.accepts(&place.user, FIRST).await);
    rig.rotate_fixed(false).await.unwrap();
}
