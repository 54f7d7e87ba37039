//! Security catalogue: one thing has one name, and no other spelling leads around a rule.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Client, Database, Login, Server};

/// Every spelling of `root` that some program once took for it.
const ROOTS: [&str; 16] = [
    "root",
    "Root",
    "ROOT",
    " root",
    "root ",
    "\troot",
    "root\n",
    "root/",
    "/root",
    "root\u{0}",
    "root\u{200b}",
    "\u{ff52}\u{ff4f}\u{ff4f}\u{ff54}",
    "r\u{43e}\u{43e}t",
    "root,default",
    "./root",
    "default root",
];

/// True if a token may do what only root may.
fn is_root(client: &Client) -> bool {
    client.get("sys/mounts").status == 200
}

/// Catalogue: CVE-2024-9180, CVE-2025-5999, CVE-2025-54996, CVE-2025-64761, CVE-2026-55775.
#[test]
fn no_spelling_of_root_is_written_or_handed_out() {
    let server = Server::open();
    let root = server.root();
    let everything = json!({"policy": "path \"*\" { capabilities = [\"read\"] }"});
    let maker = server.limited(
        "maker",
        "path \"auth/token/*\" { capabilities = [\"create\", \"update\", \"sudo\"] }",
    );
    for name in ROOTS {
        let encoded =
            percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        for place in ["sys/policies/acl", "sys/policy"] {
            // Whoever may write policies at all cannot write this one under any name.
            let written = root.put(&format!("{place}/{encoded}"), everything.clone());
            assert_ne!(written.status / 100, 2, "{name:?} at {place}: {}", written.text);
        }
        for wish in [json!([name]), json!(["maker", name]), json!(name)] {
            let body = json!({"policies": wish});
            for path in ["auth/token/create", "auth/token/create-orphan"] {
                let made = maker.post(path, body.clone());
                if made.status == 200 {
                    let token = made.text_at("/auth/client_token");
                    assert!(!is_root(&server.client().with_token(&token)), "{name:?}: {made:?}");
                }
            }
        }
    }
}

/// Catalogue: CVE-2026-105820, CVE-2026-115365.
#[test]
fn a_policys_name_leads_nowhere_else() {
    let server = Server::open();
    let root = server.root();
    let policy = json!({"policy": "path \"a\" { capabilities = [\"read\"] }"});
    for name in ["..", ".", "a/../default", "a//b", "a%00b", "a%2fb", "a%5cb", "a:b", "a%20b"] {
        root.put(&format!("sys/policies/acl/{name}"), policy.clone()).expect(400);
    }
    for name in ["../default", "a/..", "a\u{0}b", "a b", "a|b", "a,b:c"] {
        let made = root.post("auth/token/create", json!({"policies": [name]}));
        assert_ne!(made.status / 100, 5, "{name:?}: {}", made.text);
        if made.status == 200 {
            let client = root.with_token(&made.text_at("/auth/client_token"));
            assert!(!is_root(&client), "{name:?}");
        }
    }
    let long = "a".repeat(129);
    root.put(&format!("sys/policies/acl/{long}"), policy).expect(400);
}

/// Catalogue: CVE-2025-6004, CVE-2025-54998, CVE-2026-89322.
#[test]
fn upper_case_is_another_name_or_the_same_never_a_way_around_a_deny() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    root.post("secret/data/app", json!({"data": {"v": 1}})).expect(200);
    let client = server.limited(
        "cases",
        r#"path "*" { capabilities = ["create", "read", "update", "delete", "list"] }
           path "secret/data/app" { capabilities = ["deny"] }
           path "db/creds/app" { capabilities = ["deny"] }
           path "db/roles/app" { capabilities = ["deny"] }
           path "sys/policies/acl/cases" { capabilities = ["deny"] }
           path "sys/policy/cases" { capabilities = ["deny"] }
           path "sys/mounts" { capabilities = ["deny"] }"#,
    );
    for path in ["db/creds/App", "db/creds/APP", "db/Creds/app", "DB/creds/app", "db/creds/app/"] {
        let answer = client.get(path);
        assert_ne!(answer.status, 200, "{path}: {}", answer.text);
    }
    for path in ["secret/data/App", "Secret/data/app", "secret/Data/app", "SECRET/data/app"] {
        assert_ne!(client.get(path).status, 200, "{path}");
    }
    let all = json!({"policy": "path \"*\" { capabilities = [\"sudo\", \"read\"] }"});
    for place in ["sys/policies/acl", "sys/policy"] {
        for name in ["cases", "Cases", "CASES", "cases/", "%43ases"] {
            client.put(&format!("{place}/{name}"), all.clone()).expect(403);
        }
    }
    for path in ["sys/Mounts", "SYS/mounts", "sys/mounts/"] {
        assert_ne!(client.get(path).status, 200, "{path}");
    }
}

