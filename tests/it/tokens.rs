//! Tokens: made, looked up, renewed, used up, revoked with all that hangs on them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Server, eventually};

const SOON: Duration = Duration::from_secs(8);

fn create(client: &Client, body: Value) -> (Client, String) {
    let answer = client.post("auth/token/create", body).expect(200);
    (client.with_token(&answer.text_at("/auth/client_token")), answer.text_at("/auth/accessor"))
}

#[test]
fn a_new_token_is_what_was_asked_for() {
    let server = Server::open();
    let root = server.root();
    let answer = root.post(
        "auth/token/create",
        json!({
            "policies": ["app"], "ttl": "1h", "explicit_max_ttl": "2h", "num_uses": 9,
            "meta": {"who": "me"}, "display_name": "app", "renewable": true,
        }),
    );
    let auth = &answer.expect(200).json["auth"].clone();
    assert!(auth["client_token"].as_str().unwrap().starts_with("s."), "{auth}");
    for (key, value) in [
        ("policies", json!(["app", "default"])),
        ("token_policies", json!(["app", "default"])),
        ("lease_duration", json!(3600)),
        ("renewable", json!(true)),
        ("num_uses", json!(9)),
        ("orphan", json!(false)),
        ("token_type", json!("service")),
        ("metadata", json!({"who": "me"})),
    ] {
        assert_eq!(auth[key], value, "{key} in {auth}");
    }
    let token = root.with_token(auth["client_token"].as_str().unwrap());
    let shown = token.get("auth/token/lookup-self").expect(200);
    for (key, value) in [
        ("path", json!("auth/token/create")),
        ("num_uses", json!(8)),
        ("creation_ttl", json!(3600)),
        ("explicit_max_ttl", json!(7200)),
        ("display_name", json!("token-app")),
        ("meta", json!({"who": "me"})),
        ("type", json!("service")),
    ] {
        assert_eq!(shown.data()[key], value, "{key} in {}", shown.text);
    }
    for key in ["id", "accessor", "expire_time", "issue_time", "entity_id"] {
        assert!(shown.data()[key].is_string(), "{key} in {}", shown.text);
    }
}

#[test]
fn a_token_gives_no_rights_that_its_maker_has_not() {
    let server = Server::open();
    let policy = "path \"auth/token/create\" { capabilities = [\"update\"] }";
    let maker = server.limited("maker", policy);
    maker.post("auth/token/create", json!({"policies": ["root"]})).expect(400);
    maker.post("auth/token/create", json!({"policies": ["other"]})).expect(400);
    maker.post("auth/token/create", json!({"no_parent": true})).expect(400);
    let (child, _) = create(&maker, json!({}));
    create(&child, json!({}));
    child.get("secret/data/a").expect(403);
}

#[test]
fn a_token_ends_by_itself_and_takes_its_children_along() {
    let server = Server::open();
    let root = server.root();
    let (parent, _) = create(&root, json!({"policies": ["root"], "ttl": "2s"}));
    let (child, accessor) = create(&parent, json!({"ttl": "1h"}));
    let (orphan, _) = create(&parent, json!({"ttl": "1h", "no_parent": true}));
    child.get("auth/token/lookup-self").expect(200);
    eventually("the parent ends", SOON, || {
        (parent.get("auth/token/lookup-self").status == 403).then_some(())
    });
    eventually("the child ends", SOON, || {
        (child.get("auth/token/lookup-self").status == 403).then_some(())
    });
    orphan.get("auth/token/lookup-self").expect(200);
    root.post("auth/token/lookup-accessor", json!({"accessor": accessor})).expect(400);
}

#[test]
fn uses_are_counted_across_restarts() {
    let mut server = Server::open();
    let (token, _) = create(&server.root(), json!({"policies": ["root"], "num_uses": 3}));
    token.get("sys/mounts").expect(200);
    server.kill9();
    server.again();
    server.unseal();
    token.get("sys/mounts").expect(200);
    token.get("sys/mounts").expect(200);
    token.get("sys/mounts").refused(403, "permission denied");
}

#[test]
fn many_at_once_do_not_get_more_uses_out_of_a_token() {
    let server = Server::open();
    let (token, _) = create(&server.root(), json!({"policies": ["root"], "num_uses": 10}));
    let good = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|_| {
                let token = token.clone();
                scope
                    .spawn(move || (0..5).filter(|_| token.get("sys/mounts").status == 200).count())
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
    });
    assert_eq!(good, 10);
}

