//! After sealing nothing of what the server kept is in its memory: keys, shares, tokens, secrets, passwords.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Database, Login, Options, Server, Stopwatch, skipped};

/// What is read of the memory at a time.
const PAGE: usize = 4096;
/// Until the server has seen that connections were closed; looking through its memory takes a while, too.
const SOON: Duration = Duration::from_mins(1);
/// More than the longest needle.
const OVERLAP: usize = 256;

/// Which of the needles are somewhere in a process's memory; `None` if it cannot be read.
fn found_in(pid: u32, needles: &[(&str, Vec<u8>)]) -> Option<Vec<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut found = Vec::new();
    for map in maps.lines() {
        let (range, rest) = map.split_once(' ')?;
        // Code and files of others hold nothing of ours; what the kernel shows is not memory.
        if !rest.starts_with("rw") || rest.contains("[v") {
            continue;
        }
        let (start, end) = range.split_once('-')?;
        let (start, end) =
            (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        // Pages in a row that hold something, with the end of those before.
        let mut held: Vec<u8> = Vec::new();
        let mut page = [0; PAGE];
        for at in (start..end).step_by(PAGE) {
            let used = memory.read_exact_at(&mut page, at).is_ok() && page != [0; PAGE];
            if !used {
                held.clear();
                continue;
            }
            held.drain(..held.len().saturating_sub(OVERLAP));
            held.extend_from_slice(&page);
            for (name, needle) in needles {
                if let Some(place) = position(&held, needle) {
                    let around = &held[place.saturating_sub(60)..(place + 90).min(held.len())];
                    let shown = String::from_utf8_lossy(around).replace(char::is_control, " ");
                    found.push(format!("{name} at {at:x}: {shown}"));
                }
            }
        }
    }
    Some(found)
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, mut at) = (needle[0], 0);
    // `contains` of a byte is fast, also in a test that is not optimised.
    while bytes[at..].contains(&first) {
        at += bytes[at..].iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// A server that has had all kinds of secrets in hand, and what to look for.
fn full_of_secrets() -> (Server, Vec<(&'static str, Vec<u8>)>) {
    let database = Database::shared();
    let server = Server::ready(Options::default());
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    root.post("secret/data/a", json!({"data": {"word": "canary-of-the-value-1"}})).expect(200);
    root.get("secret/data/a").expect(200);
    let token = server.with_new_token(json!({"policies": ["default"]}));
    token.get("auth/token/lookup-self").expect(200);
    let login = Login::mint(&root, "db/creds/app");
    let needles = vec![
        ("the secret", b"canary-of-the-value-1".to_vec()),
        ("a login's password", login.password.clone().into_bytes()),
        ("a token", token.token().as_bytes().to_vec()),
        ("the root token", server.root_token.clone().into_bytes()),
        ("a share", server.shares[0].clone().into_bytes()),
        ("the admin's password", database.postgres().admin_password().as_bytes().to_vec()),
    ];
    (server, needles)
}

/// Documents larger than what ciphers take at a time: their pieces go through buffers on the stack.
fn have_long_documents(server: &Server) -> Vec<(&'static str, Vec<u8>)> {
    let root = server.root();
    let long = |bytes: usize| "canary-of-a-long-value-".repeat(bytes.div_ceil(23));
    for number in 0..6 {
        let data = json!({"user": "app", "note": long(300), "key": long(3000), "number": number});
        let path = format!("secret/data/long/{number}");
        root.post(&path, json!({"data": data})).expect(200);
        root.get(&path).expect(200);
    }
    vec![("a piece of a document", b"canary-of-a-long-value-".to_vec())]
}

/// Seals, and waits for the connections that were used to be gone: each keeps what it read last.
fn seal(server: &Server, needles: &[(&str, Vec<u8>)]) {
    server.root().put("sys/seal", json!({})).expect(204);
    let watch = Stopwatch::start();
    loop {
        let left = found_in(server.pid(), needles).unwrap();
        if left.is_empty() {
            return;
        }
        assert!(watch.elapsed() < SOON, "{left:#?}");
    }
}

#[test]
fn after_sealing_no_key_and_no_secret_is_left_in_memory() {
    let (server, needles) = full_of_secrets();
    let Some(before) = found_in(server.pid(), &needles) else {
        return skipped("memory after sealing: only root may read another process");
    };
    seal(&server, &needles);
    for _ in 0..4 {
        server.unseal();
        let needles = have_long_documents(&server);
        seal(&server, &needles);
    }
    assert!(!before.is_empty(), "what is looked for was there before");
}

/// Which needles are in a core image that root's `gcore` makes, pages that are left out of dumps with it;
/// `None` if it makes none.
fn in_core(server: &Server, needles: &[(&str, Vec<u8>)]) -> Option<Vec<String>> {
    let (pid, base) = (server.pid().to_string(), server.path("core"));
    let made = Command::new("gcore").arg("-a").arg("-o").arg(&base).arg(&pid).output().ok()?;
    let core = server.path(&format!("core.{pid}"));
    if !made.status.success() || !core.exists() {
        return None;
    }
    let patterns = server.path("patterns");
    let all: Vec<&[u8]> = needles.iter().map(|(_, needle)| needle.as_slice()).collect();
    fs::write(&patterns, all.join(&b'\n')).unwrap();
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-a", "-o", "-F", "-f"]).arg(&patterns).arg(&core);
    let seen = grep.output().unwrap().stdout;
    fs::remove_file(core).unwrap();
    let found = needles.iter().filter(|(_, needle)| position(&seen, needle).is_some());
    Some(found.map(|(name, _)| (*name).to_owned()).collect())
}

/// The process cannot be dumped, which binds everybody but root.
#[test]
fn a_core_image_by_roots_gcore_after_sealing_holds_no_secret() {
    if std::env::var_os("MSSM_TEST_CORE").is_none() {
        return skipped("a core image after sealing: it takes 1.6 GB, scripts/torture makes one");
    }
    let (server, mut needles) = full_of_secrets();
    needles.extend(have_long_documents(&server));
    seal(&server, &needles);
    // What is public is found, so the rest would be.
    needles.push(("a path", server.audit().display().to_string().into_bytes()));
    let Some(found) = in_core(&server, &needles) else {
        return skipped("a core image after sealing: gcore is missing, or root alone may make one");
    };
    assert_eq!(found, ["a path"]);
    // It goes on after that.
    server.unseal();
    server.root().get("secret/data/a").expect(200);
}
