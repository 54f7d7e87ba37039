//! The audit log: complete, chained, without secrets, and no answer without it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Database, Login, Options, Server, eventually};

const SOON: Duration = Duration::from_secs(10);

/// True if the log is proven by the server's own key.
#[track_caller]
fn proven(server: &Server) {
    let verdict = server.verify_audit(&server.audit_key(), &server.audit());
    assert!(verdict.status.success(), "{verdict:?}");
}

fn request_ids(server: &Server, kind: &str) -> BTreeSet<String> {
    let lines = server.audit_lines();
    let of_kind = lines.iter().filter(|line| line["type"] == json!(kind));
    of_kind.filter_map(|line| line["request"]["id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn every_answered_request_is_in_the_log() {
    let server = Server::open();
    let root = server.root();
    let nobody = server.client();
    let mut ids = BTreeSet::new();
    let mut changing = BTreeSet::new();
    for number in 0..10 {
        let path = format!("secret/data/a/{number}");
        let written = root.post(&path, json!({"data": {"n": number}})).expect(200);
        changing.insert(written.text_at("/request_id"));
        ids.insert(root.get(&path).expect(200).text_at("/request_id"));
    }
    ids.extend(changing.iter().cloned());
    nobody.get("secret/data/a/1").expect(403);
    root.get("secret/data/none").expect(404);
    root.post("secret/data/a", json!({"data": 7})).expect(400);
    let answered = request_ids(&server, "response");
    assert!(ids.is_subset(&answered), "{:?}", ids.difference(&answered));
    assert!(changing.is_subset(&request_ids(&server, "request")));
    let lines = server.audit_lines();
    let refused = lines.iter().any(|line| {
        line["request"]["path"] == json!("secret/data/a/1")
            && line.to_string().contains("permission denied")
    });
    assert!(refused, "what is refused is written down as well");
    proven(&server);
}

#[test]
fn no_value_stands_in_the_log_in_clear() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    let secret = json!({"data": {"word": "canary-word", "pin": 482_913, "yes": true}});
    root.post("secret/data/a", secret).expect(200);
    root.get("secret/data/a").expect(200);
    database.configure(&root, "db", "1h", "2h");
    let login = Login::mint(&root, "db/creds/app");
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    let audit = server.audit_text();
    for value in ["canary-word", "482913", &login.password, database.postgres().admin_password()] {
        assert!(!audit.contains(value), "{value}");
    }
    let line = server.audit_lines().into_iter().find(|line| {
        line["type"] == json!("request") && line["request"]["path"] == json!("secret/data/a")
    });
    let data = line.unwrap()["request"]["data"]["data"].clone();
    for field in ["word", "pin", "yes"] {
        let text = data[field].as_str().unwrap_or_default();
        assert!(text.starts_with("hmac-sha256:") && text.len() == 12 + 64, "{field}: {data}");
    }
    for readable in [login.lease.as_str(), "db/creds/app", "secret/data/a"] {
        assert!(audit.contains(readable), "{readable}");
    }
}

#[test]
fn a_mint_and_its_end_are_written_with_caller_role_and_lease() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "2s", "1m");
    let client = server.with_new_token(json!({"policies": ["root"], "display_name": "robot"}));
    let login = Login::mint(&client, "db/creds/app");
    client.get("db/creds/none").expect(400);
    eventually("the end is written", SOON, || {
        let lines = server.audit_lines();
        let names = |line: &Value| line.to_string().contains(&login.lease);
        let expired = |line: &Value| names(line) && line.to_string().contains("lease-expired");
        lines.iter().any(expired).then_some(())
    });
    let lines = server.audit_lines();
    let with_lease: Vec<String> =
        lines.iter().map(Value::to_string).filter(|line| line.contains(&login.lease)).collect();
    assert!(with_lease.iter().any(|line| line.contains("lease-created")), "{with_lease:#?}");
    assert!(with_lease.iter().any(|line| line.contains("token-robot")), "{with_lease:#?}");
    let failed = |line: &Value| {
        line["type"] == json!("response") && line["request"]["path"] == json!("db/creds/none")
    };
    assert!(lines.iter().any(|line| failed(line) && line.to_string().contains("unknown role")));
}

