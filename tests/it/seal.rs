//! Initialising, unsealing, sealing, rotating, and what a store says that is not whole.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Options, Server, free_port, write_private};

fn status(server: &Server) -> Value {
    server.client().get("sys/seal-status").expect(200).json
}

fn progress(server: &Server) -> i64 {
    server.client().get("sys/seal-status").number_at("/progress")
}

#[test]
fn before_it_is_initialised_a_server_says_so_and_does_nothing_else() {
    let server = Server::start(Options::default());
    let client = server.client();
    assert_eq!(client.get("sys/init").expect(200).json, json!({"initialized": false}));
    let status = status(&server);
    for (key, value) in [
        ("type", json!("shamir")),
        ("initialized", json!(false)),
        ("sealed", json!(true)),
        ("t", json!(0)),
        ("n", json!(0)),
        ("progress", json!(0)),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert!(status.get("cluster_id").is_none(), "{status}");
    client.get("sys/health").expect(501);
    client.get("sys/health?uninitcode=299").expect(299);
    client.with_token("x").get("secret/data/a").refused(503, "sealed");
    client.put("sys/unseal", json!({"key": "00".repeat(33)})).refused(503, "sealed");
}

#[test]
fn shares_and_threshold_must_make_sense() {
    let mut server = Server::start(Options::default());
    let client = server.client();
    for (shares, threshold, words) in [
        (0, 0, "invalid seal configuration"),
        (2, 3, "threshold cannot be larger than shares"),
        (3, 1, "threshold must be greater than one"),
        (300, 2, "invalid seal configuration"),
    ] {
        let body = json!({"secret_shares": shares, "secret_threshold": threshold});
        client.put("sys/init", body).refused(400, words);
    }
    assert_eq!(client.get("sys/init").json, json!({"initialized": false}));
    server.init(5, 3);
    assert_eq!(server.shares.len(), 5);
    assert_eq!((&status(&server)["n"], &status(&server)["t"]), (&json!(5), &json!(3)));
    let again = json!({"secret_shares": 1, "secret_threshold": 1});
    client.put("sys/init", again).refused(400, "Vault is already initialized");
    client.get("sys/health").expect(503);
}

#[test]
fn any_three_of_five_shares_open_it_in_either_notation() {
    let mut server = Server::start(Options::default());
    let body = json!({"secret_shares": 5, "secret_threshold": 3});
    let founded = server.client().put("sys/init", body).expect(200);
    let share = |list: &str, index: usize| founded.json[list][index].as_str().unwrap().to_owned();
    for (key, expected) in [
        (share("keys", 4), json!(1)),
        (share("keys_base64", 1), json!(2)),
        (share("keys", 2), json!(0)),
    ] {
        let answer = server.client().put("sys/unseal", json!({"key": key})).expect(200);
        assert_eq!(answer.json["progress"], expected);
    }
    let status = status(&server);
    assert_eq!(status["sealed"], json!(false));
    assert!(status["cluster_id"].is_string() && status["cluster_name"].is_string(), "{status}");
    server.client().get("sys/health").expect(200);
    server.root_token = founded.text_at("/root_token");
    assert_eq!(
        server.root().get("auth/token/lookup-self").text_at("/data/path"),
        "auth/token/root"
    );
}

#[test]
fn a_bad_share_is_refused_and_the_good_ones_stay() {
    let mut server = Server::start(Options::default());
    server.init(5, 3);
    let mut other = Server::start(Options::default());
    other.init(5, 3);
    let give = |key: &str| server.client().put("sys/unseal", json!({"key": key}));
    give(&server.shares[0]).expect(200);
    assert_eq!(progress(&server), 1);
    give(&server.shares[0]).expect(200);
    assert_eq!(progress(&server), 1, "a share that is given twice counts once");
    give("not a share!").refused(400, "hex or base64");
    give("0011").expect(400);
    give(&other.shares[1]).expect(400);
    let mut flipped = server.shares[1].clone().into_bytes();
    flipped[8] = if flipped[8] == b'A' { b'B' } else { b'A' };
    give(&String::from_utf8(flipped).unwrap()).expect(400);
    server.client().put("sys/unseal", json!({})).refused(400, "key");
    assert_eq!(progress(&server), 1, "nothing that was wrong costs what was right");
    give(&server.shares[1]).expect(200);
    assert_eq!(progress(&server), 2);
    let reset = server.client().put("sys/unseal", json!({"reset": true})).expect(200);
    assert_eq!(reset.number_at("/progress"), 0);
    server.unseal();
    for log in [server.log(), server.audit_text()] {
        assert!(server.shares.iter().all(|share| !log.contains(share.as_str())));
        assert!(!log.contains(&server.root_token));
    }
}

#[test]
fn sealed_nothing_answers_but_what_must() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"b": "c"}})).expect(200);
    server
        .limited("weak", "path \"secret/*\" { capabilities = [\"read\"] }")
        .put("sys/seal", json!({}))
        .expect(403);
    root.get("sys/seal").expect(405);
    root.put("sys/seal", json!({})).expect(204);
    for path in ["secret/data/a", "sys/mounts", "auth/token/lookup-self", "db/creds/x", "nope/x"] {
        root.get(path).refused(503, "Vault is sealed");
        root.without_token().get(path).refused(503, "Vault is sealed");
        root.post(path, json!({})).refused(503, "Vault is sealed");
    }
    assert_eq!(status(&server)["sealed"], json!(true));
    root.get("sys/health").expect(503);
    root.get("sys/health?sealedcode=299").expect(299);
    server.unseal();
    assert_eq!(root.get("secret/data/a").expect(200).data()["data"], json!({"b": "c"}));
}

