//! What cannot be read is named and kept; what is repaired comes back; what nothing needs goes.

use mssm_domain::{LeaseState, SecretBytes};
use mssm_messages::Changes;
use mssm_messages::lease::{ListUnreadable, LookupName, Revoke, Tidy};
use mssm_testkit::FakeKeys;

use super::rig::{Rig, pass};
use crate::record::{live_path, token_path};

#[actix_rt::test]
async fn an_unreadable_record_is_named_kept_and_back_once_it_is_repaired() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let id = issued.lease.id.as_str();
    let key = FakeKeys::stored_key(&live_path(id));
    let whole = rig.store.stored(&key);
    let mut cut = whole.clone().unwrap();
    cut.sealed = mssm_domain::SealedBytes::new(cut.sealed.as_bytes()[..20].to_vec());
    rig.store.tamper(&key, Some(cut));
    let next = rig.crash();
    pass(1).await;
    assert_eq!(next.manager.send(ListUnreadable).await.unwrap(), Ok(vec![id.to_owned()]));
    assert_eq!((next.counts().await.unreadable, next.counts().await.active), (1, 0));
    let (first, second) = (next.manager.send(Tidy), next.manager.send(Tidy));
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(true), Ok(false)));
    pass(5).await;
    assert_eq!(next.records().await.0, 1, "never dropped");
    next.store.tamper(&key, whole);
    assert!(next.manager.send(Tidy).await.unwrap().unwrap());
    pass(5).await;
    assert_eq!((next.counts().await.unreadable, next.counts().await.active), (0, 1));
    pass(60).await;
    next.assert_all_ended("repaired").await;
}

#[actix_rt::test]
async fn a_record_that_is_damaged_on_disk_holds_up_no_other() {
    let rig = Rig::new().await;
    let damaged = rig.issue().await.unwrap();
    let whole = rig.issue().await.unwrap();
    let id = damaged.lease.id.as_str();
    let key = FakeKeys::stored_key(&live_path(id));
    rig.store.damage(&key, true);
    let next = rig.crash();
    pass(1).await;
    assert_eq!(next.manager.send(ListUnreadable).await.unwrap(), Ok(vec![id.to_owned()]));
    assert_eq!((next.counts().await.unreadable, next.counts().await.active), (1, 1));
    let revoke = Revoke { lease: whole.lease.id.clone(), sync: true };
    assert_eq!(next.manager.send(revoke).await.unwrap(), Ok(()));
    pass(60).await;
    assert_eq!(next.world().exists.len(), 1, "its login is left alone");
    next.store.damage(&key, false);
    assert!(next.manager.send(Tidy).await.unwrap().unwrap());
    pass(60).await;
    next.assert_all_ended("repaired").await;
}

#[actix_rt::test]
async fn tidying_removes_indexes_of_leases_that_are_gone_and_no_others() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let gone = "db/creds/app/zzzzzzzzzzzzzzzzzzzzzzzz";
    let path = token_path(rig.token, gone);
    let bytes = SecretBytes::new(gone.as_bytes().to_vec());
    rig.barrier.commit(Changes::new().put(path.clone(), 0, bytes)).await.unwrap();
    assert!(rig.manager.send(Tidy).await.unwrap().unwrap());
    pass(5).await;
    assert!(!rig.barrier.exists(&path).await.unwrap());
    let own = token_path(rig.token, issued.lease.id.as_str());
    assert!(rig.barrier.exists(&own).await.unwrap());
    pass(60).await;
    rig.assert_all_ended("tidied").await;
}

#[actix_rt::test]
async fn a_lease_is_found_by_the_name_of_its_login_also_when_it_has_ended() {
    let rig = Rig::new().await;
    let leases = [rig.issue().await.unwrap(), rig.issue().await.unwrap()];
    let find = |name: &str| rig.manager.send(LookupName { name: name.to_owned() });
    let found = find("v-app-2").await.unwrap().unwrap();
    assert_eq!((found.lease.id, found.state), (leases[1].lease.id.clone(), LeaseState::Active));
    let revoke = Revoke { lease: leases[0].lease.id.clone(), sync: true };
    rig.manager.send(revoke).await.unwrap().unwrap();
    pass(1).await;
    let found = find("v-app-1").await.unwrap().unwrap();
    assert_eq!((found.lease.id, found.state), (leases[0].lease.id.clone(), LeaseState::Ended));
    assert!(find("v-app-3").await.unwrap().is_err());
}