#[test]
fn a_flipped_byte_a_missing_line_and_a_cut_tail_are_seen() {
    let mut server = Server::open();
    let root = server.root();
    for number in 0..10 {
        root.post("secret/data/a", json!({"data": {"n": number}})).expect(200);
    }
    let key = server.audit_key();
    server.stop();
    let copy = server.path("copy.log");
    let text = server.audit_text();
    fs::write(&copy, &text).unwrap();
    let good = server.verify_audit(&key, &copy);
    assert!(good.status.success(), "{good:?}");
    let lines: Vec<&str> = text.lines().collect();
    let middle = lines.len() / 2;
    let mut missing = lines.clone();
    missing.remove(middle);
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let flipped = lines[middle].replacen("secret", "secreT", 1).replacen("2026", "2027", 1);
    let mut changed = lines.clone();
    changed[middle] = &flipped;
    assert_ne!(changed[middle], lines[middle]);
    for (what, lines) in [("missing", missing), ("swapped", swapped), ("changed", changed)] {
        fs::write(&copy, lines.join("\n") + "\n").unwrap();
        let verdict = server.verify_audit(&key, &copy);
        assert!(!verdict.status.success(), "a {what} line is not seen");
        assert_ne!(verdict.status.code(), Some(101), "{verdict:?}");
    }
    let wrong = server.verify_audit(&"00".repeat(32), &server.audit());
    assert!(!wrong.status.success(), "a wrong key is no proof");
}

#[test]
fn without_a_log_nothing_is_answered_and_service_resumes_by_itself() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    // Unlinked, with a folder in its place: nothing can be written.
    let aside = server.path("aside.log");
    fs::rename(server.audit(), &aside).unwrap();
    fs::create_dir(server.audit()).unwrap();
    eventually("writes are refused", SOON, || {
        (root.post("secret/data/b", json!({"data": {"v": 1}})).status == 503).then_some(())
    });
    root.get("secret/data/a").refused(503, "audit");
    root.without_token().get("sys/health").expect(200);
    fs::remove_dir(server.audit()).unwrap();
    fs::rename(&aside, server.audit()).unwrap();
    eventually("service resumes", SOON, || (root.get("secret/data/a").status == 200).then_some(()));
    root.post("secret/data/c", json!({"data": {"v": 1}})).expect(200);
    proven(&server);
}

#[test]
fn a_log_that_is_moved_away_is_noticed_and_a_new_one_begun() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    fs::rename(server.audit(), server.path("old.log")).unwrap();
    let id = eventually("service goes on", SOON, || {
        let answer = root.get("secret/data/a");
        (answer.status == 200).then(|| answer.text_at("/request_id"))
    });
    let rest = fs::read_to_string(server.path("old.log")).unwrap();
    assert!(
        server.audit_text().contains(&id),
        "no answer without its line in the log that is there"
    );
    assert!(!rest.contains(&id));
}

#[test]
fn a_kill_right_after_a_mint_loses_no_line_of_its_lease() {
    let database = Database::shared();
    let mut server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let logins: Vec<Login> = (0..3).map(|_| Login::mint(&server.root(), "db/creds/app")).collect();
    server.kill9();
    server.again();
    server.unseal();
    for login in &logins {
        eventually("its beginning is written", SOON, || {
            let lines = server.audit_lines();
            let tells = |line: &Value| {
                line["event"] == json!("lease-created")
                    && line["details"]["lease_id"] == json!(login.lease)
            };
            lines.iter().any(tells).then_some(())
        });
    }
}

#[test]
fn the_log_goes_on_where_it_was_after_kill_9() {
    let mut server = Server::open();
    for _ in 0..3 {
        server.root().post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
        server.kill9();
        server.again();
        server.unseal();
    }
    // A line that was torn by the crash is moved aside and is no alarm.
    server.kill9();
    let torn = server.audit_text() + "{\"type\":\"requ";
    fs::write(server.audit(), torn).unwrap();
    server.again();
    server.unseal();
    server.root().get("secret/data/a").expect(200);
    proven(&server);
}

