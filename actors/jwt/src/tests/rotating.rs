//! When which key signs and verifies, whatever is asked for and whoever keeps copies.

use mssm_domain::Random;
use mssm_messages::jwt::{DeleteKey, KeyPatch, RolePatch, Standing, TrimKey, WriteConfig};
use mssm_testkit::{SeededRandom, TestClock};

use super::rig::{Rig, key, mount, now, of_algorithm, reason, secs, signs_with};

fn period(secs: u64) -> KeyPatch {
    let ttl = Some(secs.min(3600));
    KeyPatch { rotation_period_secs: Some(secs), verification_ttl_secs: ttl, ..KeyPatch::default() }
}

#[actix::test]
async fn the_next_key_is_public_before_it_signs_and_the_previous_one_after() {
    let rig = Rig::plain().await;
    let first = rig.kids("k", Standing::Current).await;
    let next = rig.kids("k", Standing::Next).await;
    let token = rig.sign("app").await.unwrap();
    assert_eq!(token.kid, first[0]);
    let copy = rig.copy().await;
    assert_eq!(copy.len(), 2);

    rig.clock.advance(secs(86_400));
    let later = rig.sign("app").await.unwrap();
    assert_eq!(later.kid, next[0]);
    assert_eq!(rig.kids("k", Standing::Previous).await, first);
    tokio::task::yield_now().await;
    let written = rig.events.0.lock().unwrap().clone();
    assert_eq!(written, [format!("signing-key-rotated {}", next[0])]);
    // The old copy knows the key that signs now; the new one knows previous, current and next.
    assert!(copy.verifies(later.token.expose()));
    assert_eq!(rig.copy().await.len(), 3);
}

#[actix::test]
async fn a_rotation_on_demand_waits_until_every_copy_knows_the_next_key() {
    let rig = Rig::plain().await;
    rig.keep_copies(100).await;
    rig.clock.advance(secs(400));
    let before = rig.kids("k", Standing::Current).await;
    assert_eq!(rig.rotate("k").await.waits_until, None);
    let second = rig.kids("k", Standing::Current).await;
    assert_ne!(second, before);

    let rotated = rig.rotate("k").await;
    // 100 s, and a tenth of it for the way.
    assert_eq!(rotated.waits_until, Some(now(&rig.clock).after(secs(110))));
    assert_eq!([rotated.kid], second.as_slice());
    rig.clock.advance(secs(109));
    rig.tick().await;
    assert_eq!(rig.sign("app").await.unwrap().kid, second[0]);
    rig.clock.advance(secs(1));
    rig.tick().await;
    assert_ne!(rig.sign("app").await.unwrap().kid, second[0]);
}

#[actix::test]
async fn copies_that_were_taken_under_a_longer_limit_are_waited_for() {
    let rig = Rig::plain().await;
    rig.keep_copies(3600).await;
    rig.clock.advance(secs(86_400));
    // This copy may be kept for an hour from now on, whatever is said later.
    let copy = rig.copy().await;
    rig.keep_copies(10).await;
    rig.sign("app").await.unwrap();
    rig.rotate("k").await;
    while !copy.is_old(now(&rig.clock)) {
        rig.tick().await;
        let token = rig.sign("app").await.unwrap();
        assert!(copy.verifies(token.token.expose()));
        rig.clock.advance(secs(60));
    }
}

#[actix::test]
async fn a_limit_that_was_set_before_there_was_a_key_is_waited_for_and_no_other() {
    let rig = Rig::open().await;
    rig.keep_copies(1).await;
    rig.write_key("k", KeyPatch::default()).await.unwrap();
    assert_eq!(rig.rotate("k").await.waits_until, Some(now(&rig.clock).after(secs(2))));
}

