//! What the audit hears of the lease manager's own doings, whatever happens in between.

use std::time::Duration;

use mssm_domain::Clock;
use mssm_messages::lease::RevokePrefix;
use mssm_messages::storage::StorageError;

use super::rig::{Rig, pass};
use crate::letter::letter_folder;

async fn stored(rig: &Rig) -> usize {
    rig.barrier.scan(&letter_folder(), None, 10_000).await.unwrap().len()
}

/// The log is blocked, a lease is made and ends, and the server is killed: the next run tells all of
/// it, once, late, with the times at which it happened.
#[actix_rt::test]
async fn a_kill_loses_no_line_that_the_log_did_not_have_yet() {
    let rig = Rig::new().await;
    rig.log.lock().unwrap().blocked = true;
    let issued = rig.issue().await.unwrap();
    pass(70).await;
    rig.assert_all_ended("log blocked").await;
    let next = rig.crash();
    pass(3).await;
    let (names, times) = {
        let log = next.log.lock().unwrap();
        (log.names.clone(), log.times.clone())
    };
    assert_eq!(names, [("lease-created", true), ("lease-expired", true)]);
    let end = issued.lease.expires_at;
    assert!(times[0] >= issued.lease.issued_at && times[0] < end, "{times:?}");
    assert!(times[1] >= end && times[1] < end.after(Duration::from_secs(2)), "{times:?}");
    assert!(next.clock.now() > times[1].after(Duration::from_secs(2)));
    assert_eq!(stored(&next).await, 0);
    pass(60).await;
    assert_eq!(next.log.lock().unwrap().names.len(), 2, "told once");
}

/// More waits than is kept in memory: it comes from the store, in order, and none is lost.
#[actix_rt::test]
async fn a_blocked_log_loses_no_line_however_many_wait() {
    let rig = Rig::new().await;
    rig.log.lock().unwrap().blocked = true;
    for _ in 0..150 {
        rig.issue().await.unwrap();
    }
    let prefix = "db/creds/app".to_owned();
    let ask = RevokePrefix { prefix, sync: true, force: false };
    assert_eq!(rig.manager.send(ask).await.unwrap().unwrap().count, 150);
    pass(2).await;
    assert!(rig.log.lock().unwrap().names.is_empty());
    rig.log.lock().unwrap().blocked = false;
    pass(3).await;
    let (names, times) = {
        let log = rig.log.lock().unwrap();
        (log.names.clone(), log.times.clone())
    };
    let expected = [vec![("lease-created", true); 150], vec![("lease-revoked", true); 150]];
    assert_eq!(names, expected.concat());
    assert!(times.is_sorted());
    assert_eq!(stored(&rig).await, 0);
}

/// A line costs no commit of its own while anything else is committed, and nothing stays behind.
#[actix_rt::test]
async fn lines_ride_along_with_what_is_committed_anyway() {
    let rig = Rig::new().await;
    let before = rig.store.commits();
    rig.issue().await.unwrap();
    assert_eq!(stored(&rig).await, 1);
    pass(1).await;
    assert_eq!(rig.store.commits(), before + 2);
    assert_eq!(rig.log.lock().unwrap().names, [("lease-created", false)]);
    // Sent, and taken along by the first commit of the next one: the line of that one is left.
    rig.issue().await.unwrap();
    assert_eq!(stored(&rig).await, 1);
    pass(3).await;
    assert_eq!(stored(&rig).await, 0);
}

/// A change that was not stored is not told, and one whose outcome was unknown is told if it was.
#[actix_rt::test]
async fn what_did_not_happen_is_not_told() {
    let rig = Rig::new().await;
    rig.store.pass_next();
    rig.store.fail_next(StorageError::NoSpace("told to".to_owned()));
    assert!(rig.issue().await.is_err());
    pass(3).await;
    assert_eq!(rig.log.lock().unwrap().names, [("lease-revoked", false)]);
    rig.assert_all_ended("not stored").await;
    assert_eq!(stored(&rig).await, 0);
}
