//! What a hostile client did to the front door once, and must not be able to do again.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::Server;

/// Catalogue: CVE-2026-89322.
#[test]
fn another_spelling_of_a_path_leads_around_no_rule() {
    let server = Server::open();
    let root = server.root();
    root.put("sys/policies/acl/admin", json!({"policy": "path \"a\" {}"})).expect(204);
    root.post("secret/data/x", json!({"data": {"a": 1}})).expect(200);
    let client = server.limited(
        "editor",
        r#"path "sys/policies/acl/*" { capabilities = ["create", "read", "update", "delete"] }
           path "sys/policies/acl/admin" { capabilities = ["read"] }
           path "secret/*" { capabilities = ["create", "read", "update", "delete"] }
           path "secret/metadata/x" { capabilities = ["read"] }"#,
    );
    for path in ["admin", "admin/", "ADMIN", "Admin/", "%61dmin"] {
        let path = format!("sys/policies/acl/{path}");
        client.put(&path, json!({"policy": "path \"*\" {}"})).expect(403);
        client.delete(&path).expect(403);
    }
    for path in ["secret/metadata/x", "secret/metadata/x/"] {
        client.delete(path).expect(403);
    }
    client.put("sys/policies/acl/other", json!({"policy": "path \"b\" {}"})).expect(204);
}

#[test]
fn fifty_at_once_get_as_many_answers_as_a_token_has_uses() {
    let server = Server::open();
    let body = json!({"policies": ["default"], "num_uses": 20});
    let token = root_made(&server, body);
    let answers: Vec<u16> = thread::scope(|scope| {
        let ask = || server.client().with_token(&token).get("sys/internal/ui/resultant-acl").status;
        let asked: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(403)), (20, 30), "{answers:?}");
}

#[test]
fn connections_that_never_speak_keep_nobody_out() {
    let server = Server::open();
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let silent: Vec<TcpStream> =
        (0..700).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let (answered, answer) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| answered.send(server.client().get("sys/health").status));
        assert_eq!(answer.recv_timeout(Duration::from_secs(3)), Ok(200));
    });
    drop(silent);
}

fn root_made(server: &Server, body: serde_json::Value) -> String {
    server.root().post("auth/token/create", body).expect(200).text_at("/auth/client_token")
}