/// Catalogue: CVE-2020-10661, CVE-2021-42135.
#[test]
fn a_rule_reaches_nothing_that_was_mounted_below_or_beside_it_later() {
    let server = Server::open();
    let root = server.root();
    let client = server.limited(
        "early",
        r#"path "team" { capabilities = ["create", "read", "update", "list"] }
           path "db/roles/*" { capabilities = ["create", "read", "update", "list"] }"#,
    );
    root.post("sys/mounts/team/later", json!({"type": "kv"})).expect(204);
    root.post("team/later/x", json!({"v": 1})).expect(204);
    for path in ["team/later/x", "team/later", "db/static-roles/x", "db/rolesx/x", "db/roles"] {
        client.get(path).expect(403);
        client.post(path, json!({"v": 2})).expect(403);
    }
    client.list("team/later").expect(403);
}

/// Catalogue: CVE-2020-25594.
#[test]
fn mounts_cannot_be_found_out_without_a_right_to_see_them() {
    let server = Server::open();
    server.root().post("sys/mounts/hidden", json!({"type": "kv"})).expect(204);
    let limited = server.limited("other", "path \"else\" { capabilities = [\"read\"] }");
    for client in [server.client(), server.client().with_token("s.unknown"), limited] {
        for verb in ["GET", "LIST", "POST", "DELETE"] {
            let seen = |path: &str| {
                let answer = client.send(verb, path, &[], (verb == "POST").then_some("{}"));
                (answer.status, answer.text.replace(path, "<path>"))
            };
            assert_eq!(seen("hidden/x"), seen("absent/x"), "{verb}");
            assert_eq!(seen("sys/mounts/hidden"), seen("sys/mounts/absent"), "{verb}");
        }
        let seen = |mount: &str| {
            let answer = client.get(&format!("sys/internal/ui/mounts/{mount}/x"));
            (answer.status, answer.text.replace(mount, "<mount>"))
        };
        assert_eq!(seen("hidden"), seen("absent"));
    }
    assert!(!server.client().get("sys/internal/ui/mounts").text.contains("hidden"));
}

/// Catalogue: CVE-2021-43998, GHSA-59w7.
#[test]
fn a_templated_rule_matches_nothing() {
    let server = Server::open();
    let root = server.root();
    for path in ["secret/data/+", "secret/data/x", "secret/data/*"] {
        let _ = root.post(path, json!({"data": {"v": 1}}));
    }
    let policy = r#"path "secret/data/{{identity.entity.name}}" { capabilities = ["read"] }
        path "{{identity.entity.metadata.any}}*" { capabilities = ["read"] }
        path "secret/data/{{x}}*" { capabilities = ["read"] }"#;
    let written = root.put("sys/policies/acl/templated", json!({"policy": policy})).expect(200);
    assert!(written.warnings().contains("is templated and matches nothing here"));
    let client =
        server.with_new_token(json!({"policies": ["templated"], "no_default_policy": true}));
    for path in ["secret/data/x", "secret/data/", "secret/data/%7B%7Bx%7D%7D", "sys/mounts"] {
        assert_eq!(client.get(path).status, 403, "{path}");
    }
}

/// Catalogue: CVE-2021-45042, CVE-2026-55776.
#[test]
fn strange_names_of_secrets_break_nothing() {
    let server = Server::open();
    let root = server.root();
    let long = "n".repeat(900);
    let deep = "d/".repeat(400) + "e";
    let odd = ["%01", "%7f", "a%00b", "%e2%80%ae", "%f0%9f%94%91", "a%20b", "%22%27%3b", "%2e%2e"];
    let mut names: Vec<String> = odd.iter().map(ToString::to_string).collect();
    names.extend([long, deep, "x".repeat(5_000), "y/".repeat(2_000), "a//b".into(), "/".into()]);
    for name in &names {
        for mount in ["secret/data", "cubbyhole"] {
            let path = format!("{mount}/{name}");
            for answer in [
                root.post(&path, json!({"data": {"v": 1}})),
                root.get(&path),
                root.list(&path),
                root.delete(&path),
            ] {
                assert!(answer.status < 500, "{path:.60}: {} {}", answer.status, answer.text);
            }
        }
    }
    let metrics = root.get("sys/metrics").expect(200).text;
    assert!(metrics.contains("mssm_http_panics_total 0"), "{metrics}");
}

