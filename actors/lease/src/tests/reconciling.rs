//! What is done about logins without a lease and leases without a login.

use mssm_domain::{LeaseId, RoleName, SecretBytes};
use mssm_messages::Changes;
use mssm_messages::engine::EngineKind;
use mssm_messages::lease::{LeaseError, ListOverdue, RevokePrefix};
use mssm_messages::reconcile::{
    Adopt, ConnectionReport, Describe, Finding, FindingKind, ListEnded, ListKnown, NoteReconciled,
    SettleAbsent, Stray,
};

use super::rig::{Rig, mount, pass};
use crate::record::live_path;

fn target() -> mssm_domain::ConnectionId {
    mssm_domain::ConnectionId::parse("00000000-0000-0000-0000-000000000002").unwrap()
}

fn stray(lease: &LeaseId) -> Stray {
    Stray {
        lease: lease.clone(),
        mount: mount(),
        target: target(),
        role: RoleName::parse("unknown").unwrap(),
        name: "v-stray".to_owned(),
        data: SecretBytes::new(vec![1]),
    }
}

fn adopt(lease: &LeaseId) -> Adopt {
    Adopt { engine: EngineKind::Database, strays: vec![stray(lease)] }
}

fn told(rig: &Rig, name: &str) -> usize {
    rig.log.lock().unwrap().names.iter().filter(|(told, _)| *told == name).count()
}

async fn known(rig: &Rig) -> Vec<(String, bool)> {
    let list = ListKnown { target: target(), after: 0 };
    let page = rig.manager.send(list).await.unwrap().unwrap();
    assert!(page.next.is_none());
    page.leases.into_iter().map(|known| (known.lease, known.active)).collect()
}

#[actix_rt::test]
async fn a_stray_login_gets_one_lease_that_ends_it_whatever_comes() {
    let rig = Rig::new().await;
    let lease = LeaseId::parse("orphan/c/0123456789abcdef01234567").unwrap();
    rig.world().exists.insert(lease.clone());
    rig.world().down = true;
    assert_eq!(rig.manager.send(adopt(&lease)).await.unwrap(), Ok(1));
    assert_eq!(rig.manager.send(adopt(&lease)).await.unwrap(), Ok(0), "done twice is done once");
    assert_eq!(known(&rig).await, [(lease.as_str().to_owned(), false)]);
    pass(30).await;
    let overdue = rig.manager.send(ListOverdue { limit: 10 }).await.unwrap().unwrap();
    assert_eq!((overdue[0].lease.clone(), overdue[0].name.as_str()), (lease.clone(), "v-stray"));
    let counts = rig.counts().await;
    assert!(counts.overdue_oldest_secs >= 25 && overdue[0].secs >= 25, "{counts:?}");
    assert!(counts.lanes[0].down_secs.is_some() && counts.lanes[0].waiting == 1, "{counts:?}");
    let next = rig.crash();
    next.world().down = false;
    pass(10).await;
    next.assert_all_ended("adopted").await;
    assert_eq!(next.records().await, (0, 1));
    assert_eq!((told(&rig, "lease-adopted"), told(&next, "lease-revoked")), (1, 1));
    assert_eq!(next.counts().await.overdue_oldest_secs, 0);
}