#[test]
fn a_token_is_renewed_within_its_bounds() {
    let server = Server::open();
    let root = server.root();
    let (token, accessor) = create(&root, json!({"ttl": "1m", "explicit_max_ttl": "10m"}));
    let renewed = token.post("auth/token/renew-self", json!({"increment": "5m"})).expect(200);
    assert_eq!(renewed.number_at("/auth/lease_duration"), 300);
    let renewed = token.post("auth/token/renew-self", json!({"increment": "5h"})).expect(200);
    assert!(renewed.number_at("/auth/lease_duration") <= 600, "{}", renewed.text);
    let body = json!({"accessor": accessor, "increment": 30});
    let renewed = root.post("auth/token/renew-accessor", body).expect(200);
    assert_eq!(renewed.text_at("/auth/client_token"), "", "an accessor does not show the token");
    let body = json!({"token": token.token(), "increment": 60});
    assert_eq!(
        root.post("auth/token/renew", body).expect(200).number_at("/auth/lease_duration"),
        60
    );
    let (periodic, _) = create(&root, json!({"period": "1h"}));
    let renewed = periodic.post("auth/token/renew-self", json!({"increment": "5h"})).expect(200);
    assert_eq!(renewed.number_at("/auth/lease_duration"), 3600);
}

#[test]
fn tokens_are_revoked_by_name_by_accessor_and_by_themselves() {
    let server = Server::open();
    let root = server.root();
    let alive = |client: &Client| client.get("auth/token/lookup-self").status == 200;
    let (one, _) = create(&root, json!({}));
    root.post("auth/token/revoke", json!({"token": one.token()})).expect(204);
    assert!(!alive(&one));
    let (two, accessor) = create(&root, json!({}));
    let listed = root.list("auth/token/accessors").expect(200).keys();
    assert!(listed.contains(&accessor), "{listed:?}");
    let shown = root.post("auth/token/lookup-accessor", json!({"accessor": accessor})).expect(200);
    assert_eq!(shown.text_at("/data/id"), "");
    root.post("auth/token/revoke-accessor", json!({"accessor": accessor})).expect(204);
    assert!(!alive(&two));
    let (three, _) = create(&root, json!({}));
    three.post("auth/token/revoke-self", json!({})).expect(204);
    assert!(!alive(&three));
    let (parent, _) = create(&root, json!({"policies": ["root"]}));
    let (child, _) = create(&parent, json!({}));
    root.post("auth/token/revoke-orphan", json!({"token": parent.token()})).expect(204);
    assert!(!alive(&parent));
    assert!(alive(&child), "it became an orphan");
    root.post("auth/token/revoke", json!({"token": "s.unknown"})).expect(204);
    root.post("auth/token/lookup", json!({"token": "s.unknown"})).refused(403, "bad token");
    root.post("auth/token/revoke", json!({})).expect(400);
    root.get("auth/token/lookup/s.unknown").refused(404, "unsupported path");
    root.post("auth/token/create", json!({"type": "batch"})).refused(400, "batch tokens");
}

#[test]
fn no_token_an_unknown_and_an_ended_one_get_the_same_answer() {
    let server = Server::open();
    let (ended, _) = create(&server.root(), json!({}));
    ended.post("auth/token/revoke-self", json!({})).expect(204);
    let none = server.client();
    let clients = [none.clone(), none.with_token("s.nobody"), none.with_token("x"), ended];
    for client in clients {
        let answer = client.get("secret/data/a").expect(403);
        assert_eq!(answer.json, json!({"errors": ["permission denied"]}));
    }
    let bearer = format!("Bearer {}", server.root_token);
    none.send("GET", "sys/mounts", &[("Authorization", &bearer)], None).expect(200);
}

/// Catalogue: CVE-2024-8365.
#[test]
fn tokens_are_stored_as_hashes_and_never_logged() {
    let mut server = Server::ready(crate::harness::Options {
        storage: "file",
        ..crate::harness::Options::default()
    });
    let (token, accessor) = create(&server.root(), json!({}));
    token.get("auth/token/lookup-self").expect(200);
    server.stop();
    let log = server.log();
    let audit = server.audit_text();
    for secret in [token.token(), &server.root_token] {
        assert!(!log.contains(secret) && !audit.contains(secret));
    }
    assert!(!audit.contains(&accessor), "the accessor is hashed as well");
}