#[test]
fn a_log_that_lost_lines_between_two_runs_is_missed_at_the_next_unsealing() {
    let mut server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    server.stop();
    let lines = server.audit_text().lines().count();
    fs::remove_file(server.audit()).unwrap();
    server.again();
    server.unseal();
    let told = server.audit_lines().into_iter().find(|line| line["event"] == json!("log-missing"));
    let told = told.expect("its line");
    assert_eq!(told["details"]["stored_count"], json!(lines.to_string()));
    assert!(told["details"]["missing"].as_str().unwrap().contains(&format!("to {}", lines - 1)));
    assert!(server.log().contains("does not hold what was written to it"));
    assert!(root.get("sys/metrics").expect(200).text.contains("mssm_audit_missing 1"));
    proven(&server);
    // It was said once; the log that is there now is the one that counts.
    server.stop();
    server.again();
    server.unseal();
    assert!(root.get("sys/metrics").expect(200).text.contains("mssm_audit_missing 0"));
}

#[test]
fn a_server_that_is_told_so_stays_sealed_while_lines_are_missing() {
    let logged = "when_missing = \"refuse\"\n".to_owned();
    let mut server = Server::ready(Options { logged, ..Options::default() });
    server.root().post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    server.stop();
    let aside = server.path("aside.log");
    fs::rename(server.audit(), &aside).unwrap();
    server.again();
    let refused = server.client().put("sys/unseal", json!({"key": server.shares[0]}));
    assert!(refused.status >= 500, "{}", refused.text);
    server.root().get("secret/data/a").refused(503, "sealed");
    server.stop();
    fs::rename(&aside, server.audit()).unwrap();
    server.again();
    server.unseal();
    server.root().get("secret/data/a").expect(200);
}

#[test]
fn a_request_is_proved_to_somebody_who_has_the_key_and_no_log() {
    let server = Server::open();
    let root = server.root();
    let id = root.get("sys/key-status").expect(200).text_at("/request_id");
    let key = server.audit_key();
    let head = root.get("sys/audit/key").expect(200).text_at("/data/head");
    root.get("secret/data/b").expect(404);
    let (log, out) = (server.audit().display().to_string(), server.path("proof"));
    let out = out.display().to_string();
    let done = |arguments: &[&str]| {
        let output = server.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    done(&["audit", "verify", "-key", &key, "-head", &head, &log]);
    done(&["audit", "prove", "-key", &key, "-out", &out, &id, &log]);
    let (one, two) = (format!("{out}.1.json"), format!("{out}.2.json"));
    assert!(fs::read_to_string(&one).unwrap().contains(&id));
    let told = done(&["audit", "check", "-key", &key, &one, &two]);
    assert!(told.contains("is in the log of"), "{told}");
    let forged = fs::read_to_string(&one).unwrap().replacen("sys/key-status", "sys/key-statuS", 1);
    fs::write(&one, forged).unwrap();
    assert!(!server.cli(&["audit", "check", "-key", &key, &one]).status.success());
    let lines = server.audit_lines();
    let numbers = lines.iter().filter(|line| line["type"] == json!("checkpoint"));
    let numbers: Vec<String> = numbers.map(|line| line["seq"].to_string()).collect();
    let (first, last) = (numbers.first().unwrap(), numbers.last().unwrap());
    let beginning = done(&["audit", "consistency", "-key", &key, first, last, &log]);
    fs::write(&one, beginning).unwrap();
    assert!(done(&["audit", "check", "-key", &key, &one]).contains("is the beginning of"));
    // The head that somebody kept shows that the end was cut off, at a checkpoint or not.
    let cut = server.path("cut.log");
    let kept: usize = numbers[numbers.len() / 2].parse().unwrap();
    let text: Vec<String> = server.audit_text().lines().take(kept + 1).map(str::to_owned).collect();
    fs::write(&cut, text.join("\n") + "\n").unwrap();
    let cut = cut.display().to_string();
    done(&["audit", "verify", "-key", &key, &cut]);
    let missed = server.cli(&["audit", "verify", "-key", &key, "-head", &head, &cut]);
    let arguments = ["audit", "verify", "-format=json", "-key", &key, "-head", &head, &cut];
    let told = server.cli(&arguments);
    let verdict: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((told.status.code(), &verdict["proven"]), (Some(1), &json!(false)), "{verdict}");
    assert!(verdict["finding"]["what"].as_str().unwrap().contains("cut off"), "{verdict}");
    assert_eq!(verdict["finding"]["file"], cut);
    assert!(String::from_utf8(missed.stderr).unwrap().contains("was cut off"));
}

/// The request line of the last request for a path.
#[track_caller]
fn asked(server: &Server, path: &str) -> Value {
    let lines = server.audit_lines();
    let of_path = lines
        .into_iter()
        .rev()
        .find(|line| line["type"] == json!("response") && line["request"]["path"] == json!(path));
    of_path.expect("its line")
}

#[test]
fn a_value_is_found_in_the_log_by_its_hash() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"word": "canary-word", "pin": 7}})).expect(200);
    let hash = |input: &str| {
        let answer = root.post("sys/audit-hash/file", json!({ "input": input })).expect(200);
        answer.text_at("/data/hash")
    };
    let data = asked(&server, "secret/data/a")["request"]["data"]["data"].clone();
    assert_eq!(data["word"], json!(hash("canary-word")));
    assert_eq!(data["pin"], json!(hash("7")));
    let accessor = root.get("auth/token/lookup-self").expect(200).text_at("/data/accessor");
    assert_eq!(asked(&server, "secret/data/a")["auth"]["accessor"], json!(hash(&accessor)));
    root.post("sys/audit-hash/other", json!({"input": "x"})).refused(400, "unknown audit backend");
    root.post("sys/audit-hash/file", json!({})).refused(400, "input");
}

