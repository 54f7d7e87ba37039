//! What anybody may cause, and so has no line of its own: counted, and written down together.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Options, Raw, Server, eventually};

/// Longer than the server waits for a handshake.
const SOON: Duration = Duration::from_secs(30);

/// How often something was counted under a name, in all lines of an event together.
fn told(server: &Server, event: &str, why: &str) -> u64 {
    let lines =
        server.audit_lines().into_iter().filter(|line| line.get("event") == Some(&json!(event)));
    lines
        .filter_map(|line| line.pointer(&format!("/details/{why}"))?.as_str()?.parse::<u64>().ok())
        .sum()
}

/// Says something that is no handshake, and waits until the server lets go.
fn strange(server: &Server, bytes: &[u8], ended: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(bytes)?;
    if ended {
        stream.shutdown(Shutdown::Write)?;
    }
    // What comes, if anything, is TLS's word for no; a reset is an end too.
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}

#[test]
fn handshakes_that_fail_are_written_down_by_their_reason_in_few_lines() {
    let mut server = Server::open();
    let root = server.root();
    for _ in 0..40 {
        strange(&server, b"GET /v1/sys/health HTTP/1.1\r\nX-Canary: c4naryVALUE\r\n\r\n", false)
            .unwrap();
    }
    strange(&server, &[0x16, 3, 1], true).unwrap();
    strange(&server, &[0x16, 3, 1], false).unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let other = rcgen::generate_simple_self_signed(names).unwrap().cert.pem();
    let mut distrustful = Raw::connect(server.port(), other.as_bytes());
    assert!(distrustful.send(b"GET / HTTP/1.1\r\n\r\n").is_err());
    eventually("all are counted", SOON, || {
        let metrics = root.get("sys/metrics").expect(200).text;
        let mut lines = metrics.lines();
        let number = lines.find_map(|line| line.strip_prefix("mssm_http_handshakes_failed_total "));
        (number.unwrap().parse::<u64>().unwrap() >= 43).then_some(())
    });
    // Until here: closing it at once could take its word for no away.
    drop(distrustful);
    server.stop();
    for (why, least) in
        [("not_tls", 40), ("broken_off", 1), ("timed_out", 1), ("refused_by_client", 1)]
    {
        let number = told(&server, "handshakes-failed", why);
        assert!(number >= least, "{why}: {number}");
    }
    let text = server.audit_text();
    assert!(text.matches("handshakes-failed").count() < 5 && !text.contains("c4nary"), "{text}");
}

#[test]
fn requests_that_are_refused_unread_are_written_down_in_few_lines() {
    let mut server = Server::ready(Options {
        more: "[limits]\nstrangers_per_second = 5".to_owned(),
        ..Options::default()
    });
    // Whoever is known has a line of their own.
    let token = format!("X-Vault-Token: {}\r\n", server.root_token);
    let body = vec![b' '; 33 << 20];
    let large = server.raw().ask(b"POST", b"/v1/secret/data/a", &token, &body);
    assert_eq!(large.status, 413, "{}", large.text());
    let own = |line: &serde_json::Value| line["response"]["status"] == json!(413);
    assert_eq!(server.audit_lines().iter().filter(|line| own(line)).count(), 1);
    assert_eq!(server.client().send("GET", "secret//a", &[], None).status, 400);
    let stranger = server.client();
    let too_fast = (0..400).filter(|_| stranger.get("sys/mounts").status == 429).count();
    assert!(too_fast > 0);
    server.stop();
    assert!(told(&server, "requests-refused", "malformed") >= 1);
    assert_eq!(told(&server, "requests-refused", "too_many"), too_fast as u64);
    assert!(server.audit_text().matches("requests-refused").count() < 5);
}

#[test]
fn who_is_refused_makes_the_log_grow_by_little_whatever_is_sent() {
    let server = Server::open();
    let root = server.root();
    let [nobody, denied, made_up] = [
        server.client(),
        server.limited("reader", "path \"secret/data/own\" { capabilities = [\"read\"] }"),
        server.client().with_token("s.AAAAAAAAAAAAAAAAAAAAAAAA"),
    ];
    let grown = |client: &Client, path: &str, body: Option<&str>, status: u16| {
        let before = server.audit_text().len();
        let answer = match body {
            Some(body) => client.post_text(path, body),
            None => client.get(path),
        };
        answer.expect(status);
        server.audit_text().len().saturating_sub(before)
    };
    let scalars = format!("{{\"a\":[{}1]}}", "1,".repeat(9_000));
    let names: Vec<String> = (0..1_500).map(|number| format!("\"n{number}\":null")).collect();
    let names = format!("{{{},\"{}\":1}}", names.join(","), "n".repeat(20_000));
    let long = format!("secret/data/{}", "n".repeat(1_000));
    let query = format!("secret/data/a?{}", "a&b&c=%01&".repeat(4_000));
    for client in [&denied, &made_up] {
        for body in [&scalars, &names] {
            assert!(grown(client, &long, Some(body), 403) < 20 << 10);
        }
    }
    for client in [&denied, &made_up, &nobody] {
        assert!(grown(client, &query, None, 403) < 20 << 10);
    }
    // A header in clear too: what is long stands there as its hash.
    root.put("sys/config/auditing/request-headers/X-Shown", json!({"hmac": false})).expect(204);
    let shown = "\"".repeat(30_000);
    for client in [&denied, &made_up, &nobody] {
        let before = server.audit_text().len();
        client.send("GET", "secret/data/a", &[("X-Shown", &shown)], None).expect(403);
        assert!(server.audit_text().len().saturating_sub(before) < 20 << 10);
    }
    let shares = format!("{{\"key\":\"x\",\"more\":[{}1]}}", "1,".repeat(4_000));
    assert!(grown(&nobody, "sys/unseal", Some(&shares), 200) < 20 << 10, "it is open");
    // Who may write as much is written down with every value, or with all of them in one.
    let document = |values: usize| format!("{{\"data\":{{\"a\":[{}1]}}}}", "1,".repeat(values));
    for (values, each) in [(3_000, true), (9_000, false)] {
        assert!(grown(&root, "secret/data/a", Some(&document(values)), 200) < 600 << 10);
        let lines = server.audit_lines();
        let line = lines.iter().rfind(|line| line["request"]["path"] == json!("secret/data/a"));
        let data = &line.unwrap()["request"]["data"];
        assert_eq!(data.pointer(&format!("/data/a/{values}")).is_some(), each);
    }
    let asked = root.post("sys/audit-hash/file", json!({ "input": scalars })).expect(200);
    let hash = json!(asked.text_at("/data/hash"));
    let lines = server.audit_lines();
    assert_eq!(lines.iter().filter(|line| line["request"]["data"] == hash).count(), 4);
}
