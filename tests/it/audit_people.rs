//! What the log tells people: who read a path, what a token did, what became of a lease; and the server's own doings.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Database, Login, Server, eventually};

const SOON: Duration = Duration::from_secs(10);

fn told(server: &Server, arguments: &[&str]) -> String {
    let log = server.audit().display().to_string();
    let all = [&["audit"], arguments, &[log.as_str()]].concat();
    let output = server.cli(&all);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn who_read_a_path_and_what_a_token_did_is_told() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/app", json!({"data": {"word": "canary"}})).expect(200);
    let policy = "path \"secret/data/app\" { capabilities = [\"read\"] }";
    root.put("sys/policies/acl/reader", json!({"policy": policy})).expect(204);
    let body = json!({"policies": ["reader"], "display_name": "robot", "no_default_policy": true});
    let made = root.post("auth/token/create", body).expect(200);
    let robot = server.client().with_token(&made.text_at("/auth/client_token"));
    robot.get("secret/data/app").expect(200);
    robot.get("secret/data/other").expect(403);
    let by_path = told(&server, &["explain", "-path", "secret/data/app"]);
    assert!(
        by_path.contains("token-robot from 127.0.0.1: read secret/data/app, once"),
        "{by_path}"
    );
    let accessor = made.text_at("/auth/accessor");
    let by_token = told(&server, &["explain", "-accessor", &accessor]);
    let robots = || {
        let lines = server.audit_lines();
        let robots = lines.into_iter().filter(|line| line.to_string().contains("token-robot"));
        robots.map(|line| line["auth"].to_string()).collect::<Vec<_>>()
    };
    let refused = "secret/data/other, once, 1 of them refused";
    assert!(by_token.contains(refused), "{by_token} {:#?}", robots());
    let table = told(&server, &["search", "-path", "secret/*"]);
    assert!(table.contains("token-robot") && table.contains("403"), "{table}");
    let lines = told(&server, &["search", "-format=json", "-path", "secret/data/other"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["response"]["status"], json!(403));
    let id = lines.last().unwrap()["request"]["id"].as_str().unwrap().to_owned();
    assert_eq!(told(&server, &["search", "-format=json", "-request-id", &id]).lines().count(), 2);
    let end = told(&server, &["tail", "-n", "3"]);
    assert!(end.contains("audit-hash") && !end.contains("checkpoint"), "{end}");
}

#[test]
fn what_became_of_a_lease_and_whose_a_login_was_is_told() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let login = Login::mint(&server.root(), "db/creds/app");
    let revoke = json!({"lease_id": login.lease, "sync": true});
    server.root().put("sys/leases/revoke", revoke).expect(204);
    eventually("its end is written", SOON, || {
        let lines = server.audit_lines();
        let ends = |line: &Value| {
            line["event"] == json!("lease-revoked")
                && line["details"]["lease_id"] == json!(login.lease)
        };
        lines.iter().any(ends).then_some(())
    });
    for arguments in [["explain", "-lease", &login.lease], ["explain", "-username", &login.user]] {
        let told = told(&server, &arguments);
        let by_whom = "root from 127.0.0.1: update sys/leases/revoke, once";
        for words in ["root from 127.0.0.1: read db/creds/app, once", by_whom, "was revoked"] {
            assert!(told.contains(words), "{arguments:?}: {told}");
        }
    }
}

#[test]
fn founding_unsealing_and_rotating_are_written_down_with_numbers_and_no_share() {
    let mut server = Server::start(crate::harness::Options::default());
    server.init(3, 2);
    let wrong = server.shares[0].replace(['A', 'b'], "c");
    let refused = server.client().put("sys/unseal", json!({ "key": wrong }));
    assert_eq!(refused.status, 400, "{}", refused.text);
    server.unseal();
    server.root().put("sys/rotate", json!({})).expect(204);
    let lines = server.audit_lines();
    let events = |name: &str| {
        let of_name = lines.iter().filter(|line| line["event"] == json!(name));
        of_name.map(|line| line["details"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(events("initialized"), [json!({"shares": "3", "threshold": "2"})]);
    let attempts = events("unseal-attempt");
    assert_eq!(attempts.len(), 3, "{attempts:?}");
    assert_eq!(attempts[0]["outcome"], json!("refused"));
    assert_eq!(attempts[1], json!({"share": "1", "outcome": "taken", "progress": "1 of 2"}));
    assert_eq!(attempts[2]["share"], json!("2"));
    assert_eq!(attempts[2]["outcome"], json!("unsealed"));
    assert_eq!(events("key-rotated").len(), 1);
    let text = server.audit_text();
    for share in &server.shares {
        assert!(!text.contains(share.as_str()));
    }
}

#[test]
fn a_token_whose_time_came_is_written_down_by_its_accessors_hash() {
    let server = Server::open();
    let root = server.root();
    let body = json!({"policies": ["default"], "ttl": "1s"});
    let made = root.post("auth/token/create", body).expect(200);
    let accessor = json!({"input": made.text_at("/auth/accessor")});
    let hash = root.post("sys/audit-hash/file", accessor).expect(200).text_at("/data/hash");
    let told = || {
        let lines = server.audit_lines();
        lines.iter().filter(|line| line["details"] == json!({"accessor": hash})).count()
    };
    eventually("its end is written down", SOON, || (told() > 0).then_some(()));
    let line =
        server.audit_lines().into_iter().find(|line| line["event"] == json!("token-expired"));
    assert_eq!(line.unwrap()["details"]["accessor"], json!(hash));
    assert_eq!(told(), 1);
}

/// Every event of the server's own life has its line, and the page for auditors names it.
#[test]
fn what_the_server_does_by_itself_is_written_down_from_its_start_to_its_end() {
    let mut server = Server::open();
    server.root().put("sys/rotate", json!({})).expect(204);
    server.signal(rustix::process::Signal::HUP);
    let told = |server: &Server, name: &str| {
        server.audit_lines().iter().any(|line| line["event"] == json!(name))
    };
    eventually("the reload is written down", SOON, || told(&server, "reloaded").then_some(()));
    server.root().put("sys/seal", json!({})).expect(204);
    server.unseal();
    server.stop();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md"));
    let page = page.unwrap();
    for name in [
        "log-started",
        "log-key",
        "log-store-epoch",
        "server-started",
        "initialized",
        "unseal-attempt",
        "unsealed",
        "key-rotated",
        "reloaded",
        "sealing",
        "server-stopping",
    ] {
        assert!(told(&server, name), "{name} is not written down");
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
}
