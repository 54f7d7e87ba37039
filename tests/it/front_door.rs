//! The front door: bodies, verbs, limits, TLS, and how it is opened and closed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Database, Options, Server, Stopwatch, eventually};

/// The server's largest resident size so far, in KiB.
fn peak_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bodies_that_are_no_object_are_refused() {
    let server = Server::open();
    let root = server.root();
    for body in [
        "{\"data\":{\"a\":",
        "{\"data\":{\"a\":\"b\"}",
        "[]",
        "[{}]",
        "7",
        "\"text\"",
        "true",
        "{\"a\" 1}",
        "{'a':1}",
        "{\"a\":1}x",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "\u{feff}{}",
        "{\"a\":\"\\ud800\"}",
        "{\"data\":{\"a\":[\"\\udc00\"]}}",
        "{,}",
    ] {
        root.post_text("secret/data/a", body).expect(400);
    }
    for path in
        ["auth/token/create", "sys/policies/acl/x", "sys/mounts/x", "db/config/x", "cubbyhole/x"]
    {
        root.post_text(path, "{\"a\":").refused(400, "failed to decode JSON input");
    }
    root.get("secret/data/a").expect(404);
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    let answer =
        server.raw().ask(b"POST", b"/v1/secret/data/a", &token, b"{\"data\":{\"a\":\"\xff\xfe\"}}");
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// Catalogue: CVE-2023-6337.
#[test]
fn a_body_of_100_mib_is_refused_and_memory_stays_bounded() {
    let server = Server::open();
    let before = peak_kib(&server);
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    let body = vec![b' '; 100 << 20];
    let answer = server.raw().ask(b"POST", b"/v1/secret/data/a", &token, &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    // Not announced, but sent in chunks: refused when it has become too large.
    let mut raw = server.raw();
    let head = format!(
        "POST /v1/secret/data/a HTTP/1.1\r\nHost: x\r\n{token}Transfer-Encoding: chunked\r\n\r\n"
    );
    raw.send(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..100 {
        if raw.send(&chunk).is_err() {
            break;
        }
    }
    let bytes = raw.read_to_end();
    let answer = String::from_utf8_lossy(&bytes).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    let grown = peak_kib(&server) - before;
    assert!(grown < 120 << 10, "{grown} KiB more for one body");
    server.root().get("sys/mounts").expect(200);
}

/// Catalogue: CVE-2025-6203, CVE-2025-59043.
#[test]
fn json_that_is_too_deep_or_too_wide_is_refused() {
    let server = Server::open();
    let root = server.root();
    let before = peak_kib(&server);
    let deep = format!("{{\"data\":{}{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    root.post_text("secret/data/a", &deep).expect(400);
    let deep = format!("{{\"data\":{{\"a\":{}{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
    root.post_text("secret/data/a", &deep).expect(400);
    use std::fmt::Write as _;
    let mut wide = String::from("{\"data\":{");
    for number in 0..100_000 {
        let _ = write!(wide, "\"k{number}\":0,");
    }
    wide.push_str("\"z\":0}}");
    root.post_text("secret/data/a", &wide).expect(400);
    let grown = peak_kib(&server) - before;
    assert!(grown < 250 << 10, "{grown} KiB more");
    let fine = format!("{{\"data\":{{\"a\":{}{}}}}}", "[".repeat(50), "]".repeat(50));
    root.post_text("secret/data/a", &fine).expect(200);
}

#[test]
fn fields_of_a_wrong_type_are_named_and_unknown_ones_warned_of() {
    let server = Server::open();
    let root = server.root();
    for (path, body, field) in [
        ("secret/data/a", json!({"data": "text"}), "data"),
        ("auth/token/create", json!({"ttl": "soon"}), "ttl"),
        ("auth/token/create", json!({"policies": 7.5, "ttl": {}}), "ttl"),
        ("auth/token/create", json!({"meta": ["a"]}), "meta"),
        ("sys/policies/acl/x", json!({"policy": {"a": 1}}), "policy"),
        ("sys/mounts/x", json!({"type": ["kv"]}), "type"),
        ("db/roles/x", json!({"db_name": [], "default_ttl": "x"}), "d"),
    ] {
        root.post(path, body).refused(400, field);
    }
    let answer =
        root.post("secret/data/a", json!({"data": {"b": 1}, "optoins": {"cas": 0}})).expect(200);
    assert_eq!(answer.warnings(), "Endpoint ignored these unrecognized parameters: [optoins]");
    let answer = root.post("auth/token/create", json!({"tll": "1h"})).expect(200);
    assert!(answer.warnings().contains("[tll]"), "{}", answer.text);
    // A warning needs a body: what would be 204 is 200 then.
    let body = json!({"type": "kv", "desciption": "x"});
    let answer = root.post("sys/mounts/typo", body).expect(200);
    assert!(answer.warnings().contains("[desciption]"), "{}", answer.text);
}

/// Catalogue: GHSA-rh46.
#[test]
fn wrong_verbs_and_routes_that_are_not_there() {
    let server = Server::open();
    let root = server.root();
    for (verb, path, status) in [
        ("DELETE", "sys/mounts", 405),
        ("GET", "sys/seal", 405),
        ("GET", "sys/unseal", 405),
        ("POST", "sys/health", 405),
        ("DELETE", "sys/seal-status", 405),
        ("POST", "db/creds/x", 405),
        ("GET", "sys/capabilities-self", 405),
        ("GET", "auth/token/create", 405),
        ("BREW", "secret/data/a", 405),
        ("OPTIONS", "secret/data/a", 405),
        ("GET", "sys/nothing", 404),
        ("GET", "auth/token/nothing", 404),
        ("GET", "nope/x", 404),
    ] {
        let body = matches!(verb, "POST" | "PUT").then_some("{}");
        root.send(verb, path, &[], body).expect(status);
    }
    root.get("nope/x").refused(404, "no handler for route \"nope/x\". route entry not found.");
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    for path in ["/", "/v1", "/v2/sys/mounts", "/ui/", "/metrics"] {
        let answer = server.raw().ask(b"GET", path.as_bytes(), &token, b"");
        assert_eq!(answer.status, 404, "{path}");
    }
    let answer = server.raw().ask(b"GET", b"/sys/seal-status", "", b"");
    assert_eq!(answer.status, 200, "the seeds' own path");
}

/// Catalogue: CVE-2023-2121.
#[test]
fn every_answer_has_its_headers_and_its_id() {
    let server = Server::open();
    let root = server.root();
    let answer = root.get("sys/mounts").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("strict-transport-security").is_some());
    let id = answer.text_at("/request_id");
    assert_ne!(id, root.get("sys/mounts").text_at("/request_id"));
    for key in ["lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"]
    {
        assert!(answer.json.get(key).is_some(), "{key} in {}", answer.text);
    }
    let health = server.raw().ask(b"HEAD", b"/v1/sys/health", "", b"");
    assert_eq!((health.status, health.body.len()), (200, 0));
    let health = root.get("sys/health").expect(200);
    for key in ["performance_standby", "replication_dr_mode", "server_time_utc", "version"] {
        assert!(health.json.get(key).is_some(), "{key} in {}", health.text);
    }
    root.send("GET", "sys/mounts", &[("X-Vault-Namespace", "other")], None)
        .refused(404, "namespace");
}

#[test]
fn only_tls_is_spoken_and_only_the_new_ones() {
    let server = Server::open();
    let mut plain = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain
        .write_all(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    // A hello of TLS 1.1: version 3.2, one suite, no extensions.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    let mut old = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    old.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    old.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _ = old.read_to_end(&mut answer);
    // An alert, or nothing; never a server hello.
    assert_ne!(answer.first(), Some(&0x16), "{answer:?}");
    server.client().get("sys/health").expect(200);
}

#[test]
fn slow_clients_are_let_go() {
    let server = Server::open();
    let watch = Stopwatch::start();
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    let mut head = server.raw();
    head.send(b"GET /v1/sys/mounts HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut body = server.raw();
    let start = format!(
        "POST /v1/secret/data/a HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 1000\r\n\r\n{{"
    );
    body.send(start.as_bytes()).unwrap();
    // Both end by themselves; a read that waits for ever fails the test.
    let body = String::from_utf8_lossy(&body.read_to_end()).into_owned();
    assert!(body.is_empty() || body.starts_with("HTTP/1.1 408"), "{body}");
    let head = String::from_utf8_lossy(&head.read_to_end()).into_owned();
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    assert!(watch.elapsed() < Duration::from_secs(30), "{:?}", watch.elapsed());
}

#[test]
fn a_stop_waits_for_the_answer_that_is_under_way() {
    let database = Database::shared();
    let mut server = Server::open();
    let root = server.root();
    root.post("db/config/main", database.connection()).expect(204);
    let slow = json!({
        "db_name": "main",
        "creation_statements": [crate::harness::CREATE, "SELECT pg_sleep(2)"],
        "default_ttl": "1h",
    });
    root.post("db/roles/slow", slow).expect(204);
    let client = root.clone();
    let asked = std::thread::spawn(move || client.get("db/creds/slow"));
    eventually("the login is being made", Duration::from_secs(10), || {
        let active =
            database.query("SELECT query FROM pg_stat_activity WHERE query LIKE '%pg_sleep%'");
        (active.len() > 1).then_some(())
    });
    let status = server.stop();
    let answer = asked.join().unwrap().expect(200);
    assert_eq!(status.code(), Some(0));
    let login = crate::harness::Login::of(&answer);
    assert!(database.accepts(&login), "what was answered is true");
    server.again();
    server.unseal();
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    assert!(!database.has_role(&login.user));
}

#[test]
fn a_new_certificate_is_served_after_a_signal() {
    let make = || {
        let made =
            generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (first, key) = make();
    let tls = "certificate = \"{folder}/server.crt\"\nkey = \"{folder}/server.key\"".to_owned();
    let files = vec![("server.crt", first), ("server.key", key)];
    let server = Server::start(Options { tls, files, ..Options::default() });
    server.client().get("sys/seal-status").expect(200);
    let (second, key) = make();
    // A broken one is refused, and the old one stays.
    crate::harness::write_private(&server.path("server.key"), "broken");
    server.signal(Signal::HUP);
    eventually("the log says so", Duration::from_secs(5), || {
        server.log().to_lowercase().contains("certificate").then_some(())
    });
    server.client().get("sys/seal-status").expect(200);
    crate::harness::write_private(&server.path("server.crt"), &second);
    crate::harness::write_private(&server.path("server.key"), &key);
    server.signal(Signal::HUP);
    let renewed = crate::harness::Client::new(server.port(), second.as_bytes(), None);
    eventually("the new one is served", Duration::from_secs(5), || {
        renewed.try_send("GET", "sys/seal-status", &[], None).ok()
    });
}