#[test]
fn a_mount_says_what_may_stand_in_clear_and_whether_names_are_hashed() {
    let server = Server::open();
    let root = server.root();
    let rules = json!({
        "audit_non_hmac_request_keys": ["options"], "audit_non_hmac_response_keys": "metadata,x",
    });
    root.post("sys/mounts/secret/tune", rules).expect(204);
    let tuned = root.get("sys/mounts/secret/tune").expect(200);
    assert_eq!(tuned.data()["audit_non_hmac_response_keys"], json!(["metadata", "x"]));
    let body =
        json!({"data": {"metadata": "canary-1", "options": "canary-2"}, "options": {"cas": 0}});
    root.post("secret/data/a", body).expect(200);
    root.get("secret/data/a").expect(200);
    let text = server.audit_text();
    assert!(!text.contains("canary"), "rules are for the data's own members alone");
    let line = asked(&server, "secret/data/a");
    assert_eq!(line["response"]["data"]["metadata"]["version"], json!("1"));
    root.post("sys/mounts/secret/tune", json!({"audit_hmac_names": true})).expect(204);
    root.post("secret/data/b", json!({"data": {"canary-name": 1}})).expect(200);
    root.get("secret/data/b").expect(200);
    assert!(!server.audit_text().contains("canary-name"));
    let mut server = server;
    server.stop();
    server.again();
    server.unseal();
    let tuned = server.root().get("sys/mounts/secret/tune").expect(200);
    assert_eq!(tuned.data()["audit_non_hmac_request_keys"], json!(["options"]));
    assert_eq!(tuned.data()["audit_hmac_names"], json!(true));
}

#[test]
fn headers_are_written_down_by_an_allow_list() {
    let server = Server::open();
    let root = server.root();
    let headers = [("X-Shown", "canary-shown"), ("X-Hashed", "canary-hashed"), ("X-Other", "o")];
    let read = || {
        root.send("GET", "sys/key-status", &headers, None).expect(200);
        asked(&server, "sys/key-status")["request"]["headers"].clone()
    };
    assert_eq!(read(), Value::Null);
    root.put("sys/config/auditing/request-headers/X-Shown", json!({})).expect(204);
    root.put("sys/config/auditing/request-headers/x-hashed", json!({"hmac": true})).expect(204);
    root.put("sys/config/auditing/request-headers/X-Vault-Token", json!({})).expect(204);
    let shown = read();
    assert_eq!(shown["x-shown"], json!(["canary-shown"]));
    assert!(shown["x-hashed"][0].as_str().unwrap().starts_with("hmac-sha256:"));
    // A token is hashed whatever was asked.
    assert!(shown["x-vault-token"][0].as_str().unwrap().starts_with("hmac-sha256:"), "{shown}");
    assert!(!server.audit_text().contains("canary-hashed"));
    let list = root.get("sys/config/auditing/request-headers").expect(200);
    assert_eq!(list.data()["headers"]["x-hashed"]["hmac"], json!(true));
    let one = root.get("sys/config/auditing/request-headers/X-Shown").expect(200);
    assert_eq!(one.data()["x-shown"]["hmac"], json!(false));
    root.delete("sys/config/auditing/request-headers/X-Shown").expect(204);
    assert_eq!(read()["x-shown"], Value::Null);
}
