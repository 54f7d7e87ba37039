//! Logins and leases that differ, on a real PostgreSQL: who is ended, who is told, who is left alone.

use mssm_domain::{ClusterId, LeaseId};
use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::reconcile::{ConnectionReport, Finding, FindingKind, Reconcile, Stray};
use mssm_testkit::{TestDatabase, TestPostgres};
use uuid::Uuid;

use super::revoking::rig;
use crate::testing::{FakeDatabase, Login, Rig, fake_patch, row};

async fn run(database: &TestDatabase, sql: &str) {
    let admin = TestPostgres::shared().admin(&database.name).await;
    admin.batch_execute(sql).await.unwrap();
}

async fn exists(name: &str) -> bool {
    TestPostgres::shared().role_exists(name).await
}

pub(super) async fn reconcile(rig: &Rig, dry_run: bool) -> ConnectionReport {
    let all = Reconcile { mount: None, connection: None, dry_run, confirm: false };
    let mut reports = rig.minter.send(all).await.unwrap().unwrap();
    assert_eq!((reports.len(), &reports[0].held_back), (1, &None));
    reports.remove(0)
}

/// A login that has a living lease.
pub(super) async fn held(rig: &Rig) -> Login {
    let login = rig.mint("app").await.unwrap();
    let held = (login.username.clone(), login.data.duplicate());
    rig.leases.books.lock().unwrap().living.insert(login.lease.clone(), held);
    login
}

/// A login whose lease has ended, as far as is remembered.
pub(super) async fn ended(rig: &Rig) -> Login {
    let login = held(rig).await;
    let mut books = rig.leases.books.lock().unwrap();
    let held = books.living.remove(&login.lease).unwrap();
    books.ended.insert(login.lease.clone(), held);
    drop(books);
    login
}

pub(super) fn adopted(rig: &Rig) -> Vec<Stray> {
    std::mem::take(&mut rig.leases.books.lock().unwrap().adopted)
}

pub(super) fn kinds(report: &ConnectionReport) -> Vec<(FindingKind, &str, bool)> {
    let kind = |finding: &Finding| (finding.kind, finding.acts);
    let mut kinds: Vec<_> =
        report.findings.iter().map(|one| (kind(one).0, one.login.as_str(), kind(one).1)).collect();
    kinds.sort_by_key(|(kind, ..)| kind.name());
    kinds
}

/// What takes an adopted login down, as the lease manager sends it.
pub(super) async fn end(rig: &Rig, stray: Stray) -> Outcome {
    let (lease, data, target) = (stray.lease, stray.data, stray.target);
    let login = Login { lease, username: stray.name, password: String::new(), data, target };
    rig.revoke(&login).await
}

#[actix_rt::test]
async fn what_agrees_is_left_alone() {
    let (rig, _database) = rig(TestPostgres::shared()).await;
    let (one, two) = (held(&rig).await, held(&rig).await);
    let report = reconcile(&rig, false).await;
    assert_eq!((report.marked, report.leases, report.findings.len()), (2, 2, 0));
    assert!(exists(&one.username).await && exists(&two.username).await);
}

#[actix_rt::test]
async fn a_login_that_no_lease_ends_goes_down_the_ladder_under_one_lease_of_its_own() {
    let (rig, _database) = rig(TestPostgres::shared()).await;
    let (orphan, other) = (rig.mint("app").await.unwrap(), held(&rig).await);
    let report = reconcile(&rig, true).await;
    assert_eq!(kinds(&report), [(FindingKind::Orphan, orphan.username.as_str(), true)]);
    assert!(adopted(&rig).is_empty(), "a dry run touches nothing");
    let told = reconcile(&rig, false).await;
    assert_eq!(told.findings, report.findings);
    let stray = adopted(&rig).remove(0);
    assert!(stray.lease.as_str().starts_with("orphan/"), "{}", stray.lease);
    let lease = stray.lease.clone();
    // The lease that it gets is known as its lease from then on.
    let held = (stray.name.clone(), stray.data.duplicate());
    rig.leases.books.lock().unwrap().living.insert(lease.clone(), held);
    assert_eq!(reconcile(&rig, false).await.findings, []);
    assert_eq!(end(&rig, stray).await, Outcome::Gone);
    assert!(!exists(&orphan.username).await && exists(&other.username).await);
}

