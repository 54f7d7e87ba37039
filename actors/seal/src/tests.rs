//! What the keeper does, seen from outside.

mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mssm_crypto::keyring::Keyring;
use mssm_domain::{Random, RecordPath, SecretBytes, SecretText, Term};
use mssm_messages::Changes;
use mssm_messages::keys::{HideNames, KeyError};
use mssm_messages::seal::{
    AutoUnseal, ReadKeyStatus, ResetUnseal, SealError, StageError, Unseal, Used,
};
use mssm_messages::storage::StorageError;
use mssm_testkit::{MemoryStore, TestClock};

use self::server::Server;
use crate::record::{config_key, keyring_key};
use crate::{KeyReplica, RootKeySource};

#[actix_rt::test]
async fn a_store_is_founded_sealed_and_opens_with_enough_shares() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    let before = server.status().await.unwrap();
    assert!(!before.initialized && before.sealed && before.threshold == 0);
    let founded = server.init(5, 3).await.unwrap();
    assert_eq!((founded.shares.len(), founded.root_token.expose()), (5, "root"));
    assert_eq!((store.commits(), store.len()), (1, 4));
    assert_eq!(server.take_log(), ["access found", "lease found"]);
    assert!(server.has_no_keys().await);
    assert_eq!(server.init(5, 3).await.err(), Some(SealError::AlreadyInitialized));

    server.unseal(&founded.shares[4]).await.unwrap();
    let repeated = server.unseal(&founded.shares[4]).await.unwrap();
    assert_eq!(repeated.entered, [5]);
    let two = server.unseal(&founded.shares[1]).await.unwrap();
    assert!(two.sealed && two.nonce == repeated.nonce && !two.nonce.is_empty());
    assert_eq!((two.entered, two.threshold, two.shares), (vec![2, 5], 3, 5));
    assert!(server.has_no_keys().await);
    let open = server.unseal(&founded.shares[0]).await.unwrap();
    assert!(!open.sealed && open.entered.is_empty() && open.cluster.is_some());
    assert_eq!(server.take_log(), ["audit key", "access opened", "lease opened"]);
    assert!(server.reads("seed/access").await && server.reads("seed/lease").await);
}

#[actix_rt::test]
async fn numbers_that_do_not_fit_found_nothing() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    for (shares, threshold) in [(0, 0), (1, 0), (3, 4), (2, 1)] {
        let refused = server.init(shares, threshold).await.err();
        assert!(matches!(refused, Some(SealError::Configuration(_))), "{shares} {threshold}");
    }
    assert!(store.is_empty());
    assert_eq!(server.init(1, 1).await.unwrap().shares.len(), 1);
}

#[actix_rt::test]
async fn a_failed_founding_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    *server.fails.borrow_mut() = Some("found");
    assert!(matches!(server.init(1, 1).await, Err(SealError::Stage(_))));
    *server.fails.borrow_mut() = None;
    store.fail_next(StorageError::Busy);
    assert_eq!(server.init(1, 1).await.err(), Some(SealError::Storage(StorageError::Busy)));
    assert!(store.is_empty() && server.has_no_keys().await);
    assert!(server.init(1, 1).await.is_ok());
}

#[actix_rt::test]
async fn bad_shares_are_refused_and_good_ones_kept_until_a_reset() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    let early = server.keeper.send(Unseal(SecretText::new("00".to_owned()))).await.unwrap();
    assert_eq!(early, Err(SealError::NotInitialized));
    let founded = server.init(3, 2).await.unwrap();
    let foreign = Server::shamir(&MemoryStore::new()).await;
    // The same seed gives the same keys: draw some first.
    foreign.random.fill(&mut [0; 8]);
    let foreign = foreign.init(3, 2).await.unwrap();
    server.unseal(&founded.shares[0]).await.unwrap();
    let mut damaged = founded.shares[1].expose().to_vec();
    damaged[10] ^= 1;
    for bad in [&foreign.shares[1], &SecretBytes::new(damaged), &SecretBytes::new(vec![1])] {
        assert!(matches!(server.unseal(bad).await, Err(SealError::Share(_))));
        assert_eq!(server.status().await.unwrap().entered, [1]);
    }
    let reset = server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    assert!(reset.entered.is_empty() && reset.nonce.is_empty());
    server.unseal_with(&founded.shares[1..]).await;
}

#[actix_rt::test]
async fn sealing_closes_in_reverse_and_leaves_no_key() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    let founded = server.init(1, 1).await.unwrap();
    server.unseal_with(&founded.shares).await;
    server.write("x").await;
    server.take_log();
    *server.fails.borrow_mut() = Some("closing");
    assert_eq!(server.seal().await, Ok(()));
    assert_eq!(server.take_log(), ["lease closing", "access closing", "audit no key"]);
    assert!(server.has_no_keys().await && server.status().await.unwrap().sealed);
    assert_eq!(server.rotate().await, Err(SealError::Sealed));
    assert_eq!(server.keeper.send(ReadKeyStatus).await.unwrap(), Err(SealError::Sealed));
    assert_eq!(server.seal().await, Ok(()));
    server.unseal_with(&founded.shares).await;
    assert!(server.reads("test/x").await);
    // What was sealed is counted, across sealing: two seeds do not count, one record does.
    let status = server.keeper.send(ReadKeyStatus).await.unwrap().unwrap();
    assert_eq!(status.encryptions, 1);
}

