//! Static secrets: versioned, plain, and each token's own.

use serde_json::{Value, json};

use crate::harness::Server;

#[test]
fn every_write_is_a_version_and_each_can_be_read() {
    let server = Server::open();
    let root = server.root();
    root.get("secret/data/app/db").expect(404);
    for number in 1..=3 {
        let written = root.post("secret/data/app/db", json!({"data": {"n": number}})).expect(200);
        assert_eq!(written.number_at("/data/version"), number);
        assert_eq!(written.data()["destroyed"], json!(false));
        assert_eq!(written.data()["deletion_time"], json!(""));
    }
    let latest = root.get("secret/data/app/db").expect(200);
    assert_eq!(latest.data()["data"], json!({"n": 3}));
    assert_eq!(latest.number_at("/data/metadata/version"), 3);
    let first = root.get("secret/data/app/db?version=1").expect(200);
    assert_eq!(first.data()["data"], json!({"n": 1}));
    root.get("secret/data/app/db?version=9").expect(404);
    root.get("secret/data/app/db?version=x").expect(400);
    for (list, keys) in [("secret/metadata", ["app/"]), ("secret/metadata/app/", ["db"])] {
        assert_eq!(root.list(list).expect(200).keys(), keys);
        assert_eq!(root.get(&format!("{list}?list=true")).expect(200).keys(), keys);
    }
    let nothing = root.list("secret/metadata/none").expect(404);
    assert_eq!(nothing.json, json!({"errors": []}));
}

#[test]
fn check_and_set_lets_one_writer_win() {
    let server = Server::open();
    let root = server.root();
    let write = |cas: Value| {
        root.post("secret/data/a", json!({"options": {"cas": cas}, "data": {"x": "y"}}))
    };
    write(json!(0)).expect(200);
    write(json!(0)).refused(400, "check-and-set parameter did not match the current version");
    write(json!(1)).expect(200);
    root.post("secret/metadata/a", json!({"cas_required": true})).expect(204);
    let body = json!({"data": {"x": "z"}});
    root.post("secret/data/a", body).refused(400, "check-and-set parameter required for this call");
    let won = std::thread::scope(|scope| {
        let race = |_| {
            let root = root.clone();
            let body = json!({"options": {"cas": 2}, "data": {"x": "z"}});
            scope.spawn(move || root.post("secret/data/a", body).status)
        };
        let race: Vec<_> = (0..8).map(race).collect();
        race.into_iter().map(|one| one.join().unwrap()).filter(|status| *status == 200).count()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_deleted_version_comes_back_and_a_destroyed_one_does_not() {
    let server = Server::open();
    let root = server.root();
    for number in 1..=3 {
        root.post("secret/data/a", json!({"data": {"n": number}})).expect(200);
    }
    root.delete("secret/data/a").expect(204);
    let gone = root.get("secret/data/a").expect(404);
    assert_eq!(gone.data()["data"], Value::Null, "{}", gone.text);
    assert!(!gone.text_at("/data/metadata/deletion_time").is_empty());
    root.post("secret/undelete/a", json!({"versions": [3]})).expect(204);
    assert_eq!(root.get("secret/data/a").expect(200).data()["data"], json!({"n": 3}));
    root.post("secret/delete/a", json!({"versions": ["1"]})).expect(204);
    root.get("secret/data/a?version=1").expect(404);
    root.put("secret/destroy/a", json!({"versions": [2]})).expect(204);
    root.post("secret/undelete/a", json!({"versions": [1, 2]})).expect(204);
    root.get("secret/data/a?version=1").expect(200);
    let destroyed = root.get("secret/data/a?version=2").expect(404);
    assert_eq!(destroyed.data()["metadata"]["destroyed"], json!(true));
    root.post("secret/delete/a", json!({})).refused(400, "No version number provided");
    let metadata = root.get("secret/metadata/a").expect(200);
    assert_eq!(metadata.number_at("/data/current_version"), 3);
    assert_eq!(metadata.data()["versions"]["2"]["destroyed"], json!(true));
    root.delete("secret/metadata/a").expect(204);
    root.get("secret/metadata/a").expect(404);
    root.get("secret/data/a").expect(404);
    root.delete("secret/metadata/a").expect(204);
}

#[test]
fn a_merge_patch_changes_some_members_and_takes_others_out() {
    let server = Server::open();
    let root = server.root();
    root.merge("secret/data/a", json!({"data": {"x": 1}})).expect(404);
    root.post("secret/data/a", json!({"data": {"keep": 1, "drop": 2, "deep": {"a": 1, "b": 2}}}))
        .expect(200);
    let patch = json!({"data": {"drop": null, "new": "n", "deep": {"b": null}}});
    assert_eq!(
        root.merge("secret/data/a", patch.clone()).expect(200).number_at("/data/version"),
        2
    );
    let read = root.get("secret/data/a").expect(200);
    assert_eq!(read.data()["data"], json!({"keep": 1, "new": "n", "deep": {"a": 1}}));
    root.send("PATCH", "secret/data/a", &[], Some(&patch.to_string())).expect(400);
    let subkeys = root.get("secret/subkeys/a").expect(200);
    assert_eq!(subkeys.data()["subkeys"], json!({"keep": null, "new": null, "deep": {"a": null}}));
}

#[test]
fn old_versions_go_when_there_are_too_many() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/config", json!({"max_versions": 5})).expect(204);
    assert_eq!(root.get("secret/config").expect(200).number_at("/data/max_versions"), 5);
    root.post("secret/metadata/a", json!({"max_versions": 2, "custom_metadata": {"owner": "me"}}))
        .expect(204);
    for number in 1..=4 {
        root.post("secret/data/a", json!({"data": {"n": number}})).expect(200);
    }
    let metadata = root.get("secret/metadata/a").expect(200);
    assert_eq!(metadata.number_at("/data/oldest_version"), 3);
    assert_eq!(metadata.data()["custom_metadata"], json!({"owner": "me"}));
    root.get("secret/data/a?version=2").expect(404);
    root.merge("secret/metadata/a", json!({"custom_metadata": {"owner": null, "team": "t"}}))
        .expect(204);
    let metadata = root.get("secret/metadata/a").expect(200);
    assert_eq!(metadata.data()["custom_metadata"], json!({"team": "t"}));
}

#[test]
fn numbers_come_back_exactly_as_they_were_sent() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    let document = r#"{"a":12345678901234567890.10,"b":1e400,"c":9007199254740993,"d":-0.0,"e":[1.50,{"f":1E+2}]}"#;
    root.post_text("secret/data/n", &format!("{{\"data\":{document}}}")).expect(200);
    root.post_text("plain/n", document).expect(204);
    root.post_text("cubbyhole/n", document).expect(204);
    for path in ["secret/data/n", "plain/n", "cubbyhole/n"] {
        let text = root.get(path).expect(200).text;
        let plain = text.replace(' ', "");
        for number in
            ["12345678901234567890.10", ":1e400", "9007199254740993", "-0.0", "1.50", "1E+2"]
        {
            assert!(plain.contains(number), "{path}: {number} is not in {text}");
        }
    }
}

#[test]
fn plain_secrets_are_written_read_listed_and_deleted() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/kv1", json!({"type": "kv", "options": {"version": "1"}})).expect(204);
    root.put("kv1/a/b", json!({"user": "me", "ttl": "30m"})).expect(204);
    let read = root.get("kv1/a/b").expect(200);
    assert_eq!(read.data(), &json!({"user": "me", "ttl": "30m"}));
    assert_eq!(read.number_at("/lease_duration"), 1800);
    assert_eq!(read.text_at("/lease_id"), "");
    assert_eq!(root.get("kv1?list=true").expect(200).keys(), ["a/"]);
    assert_eq!(root.list("kv1/a").expect(200).keys(), ["b"]);
    root.post("kv1/empty", json!({})).expect(400);
    root.delete("kv1/a/b").expect(204);
    root.delete("kv1/a/b").expect(204);
    root.get("kv1/a/b").expect(404);
}