#[test]
fn a_static_key_from_a_file_opens_the_server_at_every_start() {
    let key = "5a".repeat(32);
    let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
    let files = vec![("root.key", key.clone())];
    let mut server = Server::start(Options { seal, files, ..Options::default() });
    let founded = server.client().put("sys/init", json!({})).expect(200);
    server.root_token = founded.text_at("/root_token");
    let _ = server.client().put("sys/unseal", json!({}));
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"b": 1}})).expect(200);
    server.kill9();
    server.again();
    crate::harness::eventually("it opens by itself", std::time::Duration::from_secs(10), || {
        (root.get("sys/health").status == 200).then_some(())
    });
    assert_eq!(root.get("secret/data/a").expect(200).data()["data"], json!({"b": 1}));
    assert_eq!(status(&server)["type"], json!("static"));
    // Sealed by hand it stays sealed until asked.
    root.put("sys/seal", json!({})).expect(204);
    assert_eq!(status(&server)["sealed"], json!(true));
    root.without_token().put("sys/unseal", json!({})).expect(200);
    root.get("secret/data/a").expect(200);
    // Another key is not the key, and it says so.
    server.kill9();
    write_private(&server.path("root.key"), &"5b".repeat(32));
    let said = wrong_key(&mut server);
    assert!(said.to_lowercase().contains("key"), "{said}");
    assert!(!said.contains(&"5b".repeat(32)));
    assert!(!server.log().contains(&key));
}

/// What a server says that has been given a wrong key, whether it stays up sealed or gives up.
fn wrong_key(server: &mut Server) -> String {
    let before = server.log().len();
    server.again();
    let root = server.root();
    root.get("secret/data/a").refused(503, "sealed");
    let answer = root.without_token().put("sys/unseal", json!({})).expect(500);
    format!("{} {}", answer.errors(), server.log().split_at(before).1)
}

#[test]
fn everything_is_there_after_kill_9_and_restart() {
    for storage in ["embedded", "file"] {
        let mut server = Server::ready(Options { storage, ..Options::default() });
        let root = server.root();
        for number in 0..20 {
            root.post(&format!("secret/data/a/{number}"), json!({"data": {"n": number}}))
                .expect(200);
        }
        let policy = "path \"secret/*\" { capabilities = [\"read\"] }";
        let reader = server.limited("reader", policy);
        root.post("sys/mounts/more", json!({"type": "kv"})).expect(204);
        root.post("more/x", json!({"y": "z"})).expect(204);
        server.kill9();
        server.again();
        server.unseal();
        for number in 0..20 {
            let answer = reader.get(&format!("secret/data/a/{number}")).expect(200);
            assert_eq!(answer.data()["data"], json!({"n": number}));
        }
        assert_eq!(root.get("more/x").expect(200).data(), &json!({"y": "z"}));
        assert_eq!(server.stop().code(), Some(0), "a stop that was asked for is no failure");
    }
}