#[actix::test]
async fn no_token_outlives_the_key_that_verifies_it() {
    let rig = Rig::open().await;
    rig.write_key("k", period(86_400)).await.unwrap();
    let hour = RolePatch { ttl_secs: Some(3600), ..signs_with("k") };
    rig.write_role("app", hour.clone()).await.unwrap();
    rig.clock.advance(secs(86_399));
    let token = rig.sign("app").await.unwrap();
    rig.clock.advance(secs(1));
    rig.tick().await;
    assert_ne!(rig.sign("app").await.unwrap().kid, token.kid);
    rig.clock.advance(secs(3597));
    rig.tick().await;
    rig.verify(token.token.expose()).await.unwrap();
    assert!(rig.copy().await.verifies(token.token.expose()));
    // The key is public until the next one has taken its place, but verifies nothing any more.
    rig.clock.advance(secs(200));
    assert!(reason(rig.verify(token.token.expose()).await).contains("not one of this mount's"));
    assert_eq!(rig.copy().await.len(), 3);

    let longer = RolePatch { max_ttl_secs: Some(3601), ..hour };
    assert!(reason(rig.write_role("app", longer).await).contains("verification_ttl"));
    let shorter = KeyPatch { verification_ttl_secs: Some(3599), ..KeyPatch::default() };
    assert!(reason(rig.write_key("k", shorter).await).contains("token ttl greater than 3599"));
}

#[actix::test]
async fn a_shorter_verification_does_not_shorten_what_was_signed_before() {
    let rig = Rig::open().await;
    rig.write_key("k", period(86_400)).await.unwrap();
    rig.write_role("app", RolePatch { ttl_secs: Some(3600), ..signs_with("k") }).await.unwrap();
    rig.clock.advance(secs(86_300));
    let token = rig.sign("app").await.unwrap();
    let short = RolePatch { ttl_secs: Some(60), max_ttl_secs: Some(60), ..RolePatch::default() };
    rig.write_role("app", short).await.unwrap();
    let patch = KeyPatch { verification_ttl_secs: Some(60), ..KeyPatch::default() };
    rig.write_key("k", patch).await.unwrap();
    rig.clock.advance(secs(100));
    rig.tick().await;
    rig.clock.advance(secs(3400));
    rig.tick().await;
    rig.verify(token.token.expose()).await.unwrap();
}

#[actix::test]
async fn a_key_signs_no_more_often_than_it_may_across_workers_and_restarts() {
    let mut rig = Rig::plain().await;
    let patch = KeyPatch { rotation_count: Some(20), ..KeyPatch::default() };
    rig.write_key("k", patch).await.unwrap();
    let first = rig.kids("k", Standing::Current).await.remove(0);
    let mut signed = 0;
    for round in 0..12 {
        let token = rig.sign_on(round % 2, "app", None, None).await.unwrap();
        signed += usize::from(token.kid == first);
    }
    // What had been handed out when the server ended counts as used.
    rig = Rig::over(rig.store.copy(), rig.clock.clone()).await;
    // The next key is too new still, so the first one signs on beyond its count.
    for _ in 0..20 {
        assert_eq!(rig.sign("app").await.unwrap().kid, first);
    }
    rig.clock.advance(secs(400));
    assert_ne!(rig.sign("app").await.unwrap().kid, first);
    assert_eq!(signed, 12);

    // Ripe, a key signs exactly as often as it may.
    rig.clock.advance(secs(400));
    rig.rotate("k").await;
    rig.clock.advance(secs(400));
    let second = rig.kids("k", Standing::Current).await.remove(0);
    let mut count = 0;
    for round in 0..60 {
        let token = rig.sign_on(round % 2, "app", None, None).await.unwrap();
        count += usize::from(token.kid == second);
    }
    assert_eq!(count, 20);
}

#[actix::test]
async fn what_came_due_while_the_server_was_sealed_is_done_when_it_opens() {
    let rig = Rig::plain().await;
    let first = rig.kids("k", Standing::Current).await;
    rig.seal().await;
    rig.clock.advance(secs(10 * 86_400));
    rig.tick().await;
    rig.unseal().await;
    rig.tick().await;
    assert_eq!(rig.kids("k", Standing::Previous).await, first);
    // Once, not ten times.
    assert_eq!(rig.key("k").await.keys.len(), 3);
}

