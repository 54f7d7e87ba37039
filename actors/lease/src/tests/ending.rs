//! How leases end: on time, on request, and whatever fails meanwhile.

use std::time::Duration;

use mssm_domain::{LeaseState, SecretBytes, TokenId};
use mssm_messages::Changes;
use mssm_messages::engine::Outcome;
use mssm_messages::lease::{
    CountTarget, Issued, LeaseError, List, Lookup, Revoke, RevokeMount, RevokePrefix, RevokeToken,
};
use mssm_messages::storage::StorageError;
use mssm_testkit::FakeKeys;

use super::rig::{Rig, boot_id, mount, pass};
use crate::record::live_path;

async fn revoke(rig: &Rig, issued: &Issued, sync: bool) -> Result<(), LeaseError> {
    rig.manager.send(Revoke { lease: issued.lease.id.clone(), sync }).await.unwrap()
}

async fn many(rig: &Rig, role: &str, count: usize) -> Vec<Issued> {
    let mut issued = Vec::new();
    for _ in 0..count {
        issued.push(rig.manager.send(rig.ask(role)).await.unwrap().unwrap());
    }
    issued
}

#[actix_rt::test]
async fn a_revocation_is_durable_before_its_reply_and_done_twice_is_done_once() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    revoke(&rig, &issued, true).await.unwrap();
    assert!(rig.world().exists.is_empty());
    revoke(&rig, &issued, true).await.unwrap();
    assert_eq!(rig.world().batches, [1]);
    pass(1).await;
    rig.assert_all_ended("revoked").await;
    assert_eq!(rig.log.lock().unwrap().names.last().unwrap().0, "lease-revoked");

    let second = rig.issue().await.unwrap();
    rig.world().down = true;
    revoke(&rig, &second, false).await.unwrap();
    let after_crash = rig.crash();
    rig.world().down = false;
    pass(5).await;
    after_crash.assert_all_ended("revoked before the crash").await;
    assert_eq!(rig.world().doubts.last(), Some(&Some(boot_id(1))));
}

#[actix_rt::test]
async fn a_failed_revocation_is_reported_and_tried_until_it_succeeds() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let fails = (0..20).map(|_| Outcome::Failed("locked".to_owned()));
    rig.world().revoke_replies.extend(fails);
    assert_eq!(
        revoke(&rig, &issued, true).await.unwrap_err(),
        LeaseError::NotYet("locked".to_owned())
    );
    pass(100).await;
    let view = rig.manager.send(Lookup { lease: issued.lease.id.clone() }).await.unwrap().unwrap();
    assert_eq!((view.state, view.revoke_error.as_deref()), (LeaseState::Ending, Some("locked")));
    assert_eq!(rig.counts().await.overdue, 1);
    pass(3600).await;
    rig.assert_all_ended("tried until it succeeds").await;
    assert_eq!(rig.world().batches.len(), 21);
}

#[actix_rt::test]
async fn access_that_ended_satisfies_the_caller_and_the_rest_is_tried_on() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    rig.world().revoke_replies.push_back(Outcome::AccessEnded("owns a table".to_owned()));
    revoke(&rig, &issued, true).await.unwrap();
    assert_eq!(rig.counts().await.ending, 1);
    pass(2).await;
    rig.assert_all_ended("cleaned up later").await;
}

#[actix_rt::test]
async fn nobodys_access_waits_for_what_others_left() {
    let rig = Rig::new().await;
    let laden = many(&rig, "app", 200).await;
    pass(30).await;
    let plain = many(&rig, "app", 200).await;
    rig.world().cleaning_takes = Duration::from_secs(50);
    rig.world().laden = laden.iter().map(|one| one.lease.id.clone()).collect();
    // These have ended, and what they left takes long; then the others end.
    pass(66).await;
    let in_time = |one: &Issued| {
        let world = rig.world();
        let ended = world.ended.get(&one.lease.id);
        ended.is_some_and(|at| one.lease.expires_at.until(*at) <= Duration::from_secs(2))
    };
    assert!(plain.iter().all(in_time), "access ends at its time");
    assert!(!laden.iter().any(in_time), "and what was left takes longer");
    let asked = tokio::time::Instant::now();
    let last = &laden[199].lease.id;
    let revoke = Revoke { lease: last.clone(), sync: true };
    rig.manager.send(revoke).await.unwrap().unwrap();
    assert!(
        asked.elapsed() <= Duration::from_secs(11),
        "its access has ended, so nobody is told of a failure"
    );
    pass(200).await;
    rig.assert_all_ended("cleaned up at last").await;
}