/// Catalogue: INFISICAL.
#[test]
fn a_cubbyhole_belongs_to_one_token_and_goes_with_it() {
    let server = Server::open();
    let one = server.with_new_token(json!({"policies": ["default"]}));
    let two = server.with_new_token(json!({"policies": ["default"]}));
    one.post("cubbyhole/mine", json!({"secret": "s"})).expect(204);
    assert_eq!(one.get("cubbyhole/mine").expect(200).data(), &json!({"secret": "s"}));
    two.get("cubbyhole/mine").expect(404);
    server.root().get("cubbyhole/mine").expect(404);
    assert_eq!(one.list("cubbyhole").expect(200).keys(), ["mine"]);
    one.delete("cubbyhole/mine").expect(204);
    one.get("cubbyhole/mine").expect(404);
}

#[test]
fn a_mistaken_path_on_versioned_secrets_is_explained() {
    let server = Server::open();
    let answer = server.root().get("secret/app").expect(404);
    assert!(answer.text.contains("version"), "{}", answer.text);
    server.root().post("secret/data/a", json!({"value": 1})).refused(400, "no data provided");
    server.root().post("secret/data/a", json!({"data": "text"})).refused(400, "data");
}

#[test]
fn names_with_any_letters_are_kept_apart() {
    let server = Server::open();
    let root = server.root();
    let names = ["a%20b", "a+b", "%C3%A4%C3%B6", "a.b", "A", "a", "x%22y", "..."];
    for (number, name) in names.iter().enumerate() {
        root.post(&format!("secret/data/odd/{name}"), json!({"data": {"n": number}})).expect(200);
    }
    for (number, name) in names.iter().enumerate() {
        let read = root.get(&format!("secret/data/odd/{name}")).expect(200);
        assert_eq!(read.data()["data"], json!({"n": number}), "{name}");
    }
    let mut sorted = vec!["a b", "a+b", "äö", "a.b", "A", "a", "x\"y", "..."];
    sorted.sort_unstable();
    assert_eq!(root.list("secret/metadata/odd").expect(200).keys(), sorted);
}
