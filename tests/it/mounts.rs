//! Mounts: anywhere, several times, and gone with all they held.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Database, Login, Server, eventually};

#[test]
fn a_new_server_has_its_usual_mounts() {
    let server = Server::open();
    let answer = server.root().get("sys/mounts").expect(200);
    for (path, kind) in [
        ("secret/", "kv"),
        ("db/", "database"),
        ("cubbyhole/", "cubbyhole"),
        ("identity/", "identity"),
        ("jwt/", "jwt-signer"),
        ("sys/", "system"),
    ] {
        for level in [&answer.json, answer.data()] {
            assert_eq!(level[path]["type"], json!(kind), "{path}");
            assert!(level[path]["accessor"].is_string() && level[path]["uuid"].is_string());
        }
    }
    assert_eq!(answer.json["secret/"]["options"]["version"], json!("2"));
    let auth = server.root().get("sys/auth").expect(200);
    assert_eq!(auth.data()["token/"]["type"], json!("token"));
}

/// Catalogue: CVE-2020-7220.
#[test]
fn a_database_mount_beside_the_usual_one_is_a_world_of_its_own() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/database", json!({"type": "database"})).expect(204);
    database.configure(&root, "database", "1h", "2h");
    let login = Login::mint(&root, "database/creds/app");
    assert!(login.lease.starts_with("database/creds/app/"), "{}", login.lease);
    assert!(database.accepts(&login));
    root.get("db/creds/app").refused(400, "unknown role");
    root.delete("sys/mounts/database").expect(204);
    eventually("its leases end", Duration::from_secs(10), || {
        (!database.has_role(&login.user)).then_some(())
    });
    let look = json!({"lease_id": login.lease});
    eventually("the lease is gone", Duration::from_secs(10), || {
        (root.put("sys/leases/lookup", look.clone()).status == 400).then_some(())
    });
    root.get("database/creds/app").refused(404, "no handler for route");
    root.post("sys/mounts/database", json!({"type": "database"})).expect(204);
    root.get("database/roles/app").expect(404);
}

#[test]
fn kv_is_mounted_anywhere_and_what_is_unmounted_is_gone() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/team/a/kv", json!({"type": "kv-v2", "description": "ours"})).expect(204);
    root.post("sys/mounts/plain/", json!({"type": "kv", "options": {"version": "1"}})).expect(204);
    root.post("team/a/kv/data/x", json!({"data": {"v": 1}})).expect(200);
    root.post("plain/x", json!({"v": 2})).expect(204);
    let shown = root.get("sys/mounts/team/a/kv").expect(200);
    assert_eq!(shown.data()["description"], json!("ours"));
    for (path, words) in [
        ("plain", "path is already in use at plain/"),
        ("team", "path is already in use at team/"),
        ("team/a/kv/b", "path is already in use at team/a/kv/"),
        ("sys/x", "sys"),
    ] {
        root.post(&format!("sys/mounts/{path}"), json!({"type": "kv"})).refused(400, words);
    }
    root.post("sys/mounts/odd", json!({"type": "nope"}))
        .refused(400, "plugin not found in the catalog");
    root.post("sys/mounts/odd", json!({})).refused(400, "type");
    root.delete("sys/mounts/plain").expect(204);
    root.delete("sys/mounts/plain").expect(204);
    root.get("plain/x").refused(404, "no handler for route");
    root.post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    root.get("plain/x").expect(404);
    root.delete("sys/mounts/sys").refused(400, "sys");
    root.get("team/a/kv/data/x").expect(200);
}

#[test]
fn tuning_a_mount_changes_its_times() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "", "");
    let tune = json!({"default_lease_ttl": "10m", "max_lease_ttl": "20m"});
    root.post("sys/mounts/db/tune", tune).expect(204);
    let shown = root.get("sys/mounts/db/tune").expect(200);
    assert_eq!(shown.number_at("/data/default_lease_ttl"), 600);
    let minted = root.get("db/creds/app").expect(200);
    assert_eq!(minted.number_at("/lease_duration"), 600);
    let lease = minted.text_at("/lease_id");
    let renewed = root.put("sys/leases/renew", json!({"lease_id": lease, "increment": "1h"}));
    assert!(renewed.expect(200).number_at("/lease_duration") <= 1200);
    root.put("sys/leases/revoke", json!({"lease_id": lease, "sync": true})).expect(204);
    root.post("sys/mounts/secret/tune", json!({"description": "new"})).expect(204);
    assert_eq!(root.get("sys/mounts/secret/tune").expect(200).data()["description"], json!("new"));
    root.get("sys/mounts/nope/tune").expect(400);
}

#[test]
fn what_a_client_may_see_is_shown_to_it() {
    let server = Server::open();
    let nobody = server.client().get("sys/internal/ui/mounts").expect(200);
    assert_eq!(nobody.data()["secret"], json!({}));
    let reader = server.limited("reader", "path \"secret/data/a\" { capabilities = [\"read\"] }");
    let seen = reader.get("sys/internal/ui/mounts").expect(200);
    let names: Vec<&String> =
        seen.data()["secret"].as_object().into_iter().flat_map(|map| map.keys()).collect();
    assert_eq!(names, ["secret/"], "{}", seen.text);
    let one = reader.get("sys/internal/ui/mounts/secret/a").expect(200);
    assert_eq!(one.text_at("/data/path"), "secret/");
    assert_eq!(one.data()["options"]["version"], json!("2"));
    reader
        .get("sys/internal/ui/mounts/db/x")
        .refused(403, "preflight capability check returned 403");
    server.root().get("sys/internal/ui/mounts/nope/x").refused(403, "preflight");
    assert_ne!(server.root().get("sys/leader").expect(200).json, Value::Null);
}
