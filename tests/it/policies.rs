//! Policies over real requests: who may do what, and which of several paths decides.

use serde_json::json;

use crate::harness::Server;

#[test]
fn policies_are_written_read_listed_and_deleted() {
    let server = Server::open();
    let root = server.root();
    let hcl = "path \"secret/data/*\" { capabilities = [\"read\"] } # why";
    root.put("sys/policies/acl/one", json!({"policy": hcl})).expect(204);
    let text = r#"{"path":{"secret/data/b":{"capabilities":["create","update"]}}}"#;
    root.post("sys/policy/two", json!({"policy": text})).expect(204);
    let shown = root.get("sys/policies/acl/one").expect(200);
    assert_eq!(
        (shown.text_at("/data/name"), shown.text_at("/data/policy")),
        ("one".into(), hcl.into())
    );
    let old = root.get("sys/policy/two").expect(200);
    assert_eq!(old.text_at("/rules"), text);
    let keys = root.list("sys/policies/acl").expect(200).keys();
    assert_eq!(keys, ["default", "one", "two", "root"]);
    assert!(root.get("sys/policy").expect(200).json["policies"].is_array());
    root.delete("sys/policies/acl/one").expect(204);
    root.delete("sys/policies/acl/one").expect(204);
    root.get("sys/policies/acl/one").expect(404);
    root.delete("sys/policies/acl/default").expect(400);
    root.delete("sys/policies/acl/root").expect(400);
    root.put("sys/policies/acl/root", json!({"policy": hcl})).expect(400);
}

#[test]
fn a_policy_that_cannot_be_meant_is_refused_and_says_why() {
    let server = Server::open();
    let root = server.root();
    for (policy, words) in [
        ("", "policy"),
        ("path \"a\" { capabilities = [\"rxad\"] }", "rxad"),
        ("path \"a\" { capabilities = [\"read\"] ", "parse"),
        ("path \"a\" { capabilitys = [\"read\"] }", "capabilitys"),
    ] {
        root.put("sys/policies/acl/x", json!({"policy": policy})).refused(400, words);
    }
    root.get("sys/policies/acl/x").expect(404);
}

#[test]
fn the_more_exact_path_decides_and_deny_wins() {
    let server = Server::open();
    let root = server.root();
    for path in ["a/1", "a/2", "a/b/c", "d/x/e", "d/y/f"] {
        root.post(&format!("secret/data/{path}"), json!({"data": {"v": path}})).expect(200);
    }
    let client = server.limited(
        "rules",
        r#"
        path "secret/data/*" { capabilities = ["read", "create", "update"] }
        path "secret/data/a/*" { capabilities = ["read"] }
        path "secret/data/a/2" { capabilities = ["deny"] }
        path "secret/data/+/b/c" { capabilities = ["deny"] }
        path "secret/data/d/+/e" { capabilities = ["update"] }
        path "secret/metadata/*" { capabilities = ["list"] }
        "#,
    );
    for (verb, path, status) in [
        ("GET", "secret/data/a/1", 200),
        ("POST", "secret/data/a/1", 403),
        ("GET", "secret/data/a/2", 403),
        // `a/*` has its first wildcard later than `+/b/c`.
        ("GET", "secret/data/a/b/c", 200),
        ("GET", "secret/data/z/b/c", 403),
        ("GET", "secret/data/d/x/e", 403),
        ("POST", "secret/data/d/x/e", 200),
        ("GET", "secret/data/d/y/f", 200),
        ("LIST", "secret/metadata", 200),
        ("LIST", "secret/metadata/a/", 200),
        ("GET", "secret/metadata/a/1", 403),
        ("DELETE", "secret/data/d/y/f", 403),
        ("GET", "secret/config", 403),
        ("GET", "nope/x", 403),
        ("GET", "sys/mounts", 403),
    ] {
        let body = (verb == "POST").then_some("{\"data\":{\"v\":1}}");
        let answer = client.send(verb, path, &[], body).expect(status);
        if status == 403 {
            assert!(answer.errors().contains("permission denied"), "{}", answer.text);
        }
    }
}

#[test]
fn making_and_changing_are_two_rights() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    root.post("plain/there", json!({"v": 1})).expect(204);
    root.post("secret/data/there", json!({"data": {"v": 1}})).expect(200);
    let policy = |right: &str| {
        format!(
            "path \"plain/*\" {{ capabilities = [\"{right}\"] }}\n\
             path \"secret/data/*\" {{ capabilities = [\"{right}\"] }}"
        )
    };
    let maker = server.limited("maker", &policy("create"));
    let changer = server.limited("changer", &policy("update"));
    let body = json!({"data": {"v": 2}});
    for mount in ["plain", "secret/data"] {
        maker.post(&format!("{mount}/there"), body.clone()).expect(403);
        changer.post(&format!("{mount}/new"), body.clone()).expect(403);
        let made = maker.post(&format!("{mount}/new"), body.clone()).status;
        let changed = changer.post(&format!("{mount}/there"), body.clone()).status;
        assert!(made < 300 && changed < 300, "{mount}: {made} {changed}");
    }
}

