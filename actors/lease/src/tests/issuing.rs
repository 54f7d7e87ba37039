//! How leases begin, and what is left wherever that is cut short.

use std::time::Duration;

use mssm_domain::{LeaseState, Timestamp};
use mssm_messages::Changes;
use mssm_messages::access;
use mssm_messages::engine::EngineError;
use mssm_messages::lease::{CountTarget, LeaseError, Lookup};
use mssm_messages::storage::StorageError;
use mssm_testkit::barrier_over;

use super::rig::{Making, Rig, boot_id, pass};
use crate::record::{LeaseRecord, live_folder, token_path};

const FULL: fn() -> StorageError = || StorageError::NoSpace("told to".to_owned());

#[actix_rt::test]
async fn a_lease_is_recorded_then_made_then_handed_out_and_ends_by_itself() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    assert_eq!(issued.secret.len(), 1);
    assert!(issued.lease.id.as_str().starts_with("db/creds/app/"));
    let index = token_path(rig.token, issued.lease.id.as_str());
    assert!(rig.barrier.exists(&index).await.unwrap());
    let view = rig.manager.send(Lookup { lease: issued.lease.id.clone() }).await.unwrap().unwrap();
    assert_eq!((view.state, view.lease), (LeaseState::Active, issued.lease.clone()));
    assert_eq!((rig.counts().await.active, rig.counts().await.by_mount.len()), (1, 1));
    pass(59).await;
    assert_eq!(rig.world().exists.len(), 1);
    pass(2).await;
    rig.assert_all_ended("after its time").await;
    assert_eq!(rig.records().await, (0, 1));
    let ended = *rig.world().ended.values().next().unwrap();
    assert!(issued.lease.expires_at.until(ended).as_millis() <= 500);
    assert!(ended >= issued.lease.expires_at);
    let names: Vec<_> = rig.log.lock().unwrap().names.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["lease-created", "lease-expired"]);
}

#[actix_rt::test]
async fn a_token_that_is_gone_gets_nothing_and_leaves_nothing() {
    let rig = Rig::new().await;
    rig.barrier.commit(Changes::new().delete(access::token_record(rig.token))).await.unwrap();
    assert_eq!(rig.issue().await.unwrap_err(), LeaseError::TokenEnded);
    assert!(rig.world().ends.is_empty());
    rig.assert_all_ended("token gone").await;
}

#[actix_rt::test]
async fn counting_waits_for_what_is_being_decided_on_and_for_nothing_later() {
    let rig = Rig::new().await;
    let target = mssm_domain::ConnectionId::parse("00000000-0000-0000-0001-000000000001").unwrap();
    assert_eq!(rig.manager.send(CountTarget { target }).await.unwrap(), Ok(0));
    rig.world().prepare_takes = Duration::from_secs(2);
    let first = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    pass(1).await;
    let counting = actix_rt::spawn(rig.manager.send(CountTarget { target }));
    tokio::task::yield_now().await;
    let second = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    assert_eq!(counting.await.unwrap().unwrap(), Ok(1));
    first.await.unwrap().unwrap().unwrap();
    second.await.unwrap().unwrap().unwrap();
    assert_eq!(rig.manager.send(CountTarget { target }).await.unwrap(), Ok(2));
    rig.world().prepare_takes = Duration::from_secs(4);
    let third = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    tokio::task::yield_now().await;
    let counted = rig.manager.send(CountTarget { target }).await.unwrap();
    assert!(matches!(counted, Err(LeaseError::NotYet(_))), "{counted:?}");
    third.await.unwrap().unwrap().unwrap();
}

#[actix_rt::test]
async fn a_lease_ends_with_its_token() {
    let rig = Rig::new().await;
    let mut ask = rig.ask("app");
    let end = Timestamp::from_unix_ms(ask.caller.issued_at.unix_ms() + 5_000);
    ask.caller.expires_at = Some(end);
    let issued = rig.manager.send(ask).await.unwrap().unwrap();
    assert_eq!(issued.lease.expires_at, end);
    assert_eq!(issued.warnings.len(), 1);
    pass(6).await;
    rig.assert_all_ended("with its token").await;
}

#[actix_rt::test]
async fn a_creation_that_surely_failed_leaves_no_record() {
    let rig = Rig::new().await;
    rig.world().making.push_back(Making::Refused);
    let error = rig.issue().await.unwrap_err();
    assert_eq!(error, LeaseError::Engine(EngineError::Refused("told to".to_owned())));
    assert_eq!(rig.records().await, (0, 0));
    rig.assert_all_ended("refused").await;
    assert!(rig.world().tried.is_empty());
}

#[actix_rt::test]
async fn a_creation_in_doubt_goes_down_the_ladder_as_doubtful() {
    tokio::time::pause();
    for making in [Making::DoubtMade, Making::DoubtNotMade, Making::Silent, Making::Panic] {
        let rig = Rig::fresh().await;
        rig.world().making.push_back(making);
        assert!(rig.issue().await.is_err(), "{making:?}");
        pass(2).await;
        rig.assert_all_ended(&format!("{making:?}")).await;
        assert_eq!(rig.world().doubts, [Some(boot_id(1))], "{making:?}");
    }
}

