//! Audit devices: what the API may add, what each is written, and what is enough while the disk hangs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Database, Login, Options, Server, Stopwatch, eventually};

const SOON: Duration = Duration::from_secs(10);
/// A refusal does not wait.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The settings of a device that is a Unix socket.
fn collector(socket: &Path) -> String {
    format!(
        "[audit.devices.collector]\ntype = \"socket\"\naddress = \"{}\"\nsocket_type = \"unix\"\n",
        socket.display()
    )
}

/// A disk that syncs at once, so that none but the one that hangs is ever waited for in vain.
fn quick_disk() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(folder).unwrap()
}

fn file_options(server: &Server, name: &str) -> Value {
    json!({"type": "file", "options": {"file_path": server.path(name)}})
}

/// The path of a response's line and its token's hash, in a file.
fn token_hash(log: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut of_path = lines.filter(|line| line["request"]["path"] == json!(path));
    of_path.find_map(|line| line["auth"]["client_token"].as_str().map(str::to_owned))
}

#[test]
fn a_collector_gets_every_record_in_a_chain_and_under_a_salt_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("collector.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = Server::ready(Options { logged: collector(&socket), ..Options::default() });
    let root = server.root();
    root.get("secret/data/a").expect(404);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let copy = server.path("copy.log");
    let mut lines = BufReader::new(stream).lines();
    // Until the line of that request and the checkpoint behind it.
    let mut text = String::new();
    let mut signed = false;
    while !(text.contains("secret/data/a") && signed) {
        let line = lines.next().unwrap().unwrap();
        signed = line.contains("\"type\":\"checkpoint\"");
        text = text + &line + "\n";
    }
    fs::write(&copy, &text).unwrap();
    let verdict = server.verify_audit(&server.audit_key(), &copy);
    assert!(verdict.status.success(), "{verdict:?}");
    let ours = token_hash(&server.audit(), "secret/data/a").unwrap();
    let theirs = token_hash(&copy, "secret/data/a").unwrap();
    assert_ne!(ours, theirs);
    for (device, hash) in [("file", &ours), ("collector", &theirs)] {
        let asked = json!({"input": server.root_token});
        let answer = root.post(&format!("sys/audit-hash/{device}"), asked).expect(200);
        assert_eq!(&answer.text_at("/data/hash"), hash, "{device}");
    }
    // It stands in the list, and the API does not touch it.
    let list = root.get("sys/audit").expect(200);
    assert_eq!(list.data()["collector/"]["options"]["socket_type"], json!("unix"));
    root.delete("sys/audit/collector").refused(400, "configuration");
    root.delete("sys/audit/file").refused(400, "configuration");
}

#[test]
fn a_device_of_the_api_is_durable_audited_and_taken_away_again() {
    let mut server = Server::open();
    let root = server.root();
    let body = json!({
        "type": "file", "description": "a second one", "local": true,
        "options": {"file_path": server.path("second.log"), "log_raw": "false", "mode": "0600"},
    });
    root.put("sys/audit/second", body.clone()).expect(204);
    root.put("sys/audit/second", body).refused(400, "path is already in use at second/");
    let list = root.get("sys/audit").expect(200);
    assert_eq!(list.json["second/"], list.data()["second/"], "in both places, as Vault has it");
    let second = &list.data()["second/"];
    assert_eq!((&second["type"], &second["path"]), (&json!("file"), &json!("second/")));
    assert_eq!((&second["description"], &second["local"]), (&json!("a second one"), &json!(true)));
    assert_eq!(second["options"]["file_path"], json!(server.path("second.log")));
    let holds = |server: &Server, path: &str| {
        eventually("the second file has it", SOON, || {
            token_hash(&server.path("second.log"), path).map(drop)
        });
    };
    root.get("secret/data/one").expect(404);
    holds(&server, "secret/data/one");
    server.stop();
    server.again();
    server.unseal();
    root.get("secret/data/two").expect(404);
    holds(&server, "secret/data/two");
    assert!(root.get("sys/audit").expect(200).data()["second/"].is_object());
    root.delete("sys/audit/second").expect(204);
    root.delete("sys/audit/second").expect(204);
    assert!(root.get("sys/audit").expect(200).data()["second/"].is_null());
    root.get("secret/data/three").expect(404);
    let text = fs::read_to_string(server.path("second.log")).unwrap();
    // Its own end is written down before it ends, nothing after that.
    assert!(text.contains("\"path\":\"sys/audit/second\"") && !text.contains("secret/data/three"));
    let verdict = server.verify_audit(&server.audit_key(), &server.path("second.log"));
    assert!(verdict.status.success(), "{verdict:?}");
    let said = |verdict: &std::process::Output| {
        String::from_utf8_lossy(&verdict.stdout).contains("the audit device \"second\"")
    };
    assert!(said(&verdict), "it does not pass for the server's own: {verdict:?}");
    assert!(!said(&server.verify_audit(&server.audit_key(), &server.audit())));
    assert!(server.audit_text().contains("\"path\":\"sys/audit/second\""));
    server.stop();
    server.again();
    server.unseal();
    assert!(root.get("sys/audit").expect(200).data()["second/"].is_null());
}

