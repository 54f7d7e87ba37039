//! The wall clock jumps; running leases do not.

use std::time::Duration;

use mssm_domain::{Clock, Ttl};
use mssm_messages::engine::EngineError;
use mssm_messages::lease::{LeaseView, Lookup, Renew};

use super::rig::{Rig, pass};

/// Tokio's timers end a millisecond late.
const SLACK: Duration = Duration::from_millis(20);

async fn look(rig: &Rig, issued: &mssm_messages::lease::Issued) -> Option<LeaseView> {
    rig.manager.send(Lookup { lease: issued.lease.id.clone() }).await.unwrap().ok()
}

/// A lease of 60 s, a jump at 20 s: it lives until 60 s, and says so by the new clock.
#[actix_rt::test]
async fn a_clock_that_jumps_either_way_moves_no_running_lease() {
    tokio::time::pause();
    let hour = Duration::from_hours(1);
    for forward in [true, false] {
        let rig = Rig::fresh().await;
        let issued = rig.issue().await.unwrap();
        pass(20).await;
        let now = rig.clock.now();
        let jumped = if forward { now.after(hour) } else { issued.lease.issued_at };
        rig.clock.set(jumped);
        pass(2).await;
        let left =
            look(&rig, &issued).await.map(|view| rig.clock.now().until(view.lease.expires_at));
        let off = left.map(|left| Duration::from_secs(38).abs_diff(left));
        assert!(off.is_some_and(|off| off < SLACK), "forward: {forward}, {left:?}");
        pass(37).await;
        assert_eq!(rig.counts().await.active, 1, "forward: {forward}");
        assert!(rig.world().tried.is_empty(), "forward: {forward}");
        pass(2).await;
        rig.assert_all_ended(&format!("forward: {forward}")).await;
    }
}

/// What is issued or renewed after a jump lives as long as it says, within its bound of 600 s.
#[actix_rt::test]
async fn after_a_jump_leases_are_issued_and_renewed_by_the_new_clock() {
    tokio::time::pause();
    for jump_ms in [3_600_000_i64, 61_000, 500, -500, -61_000, -3_600_000] {
        let rig = Rig::fresh().await;
        let old = rig.issue().await.unwrap();
        pass(10).await;
        let now = rig.clock.now().unix_ms().saturating_add_signed(jump_ms);
        rig.clock.set(mssm_domain::Timestamp::from_unix_ms(now));
        let new = rig.issue().await.unwrap();
        assert_eq!(rig.clock.now().until(new.lease.expires_at), Duration::from_mins(1));
        let increment = Some(Ttl::from_secs(10_000).unwrap());
        let ask = Renew { lease: old.lease.id.clone(), increment, caller: rig.caller() };
        let renewed = rig.manager.send(ask).await.unwrap().unwrap();
        let left = rig.clock.now().until(renewed.lease.expires_at).as_millis();
        // A jump below a second is no jump: it moves the bound by as much.
        let slack = if jump_ms.abs() < 1_000 { Duration::from_millis(500) } else { Duration::ZERO };
        assert!(
            left.abs_diff(590_000) <= (slack + SLACK).as_millis(),
            "after {jump_ms} ms: {left} ms"
        );
        assert_eq!(renewed.warnings.len(), 1);
        pass(58).await;
        assert_eq!(rig.counts().await.active, 2, "after {jump_ms} ms");
        pass(4).await;
        assert_eq!(rig.counts().await.active, 1, "after {jump_ms} ms");
        pass(527).await;
        assert_eq!(rig.counts().await.active, 1, "after {jump_ms} ms");
        pass(4).await;
        rig.assert_all_ended(&format!("after {jump_ms} ms")).await;
    }
}

/// Whoever sets the clock back while the server is down prolongs nothing.
#[actix_rt::test]
async fn a_clock_set_back_between_two_runs_does_not_go_behind_what_was_stored() {
    let rig = Rig::new().await;
    rig.issue().await.unwrap();
    pass(50).await;
    rig.issue().await.unwrap();
    let year = Duration::from_hours(8_760).as_millis();
    let back = rig.clock.now().unix_ms() - u64::try_from(year).unwrap();
    rig.clock.set(mssm_domain::Timestamp::from_unix_ms(back));
    let next = rig.crash();
    rig.close().await;
    pass(9).await;
    assert_eq!(next.counts().await.active, 2);
    pass(2).await;
    assert_eq!(next.counts().await.active, 1);
    pass(51).await;
    next.assert_all_ended("set back while down").await;
}

/// What a renewal that came to nothing leaves in the store is what was there, not the jumped clock's word for it.
#[actix_rt::test]
async fn a_renewal_that_fails_amid_a_jump_prolongs_nothing_once_the_clock_is_back() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    pass(10).await;
    let hour = Duration::from_hours(1).as_millis().try_into().unwrap();
    let jump = |by: i64| {
        let now = rig.clock.now().unix_ms().saturating_add_signed(by);
        rig.clock.set(mssm_domain::Timestamp::from_unix_ms(now));
    };
    jump(hour);
    let error = EngineError::Unavailable("no route".to_owned());
    rig.world().extend_errors.push_back(error);
    let increment = Some(Ttl::from_secs(300).unwrap());
    let ask = Renew { lease: issued.lease.id.clone(), increment, caller: rig.caller() };
    rig.manager.send(ask).await.unwrap().unwrap_err();
    jump(-hour);
    let next = rig.crash();
    rig.close().await;
    pass(45).await;
    assert_eq!(next.counts().await.active, 1);
    pass(7).await;
    next.assert_all_ended("at its first end").await;
}

/// A renewal in every millisecond of a lease's last seconds: never beyond its bound, never in the
/// past, and gone at its end.
#[actix_rt::test]
async fn renewals_in_every_millisecond_before_the_bound_end_at_the_bound() {
    let rig = Rig::new().await;
    let issued = rig.issue().await.unwrap();
    let bound = issued.lease.ends_at_most;
    let renew = |secs| {
        let increment = Some(Ttl::from_secs(secs).unwrap());
        rig.manager.send(Renew { lease: issued.lease.id.clone(), increment, caller: rig.caller() })
    };
    renew(10_000).await.unwrap().unwrap();
    pass(597).await;
    let mut renewals = 0;
    while rig.clock.now() < bound {
        let renewed = renew(2).await.unwrap().unwrap();
        let now = rig.clock.now();
        let end = renewed.lease.expires_at;
        assert!(end <= bound && end > now && end <= now.after(Duration::from_secs(2)));
        assert_eq!(
            renewed.warnings.is_empty(),
            end < bound || now.until(bound).as_millis() == 2_000
        );
        renewals += 1;
        rig.clock.advance(Duration::from_millis(1));
    }
    assert!(renewals > 2_900, "{renewals}");
    assert!(renew(2).await.unwrap().is_err());
    pass(1).await;
    rig.assert_all_ended("at its bound").await;
}