#[actix::test]
async fn a_rotation_that_cannot_be_stored_is_tried_again_and_signing_goes_on() {
    let rig = Rig::plain().await;
    let first = rig.kids("k", Standing::Current).await.remove(0);
    rig.clock.advance(secs(86_400));
    let down = mssm_messages::storage::StorageError::NoSpace("full".to_owned());
    rig.store.fail_writes(Some(down));
    assert_eq!(rig.sign("app").await.unwrap().kid, first);
    rig.tick().await;
    rig.store.fail_writes(None);
    rig.clock.advance(secs(10));
    rig.tick().await;
    assert_ne!(rig.sign("app").await.unwrap().kid, first);
}

#[actix::test]
async fn trimming_takes_what_is_named_and_only_what_signs_no_more() {
    let rig = Rig::plain().await;
    let token = rig.sign("app").await.unwrap();
    rig.clock.advance(secs(400));
    let trim = |kids: &[&str]| {
        let kids = kids.iter().map(ToString::to_string).collect();
        rig.keeper.send(TrimKey { mount: mount(), name: key("k"), kids })
    };
    assert!(reason(trim(&[&token.kid]).await.unwrap()).contains("rotate first"));
    rig.rotate("k").await;
    assert_eq!(trim(&[]).await.unwrap().unwrap(), Vec::<String>::new());
    rig.verify(token.token.expose()).await.unwrap();
    assert!(reason(trim(&["unknown"]).await.unwrap()).contains("no previous key"));
    assert_eq!(trim(&[&token.kid]).await.unwrap().unwrap(), [token.kid.as_str()]);
    assert!(reason(rig.verify(token.token.expose()).await).contains("not one of this mount's"));
    assert_eq!(rig.copy().await.len(), 2);
}

#[actix::test]
async fn a_key_that_a_role_signs_with_stays() {
    let rig = Rig::plain().await;
    let delete = || DeleteKey { mount: mount(), name: key("k") };
    let refused = reason(rig.keeper.send(delete()).await.unwrap());
    assert!(refused.contains("referenced by these roles: app"), "{refused}");
    let message = mssm_messages::jwt::DeleteRole { mount: mount(), name: super::rig::role("app") };
    rig.keeper.send(message).await.unwrap().unwrap();
    rig.keeper.send(delete()).await.unwrap().unwrap();
    rig.keeper.send(delete()).await.unwrap().unwrap();
    assert_eq!(rig.copy().await.len(), 0);
    assert!(rig.store.is_empty());
}

/// A verifier that asks for the keys once a period never meets a key that it does not know.
#[actix::test]
async fn a_verifier_that_asks_once_a_period_never_fails_across_a_thousand_rotations() {
    let rig = Rig::open().await;
    rig.keep_copies(300).await;
    rig.write_key("k", period(600)).await.unwrap();
    rig.write_role("app", RolePatch { ttl_secs: Some(600), ..signs_with("k") }).await.unwrap();
    let random = SeededRandom::new(11);
    let mut copy = rig.copy().await;
    let (mut live, mut kids, mut checked) = (Vec::new(), std::collections::BTreeSet::new(), 0);
    while kids.len() <= 1000 {
        let mut byte = [0];
        random.fill(&mut byte);
        rig.clock.advance(secs(u64::from(byte[0]) + 20));
        if byte[0] % 2 == 0 {
            rig.tick().await;
        }
        if byte[0] % 32 == 1 {
            rig.rotate("k").await;
        }
        let token = rig.sign_on(usize::from(byte[0] % 2), "app", None, None).await.unwrap();
        kids.insert(token.kid.clone());
        live.push(token);
        let now = now(&rig.clock);
        if copy.is_old(now) {
            copy = rig.copy().await;
        }
        live.retain(|token| token.expires_at > now);
        for token in &live {
            assert!(copy.verifies(token.token.expose()), "after {} keys", kids.len());
            checked += 1;
        }
    }
    assert!(checked > 3000, "{checked}");
    let elapsed = TestClock::START.until(now(&rig.clock));
    assert!(elapsed > secs(1000 * 300), "{elapsed:?}");
}

