//! A store that was replaced by an older copy of itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mssm_domain::{StoredKey, StoredRecord};
use mssm_storage::{StorageBackend, StorageConfig, StorageKind};
use serde_json::json;

use crate::harness::{Options, Server, eventually};

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A token that was revoked after the copy was made would be valid again.
#[test]
fn an_older_copy_of_the_store_stays_sealed_until_that_is_accepted() {
    let mut server = Server::ready(Options::default());
    let revoked = server.with_new_token(json!({"policies": ["default"]}));
    server.stop();
    let backup = server.path("backup");
    copy_folder(&server.data(), &backup);

    server.again();
    server.unseal();
    revoked.get("auth/token/lookup-self").expect(200);
    revoked.post("auth/token/revoke-self", json!({})).expect(204);
    server.stop();
    copy_folder(&backup, &server.data());

    server.again();
    let refused = server.client().put("sys/unseal", json!({"key": server.shares[0]}));
    assert!(refused.status >= 500, "{}", refused.text);
    assert!(server.log().contains("older than the audit log"), "the operator is told");
    revoked.get("auth/token/lookup-self").refused(503, "sealed");
    server.stop();

    server.arguments = vec!["--accept-rollback"];
    server.again();
    server.unseal();
    revoked.get("auth/token/lookup-self").expect(200);
    assert!(server.audit_text().contains("store-rolled-back"), "it is written down");
    server.stop();

    server.arguments.clear();
    server.again();
    server.unseal();
    server.root().get("auth/token/lookup-self").expect(200);
}

/// The server's store, opened by hand while the server is stopped.
pub(crate) fn by_hand<T>(server: &Server, work: impl FnOnce(&dyn StorageBackend) -> T) -> T {
    let files = server.data().join("records").exists();
    let kind = if files { StorageKind::File } else { StorageKind::Embedded };
    let config = StorageConfig { kind, folder: server.data() };
    let (port, handle) = mssm_storage::open(&config, |_| {}, |_| {}).unwrap();
    let done = work(&*handle.backend());
    drop(port);
    actix_rt::System::new().block_on(handle.shutdown());
    done
}

pub(crate) type Records = BTreeMap<StoredKey, StoredRecord>;

pub(crate) fn records(server: &Server) -> Records {
    by_hand(server, |store| {
        let all = store.scan_records(&[], None, usize::MAX).unwrap();
        all.into_iter().filter(|(key, _)| !key.as_bytes().starts_with(&[0xff, 0xff])).collect()
    })
}

/// Lays a record down as if the server had written it; `None`: removes it.
pub(crate) fn lay(server: &Server, key: &StoredKey, record: Option<&StoredRecord>) {
    by_hand(server, |store| match record {
        Some(record) => store.put(key, record).unwrap(),
        None => store.delete(key).unwrap(),
    });
}

/// Starts and unseals a server whose store was changed: it opens not at all, or closes by itself.
pub(crate) fn is_noticed(server: &mut Server) {
    server.again();
    let opened = server.client().put("sys/unseal", json!({"key": server.shares[0]}));
    if opened.status == 200 {
        eventually("it seals by itself", Duration::from_secs(20), || {
            let status = server.client().get("sys/seal-status");
            (status.json["sealed"] == json!(true)).then_some(())
        });
        server.client().put("sys/unseal", json!({"key": server.shares[0]})).refused(500, "");
    }
    server.stop();
    let log = server.log();
    assert!(
        log.contains("not what was written last") || log.contains("older than the audit log"),
        "the operator is told: {log}"
    );
}

/// A policy that was narrowed, a token that was revoked, a secret that was changed: an older copy
/// of that record alone lets somebody do what he may not do any more.
fn one_record_is_noticed(storage: &'static str) {
    let mut server = Server::ready(Options { storage, ..Options::default() });
    let policy =
        |rule: &str| json!({"policy": format!("path \"secret/*\" {{ capabilities = [{rule}] }}")});
    let value = |text: &str| json!({"data": {"value": text}});
    server.root().put("sys/policies/acl/narrow", policy("\"read\", \"update\"")).expect(204);
    let revoked = server.with_new_token(json!({"policies": ["default"]}));
    for name in ["one", "other"] {
        server.root().post(&format!("secret/data/{name}"), value("old")).expect(200);
    }
    server.stop();
    let before = records(&server);

    server.again();
    server.unseal();
    server.root().put("sys/policies/acl/narrow", policy("\"read\"")).expect(204);
    revoked.post("auth/token/revoke-self", json!({})).expect(204);
    for name in ["one", "other"] {
        server.root().post(&format!("secret/data/{name}"), value("new")).expect(200);
    }
    server.stop();
    let after = records(&server);

    let mut changed = Vec::new();
    for (key, old) in before.iter().filter(|(key, old)| after.get(*key) != Some(*old)) {
        changed.push(key.clone());
        lay(&server, key, Some(old));
        is_noticed(&mut server);
        lay(&server, key, after.get(key));
    }
    assert!(changed.len() >= 5, "policy, token, both secrets and the log's head at least");
    let log = server.log();
    for name in ["policy/", "token/", "/data/one is not", "/data/other is not"] {
        assert!(log.contains(name), "{name} is named: {log}");
    }
    let there: Vec<&StoredKey> = changed.iter().filter(|key| after.contains_key(*key)).collect();
    lay(&server, there[0], None);
    is_noticed(&mut server);
    lay(&server, there[0], after.get(there[1]));
    lay(&server, there[1], after.get(there[0]));
    is_noticed(&mut server);
    let config = server.path("mssm.toml").display().to_string();
    let said = server.cli(&["storage", "check", "--config", &config]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("not what was written last"), "{said}");

    // The only way on, and it is written down.
    lay(&server, there[0], after.get(there[0]));
    lay(&server, there[1], None);
    server.arguments = vec!["--accept-rollback"];
    server.again();
    server.unseal();
    server.root().get("auth/token/lookup-self").expect(200);
    server.stop();
    server.arguments.clear();
    server.again();
    server.unseal();
    server.root().get("auth/token/lookup-self").expect(200);
    assert!(server.audit_text().contains("store-tampering-accepted"));
}

#[test]
fn one_record_of_the_embedded_store_that_is_put_back_seals() {
    one_record_is_noticed("embedded");
}

#[test]
fn one_record_of_the_store_in_files_that_is_put_back_seals() {
    one_record_is_noticed("file");
}