#[test]
fn the_command_line_adds_lists_and_takes_away_devices() {
    let server = Server::open();
    let said = |arguments: &[&str]| {
        let output = server.cli(&[&["audit"], arguments].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let option = format!("file_path={}", server.path("second.log").display());
    let enable = ["enable", "-path=second", "-description=a copy", "file", &option];
    let (code, text) = said(&enable);
    assert!(code == Some(0) && text.contains("at: second/"), "{text}");
    server.root().get("secret/data/one").expect(404);
    eventually("the second file has it", SOON, || {
        token_hash(&server.path("second.log"), "secret/data/one").map(drop)
    });
    let (code, text) = said(&["list", "-detailed"]);
    assert!(code == Some(0) && text.contains("a copy") && text.contains("second.log"), "{text}");
    let (code, text) = said(&enable);
    assert!(code == Some(2) && text.contains("path is already in use at second/"), "{text}");
    let (code, text) = said(&["disable", "second/"]);
    assert!(code == Some(0) && text.contains("at: second/"), "{text}");
    let (code, text) = said(&["-format=json", "list"]);
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert!(
        code == Some(0) && listed["file/"].is_object() && listed["second/"].is_null(),
        "{text}"
    );
    let (code, text) = said(&["disable", "file"]);
    assert!(code == Some(2) && text.contains("configuration"), "{text}");
}

/// Catalogue: CVE-2025-6000, CVE-2025-54997.
#[test]
fn no_device_writes_where_it_should_not_or_what_it_should_not() {
    let server = Server::open();
    let root = server.root();
    let file = |name: &str| server.path(name).display().to_string();
    std::os::unix::fs::symlink(file("elsewhere"), file("link.log")).unwrap();
    for (options, words) in [
        (json!({}), "file_path is required"),
        (json!({"file_path": "/etc/cron.d/mssm"}), "beside the server's own log"),
        (json!({"file_path": file("../x.log")}), "beside the server's own log"),
        (json!({"file_path": file("data/x.log")}), "beside the server's own log"),
        (json!({"file_path": file("audit.log")}), "the server's own log"),
        (json!({"file_path": file("mssm.toml")}), "is not an audit log"),
        (json!({"file_path": file("link.log")}), "not a regular file"),
        (json!({"file_path": file("b.log"), "log_raw": "true"}), "log_raw"),
        (json!({"file_path": file("b.log"), "log_raw": true}), "log_raw"),
        (json!({"file_path": file("b.log"), "mode": "0777"}), "mode"),
        (json!({"file_path": file("b.log"), "prefix": "#!/bin/sh\n"}), "prefix"),
        (json!({"file_path": file("b.log"), "filter": "x"}), "filter"),
    ] {
        let body = json!({"type": "file", "options": options});
        root.put("sys/audit/b", body).refused(400, words);
    }
    let settings = fs::read_to_string(server.path("mssm.toml")).unwrap();
    assert!(settings.starts_with("[server]"));
    assert!(!server.path("elsewhere").exists() && !server.path("b.log").exists());
    root.put("sys/audit/b", json!({"type": "plugin"})).refused(400, "unknown backend type");
    root.put("sys/audit/b", json!({})).refused(400, "type");
    root.put("sys/audit/file/b", file_options(&server, "b.log")).refused(400, "already in use");
    let policy =
        "path \"sys/audit*\" { capabilities = [\"create\", \"read\", \"update\", \"delete\"] }";
    let limited = server.limited("no-sudo", policy);
    limited.put("sys/audit/b", file_options(&server, "b.log")).refused(403, "permission denied");
    limited.delete("sys/audit/b").refused(403, "permission denied");
    limited.get("sys/audit").refused(403, "permission denied");
    let sudo = "path \"sys/audit/*\" { capabilities = [\"create\", \"update\", \"sudo\"] }";
    let sudo = server.limited("sudo", sudo);
    sudo.put("sys/audit/b", file_options(&server, "b.log")).expect(204);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(server.path("b.log")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn syslog_gets_each_record_as_a_datagram() {
    let server = Server::open();
    let daemon = UnixDatagram::bind(server.path("log.sock")).unwrap();
    daemon.set_read_timeout(Some(SOON)).unwrap();
    let options = json!({"address": server.path("log.sock"), "facility": "LOCAL0", "tag": "vault"});
    server
        .root()
        .put("sys/audit/syslog", json!({"type": "syslog", "options": options}))
        .expect(204);
    server.root().get("secret/data/a").expect(404);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = daemon.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        assert!(text.starts_with("<134>") && text.contains(" vault["), "{text}");
        if text.contains("secret/data/a") {
            return;
        }
    }
}

#[test]
fn a_disk_that_hangs_refuses_within_a_second_ends_leases_on_time_and_goes_on_without_a_gap() {
    let database = Database::shared();
    let disk = quick_disk();
    let logged = "patience_ms = 500\n".to_owned();
    let audit = Some(disk.path().join("audit.log"));
    let server = Server::ready(Options { audit, logged, ..Options::default() });
    let root = server.root();
    database.configure(&root, "db", "3s", "1m");
    let login = Login::mint(&root, "db/creds/app");
    fs::write(&server.stall, "").unwrap();
    for _ in 0..20 {
        let begun = Stopwatch::start();
        root.get("sys/key-status").refused(503, "audit");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
    let begun = Stopwatch::start();
    let health = server.client().get("sys/health").expect(200);
    assert_eq!(health.json["audit_blocked"], json!(true), "{}", health.text);
    assert_eq!(health.text_at("/audit_blocked_reason"), "the file does not answer");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    eventually("the login is gone", SOON, || (!database.has_role(&login.user)).then_some(()));
    fs::remove_file(&server.stall).unwrap();
    eventually("service resumes", SOON, || {
        (root.get("sys/key-status").status == 200).then_some(())
    });
    let metrics = root.get("sys/metrics").expect(200).text;
    assert!(metrics.contains("mssm_audit_device_blocked{device=\"file/\"} 0"), "{metrics}");
    eventually("its end is written", SOON, || {
        let tells = |line: &Value| {
            line["event"] == json!("lease-expired")
                && line["details"]["lease_id"] == json!(login.lease)
        };
        server.audit_lines().iter().any(tells).then_some(())
    });
    let verdict = server.verify_audit(&server.audit_key(), &server.audit());
    assert!(verdict.status.success(), "{verdict:?}");
}

#[test]
fn while_the_disk_hangs_another_device_is_enough_and_the_log_gets_all_of_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("collector.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let disk = quick_disk();
    let logged = format!("patience_ms = 500\n{}", collector(&socket));
    let audit = Some(disk.path().join("audit.log"));
    let server = Server::ready(Options { audit, logged, ..Options::default() });
    let (stream, _) = listener.accept().unwrap();
    let drain =
        std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).count());
    let root = server.root();
    fs::write(&server.stall, "").unwrap();
    for number in 0..10 {
        root.post(&format!("secret/data/{number}"), json!({"data": {"a": number}})).expect(200);
    }
    let metrics = root.get("sys/metrics").expect(200).text;
    for shown in [
        "mssm_audit_blocked 0",
        "mssm_audit_device_blocked{device=\"file/\"} 1",
        "mssm_audit_device_blocked{device=\"collector/\"} 0",
    ] {
        assert!(metrics.contains(shown), "{shown}: {metrics}");
    }
    fs::remove_file(&server.stall).unwrap();
    eventually("the log has caught up", SOON, || {
        let metrics = root.get("sys/metrics").expect(200).text;
        let waits = "mssm_audit_device_waiting{device=\"file/\"} 0";
        let blocked = "mssm_audit_device_blocked{device=\"file/\"} 0";
        (metrics.contains(waits) && metrics.contains(blocked)).then_some(())
    });
    for number in 0..10 {
        let written = token_hash(&server.audit(), &format!("secret/data/{number}"));
        assert!(written.is_some(), "{number}");
    }
    let verdict = server.verify_audit(&server.audit_key(), &server.audit());
    assert!(verdict.status.success(), "{verdict:?}");
    drop(server);
    assert!(drain.join().unwrap() > 20);
}
