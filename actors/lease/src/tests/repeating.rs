//! Requests that are repeated, leases that are shared, and how many there may be.

use std::time::Duration;

use mssm_domain::{Caller, TokenId, Ttl};
use mssm_messages::engine::LeaseRules;
use mssm_messages::lease::{Issue, Issued, LeaseError, Lookup, Lost, Revoke, RevokeToken};

use super::rig::{Making, Rig, pass};

fn keyed(rig: &Rig, key: &str) -> Issue {
    Issue { key: Some(key.to_owned()), ..rig.ask("app") }
}

async fn issue(rig: &Rig, ask: Issue) -> Result<Issued, LeaseError> {
    rig.manager.send(ask).await.unwrap()
}

fn window(secs: u64) -> LeaseRules {
    LeaseRules { reuse_window: Ttl::from_secs(secs).ok(), ..LeaseRules::default() }
}

fn same(one: &Issued, other: &Issued) -> bool {
    let secret = |issued: &Issued| issued.secret[0].1.expose().to_owned();
    one.lease.id == other.lease.id && secret(one) == secret(other)
}

#[actix_rt::test]
async fn a_repeated_request_is_one_mint_and_the_same_answer_for_five_minutes() {
    let rig = Rig::new().await;
    rig.world().ttl = Some(600);
    rig.world().create_takes = Duration::from_secs(1);
    // Two at once: the second waits for the first.
    let first = actix_rt::spawn(rig.manager.send(keyed(&rig, "a")));
    let second = issue(&rig, keyed(&rig, "a")).await.unwrap();
    let first = first.await.unwrap().unwrap().unwrap();
    assert!(same(&first, &second) && second.again != first.again);
    pass(290).await;
    assert!(same(&first, &issue(&rig, keyed(&rig, "a")).await.unwrap()));
    assert_eq!(rig.world().created, 1);
    let other = issue(&rig, keyed(&rig, "b")).await.unwrap();
    assert!(!same(&first, &other));
    pass(15).await;
    assert!(!same(&first, &issue(&rig, keyed(&rig, "a")).await.unwrap()));
    assert_eq!(rig.counts().await.active, 3);
    assert_eq!(rig.world().created, 3);
}

#[actix_rt::test]
async fn a_key_is_its_tokens_own_and_for_one_request() {
    let rig = Rig::new().await;
    let first = issue(&rig, keyed(&rig, "a")).await.unwrap();
    let other = Issue { key: Some("a".to_owned()), ..rig.ask("other") };
    assert_eq!(issue(&rig, other).await.unwrap_err(), LeaseError::OtherRequest);
    let stranger = TokenId::from_fingerprint([8; 32]);
    rig.write_token(stranger).await;
    let mut ask = keyed(&rig, "a");
    ask.caller.token = stranger;
    assert!(!same(&first, &issue(&rig, ask).await.unwrap()));
    // A lease that was ended is not handed out again, and a failure is not kept.
    let revoke = Revoke { lease: first.lease.id.clone(), sync: true };
    rig.manager.send(revoke).await.unwrap().unwrap();
    assert!(!same(&first, &issue(&rig, keyed(&rig, "a")).await.unwrap()));
    rig.world().making.push_back(Making::Refused);
    assert!(issue(&rig, keyed(&rig, "c")).await.is_err());
    assert!(issue(&rig, keyed(&rig, "c")).await.is_ok());
}

/// An answer that did not arrive may be asked for again by its key; if nobody does, its lease ends.
#[actix_rt::test]
async fn a_lost_answer_is_given_again_by_its_key_or_its_lease_ends() {
    let rig = Rig::new().await;
    rig.world().ttl = Some(600);
    let plain = rig.issue().await.unwrap();
    let fetched = issue(&rig, keyed(&rig, "fetched")).await.unwrap();
    let lost = issue(&rig, keyed(&rig, "lost")).await.unwrap();
    for issued in [&plain, &fetched, &lost] {
        rig.manager.send(Lost { lease: issued.lease.id.clone() }).await.unwrap().unwrap();
    }
    pass(2).await;
    assert_eq!(rig.counts().await.active, 2, "the one without a key has ended");
    assert!(same(&fetched, &issue(&rig, keyed(&rig, "fetched")).await.unwrap()));
    pass(305).await;
    assert!(!rig.world().exists.contains(&lost.lease.id));
    assert!(rig.world().exists.contains(&fetched.lease.id));
}