/// One that keeps its copy for too long knows the key that signed and the next one, and fails from
/// the second rotation on: as docs/jwt.md says.
#[actix::test]
async fn a_verifier_that_keeps_its_copy_for_too_long_fails_from_the_second_rotation_on() {
    let rig = Rig::open().await;
    rig.write_key("k", period(1000)).await.unwrap();
    rig.write_role("app", RolePatch { ttl_secs: Some(600), ..signs_with("k") }).await.unwrap();
    let copy = rig.copy().await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        let token = rig.sign("app").await.unwrap();
        seen.push(copy.verifies(token.token.expose()));
        rig.clock.advance(secs(100));
    }
    let failing = seen.iter().position(|verified| !verified).unwrap();
    assert_eq!(failing, 20, "{seen:?}");
    assert!(seen[failing..].iter().all(|verified| !verified));
}

#[actix::test]
async fn settings_that_make_no_sense_are_refused() {
    let rig = Rig::plain().await;
    for (patch, words) in [
        (KeyPatch { rotation_period_secs: Some(59), ..KeyPatch::default() }, "one minute"),
        (KeyPatch { verification_ttl_secs: Some(0), ..KeyPatch::default() }, "from 1 s"),
        (KeyPatch { verification_ttl_secs: Some(u64::MAX), ..KeyPatch::default() }, "from 1 s"),
        (KeyPatch { rotation_period_secs: Some(u64::MAX), ..KeyPatch::default() }, "one minute"),
        (KeyPatch { verification_ttl_secs: Some(864_001), ..KeyPatch::default() }, "10x"),
        (of_algorithm("ES256"), "cannot change"),
        (KeyPatch { rsa_bits: Some(4096), ..KeyPatch::default() }, "cannot change"),
    ] {
        let refused = reason(rig.write_key("k", patch).await);
        assert!(refused.contains(words), "{refused}");
    }
    for max_age in [0, 86_401, u64::MAX] {
        let jwks_max_age_secs = Some(max_age);
        let message = WriteConfig { mount: mount(), issuer: None, jwks_max_age_secs };
        assert!(reason(rig.keeper.send(message).await.unwrap()).contains("jwks_max_age"));
    }
    let warned = rig.write_key("quick", period(120)).await.unwrap().join("");
    assert!(warned.contains("jwks_max_age"), "{warned}");
}

#[actix::test]
async fn a_clock_that_was_ahead_holds_up_no_rotation_when_it_is_right_again() {
    let rig = Rig::plain().await;
    let begun = now(&rig.clock);
    rig.clock.advance(secs(400 * 86_400));
    rig.keep_copies(86_400).await;
    rig.tick().await;
    let ahead = rig.kids("k", Standing::Current).await;
    rig.clock.set(begun.after(secs(10)));
    rig.tick().await;
    let copy = rig.copy().await;
    let rotated = rig.rotate("k").await;
    // A day, its way, and not the year that the clock was ahead.
    assert_eq!(rotated.waits_until, Some(begun.after(secs(10 + 86_400 + 10))));
    rig.clock.advance(secs(86_400 + 10));
    let token = rig.sign("app").await.unwrap();
    assert_ne!([token.kid], ahead.as_slice());
    assert!(copy.verifies(token.token.expose()));
    rig.clock.advance(secs(2 * 86_400));
    rig.tick().await;
    assert_ne!(rig.kids("k", Standing::Current).await, ahead);
}
