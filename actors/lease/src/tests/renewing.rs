//! How leases are prolonged, and what bounds that.

use std::time::Duration;

use mssm_domain::{Clock, Ttl};
use mssm_messages::engine::EngineError;
use mssm_messages::lease::{Issued, LeaseError, Lookup, Renew, Renewed, Revoke};
use mssm_messages::storage::StorageError;

use super::rig::{Rig, pass};

async fn renew(rig: &Rig, issued: &Issued, secs: u64) -> Result<Renewed, LeaseError> {
    let increment = Some(Ttl::from_secs(secs).unwrap());
    let ask = Renew { lease: issued.lease.id.clone(), increment, caller: rig.caller() };
    rig.manager.send(ask).await.unwrap()
}

#[actix_rt::test]
async fn a_renewal_moves_the_end_everywhere_and_stops_at_the_bound() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    pass(50).await;
    let renewed = renew(&rig, &issued, 100).await.unwrap();
    assert!(renewed.warnings.is_empty());
    assert_eq!(rig.world().ends[&issued.lease.id], renewed.lease.expires_at);
    pass(90).await;
    assert_eq!(rig.world().exists.len(), 1);
    let renewed = renew(&rig, &issued, 10_000).await.unwrap();
    assert_eq!(renewed.lease.expires_at, issued.lease.ends_at_most);
    assert_eq!(renewed.warnings.len(), 1);
    pass(465).await;
    rig.assert_all_ended("at its bound").await;
}

#[actix_rt::test]
async fn a_renewal_that_fails_outside_leaves_the_old_end() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let error = EngineError::Unavailable("no route".to_owned());
    rig.world().extend_errors.push_back(error.clone());
    assert_eq!(renew(&rig, &issued, 300).await.unwrap_err(), LeaseError::Engine(error));
    let view = rig.manager.send(Lookup { lease: issued.lease.id.clone() }).await.unwrap().unwrap();
    assert_eq!(view.lease, issued.lease);
    pass(61).await;
    rig.assert_all_ended("at the old end").await;
}

#[actix_rt::test]
async fn a_renewal_that_cannot_be_stored_changes_nothing() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    rig.store.fail_next(StorageError::NoSpace("told to".to_owned()));
    assert!(renew(&rig, &issued, 300).await.is_err());
    assert_eq!(rig.world().ends[&issued.lease.id], issued.lease.expires_at);
    pass(61).await;
    rig.assert_all_ended("not renewed").await;
}

#[actix_rt::test]
async fn what_is_ending_ended_or_over_cannot_be_renewed() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    rig.world().down = true;
    let revoke = Revoke { lease: issued.lease.id.clone(), sync: false };
    rig.manager.send(revoke).await.unwrap().unwrap();
    assert_eq!(renew(&rig, &issued, 300).await.unwrap_err(), LeaseError::Unknown);
    rig.world().down = false;
    pass(10).await;
    assert_eq!(renew(&rig, &issued, 300).await.unwrap_err(), LeaseError::Unknown);

    let second = rig.issue().await.unwrap();
    // The clock has passed its end, no timer has run yet.
    rig.clock.advance(Duration::from_mins(1));
    assert!(rig.clock.now() >= second.lease.expires_at);
    assert_eq!(renew(&rig, &second, 300).await.unwrap_err(), LeaseError::Unknown);
    let view = rig.manager.send(Lookup { lease: second.lease.id.clone() }).await.unwrap();
    assert_eq!(view.unwrap_err(), LeaseError::Unknown);
}

#[actix_rt::test]
async fn renewals_of_one_lease_take_turns() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let (first, second) = tokio::join!(renew(&rig, &issued, 200), renew(&rig, &issued, 300));
    let last = first.unwrap().lease.expires_at.max(second.unwrap().lease.expires_at);
    assert_eq!(rig.world().ends[&issued.lease.id], last);
}

#[actix_rt::test]
async fn a_lease_of_an_earlier_run_is_renewed_before_all_are_loaded() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let next = rig.crash();
    assert!(renew(&next, &issued, 300).await.is_ok());
    assert_eq!(next.counts().await.active, 1);
}