#[actix_rt::test]
async fn within_its_roles_window_a_token_gets_the_same_lease_while_half_of_it_is_left() {
    let rig = Rig::new().await;
    rig.world().rules = window(100);
    rig.world().ttl = Some(60);
    let first = rig.issue().await.unwrap();
    pass(20).await;
    let again = rig.issue().await.unwrap();
    assert!(same(&first, &again) && again.again);
    // Somebody has it: one lost answer ends nothing, and neither token shares with the other.
    rig.manager.send(Lost { lease: again.lease.id.clone() }).await.unwrap().unwrap();
    let stranger = TokenId::from_fingerprint([8; 32]);
    rig.write_token(stranger).await;
    let mut ask = rig.ask("app");
    ask.caller.token = stranger;
    assert!(!same(&first, &issue(&rig, ask).await.unwrap()));
    pass(11).await;
    assert!(rig.world().exists.contains(&first.lease.id));
    let second = rig.issue().await.unwrap();
    assert!(!same(&first, &second), "less than half is left");
    rig.world().rules = LeaseRules::default();
    assert!(!same(&second, &rig.issue().await.unwrap()), "the role no longer says so");
}

#[actix_rt::test]
async fn a_role_and_a_token_have_no_more_leases_than_they_may() {
    let rig = Rig::new().await;
    rig.world().create_takes = Duration::from_secs(1);
    rig.world().rules = LeaseRules { max_leases: 3, ..LeaseRules::default() };
    let asks: Vec<_> = (0..9).map(|_| actix_rt::spawn(rig.manager.send(rig.ask("app")))).collect();
    let mut refused = 0;
    for ask in asks {
        match ask.await.unwrap().unwrap() {
            Ok(_) => {}
            Err(LeaseError::Quota(text)) => {
                assert!(text.contains("max_leases") && text.contains("\"app\""), "{text}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((refused, rig.counts().await.active), (6, 3));
    rig.world().rules = LeaseRules { max_leases_per_token: 4, ..LeaseRules::default() };
    assert!(rig.manager.send(rig.ask("other")).await.unwrap().is_ok());
    let full = rig.manager.send(rig.ask("other")).await.unwrap();
    assert!(matches!(full, Err(LeaseError::Quota(_))));
    // What a restart finds counts too; what has ended does not.
    let next = rig.crash();
    rig.close().await;
    let full = next.manager.send(next.ask("other")).await.unwrap();
    assert!(matches!(full, Err(LeaseError::Quota(_))));
    pass(70).await;
    assert!(next.issue().await.is_ok());
}

#[actix_rt::test]
async fn a_lease_of_the_servers_own_needs_no_token_and_ends_by_itself() {
    let rig = Rig::new().await;
    let mut stranger = rig.ask("app");
    stranger.caller.token = TokenId::from_fingerprint([9; 32]);
    let refused = issue(&rig, stranger).await.unwrap_err();
    assert_eq!(refused, LeaseError::TokenEnded, "its token has no record");
    let caller = Caller::server("configured", rig.caller().issued_at).unwrap();
    let issued = issue(&rig, Issue { caller, ..rig.ask("app") }).await.unwrap();
    let token = TokenId::SERVER;
    assert_eq!(rig.manager.send(RevokeToken { token }).await.unwrap(), Ok(0));
    assert!(rig.manager.send(Lookup { lease: issued.lease.id }).await.unwrap().is_ok());
    pass(61).await;
    rig.assert_all_ended("the server's").await;
}

#[actix_rt::test]
async fn an_orphan_lease_outlives_its_token() {
    let rig = Rig::new().await;
    rig.world().rules = LeaseRules { orphan: true, ..LeaseRules::default() };
    let mut ask = rig.ask("app");
    ask.caller.expires_at = Some(rig.ask("app").caller.issued_at.after(Duration::from_secs(5)));
    let issued = issue(&rig, ask).await.unwrap();
    assert_eq!(issued.lease.issued_at.until(issued.lease.expires_at), Duration::from_mins(1));
    assert_eq!(issued.warnings, [""; 0]);
    let token = rig.token;
    assert_eq!(rig.manager.send(RevokeToken { token }).await.unwrap(), Ok(0));
    pass(30).await;
    assert!(rig.manager.send(Lookup { lease: issued.lease.id }).await.unwrap().is_ok());
    pass(31).await;
    rig.assert_all_ended("orphan").await;
}

#[actix_rt::test]
async fn an_answer_whose_password_was_changed_is_not_given_again() {
    let rig = Rig::new().await;
    let ask = || {
        let mut ask = rig.ask("app");
        ask.key = Some("one".to_owned());
        rig.manager.send(ask)
    };
    let first = ask().await.unwrap().unwrap();
    assert_eq!(ask().await.unwrap().unwrap().lease.id, first.lease.id);
    rig.world().changed = true;
    let other = ask().await.unwrap().unwrap();
    assert!(other.lease.id != first.lease.id && !other.again);
    rig.world().changed = false;
    assert_eq!(ask().await.unwrap().unwrap().lease.id, other.lease.id);
}
