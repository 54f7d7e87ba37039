//! A store of the form from before the index over records, under today's server.

use std::time::Duration;

use mssm_crypto::envelope::{EnvelopeKey, Place};
use mssm_crypto::keyring::Keyring;
use mssm_crypto::shares::{Share, combine};
use mssm_domain::{SecretText, StoredKey, StoredRecord, Term, Timestamp};
use mssm_storage::StorageBackend;
use mssm_testkit::SeededRandom;
use serde_json::json;

use crate::harness::{Options, Server, eventually};
use crate::rollback::{by_hand, copy_folder, is_noticed, lay, records};

/// The first byte of a keyring: what it says about the index.
const INDEXED: u8 = 2;
const UNINDEXED: u8 = 1;

fn keyring_key() -> StoredKey {
    StoredKey::new(b"\0\0keyring".to_vec())
}

fn is_index(key: &StoredKey) -> bool {
    key.as_bytes().starts_with(&[0xff, 0xff])
}

/// Works on the keyring's bytes, which are written back if their form was changed.
fn with_keyring(server: &Server, store: &dyn StorageBackend, form: u8) -> u8 {
    let key = keyring_key();
    let shares = server.shares.iter().map(|text| Share::parse_text(&SecretText::new(text.clone())));
    let shares: Vec<Share> = shares.collect::<Result<_, _>>().unwrap();
    // EXPOSE: the test founded this store.
    let root = EnvelopeKey::new(combine(&shares).unwrap().expose());
    let record = store.read(&key).unwrap().unwrap();
    let place = |version| Place { key: &key, version };
    // EXPOSE: read to see and to change the form.
    let mut bytes = root.open(place(record.version), &record.sealed).unwrap().expose().to_vec();
    let before = bytes[0];
    bytes[0] = form;
    assert!(Keyring::decode(&bytes).is_ok());
    let version = record.version + 1;
    let (now, random) = (Timestamp::from_unix_ms(1), SeededRandom::new(7));
    let sealed = root.seal(Term::new(0), place(version), &bytes, now, &random).unwrap();
    if form != before {
        store.put(&key, &StoredRecord { version, sealed }).unwrap();
    }
    before
}

/// A server that was stopped, whose store is as one of before the index: none, and a keyring of form 1.
fn of_before(storage: &'static str) -> Server {
    let mut server = Server::ready(Options { storage, ..Options::default() });
    let policy = json!({"policy": "path \"secret/*\" { capabilities = [\"read\"] }"});
    server.root().put("sys/policies/acl/reader", policy).expect(204);
    for number in 0..20 {
        let body = json!({"data": {"number": number}});
        server.root().post(&format!("secret/data/{number}"), body).expect(200);
    }
    server.stop();
    by_hand(&server, |store| {
        for key in store.scan(&[], None, usize::MAX).unwrap() {
            if is_index(&key) {
                store.delete(&key).unwrap();
            }
        }
        assert_eq!(with_keyring(&server, store, UNINDEXED), INDEXED);
    });
    server
}

/// Everything is there, and from now on there is an index that the keyring vouches for.
fn has_come_over(server: &mut Server) {
    server.unseal();
    for number in 0..20 {
        let read = server.root().get(&format!("secret/data/{number}")).expect(200);
        assert_eq!(read.data()["data"]["number"], json!(number));
    }
    server.root().get("sys/policies/acl/reader").expect(200);
    server.root().post("secret/data/new", json!({"data": {"v": 1}})).expect(200);
    server.stop();
    by_hand(server, |store| {
        let keys = store.scan(&[0xff, 0xff], None, usize::MAX).unwrap();
        assert!(keys.iter().any(|key| key.as_bytes() == b"\xff\xffr"), "it has a root");
        assert_eq!(with_keyring(server, store, INDEXED), INDEXED);
    });
}

fn comes_over(storage: &'static str) {
    let mut server = of_before(storage);
    let old = records(&server);
    server.again();
    has_come_over(&mut server);
    // What is put back from now on is noticed: a record, the keyring too, or the whole index.
    let now = records(&server);
    let changed: Vec<_> = old.iter().filter(|(key, old)| now[*key] != **old).collect();
    assert!(changed.iter().any(|(key, _)| **key == keyring_key()), "the keyring of form 1");
    for (key, old) in changed {
        lay(&server, key, Some(old));
        is_noticed(&mut server);
        lay(&server, key, now.get(key));
    }
    let index = by_hand(&server, |store| {
        let index = store.scan_records(&[0xff, 0xff], None, usize::MAX).unwrap();
        for (key, _) in &index {
            store.delete(key).unwrap();
        }
        index
    });
    is_noticed(&mut server);
    by_hand(&server, |store| {
        for (key, record) in &index {
            store.put(key, record).unwrap();
        }
    });
    server.again();
    server.unseal();
    server.root().get("secret/data/new").expect(200);
}

#[test]
fn an_embedded_store_of_before_the_index_gets_one_at_its_unseal() {
    comes_over("embedded");
}

#[test]
fn a_store_in_files_of_before_the_index_gets_one_at_its_unseal() {
    comes_over("file");
}

/// However far the first unseal comes, the next one takes it from there, and nothing is called tampered.
#[test]
fn a_kill_at_any_sync_of_the_first_unseal_leaves_a_store_that_comes_over_at_the_next() {
    let mut server = of_before("embedded");
    let (before, audit) = (server.path("before"), std::fs::read(server.audit()).unwrap());
    copy_folder(&server.data(), &before);
    let mut killed = 0;
    for sync in 1..40 {
        copy_folder(&before, &server.data());
        std::fs::write(server.audit(), &audit).unwrap();
        let answers = server.again_until(&format!("store.after_sync:{sync}"));
        if answers {
            let key = json!({"key": server.shares[0]});
            let unsealed =
                server.client().try_send("PUT", "sys/unseal", &[], Some(&key.to_string()));
            if unsealed.is_ok_and(|answer| answer.status == 200) {
                server.kill9();
                break;
            }
            eventually("it was killed", Duration::from_secs(10), || server.ended());
        }
        killed += 1;
        server.again();
        has_come_over(&mut server);
        assert!(!server.log().contains("not what was written last"), "sync {sync}");
    }
    assert!((4..39).contains(&killed), "{killed} syncs of the first unseal");
}