#[actix_rt::test]
async fn who_is_given_up_while_it_is_being_ended_goes() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    rig.world().laden.insert(issued.lease.id.clone());
    rig.world().access_takes = Duration::from_secs(20);
    rig.world().cleaning_takes = Duration::from_secs(50);
    revoke(&rig, &issued, false).await.unwrap();
    let force = RevokePrefix { prefix: "db".to_owned(), sync: true, force: true };
    rig.manager.send(force).await.unwrap().unwrap();
    pass(12).await;
    assert_eq!(rig.counts().await.ending, 0);
}

#[actix_rt::test]
async fn a_thousand_leases_that_end_at_once_are_tried_within_two_seconds() {
    let rig = Rig::new().await;
    let issued = many(&rig, "app", 1000).await;
    pass(63).await;
    rig.assert_all_ended("a thousand").await;
    let world = rig.world();
    for one in &issued {
        let late = one.lease.expires_at.until(world.ended[&one.lease.id]);
        assert!(late <= Duration::from_secs(2), "{late:?}");
    }
    assert!(world.batches.iter().all(|size| *size <= 50));
    assert_eq!(world.in_flight_max, 2);
    assert!(world.doubts.iter().all(Option::is_none));
}

#[actix_rt::test]
async fn a_target_that_is_down_for_an_hour_is_caught_up_within_five_seconds() {
    let rig = Rig::new().await;
    many(&rig, "app", 120).await;
    rig.world().down = true;
    pass(3600).await;
    assert_eq!(rig.world().exists.len(), 120);
    let probes = rig.world().batches.len();
    assert!((800..1000).contains(&probes), "{probes} probes");
    rig.world().down = false;
    pass(5).await;
    rig.assert_all_ended("after the outage").await;
}

#[actix_rt::test]
async fn a_full_disk_does_not_keep_access_alive() {
    let rig = Rig::new().await;
    many(&rig, "app", 3).await;
    rig.store.fail_writes(Some(StorageError::NoSpace("told to".to_owned())));
    pass(63).await;
    assert!(rig.world().exists.is_empty());
    assert_eq!(rig.records().await, (3, 0));
    assert_eq!(rig.counts().await.ending, 3);
    rig.store.fail_writes(None);
    rig.world().unmarked = 0;
    pass(61).await;
    rig.world().unmarked = 0;
    rig.assert_all_ended("recorded later").await;
    assert_eq!(rig.records().await, (0, 3));
}

#[actix_rt::test]
async fn a_burial_of_unknown_outcome_is_settled_by_looking() {
    let rig = Rig::new().await;
    many(&rig, "app", 3).await;
    rig.store.pass_next();
    rig.store.doubt_next();
    pass(70).await;
    rig.assert_all_ended("burial in doubt").await;
    assert_eq!(rig.records().await, (0, 3));
    assert_eq!(rig.counts().await.ended_total, 3);
}

#[actix_rt::test]
async fn a_blocked_audit_delays_no_revocation_and_hears_of_it_later() {
    let rig = Rig::new().await;
    many(&rig, "app", 2).await;
    pass(1).await;
    rig.log.lock().unwrap().blocked = true;
    pass(62).await;
    assert!(rig.world().exists.is_empty());
    rig.log.lock().unwrap().blocked = false;
    pass(1).await;
    let log = rig.log.lock().unwrap();
    let expired = log.names.iter().filter(|(name, _)| *name == "lease-expired").count();
    assert_eq!(expired, 2);
    assert!(log.names.iter().any(|(_, late)| *late));
}

#[actix_rt::test]
async fn a_prefix_ends_whole_segments_and_listing_shows_them() {
    let rig = Rig::new().await;
    many(&rig, "app", 3).await;
    many(&rig, "app-ro", 2).await;
    let list = |prefix: &str| List { prefix: prefix.to_owned(), after: None, limit: 100 };
    let roles = rig.manager.send(list("db/creds/")).await.unwrap().unwrap();
    assert_eq!(roles, ["app/", "app-ro/"]);
    assert_eq!(rig.manager.send(list("db/creds/app/")).await.unwrap().unwrap().len(), 3);
    let ask = RevokePrefix { prefix: "db/creds/app".to_owned(), sync: true, force: false };
    assert_eq!(rig.manager.send(ask).await.unwrap().unwrap().count, 3);
    assert_eq!(rig.world().exists.len(), 2);
    let left = rig.manager.send(RevokeMount { mount: mount() }).await.unwrap();
    assert_eq!(left, Ok(0));
    rig.assert_all_ended("unmounted").await;
}