#[actix_rt::test]
async fn a_login_that_came_back_gets_its_own_lease_again() {
    let (rig, _database) = rig(TestPostgres::shared()).await;
    let login = ended(&rig).await;
    let report = reconcile(&rig, false).await;
    assert_eq!(kinds(&report), [(FindingKind::CameBack, login.username.as_str(), true)]);
    let strays = adopted(&rig);
    assert_eq!(strays.iter().map(|stray| &stray.lease).collect::<Vec<_>>(), [&login.lease]);
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn forged_markers_and_other_clusters_logins_are_never_touched() {
    let (rig, database) = rig(TestPostgres::shared()).await;
    let login = rig.mint("app").await.unwrap();
    let (copy, made_up, cut, other) = (
        format!("{}_copy", database.name),
        format!("{}_made_up", database.name),
        format!("{}_cut", database.name),
        format!("{}_other", database.name),
    );
    let another = ClusterId::from_uuid(Uuid::from_u128(4));
    let (cluster, zeros) = (rig.cluster, "0".repeat(64));
    let sql = format!(
        "CREATE ROLE {copy} LOGIN; DO $$ BEGIN EXECUTE format('COMMENT ON ROLE {copy} IS %L', \
         (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}')); END $$; \
         CREATE ROLE {made_up} LOGIN; COMMENT ON ROLE {made_up} IS 'mssm2:{cluster}:{zeros}:{zeros}'; \
         CREATE ROLE {cut} LOGIN; COMMENT ON ROLE {cut} IS 'mssm2:{cluster}:{zeros}'; \
         CREATE ROLE {other} LOGIN; COMMENT ON ROLE {other} IS 'mssm2:{another}:{zeros}:{zeros}'",
        login.username
    );
    run(&database, &sql).await;
    let report = reconcile(&rig, false).await;
    let mut forged: Vec<&str> = kinds(&report)
        .into_iter()
        .filter(|(kind, _, acts)| *kind == FindingKind::Forged && !acts)
        .map(|(_, name, _)| name)
        .collect();
    forged.sort_unstable();
    assert_eq!(forged, [&copy, &cut, &made_up]);
    let strays = adopted(&rig);
    assert_eq!(strays.iter().map(|stray| &stray.name).collect::<Vec<_>>(), [&login.username]);
    for stray in strays {
        assert_eq!(end(&rig, stray).await, Outcome::Gone);
    }
    for role in [&copy, &made_up, &cut, &other] {
        assert!(exists(role).await, "{role}");
        run(&database, &format!("DROP ROLE {role}")).await;
    }
}

#[actix_rt::test]
async fn a_renamed_login_is_told_and_ended_by_its_oid_once_its_lease_has_ended() {
    let (rig, database) = rig(TestPostgres::shared()).await;
    let (living, gone) = (held(&rig).await, ended(&rig).await);
    let names = [format!("{}_living", database.name), format!("{}_gone", database.name)];
    for (login, name) in [&living, &gone].into_iter().zip(&names) {
        run(&database, &format!("ALTER ROLE \"{}\" RENAME TO {name}", login.username)).await;
        run(&database, &format!("CREATE ROLE \"{}\" LOGIN", login.username)).await;
    }
    let report = reconcile(&rig, false).await;
    let found = kinds(&report);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&(FindingKind::Renamed, names[0].as_str(), false)));
    assert!(found.contains(&(FindingKind::Renamed, names[1].as_str(), true)));
    let strays = adopted(&rig);
    assert_eq!(strays.iter().map(|stray| &stray.lease).collect::<Vec<_>>(), [&gone.lease]);
    for login in [&living, &gone] {
        assert_eq!(rig.revoke(login).await, Outcome::Gone);
        assert!(exists(&login.username).await, "another's role of that name stays");
        run(&database, &format!("DROP ROLE \"{}\"", login.username)).await;
    }
    assert!(!exists(&names[0]).await && !exists(&names[1]).await);
}

#[actix_rt::test]
async fn a_lease_whose_login_was_dropped_is_settled_and_one_without_a_marker_is_not() {
    let (rig, database) = rig(TestPostgres::shared()).await;
    let (dropped, bare, young) = (held(&rig).await, held(&rig).await, held(&rig).await);
    rig.leases.books.lock().unwrap().young.insert(young.lease.clone());
    for login in [&dropped, &young] {
        run(&database, &format!("DROP ROLE \"{}\"", login.username)).await;
    }
    run(&database, &format!("COMMENT ON ROLE \"{}\" IS NULL", bare.username)).await;
    let found = reconcile(&rig, true).await;
    assert_eq!(
        kinds(&found),
        [
            (FindingKind::Absent, dropped.username.as_str(), true),
            (FindingKind::Unmarked, bare.username.as_str(), false),
        ]
    );
    let settled = || rig.leases.books.lock().unwrap().settled.clone();
    assert_eq!(settled(), Vec::<LeaseId>::new(), "a dry run touches nothing");
    reconcile(&rig, false).await;
    assert_eq!(settled(), std::slice::from_ref(&dropped.lease));
    assert_eq!(rig.revoke(&bare).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_standby_and_a_connection_that_is_not_there_are_said() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    let ask = |name: &str| Reconcile {
        mount: Some(rig.mount),
        connection: Some(mssm_domain::ConnectionName::parse(name).unwrap()),
        dry_run: false,
        confirm: false,
    };
    database.answer("pg_is_in_recovery", Ok(vec![row(&["role", "t"])]));
    let told = rig.minter.send(ask("main")).await.unwrap().unwrap();
    assert!(told[0].held_back.as_ref().unwrap().contains("standby"), "{told:?}");
    let error = rig.minter.send(ask("nope")).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Unknown(_)), "{error}");
}
