//! A start asks for what ended lately, and is not told the history.

use mssm_messages::lease::Revoke;
use mssm_messages::reconcile::ListEnded;

use super::rig::{Rig, pass};

/// Notes that are left in the store.
async fn notes(rig: &Rig) -> usize {
    let folder = mssm_domain::RecordPath::new(&["lease-ended-lately"]);
    rig.barrier.scan(&folder, None, 10_000).await.unwrap().len()
}

/// How many have ended lately, by all pages, and in how many pages.
async fn lately(rig: &Rig) -> (usize, usize) {
    let (mut found, mut pages, mut after) = (0, 0, None);
    loop {
        let page = rig.manager.send(ListEnded { after, lately: true }).await.unwrap().unwrap();
        found += page.leases.len();
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (found, pages);
        }
    }
}

#[actix_rt::test]
async fn what_ended_lately_is_told_by_a_later_run_and_what_ended_long_ago_is_not() {
    let rig = Rig::new().await;
    for _ in 0..45 {
        let lease = rig.issue().await.unwrap().lease.id;
        rig.manager.send(Revoke { lease, sync: true }).await.unwrap().unwrap();
    }
    pass(2).await;
    let next = rig.crash();
    pass(1).await;
    let (found, pages) = lately(&next).await;
    assert!(found == 45 && pages > 1, "{found} in {pages} pages");
    // The notes go, the tombstones stay.
    pass(2 * 3_600).await;
    assert_eq!((lately(&next).await, notes(&next).await), ((0, 1), 0));
    assert_eq!(next.records().await, (0, 45));
    // What a run long after finds.
    pass(1).await;
    let lease = next.issue().await.unwrap().lease.id;
    next.manager.send(Revoke { lease, sync: true }).await.unwrap().unwrap();
    pass(2).await;
    assert_eq!((lately(&next).await.0, notes(&next).await, next.records().await.1), (1, 1, 46));
}

#[actix_rt::test]
async fn a_batch_that_is_buried_together_leaves_one_note() {
    let rig = Rig::new().await;
    for _ in 0..30 {
        rig.issue().await.unwrap();
    }
    pass(120).await;
    rig.assert_all_ended("expired").await;
    let batches = rig.world().batches.len();
    assert_eq!((lately(&rig).await.0, notes(&rig).await), (30, batches));
    assert!(batches < 10, "{batches}");
}