#[test]
fn after_a_rotation_old_and_new_records_are_read() {
    let mut server = Server::open();
    let root = server.root();
    root.post("secret/data/old", json!({"data": {"n": 1}})).expect(200);
    assert_eq!(root.get("sys/key-status").expect(200).number_at("/data/term"), 1);
    root.put("sys/rotate", json!({})).expect(204);
    root.post("sys/rotate/keyring", json!({})).expect(204);
    let rotated = root.get("sys/key-status").expect(200);
    assert_eq!(rotated.number_at("/data/term"), 3);
    assert_eq!(rotated.number_at("/term"), 3, "both levels, as old clients expect");
    root.post("secret/data/new", json!({"data": {"n": 2}})).expect(200);
    server.kill9();
    server.again();
    server.unseal();
    for (path, number) in [("old", 1), ("new", 2)] {
        let answer = root.get(&format!("secret/data/{path}")).expect(200);
        assert_eq!(answer.data()["data"], json!({"n": number}));
    }
    assert_eq!(root.get("sys/key-status").expect(200).number_at("/data/term"), 3);
}

#[test]
fn a_damaged_store_says_what_is_wrong_and_shows_nothing() {
    let mut server = Server::ready(Options { storage: "file", ..Options::default() });
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"b": "c"}})).expect(200);
    server.stop();
    // One byte in the middle of every file of the store but its lock.
    let mut damaged = 0;
    let mut folders = vec![server.data()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with("tls") && !name.starts_with("audit") {
                let mut bytes = fs::read(&path).unwrap();
                if bytes.len() > 40 {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(&path, bytes).unwrap();
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > 3, "{damaged}");
    let checked = server.cli(&[
        "storage",
        "check",
        "--config",
        &server.path("mssm.toml").display().to_string(),
    ]);
    assert!(!checked.status.success(), "{checked:?}");
    let mut child = server.spawn_unchecked();
    let mut said = String::new();
    crate::harness::eventually("it says what is wrong", std::time::Duration::from_secs(20), || {
        if child.try_wait().unwrap().is_none() {
            let unseal = json!({"key": server.shares[0]}).to_string();
            let answer = server.client().try_send("PUT", "sys/unseal", &[], Some(&unseal)).ok()?;
            assert!(
                answer.status >= 400 || answer.json["sealed"] == json!(true),
                "{}",
                answer.text
            );
            said.push_str(&answer.text);
        }
        said.push_str(&server.log());
        ["damaged", "corrupt", "authentic", "checksum"]
            .iter()
            .any(|word| said.to_lowercase().contains(word))
            .then_some(())
    });
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_second_server_on_one_store_is_refused() {
    let server = Server::open();
    let mut second = Server::start(Options::default());
    second.stop();
    let config = fs::read_to_string(second.path("mssm.toml")).unwrap();
    let own = second.data().display().to_string();
    let config = config
        .replace(&own, &server.data().display().to_string())
        .replace(&second.port().to_string(), &free_port().to_string());
    fs::write(second.path("mssm.toml"), config).unwrap();
    let (status, said) = second.fails_to_start();
    assert!(!status.success());
    assert!(said.contains("use") || said.contains("lock"), "{said}");
    server.root().get("sys/mounts").expect(200);
}

#[test]
fn a_setting_that_is_wrong_stops_the_start_and_is_named() {
    let mut server = Server::start(Options::default());
    server.stop();
    let config = fs::read_to_string(server.path("mssm.toml")).unwrap();
    fs::write(server.path("mssm.toml"), config.replace("[seal]", "[seal]\ncolour = \"red\""))
        .unwrap();
    let (status, said) = server.fails_to_start();
    assert!(!status.success());
    assert!(said.contains("colour"), "{said}");
}

/// Catalogue: CVE-2021-38553.
#[test]
fn the_stores_files_are_private_and_show_no_name_and_no_value() {
    use std::os::unix::fs::PermissionsExt;
    for storage in ["embedded", "file"] {
        let mut server = Server::ready(Options { storage, ..Options::default() });
        let secret = json!({"data": {"canaryfield": "canaryvalue"}});
        server.root().post("secret/data/canaryfolder/canaryname", secret).expect(200);
        server.stop();
        let mut folders = vec![server.data()];
        while let Some(folder) = folders.pop() {
            let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", folder.display());
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                let public = path.extension().is_some_and(|end| end == "crt" || end == "pub");
                assert!(mode == 0o600 || (public && mode == 0o644), "{} {mode:o}", path.display());
                let bytes = fs::read(&path).unwrap();
                let found = bytes.windows(6).any(|window| window == b"canary");
                assert!(
                    !found && !path.display().to_string().contains("canary"),
                    "{}",
                    path.display()
                );
            }
        }
        assert!(!server.audit_text().contains("canaryvalue"));
        assert!(!server.log().contains("canary"), "{}", server.log());
    }
}