/// Catalogue: CVE-2023-24999, CVE-2026-40264, CVE-2026-45808, CVE-2026-55774.
#[test]
fn a_body_cannot_name_another_lease_than_the_path_that_was_allowed() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let login = Login::mint(&root, "db/creds/app");
    let accessor = root.post("auth/token/create", json!({})).expect(200).text_at("/auth/accessor");
    let client = server.limited(
        "mine",
        r#"path "sys/leases/+/db/creds/mine/*" { capabilities = ["update", "list", "sudo"] }
           path "sys/renew/db/creds/mine/*" { capabilities = ["update"] }
           path "sys/revoke/db/creds/mine/*" { capabilities = ["update"] }
           path "auth/token/+/mine" { capabilities = ["update"] }"#,
    );
    let allowed = "db/creds/mine/abcdefghijklmnopqrstuvwx";
    for path in ["leases/lookup", "leases/renew", "leases/revoke", "renew", "revoke"] {
        for field in ["lease_id", "url_lease_id"] {
            let body = json!({(field): login.lease, "sync": true});
            client.put(&format!("sys/{path}/{allowed}"), body).expect(400);
        }
        let direct = json!({"lease_id": login.lease});
        client.put(&format!("sys/{path}"), direct.clone()).expect(403);
        client.put(&format!("sys/{path}/{}", login.lease), direct).expect(403);
    }
    let by_name = json!({"username": login.user});
    client.put(&format!("sys/leases/lookup/{allowed}"), by_name).expect(400);
    let prefix = json!({"prefix": "db/creds/app"});
    client.put("sys/leases/revoke-prefix/db/creds/mine/x", prefix).expect(400);
    for verb in ["lookup", "renew", "revoke"] {
        let body = json!({"accessor": accessor});
        client.post(&format!("auth/token/{verb}-accessor/mine"), body).expect(400);
    }
    assert!(database.accepts(&login), "nothing of all that has ended it");
    root.post("auth/token/lookup-accessor", json!({"accessor": accessor})).expect(200);
    // Saying the same thing twice is no harm.
    let body = json!({"lease_id": login.lease});
    root.put(&format!("sys/leases/lookup/{}", login.lease), body).expect(200);
}

/// Catalogue: CVE-2025-6000, CVE-2025-54997.
#[test]
fn where_the_audit_log_is_cannot_be_changed_through_the_api_nor_one_made_that_others_run() {
    let server = Server::open();
    let target = server.path("planted");
    // Each of these is refused by itself too: `no_device_writes_where_it_should_not_or_what_it_should_not`.
    let options = json!({
        "type": "file",
        "options": {
            "file_path": target.display().to_string(), "mode": "0755", "prefix": "#!/bin/sh\n",
            "log_raw": "true",
        },
    });
    for path in ["sys/audit/file", "sys/audit/planted", "sys/config/auditing"] {
        let answer = server.root().post(path, options.clone());
        assert!([400, 404, 405].contains(&answer.status), "{path}: {}", answer.text);
    }
    server.root().delete("sys/audit/file").refused(400, "configuration");
    assert!(!target.exists());
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(server.audit()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

/// Catalogue: CVE-2025-4656, CVE-2025-52894, CVE-2026-5807, CVE-2026-115364, MEASURED-1.
#[test]
fn nobody_without_a_token_starts_cancels_or_holds_a_ceremony() {
    let server = Server::open();
    for path in [
        "sys/rekey/init",
        "sys/rekey/update",
        "sys/rekey/verify",
        "sys/rekey/backup",
        "sys/rekey-recovery-key/init",
        "sys/rotate/root/init",
        "sys/generate-root/attempt",
        "sys/generate-root/update",
        "sys/generate-root-token/attempt",
        "sys/step-down",
        "sys/seal-migrate",
        "sys/storage/raft/join",
        "sys/storage/raft/bootstrap/challenge",
        "sys/storage/raft/remove-peer",
        "sys/replication/status",
        "sys/license/status",
        "sys/config/state/sanitized",
        "sys/host-info",
        "sys/pprof/heap",
        "sys/monitor",
        "sys/quit",
    ] {
        for verb in ["GET", "PUT", "DELETE"] {
            let body = (verb == "PUT").then_some("{\"nonce\": \"x\", \"key\": \"00\"}");
            let answer = server.client().send(verb, path, &[], body).expect(403);
            assert_eq!(answer.json, json!({"errors": ["permission denied"]}), "{verb} {path}");
        }
    }
    let health: Value = server.client().get("sys/health").expect(200).json;
    assert_eq!(health["sealed"], json!(false));
}