#[actix_rt::test]
async fn force_forgets_what_cannot_be_ended_and_remembers_that_it_did() {
    let rig = Rig::new().await;
    let issued = many(&rig, "app", 2).await;
    rig.world().down = true;
    let ask = RevokePrefix { prefix: "db".to_owned(), sync: true, force: true };
    assert_eq!(rig.manager.send(ask).await.unwrap().unwrap().count, 2);
    pass(10).await;
    assert_eq!(rig.records().await, (0, 2));
    assert_eq!(rig.counts().await.ending, 0);
    let path = crate::record::ended_path(issued[0].lease.id.as_str());
    let plain = rig.barrier.read(&path).await.unwrap().unwrap();
    assert!(crate::record::LeaseRecord::decode(&plain.bytes).unwrap().left_behind);
}

#[actix_rt::test]
async fn a_revoked_token_takes_its_own_leases_along() {
    let rig = Rig::new().await;
    many(&rig, "app", 2).await;
    let other = TokenId::from_fingerprint([8; 32]);
    rig.write_token(other).await;
    let mut ask = rig.ask("app");
    ask.caller.token = other;
    rig.manager.send(ask).await.unwrap().unwrap();
    let token = rig.token;
    assert_eq!(rig.manager.send(RevokeToken { token }).await.unwrap(), Ok(2));
    pass(1).await;
    assert_eq!(rig.world().exists.len(), 1);
    assert_eq!(rig.manager.send(RevokeToken { token }).await.unwrap(), Ok(0));
}

#[actix_rt::test]
async fn an_unreadable_record_is_counted_left_alone_and_stops_nothing() {
    let rig = Rig::new().await;
    let issued = many(&rig, "app", 2).await;
    let odd = live_path("db/creds/app/zzzzzzzzzzzzzzzzzzzzzzzz");
    let bytes = SecretBytes::new(vec![9, 9]);
    rig.barrier.commit(Changes::new().put(odd, 0, bytes)).await.unwrap();
    let key = FakeKeys::stored_key(&live_path(issued[0].lease.id.as_str()));
    let moved = rig.store.stored(&FakeKeys::stored_key(&live_path(issued[1].lease.id.as_str())));
    rig.store.tamper(&key, moved);
    let next = rig.crash();
    pass(1).await;
    let counts = next.counts().await;
    assert_eq!((counts.unreadable, counts.active), (2, 1));
    pass(63).await;
    assert_eq!(next.counts().await.active, 0);
    assert_eq!(next.records().await, (2, 1));
}

#[actix_rt::test]
async fn a_restart_keeps_every_lease_and_ends_what_came_due_meanwhile() {
    let rig = Rig::new().await;
    many(&rig, "app", 600).await;
    let next = rig.crash();
    let target = mssm_domain::ConnectionId::parse("00000000-0000-0000-0001-000000000001").unwrap();
    assert_eq!(next.manager.send(CountTarget { target }).await.unwrap(), Ok(600));
    assert_eq!(next.counts().await.active, 600);
    rig.close().await;
    next.close().await;
    pass(3600).await;
    assert_eq!(next.world().exists.len(), 600);
    next.open();
    pass(5).await;
    next.assert_all_ended("due while closed").await;
}

#[actix_rt::test]
async fn one_lease_that_breaks_its_batch_does_not_hold_up_the_others() {
    let rig = Rig::new().await;
    many(&rig, "app", 3).await;
    many(&rig, "other", 3).await;
    rig.world().revoke_replies.push_back(Outcome::Failed("locked".to_owned()));
    pass(61).await;
    assert_eq!(rig.world().exists.len(), 1);
    pass(2).await;
    rig.assert_all_ended("all").await;
}

#[actix_rt::test]
async fn ended_leases_are_remembered_for_a_week_and_then_tidied() {
    let rig = Rig::new().await;
    many(&rig, "app", 2).await;
    pass(70).await;
    rig.clock.advance(Duration::from_hours(6 * 24));
    pass(700).await;
    assert_eq!(rig.records().await, (0, 2));
    rig.clock.advance(Duration::from_hours(24));
    pass(700).await;
    assert_eq!(rig.records().await, (0, 0));
}

#[actix_rt::test]
async fn a_clock_that_jumps_back_ends_no_lease_twice() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    pass(61).await;
    rig.clock.set(issued.lease.issued_at);
    pass(120).await;
    rig.assert_all_ended("jumped back").await;
    assert_eq!(rig.world().batches, [1]);
}
