//! What who may write the audit log's folder can put there, and what is seen of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use mssm_crypto::chain::Chain;
use serde_json::{Value, json};

use crate::harness::{Client, Server, write_private};

/// A line that says that somebody read a salary, wherever a log stands.
fn forged(seq: u64, prev: &[u8; 32]) -> String {
    let mut prefix = json!({ "time": "2026-01-02T03:04:05Z", "type": "response" }).to_string();
    prefix.replace_range(..1, &format!("{{\"seq\":{seq},\"prev\":\"{}\",", hex::encode(prev)));
    let rest = json!({
        "auth": {"display_name": "token-alice"},
        "request": {"id": "1", "operation": "read", "path": "secret/data/salary"},
        "response": {"status": 200},
    });
    format!("{},{}\n", prefix.trim_end_matches('}'), rest.to_string().trim_start_matches('{'))
}

/// The line that follows from all of a log.
fn following(log: &str) -> String {
    let mut chain = Chain::default();
    log.lines().for_each(|line| chain.append(line.as_bytes()));
    forged(chain.count, &chain.head)
}

fn append(log: &Path, line: &str) {
    let text = fs::read_to_string(log).unwrap() + line;
    fs::write(log, text).unwrap();
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn event(server: &Server, name: &str) -> Option<Value> {
    server.audit_lines().into_iter().find(|line| line["event"] == json!(name))
}

/// Stops the server, has something done to its log, and starts and unseals it again.
fn meanwhile(server: &mut Server, change: impl FnOnce(&Path)) -> Client {
    server.stop();
    change(&server.audit());
    server.again();
    server.unseal();
    server.root()
}

#[test]
fn links_that_nobody_signed_prove_nothing() {
    let server = Server::open();
    let key = server.audit_key();
    let begins = server.audit_text().lines().next().unwrap().to_owned() + "\n";
    let (first, log) = (following(&begins), server.path("forged.log"));
    for text in [String::new(), begins.clone(), begins + &first] {
        write_private(&log, &text);
        let verdict = server.verify_audit(&key, &log);
        assert_eq!(verdict.status.code(), Some(1), "{text}: {verdict:?}");
        assert!(says(&verdict).contains("nothing here is signed"), "{verdict:?}");
    }
    // What the server sets aside is left out beside other files only, and that is told.
    let (aside, whole) = (server.path("audit.log.damaged-2"), server.audit());
    fs::rename(&log, &aside).unwrap();
    assert_eq!(server.verify_audit(&key, &aside).status.code(), Some(1));
    let files: [PathBuf; 2] = [whole, aside];
    let files = files.each_ref().map(|file| file.to_str().unwrap());
    let both = server.cli(&["audit", "verify", "-key", &key, files[0], files[1]]);
    assert!(both.status.success() && says(&both).contains("left out"), "{both:?}");
}

#[test]
fn records_that_follow_but_were_added_while_no_server_ran_are_named_and_told_by_who_verifies() {
    let mut server = Server::open();
    let key = server.audit_key();
    meanwhile(&mut server, |_| ());
    assert_eq!(event(&server, "log-adopted"), None, "a log that was left signed has none");
    server.stop();
    let verdict = server.verify_audit(&key, &server.audit());
    assert_eq!(verdict.status.code(), Some(0), "a server that stops signs all of it: {verdict:?}");
    let text = server.audit_text();
    let number = text.lines().count();
    append(&server.audit(), &following(&text));
    let verdict = server.verify_audit(&key, &server.audit());
    assert_eq!(verdict.status.code(), Some(3), "{verdict:?}");
    let words = format!("NOT PROVEN are the last 1, from number {number} on");
    assert!(says(&verdict).contains(&words), "{verdict:?}");
    server.again();
    server.unseal();
    let adopted = event(&server, "log-adopted").expect("it is said");
    assert_eq!(adopted["details"]["records"], json!(format!("{number}-{number}")));
    let verdict = server.verify_audit(&key, &server.audit());
    assert!(verdict.status.success(), "{verdict:?}");
    let words = format!("log-adopted records={number}-{number}");
    assert!(says(&verdict).contains(&words), "{verdict:?}");
}

#[test]
fn lines_that_do_not_follow_are_set_aside_with_their_file_and_the_log_goes_on_in_another() {
    let mut server = Server::open();
    let key = server.audit_key();
    let mut kept = String::new();
    let root = meanwhile(&mut server, |log| {
        append(log, &forged(99, &[7; 32]));
        kept = fs::read_to_string(log).unwrap();
    });
    root.get("sys/mounts").expect(200);
    let damaged = event(&server, "log-damaged").expect("it is said");
    let aside = PathBuf::from(damaged["details"]["moved_to"].as_str().unwrap());
    assert_eq!(fs::read_to_string(&aside).unwrap(), kept, "it is kept as it was");
    // What came since is proven, and of what was before the record is named.
    let verdict = server.verify_audit(&key, &server.audit());
    assert!(verdict.status.success() && says(&verdict).contains("log-damaged"), "{verdict:?}");
    let verdict = server.verify_audit(&key, &aside);
    let (number, text) = (kept.lines().count() - 1, says(&verdict));
    assert_eq!(verdict.status.code(), Some(1));
    assert!(text.contains(&format!("record {number} ")), "{number}: {text}");
    // Nothing of it is missing to the server: what it knows of is still there.
    assert_eq!(event(&server, "log-missing"), None);
}