#[actix_rt::test]
async fn an_owner_that_does_not_open_seals_again() {
    let store = MemoryStore::new();
    let server = Server::shamir(&store).await;
    let founded = server.init(1, 1).await.unwrap();
    for stage in ["opened", "key"] {
        *server.fails.borrow_mut() = Some(stage);
        let refused = server.unseal(&founded.shares[0]).await;
        assert_eq!(refused, Err(SealError::Stage(StageError(format!("{stage} failed")))));
        assert!(server.has_no_keys().await && server.status().await.unwrap().sealed);
        assert_eq!(server.take_log().last().unwrap(), "audit no key");
    }
    *server.fails.borrow_mut() = None;
    server.unseal_with(&founded.shares).await;
}

#[actix_rt::test]
async fn a_static_key_opens_by_itself_and_after_sealing_when_asked() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    let idle = server.keeper.send(AutoUnseal).await.unwrap().unwrap();
    assert!(!idle.initialized && idle.sealed);
    assert!(matches!(server.init(5, 3).await, Err(SealError::Configuration(_))));
    let founded = server.init(0, 0).await.unwrap();
    assert!(founded.shares.is_empty() && !server.status().await.unwrap().sealed);
    server.seal().await.unwrap();
    assert!(server.status().await.unwrap().sealed && server.has_no_keys().await);
    let open = server.keeper.send(AutoUnseal).await.unwrap().unwrap();
    assert!(!open.sealed);
    server.seal().await.unwrap();
    let anything = server.keeper.send(Unseal(SecretText::new(String::new()))).await.unwrap();
    assert!(!anything.unwrap().sealed);

    let other = Server::with_key(&store.copy(), 8).await;
    let refused = other.keeper.send(AutoUnseal).await.unwrap();
    assert!(matches!(refused, Err(SealError::StaticKey(_))));
    let unread = RootKeySource::Static(Err("no such file".to_owned()));
    let unread = Server::start(&store.copy(), unread).await;
    let refused = unread.keeper.send(AutoUnseal).await.unwrap();
    assert_eq!(refused, Err(SealError::StaticKey("no such file".to_owned())));
    let unread = RootKeySource::Static(Err("no such file".to_owned()));
    let new = Server::start(&MemoryStore::new(), unread).await;
    let refused = new.keeper.send(AutoUnseal).await.unwrap();
    assert_eq!(refused, Err(SealError::StaticKey("no such file".to_owned())));
    let shamir = Server::shamir(&store.copy()).await;
    let refused = shamir.keeper.send(Unseal(SecretText::new("00".to_owned()))).await.unwrap();
    assert!(matches!(refused, Err(SealError::Store(text)) if text.contains("static")));
}

#[actix_rt::test]
async fn a_damaged_or_missing_record_is_named() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    server.seal().await.unwrap();
    for (key, name) in [(config_key(), "seal-config"), (keyring_key(), "keyring")] {
        let record = store.stored(&key).unwrap();
        for at in 0..record.sealed.as_bytes().len() {
            let mut bytes = record.sealed.as_bytes().to_vec();
            bytes[at] ^= 0x80;
            let sealed = mssm_domain::SealedBytes::new(bytes);
            let damaged = mssm_domain::StoredRecord { version: record.version, sealed };
            store.tamper(&key, Some(damaged));
            let refused = server.keeper.send(AutoUnseal).await.unwrap();
            assert!(
                matches!(&refused, Err(SealError::Store(text)) if text.contains(name)),
                "{name} byte {at}: {refused:?}"
            );
            assert!(server.has_no_keys().await);
        }
        store.tamper(&key, None);
        let refused = server.keeper.send(AutoUnseal).await.unwrap();
        let missing = format!("record {name} is missing");
        assert!(matches!(&refused, Err(SealError::Store(text)) if text.contains(&missing)));
        store.tamper(&key, Some(record));
    }
    assert!(!server.keeper.send(AutoUnseal).await.unwrap().unwrap().sealed);
}

