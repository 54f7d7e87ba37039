//! Logins and leases that differ, on a real MariaDB, where the name is the marker.

use mssm_messages::engine::Outcome;
use mssm_messages::reconcile::FindingKind;
use mssm_testkit::TestMariaDb;

use super::super::reconciling::{adopted, end, ended, held, kinds, reconcile};
use super::{CREATE, patch, rig};
use crate::mysql::quote::account;
use crate::testing::Rig;

async fn run(sql: &str) {
    TestMariaDb::shared().admin().await.run(sql).await;
}

async fn exists(name: &str) -> bool {
    TestMariaDb::shared().user_exists(name).await
}

async fn ready() -> Rig {
    let (rig, _) = rig(TestMariaDb::shared()).await;
    rig.role("app", &[CREATE]).await.unwrap();
    rig
}

#[actix_rt::test]
async fn a_login_that_no_lease_ends_goes_down_the_ladder_under_one_lease_of_its_own() {
    let rig = ready().await;
    let (one, two) = (held(&rig).await, held(&rig).await);
    let report = reconcile(&rig, false).await;
    assert_eq!((report.marked, report.leases, report.findings.len()), (2, 2, 0));
    let orphan = rig.mint("app").await.unwrap();
    let session = TestMariaDb::shared().connect(&orphan.username, &orphan.password).await;
    let mut session = session.unwrap();
    let report = reconcile(&rig, true).await;
    assert_eq!(kinds(&report), [(FindingKind::Orphan, orphan.username.as_str(), true)]);
    assert!(adopted(&rig).is_empty(), "a dry run touches nothing");
    assert_eq!(reconcile(&rig, false).await.findings, report.findings);
    let stray = adopted(&rig).remove(0);
    assert!(stray.lease.as_str().starts_with("orphan/"), "{}", stray.lease);
    // The lease that it gets is known as its lease from then on.
    let kept = (stray.name.clone(), stray.data.duplicate());
    rig.leases.books.lock().unwrap().living.insert(stray.lease.clone(), kept);
    assert_eq!(reconcile(&rig, false).await.findings, []);
    assert_eq!(end(&rig, stray).await, Outcome::Gone);
    assert!(session.try_run("SELECT 1").await.is_err(), "its session ends too");
    assert!(!exists(&orphan.username).await);
    for login in [&one, &two] {
        assert!(exists(&login.username).await);
        assert_eq!(rig.revoke(login).await, Outcome::Gone);
    }
}

#[actix_rt::test]
async fn a_login_that_came_back_from_wherever_gets_its_own_lease_again() {
    let rig = ready().await;
    let login = ended(&rig).await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert_eq!(reconcile(&rig, false).await.findings, []);
    run(&format!("CREATE USER {}", account(&login.username, "10.%"))).await;
    let report = reconcile(&rig, false).await;
    assert_eq!(kinds(&report), [(FindingKind::CameBack, login.username.as_str(), true)]);
    let strays = adopted(&rig);
    assert_eq!(strays.iter().map(|stray| &stray.lease).collect::<Vec<_>>(), [&login.lease]);
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!exists(&login.username).await);
}

#[actix_rt::test]
async fn names_that_look_like_ours_and_other_clusters_logins_are_never_touched() {
    let (rig, other) = (ready().await, ready().await);
    assert_ne!(rig.cluster, other.cluster);
    let foreign = other.mint("app").await.unwrap();
    let ours = rig.mint("app").await.unwrap();
    let mut flipped = ours.username.clone();
    let last = flipped.pop().unwrap();
    flipped.push(if last == 'a' { 'b' } else { 'a' });
    let moved = ours.username.replacen("v-toke-app-", "v-toke-apq-", 1);
    let vaults =
        format!("v-root-{}-4uX0RbY1mRZkJ6aPq2Wv", &ours.username[ours.username.len() - 4..]);
    let others = [flipped, moved, vaults, ours.username.to_uppercase()];
    for name in &others {
        run(&format!("CREATE USER {}", account(name, "%"))).await;
    }
    let report = reconcile(&rig, false).await;
    assert_eq!(kinds(&report), [(FindingKind::Orphan, ours.username.as_str(), true)]);
    assert_eq!(report.marked, 1);
    for stray in adopted(&rig) {
        assert_eq!(end(&rig, stray).await, Outcome::Gone);
    }
    for name in others.iter().chain([&foreign.username]) {
        assert!(exists(name).await, "{name}");
        run(&format!("DROP USER {}", account(name, "%"))).await;
    }
}

#[actix_rt::test]
async fn a_lease_whose_login_was_dropped_is_settled_and_a_name_of_before_is_told() {
    let rig = ready().await;
    let (dropped, young, old) = (held(&rig).await, held(&rig).await, held(&rig).await);
    rig.leases.books.lock().unwrap().young.insert(young.lease.clone());
    for login in [&dropped, &young] {
        run(&format!("DROP USER {}", account(&login.username, "%"))).await;
    }
    // As names were before they were markers.
    let former = format!("v-toke-app-{}", &old.lease.as_str()[old.lease.as_str().len() - 20..]);
    let (from, to) = (account(&old.username, "%"), account(&former, "%"));
    run(&format!("RENAME USER {from} TO {to}")).await;
    rig.leases.books.lock().unwrap().living.get_mut(&old.lease).unwrap().0.clone_from(&former);
    let found = reconcile(&rig, true).await;
    assert_eq!(
        kinds(&found),
        [
            (FindingKind::Absent, dropped.username.as_str(), true),
            (FindingKind::Unmarked, former.as_str(), false),
        ]
    );
    let settled = || rig.leases.books.lock().unwrap().settled.clone();
    assert!(settled().is_empty(), "a dry run touches nothing");
    reconcile(&rig, false).await;
    assert_eq!(settled(), std::slice::from_ref(&dropped.lease));
    run(&format!("DROP USER {to}")).await;
}

#[actix_rt::test]
async fn more_logins_than_a_page_has_are_all_compared() {
    let rig = ready().await;
    // Others' names lie before, between and behind ours.
    let mut admin = TestMariaDb::shared().admin().await;
    let seed = rig.cluster.to_string();
    let of =
        |number: usize| account(&format!("v-{number:04}-{}", &seed[..20].replace('-', "x")), "%");
    let others: Vec<String> = (0..1_100).map(of).collect();
    admin.run(&format!("CREATE USER {}", others.join(", "))).await;
    let first = held(&rig).await;
    let orphan = rig.mint("app").await.unwrap();
    let report = reconcile(&rig, false).await;
    assert_eq!((report.marked, report.leases), (2, 1));
    assert_eq!(kinds(&report), [(FindingKind::Orphan, orphan.username.as_str(), true)]);
    admin.run(&format!("DROP USER {}", others.join(", "))).await;
    for login in [&first, &orphan] {
        assert_eq!(rig.revoke(login).await, Outcome::Gone);
    }
}

#[actix_rt::test]
async fn a_server_that_only_follows_is_not_believed() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let mut admin = server.admin().await;
    admin.run("SET GLOBAL read_only = 1").await;
    let all = mssm_messages::reconcile::Reconcile {
        mount: None,
        connection: None,
        dry_run: false,
        confirm: false,
    };
    let reports = rig.minter.send(all).await.unwrap().unwrap();
    assert!(reports[0].held_back.as_ref().unwrap().contains("only follows"), "{reports:?}");
    assert!(adopted(&rig).is_empty());
    admin.run("SET GLOBAL read_only = 0").await;
    rig.connect(patch(&server)).await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}
