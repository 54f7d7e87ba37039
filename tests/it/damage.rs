//! One record is damaged on the disk: a lease's is named, its login left alone, a policy's denies, and none waits for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mssm_domain::{StoredKey, StoredRecord};
use serde_json::json;

use crate::harness::{Database, Login, Options, Server, eventually};
use crate::reconcile::reconcile;
use crate::rollback::{Records, lay, records};

const SOON: Duration = Duration::from_secs(15);

/// How many names a stored key hides.
fn depth(key: &StoredKey) -> usize {
    let (mut bytes, mut names) = (key.as_bytes(), 0);
    while let Some((length, rest)) = bytes.split_first_chunk() {
        bytes = rest.get(usize::from(u16::from_be_bytes(*length))..).unwrap_or_default();
        names += 1;
    }
    names
}

/// The one record with so many names that a stopped server has written since it had other records.
fn added_since(server: &Server, before: &Records, names: usize) -> (StoredKey, StoredRecord) {
    let is_new = |key: &StoredKey| depth(key) == names && !before.contains_key(key);
    let mut new = records(server).into_iter().filter(|(key, _)| is_new(key));
    let (Some(added), None) = (new.next(), new.next()) else { panic!("one record") };
    added
}

/// Spoils the files in which a record's envelope lies, each told where in it.
fn damage(server: &Server, record: &StoredRecord, spoil: fn(&mut Vec<u8>, usize)) {
    let sealed = record.sealed.as_bytes();
    let folder = server.data().join("records");
    let files: Vec<PathBuf> = if folder.exists() {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    } else {
        vec![server.data().join("store.redb")]
    };
    let mut spoilt = 0;
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        while let Some(place) = bytes.windows(sealed.len()).position(|window| window == sealed) {
            spoil(&mut bytes, place);
            fs::write(&file, &bytes).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "the record is found on the disk");
}

fn is_named_and_its_login_left_alone(storage: &'static str, spoil: fn(&mut Vec<u8>, usize)) {
    let database = Database::shared();
    let mut server = Server::ready(Options { storage, ..Options::default() });
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    server.stop();
    let before = records(&server);
    server.again();
    server.unseal();
    let login = Login::mint(&root, "db/creds/app");
    server.stop();
    // `lease/db/creds/app/ID`
    let (key, record) = added_since(&server, &before, 5);
    damage(&server, &record, spoil);

    for _ in 0..2 {
        server.again();
        server.unseal();
        let named = eventually("it is named", SOON, || {
            let named = root.get("sys/leases/quarantine").expect(200);
            (named.number_at("/data/lease_count") == 1).then_some(named)
        });
        assert_eq!(named.data()["leases"], json!([login.lease]));
        let counted = root.get("sys/leases/count").expect(200);
        assert_eq!(counted.number_at("/data/quarantined"), 1);
        let metrics = root.get("sys/metrics").expect(200).text;
        assert!(metrics.lines().any(|line| line == "mssm_leases_unreadable 1"), "{metrics}");
        let health = root.get("sys/health").expect(200);
        assert_eq!(health.number_at("/quarantined_leases"), 1, "{}", health.text);
        let compared = reconcile(&root, false);
        assert!(!compared.text.contains(&login.user), "{}", compared.text);
        assert!(database.accepts(&login), "its end is not known, so it has not come");
        // Others come and go.
        let other = Login::mint(&root, "db/creds/app");
        root.put("sys/leases/revoke", json!({"lease_id": other.lease})).expect(204);
        eventually("it goes", SOON, || (!database.has_role(&other.user)).then_some(()));
        server.stop();
    }

    lay(&server, &key, Some(&record));
    server.again();
    server.unseal();
    let revoked = eventually("all are loaded", SOON, || {
        let shown = root.put("sys/leases/lookup", json!({"lease_id": login.lease}));
        (shown.status == 200).then_some(shown)
    });
    assert_eq!(revoked.text_at("/data/state"), "active");
    root.put("sys/leases/revoke", json!({"lease_id": login.lease})).expect(204);
    eventually("it goes", SOON, || (!database.has_role(&login.user)).then_some(()));
    assert_eq!(root.get("sys/leases/count").expect(200).number_at("/data/quarantined"), 0);
}

#[expect(clippy::ptr_arg, reason = "another spoils the length")]
fn flip(bytes: &mut Vec<u8>, place: usize) {
    bytes[place + 20] ^= 1;
}

#[test]
fn a_damaged_lease_in_the_embedded_store_is_named_and_its_login_left_alone() {
    is_named_and_its_login_left_alone("embedded", flip);
}

#[test]
fn a_damaged_lease_in_the_store_of_files_is_named_and_its_login_left_alone() {
    is_named_and_its_login_left_alone("file", flip);
}

#[test]
fn a_lease_whose_file_is_empty_is_named_and_its_login_left_alone() {
    is_named_and_its_login_left_alone("file", |bytes, _| bytes.clear());
}

/// It may have denied something, so nobody who has it is to get more without it.
#[test]
fn a_damaged_policy_denies_everything_in_either_store() {
    for storage in ["embedded", "file"] {
        let mut server = Server::ready(Options { storage, ..Options::default() });
        let root = server.root();
        root.post("secret/data/a", json!({"data": {"b": "c"}})).expect(200);
        let wide = json!({"policy": "path \"secret/*\" { capabilities = [\"read\"] }"});
        root.put("sys/policies/acl/wide", wide).expect(204);
        let guest = server.with_new_token(json!({"policies": ["wide", "narrow"]}));
        guest.get("secret/data/a").expect(200);
        server.stop();
        let before = records(&server);
        server.again();
        server.unseal();
        let narrow = json!({"policy": "path \"secret/data/a\" { capabilities = [\"deny\"] }"});
        root.put("sys/policies/acl/narrow", narrow).expect(204);
        server.stop();
        let (_, record) = added_since(&server, &before, 2);
        damage(&server, &record, flip);
        server.again();
        server.unseal();
        guest.get("secret/data/a").refused(403, "permission denied");
        root.get("secret/data/a").expect(200);
    }
}