#[actix_rt::test]
async fn rotation_adds_a_term_that_lasts_and_opens_what_was_before() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    server.write("old").await;
    server.clock.advance(std::time::Duration::from_mins(1));
    assert_eq!(server.rotate().await, Ok(Term::new(2)));
    server.write("new").await;
    let status = server.keeper.send(ReadKeyStatus).await.unwrap().unwrap();
    assert_eq!((status.term, status.encryptions), (Term::new(2), 0));
    assert!(status.installed_at > TestClock::START);
    assert!(server.reads("test/old").await && server.reads("test/new").await);

    store.fail_next(StorageError::Busy);
    assert_eq!(server.rotate().await, Err(SealError::Storage(StorageError::Busy)));
    // Its outcome is unknown, and it was written: the next one goes on from what is there.
    store.doubt_next();
    assert!(server.rotate().await.is_err());
    assert_eq!(server.rotate().await, Ok(Term::new(4)));

    let again = Server::with_key(&store, 9).await;
    assert!(!again.keeper.send(AutoUnseal).await.unwrap().unwrap().sealed);
    assert!(again.reads("test/old").await && again.reads("test/new").await);
}

#[actix_rt::test]
async fn a_new_term_comes_by_itself_before_the_bound() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    let limit = Keyring::SEALS_MAX - Keyring::SEALS_RESERVE;
    let used = |encryptions| Used { term: Term::FIRST, encryptions };
    server.keeper.send(used(limit - 1)).await.unwrap();
    // A change waits for its turn behind the one that the report has begun.
    server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    let status = server.keeper.send(ReadKeyStatus).await.unwrap().unwrap();
    assert_eq!((status.term, status.encryptions), (Term::FIRST, limit - 1));
    server.keeper.send(used(1 << 20)).await.unwrap();
    server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    let status = server.keeper.send(ReadKeyStatus).await.unwrap().unwrap();
    assert_eq!((status.term, status.encryptions), (Term::new(2), 0));
}

#[actix_rt::test]
async fn a_replica_that_comes_late_gets_keys_and_one_that_is_gone_counts_as_told() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    let (keeper, clock, random) =
        (server.keeper.clone(), server.clock.clone(), Arc::clone(&server.random));
    let arbiter = actix_rt::Arbiter::new();
    let (reply, port) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = reply.send(KeyReplica::start(&keeper, Arc::new(clock), random));
    });
    let port = port.await.unwrap();
    server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    let hide = || HideNames(vec![RecordPath::new(&["a"])]);
    assert!(port.hide(hide()).await.is_ok());
    arbiter.stop();
    arbiter.join().unwrap();
    assert_eq!(server.rotate().await, Ok(Term::new(2)));
    assert_eq!(server.seal().await, Ok(()));
    assert_eq!(port.hide(hide()).await, Err(KeyError::Sealed));
}

#[actix_rt::test]
async fn a_stuck_replica_does_not_hold_up_sealing_and_is_reported() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    let (keeper, clock, random) =
        (server.keeper.clone(), server.clock.clone(), Arc::clone(&server.random));
    let arbiter = actix_rt::Arbiter::new();
    let (reply, port) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = reply.send(KeyReplica::start(&keeper, Arc::new(clock), random));
    });
    let port = port.await.unwrap();
    server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    let (wake, stuck) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = begin.send(());
        let _ = stuck.recv();
    });
    begun.await.unwrap();
    assert!(matches!(server.seal().await, Err(SealError::Stage(_))));
    assert!(server.status().await.unwrap().sealed && server.has_no_keys().await);
    // When it wakes, the first thing it finds is the order to wipe its keys.
    drop(wake);
    let hide = || HideNames(vec![RecordPath::new(&["a"])]);
    assert_eq!(port.hide(hide()).await, Err(KeyError::Sealed));
    // It came back as a new one.
    server.keeper.send(AutoUnseal).await.unwrap().unwrap();
    assert!(port.hide(hide()).await.is_ok());
    arbiter.stop();
}

#[actix_rt::test]
async fn a_panic_in_a_change_seals_and_the_keeper_lives() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    server.random.broken.store(true, Ordering::SeqCst);
    assert_eq!(server.rotate().await, Err(SealError::Internal));
    assert!(server.status().await.unwrap().sealed && server.has_no_keys().await);
    server.random.broken.store(false, Ordering::SeqCst);
    assert!(!server.keeper.send(AutoUnseal).await.unwrap().unwrap().sealed);
    assert!(server.reads("seed/access").await);
}

#[actix_rt::test]
async fn a_panic_in_a_replica_costs_one_answer() {
    let store = MemoryStore::new();
    let server = Server::with_key(&store, 9).await;
    server.init(0, 0).await.unwrap();
    server.random.broken.store(true, Ordering::SeqCst);
    let bytes = SecretBytes::new(b"x".to_vec());
    let changes = Changes::new().put(RecordPath::new(&["test/x"]), 0, bytes);
    assert!(server.barriers[0].commit(changes).await.is_err());
    server.random.broken.store(false, Ordering::SeqCst);
    // It asked the keeper for new keys; a change waits for its turn behind that.
    server.keeper.send(ResetUnseal).await.unwrap().unwrap();
    server.write("x").await;
    assert!(server.reads("test/x").await);
}