/// Every commit of an issue, refused or of unknown outcome: no answer, and nothing stays.
#[actix_rt::test]
async fn a_store_that_fails_at_any_step_leaves_nothing_outside() {
    tokio::time::pause();
    for step in 0..2 {
        for doubt in [false, true] {
            let rig = Rig::fresh().await;
            (0..step).for_each(|_| rig.store.pass_next());
            if doubt {
                rig.store.doubt_next();
            } else {
                rig.store.fail_next(FULL());
            }
            let what = format!("commit {step}, doubt {doubt}");
            assert!(rig.issue().await.is_err(), "{what}");
            pass(2).await;
            rig.assert_all_ended(&what).await;
        }
    }
}

/// The server dies while any commit of an issue, or its creation, is under way. What the next run
/// finds is ended, and nobody has an answer without a lease.
#[actix_rt::test]
async fn a_crash_at_any_step_leaves_a_lease_that_is_ended_by_the_next_run() {
    tokio::time::pause();
    let mut seen = std::collections::BTreeSet::new();
    for making in [None, Some(Making::DoubtMade), Some(Making::Silent)] {
        for polls in 0..60 {
            let rig = Rig::fresh().await;
            rig.world().making.extend(making);
            rig.world().ttl = Some(5);
            let issue = actix_rt::spawn(rig.manager.send(rig.ask("app")));
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            let answered = issue.is_finished();
            let copy = barrier_over(&rig.store.copy());
            let next = rig.crash();
            let page = copy.scan(&live_folder(), None, 2).await.unwrap();
            let state = page.first().map(|(_, plain)| {
                let record = LeaseRecord::decode(&plain.as_ref().unwrap().bytes).unwrap();
                format!("{:?}", record.state)
            });
            seen.insert((state, answered));
            // The first run is gone with its answer; what it may still do outside is in doubt.
            rig.store.fail_writes(Some(FULL()));
            rig.manager.send(mssm_messages::seal::Closing).await.unwrap().unwrap();
            let what = format!("{making:?} after {polls} polls");
            if answered && making.is_none() {
                assert_eq!(next.counts().await.active, 1, "{what}");
                assert_eq!(rig.world().exists.len(), 1, "{what}");
            }
            pass(8).await;
            // What the dead run made after its copy was taken is no part of that crash.
            if next.records().await.1 > 0 || answered {
                next.assert_all_ended(&what).await;
            } else {
                assert_eq!(next.records().await, (0, 0), "{what}");
            }
        }
    }
    let state = |state: &str, answered| (Some(state.to_owned()), answered);
    let steps = [(None, false), state("Pending", false), state("Active", true)];
    assert!(steps.iter().all(|step| seen.contains(step)), "{seen:?}");
}

#[actix_rt::test]
async fn a_pending_lease_of_an_earlier_run_is_in_doubt_for_that_run() {
    let rig = Rig::new().await;
    rig.world().making.push_back(Making::Silent);
    let issue = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    pass(1).await;
    let next = rig.crash();
    pass(2).await;
    next.assert_all_ended("pending of an earlier run").await;
    assert_eq!(next.world().doubts, [Some(boot_id(1))]);
    drop(issue);
}

#[actix_rt::test]
async fn a_lease_revoked_while_it_is_made_is_not_handed_out() {
    let rig = Rig::new().await;
    rig.world().create_takes = std::time::Duration::from_secs(3);
    let issue = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    pass(1).await;
    rig.barrier.commit(Changes::new().delete(access::token_record(rig.token))).await.unwrap();
    let token = rig.token;
    let revoked = rig.manager.send(mssm_messages::lease::RevokeToken { token }).await.unwrap();
    assert_eq!(revoked, Ok(1));
    // One operation at a time: nothing is revoked while it is being made.
    assert!(rig.world().tried.is_empty());
    assert!(issue.await.unwrap().unwrap().is_err());
    pass(1).await;
    rig.assert_all_ended("revoked while made").await;
}

#[actix_rt::test]
async fn too_many_at_once_are_refused_and_the_rest_are_served() {
    let rig = Rig::new().await;
    rig.world().create_takes = std::time::Duration::from_secs(1);
    let asks: Vec<_> =
        (0..300).map(|_| actix_rt::spawn(rig.manager.send(rig.ask("app")))).collect();
    let mut busy = 0;
    for ask in asks {
        busy += usize::from(matches!(ask.await.unwrap().unwrap(), Err(LeaseError::Busy)));
    }
    assert_eq!((busy, rig.counts().await.active), (44, 256));
}

#[actix_rt::test]
async fn nothing_is_issued_while_closed_and_what_was_under_way_ends_after_opening() {
    let rig = Rig::new().await;
    rig.world().create_takes = std::time::Duration::from_secs(5);
    let issue = actix_rt::spawn(rig.manager.send(rig.ask("app")));
    pass(1).await;
    rig.close().await;
    assert_eq!(rig.issue().await.unwrap_err(), LeaseError::Sealed);
    assert_eq!(issue.await.unwrap().unwrap().unwrap_err(), LeaseError::Sealed);
    rig.world().create_takes = std::time::Duration::ZERO;
    rig.open();
    pass(2).await;
    rig.assert_all_ended("closed while made").await;
}