/// Catalogue: CVE-2020-10660.
#[test]
fn a_changed_policy_holds_from_the_next_request_on() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    let read = "path \"secret/data/a\" { capabilities = [\"read\"] }";
    let client = server.limited("change", read);
    for _ in 0..10 {
        client.get("secret/data/a").expect(200);
        root.put("sys/policies/acl/change", json!({"policy": read.replace("read", "update")}))
            .expect(204);
        client.get("secret/data/a").expect(403);
        root.put("sys/policies/acl/change", json!({"policy": read})).expect(204);
    }
    root.delete("sys/policies/acl/change").expect(204);
    client.get("secret/data/a").expect(403);
}

#[test]
fn what_reaches_everybody_needs_sudo() {
    let server = Server::open();
    let all = "\"create\", \"read\", \"update\", \"delete\", \"list\"";
    let plain = server.limited("plain", &format!("path \"*\" {{ capabilities = [{all}] }}"));
    let sudo =
        server.limited("sudo", &format!("path \"*\" {{ capabilities = [{all}, \"sudo\"] }}"));
    for (verb, path) in [
        ("LIST", "auth/token/accessors"),
        ("PUT", "auth/token/revoke-orphan"),
        ("PUT", "sys/rotate"),
        ("PUT", "sys/leases/revoke-prefix/db"),
        ("PUT", "sys/leases/revoke-force/db"),
        ("LIST", "sys/leases/lookup/"),
    ] {
        plain.send(verb, path, &[], None).refused(403, "permission denied");
        assert_ne!(sudo.send(verb, path, &[], None).status, 403, "{path}");
    }
    // A login's name is no secret in its database, and the lease's id is enough to renew it.
    let named = json!({"username": "v-app-x"});
    plain.put("sys/leases/lookup", named.clone()).refused(403, "permission denied");
    sudo.put("sys/leases/lookup", named).refused(400, "invalid lease");
    plain.put("sys/leases/lookup", json!({"lease_id": "x"})).refused(400, "invalid lease");
    plain.put("sys/seal", json!({})).expect(403);
    sudo.put("sys/seal", json!({})).expect(204);
}

#[test]
fn capabilities_are_told_as_they_are() {
    let server = Server::open();
    let client = server.limited(
        "caps",
        r#"
        path "secret/data/*" { capabilities = ["read", "list"] }
        path "secret/data/no" { capabilities = ["deny", "read"] }
        path "sys/capabilities-self" { capabilities = ["update"] }
        "#,
    );
    let body = json!({"paths": ["secret/data/a", "secret/data/no", "other"]});
    let told = client.post("sys/capabilities-self", body).expect(200);
    for level in [&told.json, told.data()] {
        assert_eq!(level["secret/data/a"], json!(["list", "read"]));
        assert_eq!(level["secret/data/no"], json!(["deny"]));
        assert_eq!(level["other"], json!(["deny"]));
    }
    let one = server.root().post("sys/capabilities-self", json!({"path": "x"})).expect(200);
    assert_eq!(one.json["capabilities"], json!(["root"]));
    let other = json!({"token": client.token(), "paths": ["secret/data/a"]});
    let told = server.root().post("sys/capabilities", other).expect(200);
    assert_eq!(told.json["secret/data/a"], json!(["list", "read"]));
    server.root().post("sys/capabilities-self", json!({})).refused(400, "paths");
}

#[test]
fn parameters_are_allowed_denied_and_required() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    let client = server.limited(
        "parameters",
        r#"
        path "plain/allowed" {
          capabilities = ["create", "update"]
          allowed_parameters = { "colour" = ["red", "blue*"], "size" = [] }
        }
        path "plain/denied" {
          capabilities = ["create", "update"]
          denied_parameters = { "colour" = ["red"] }
        }
        path "plain/required" {
          capabilities = ["create", "update"]
          required_parameters = ["colour"]
        }
        "#,
    );
    for (path, body, status) in [
        ("allowed", json!({"colour": "red"}), 204),
        ("allowed", json!({"colour": "blueish", "size": 7}), 204),
        ("allowed", json!({"colour": "green"}), 403),
        ("allowed", json!({"shape": "round"}), 403),
        ("denied", json!({"colour": "red"}), 403),
        ("denied", json!({"colour": "blue"}), 204),
        ("required", json!({"size": 1}), 403),
        ("required", json!({"colour": "any"}), 204),
    ] {
        client.post(&format!("plain/{path}"), body).expect(status);
    }
}
