//! Security catalogue: what anybody may send costs little, breaks nothing, and is written down or refused.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Server, eventually};

const SOON: Duration = Duration::from_secs(10);

/// The server's resident size, in KiB.
/// What the server has in memory.
pub(crate) fn resident_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Catalogue: CVE-2023-3774, CVE-2024-8185.
#[test]
fn a_flood_of_wrong_shares_costs_no_memory_and_no_right_share() {
    let mut server = Server::start(crate::harness::Options::default());
    server.init(5, 3);
    let client = server.client();
    client.put("sys/unseal", json!({"key": server.shares[0]})).expect(200);
    // Turned away unread once they come too fast.
    let flood = |count: usize| {
        for number in 0..count {
            let share = format!("{number:086x}");
            let status = client.put("sys/unseal", json!({"key": share})).status;
            assert!([400, 429].contains(&status), "{status}");
        }
    };
    flood(200);
    let before = resident_kib(&server);
    flood(1_000);
    for (length, expected) in [(7 << 10, 400), (9 << 10, 413)] {
        let share = json!({"key": "0".repeat(length)});
        eventually("it is looked at", SOON, || {
            let status = client.put("sys/unseal", share.clone()).status;
            (status == expected).then_some(())
        });
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    assert_eq!(client.get("sys/seal-status").number_at("/progress"), 1);
    server.unseal();
}

/// Catalogue: CVE-2024-6468.
#[test]
fn hostile_first_bytes_do_not_stop_the_door() {
    let server = Server::open();
    let firsts: [&[u8]; 8] = [
        b"PROXY TCP4 256.256.256.256 1 2 3\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\xff\xff",
        b"\x80\x2e\x01\x03\x01",
        b"",
    ];
    for _ in 0..20 {
        for first in firsts {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
            let _ = stream.write_all(first);
        }
    }
    server.root().get("sys/mounts").expect(200);
    assert!(server.log().lines().count() < 100, "nobody fills the log from outside");
}

/// Catalogue: CVE-2026-115357.
#[test]
fn without_its_log_nothing_changes_the_seal() {
    let mut server = Server::start(crate::harness::Options::default());
    let block = |server: &Server| {
        let aside = server.path("aside.log");
        fs::rename(server.audit(), aside).unwrap();
        fs::create_dir(server.audit()).unwrap();
    };
    let free = |server: &Server| {
        fs::remove_dir(server.audit()).unwrap();
        fs::rename(server.path("aside.log"), server.audit()).unwrap();
    };
    block(&server);
    let init = json!({"secret_shares": 1, "secret_threshold": 1});
    server.client().put("sys/init", init).expect(503);
    assert_eq!(server.client().get("sys/init").json, json!({"initialized": false}));
    free(&server);
    eventually("it can be initialised", SOON, || {
        let init = json!({"secret_shares": 1, "secret_threshold": 1}).to_string();
        let answer = server.client().send("PUT", "sys/init", &[], Some(&init));
        if answer.status != 200 {
            return None;
        }
        server.root_token = answer.text_at("/root_token");
        server.shares = vec![answer.text_at("/keys_base64/0")];
        Some(())
    });
    block(&server);
    let share = json!({"key": server.shares[0]});
    server.client().put("sys/unseal", share).expect(503);
    assert_eq!(server.client().get("sys/seal-status").json["sealed"], json!(true));
    free(&server);
    eventually("it opens", SOON, || {
        let share = json!({"key": server.shares[0]}).to_string();
        (server.client().send("PUT", "sys/unseal", &[], Some(&share)).status == 200).then_some(())
    });
    block(&server);
    server.root().put("sys/seal", json!({})).expect(503);
    server.root().put("sys/rotate", json!({})).expect(503);
    free(&server);
    eventually("it answers", SOON, || {
        (server.root().get("sys/mounts").status == 200).then_some(())
    });
    assert_eq!(server.root().get("sys/key-status").number_at("/data/term"), 1);
}