#[actix_rt::test]
async fn what_force_left_behind_is_said_and_its_lease_opens_again_when_the_login_is_seen() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    rig.world().down = true;
    let ask = RevokePrefix { prefix: "db".to_owned(), sync: true, force: true };
    let revoked = rig.manager.send(ask).await.unwrap().unwrap();
    let left = &revoked.left[0];
    assert_eq!((revoked.count, left.lease.as_str()), (1, issued.lease.id.as_str()));
    assert!(left.name == "v-app-1" && !left.why.is_empty(), "{left:?}");
    assert_eq!(rig.records().await, (0, 1));
    rig.world().down = false;
    let page = rig.manager.send(ListEnded { after: None, lately: false }).await.unwrap().unwrap();
    assert!(page.next.is_none() && !page.leases[0].data.expose().is_empty());
    let ended: Vec<_> = page.leases.into_iter().map(|ended| ended.lease).collect();
    assert_eq!(ended, std::slice::from_ref(&issued.lease.id));
    let describe = Describe { leases: ended };
    let described = rig.manager.send(describe).await.unwrap().unwrap();
    assert_eq!((described[0].name.as_str(), described[0].settled), ("v-app-1", false));
    assert_eq!(rig.manager.send(adopt(&issued.lease.id)).await.unwrap(), Ok(1));
    pass(5).await;
    rig.assert_all_ended("reopened").await;
    assert_eq!(told(&rig, "lease-reopened"), 1);
}

#[actix_rt::test]
async fn a_lease_without_a_login_ends_and_what_lives_is_described() {
    let rig = Rig::new().await;
    let (gone, other) = (rig.issue().await.unwrap(), rig.issue().await.unwrap());
    let both = vec![gone.lease.id.clone(), other.lease.id.clone()];
    let described = rig.manager.send(Describe { leases: both }).await.unwrap().unwrap();
    assert!(described.iter().all(|one| one.settled), "{described:?}");
    rig.world().exists.remove(&gone.lease.id);
    let settle = SettleAbsent { leases: vec![gone.lease.id.clone()] };
    assert_eq!(rig.manager.send(settle.clone()).await.unwrap(), Ok(1));
    assert_eq!(rig.manager.send(settle).await.unwrap(), Ok(0));
    pass(3).await;
    assert_eq!(rig.records().await, (1, 1));
    assert_eq!(known(&rig).await, [(other.lease.id.as_str().to_owned(), true)]);
    assert_eq!(rig.counts().await.reconcile.settled_total, 1);
}

#[actix_rt::test]
async fn what_cannot_be_read_counts_as_known() {
    let rig = Rig::new().await;
    let odd = "db/creds/app/zzzzzzzzzzzzzzzzzzzzzzzz";
    let bytes = SecretBytes::new(vec![9, 9]);
    rig.barrier.commit(Changes::new().put(live_path(odd), 0, bytes)).await.unwrap();
    let next = rig.crash();
    pass(1).await;
    assert_eq!(known(&next).await, [(odd.to_owned(), false)]);
}

#[actix_rt::test]
async fn while_closed_nothing_is_listed_or_adopted() {
    let rig = Rig::new().await;
    rig.close().await;
    let lease = LeaseId::parse("orphan/c/0123456789abcdef01234567").unwrap();
    assert_eq!(rig.manager.send(adopt(&lease)).await.unwrap(), Err(LeaseError::Sealed));
    let listed = rig.manager.send(ListKnown { target: target(), after: 0 }).await.unwrap();
    assert_eq!(listed.unwrap_err(), LeaseError::Sealed);
}

#[actix_rt::test]
async fn what_the_server_finds_by_itself_is_written_down_once() {
    let rig = Rig::new().await;
    let finding = |login: &str| Finding {
        kind: FindingKind::Forged,
        login: login.to_owned(),
        lease: None,
        acts: false,
    };
    let report = |findings| ConnectionReport {
        mount: mount(),
        connection: "main".to_owned(),
        held_back: None,
        marked: 1,
        leases: 1,
        findings,
    };
    let runs = [vec![], vec![finding("a")], vec![finding("a")], vec![finding("a"), finding("b")]];
    for findings in runs {
        let note =
            NoteReconciled { reports: vec![report(findings)], automatic: true, dry_run: false };
        rig.manager.send(note).await.unwrap().unwrap();
        pass(1).await;
    }
    assert_eq!(told(&rig, "leases-reconciled"), 2);
    let counts = rig.counts().await.reconcile;
    assert_eq!((counts.runs, counts.found[3]), (4, 2));
}
