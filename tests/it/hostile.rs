//! Paths, heads and tokens that no polite client sends, as bytes over TLS.

use crate::harness::{Server, eventually};

/// Catalogue: CVE-2026-3605, CVE-2025-49827, CVE-2025-49828, CVE-2025-49829, CVE-2025-49830,
/// CVE-2025-49831.
#[test]
fn a_second_spelling_of_a_path_is_refused() {
    let server = Server::open();
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    for path in [
        b"/v1/secret/data/../data/a".as_slice(),
        b"/v1/secret/./data/a",
        b"/v1/secret/data/%2e%2e/a",
        b"/v1/secret/data/%2E%2e/a",
        b"/v1/secret/data/.%2e/a",
        b"/v1/secret/data/%2e/a",
        b"/v1/secret//data/a",
        b"/v1//secret/data/a",
        b"/v1/secret%2fdata/a",
        b"/v1/secret/data/a%00b",
        b"/v1/secret/data/a%ff",
        b"/v1/secret/data/a%c3%28",
        b"/v1/secret/data/a%ed%a0%80",
        b"/v1/secret/data/a%",
        b"/v1/secret/data/a%zz",
        b"/v1/../v1/secret/data/a",
    ] {
        for verb in [b"GET".as_slice(), b"POST", b"DELETE", b"LIST"] {
            let answer = server.raw().ask(verb, path, &token, b"");
            let shown = String::from_utf8_lossy(path).into_owned();
            let expected = if path.starts_with(b"/v1/..") { [400, 404] } else { [400, 400] };
            assert!(
                expected.contains(&answer.status),
                "{shown}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    // Without a token the same: nothing behind the door sees such a path.
    let answer = server.raw().ask(b"GET", b"/v1/secret/data/../../sys/seal-status", "", b"");
    assert_eq!(answer.status, 400);
}

#[test]
fn bytes_that_are_no_request_end_the_connection() {
    let server = Server::open();
    let head = b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n";
    let long = [head.as_slice(), b"X-Long: ", &vec![b'a'; 2 << 20], b"\r\n\r\n"].concat();
    let many = [head.as_slice(), "X-A: b\r\n".repeat(5_000).as_bytes(), b"\r\n"].concat();
    let cases: [&[u8]; 9] = [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /v1/secret/data/a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/secret/data/a\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /v1/sys/health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}",
        &long,
        &many,
    ];
    for bytes in cases {
        let mut raw = server.raw();
        let _ = raw.send(bytes);
        let answer = String::from_utf8_lossy(&raw.read_to_end()).into_owned();
        let start: String = answer.chars().take(40).collect();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{start}");
    }
    server.client().get("sys/health").expect(200);
}

#[test]
fn two_lengths_do_not_smuggle_a_second_request() {
    let server = Server::open();
    let mut raw = server.raw();
    let head = "POST /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    let hidden = "0\r\n\r\nGET /v1/sys/init HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let _ = raw.send(format!("{head}{hidden}").as_bytes());
    let answer = String::from_utf8_lossy(&raw.read_to_end()).into_owned();
    // Whatever it makes of it, the two readings must not both be answered with success.
    assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{answer}");
}

#[test]
fn tokens_of_any_shape_are_refused_alike() {
    let server = Server::open();
    let long = "a".repeat(7_000);
    for token in ["a", "hvs.", "%00", "../../x", "hvs.AAAAAAAAAAAAAAAAAAAAAAAA", &long, "\u{1}"] {
        let header = format!("X-Vault-Token: {token}\r\n");
        let answer = server.raw().ask(b"GET", b"/v1/sys/mounts", &header, b"");
        assert!([400, 403].contains(&answer.status), "{} {}", answer.status, answer.text());
    }
    let answer = server.raw().ask(b"GET", b"/v1/sys/mounts", "X-Vault-Token: ä\r\n", b"");
    assert!([400, 403].contains(&answer.status), "{}", answer.status);
}

#[test]
fn many_connections_that_do_nothing_keep_nobody_out() {
    let server = Server::open();
    let idle: Vec<_> = (0..300)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap())
        .collect();
    server.root().get("sys/mounts").expect(200);
    drop(idle);
    eventually("their descriptors are given back", std::time::Duration::from_secs(15), || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
        (open < 150).then_some(())
    });
}
