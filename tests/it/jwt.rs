//! Signed tokens through the front door: keys, roles, signing, verifying, revoking, and Vault's
//! identity tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Client, Server};

/// A key and a role `app` that signs with it.
fn prepared(algorithm: &str) -> Server {
    let server = Server::open();
    let root = server.root();
    root.post("jwt/keys/main", json!({"algorithm": algorithm})).expect(204);
    let role = json!({"key": "main", "subject": "{{token.display_name}}", "audience": "shop",
        "allowed_claims": ["order"], "claims": {"team": "{{token.metadata.team}}"},
        "ttl": "10m", "max_ttl": "1h"});
    root.post("jwt/roles/app", role).expect(204);
    server
}

/// A caller that may sign and nothing else.
fn signer(server: &Server) -> Client {
    let policy = "path \"jwt/sign/app\" { capabilities = [\"update\"] }
        path \"jwt/token/app\" { capabilities = [\"read\"] }";
    server.root().put("sys/policies/acl/signer", json!({"policy": policy})).expect(204);
    let body = json!({"policies": ["signer"], "meta": {"team": "red"}, "display_name": "ci"});
    server.with_new_token(body)
}

fn part(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_caller_with_a_role_gets_tokens_that_say_who_it_is() {
    let server = prepared("EdDSA");
    let caller = signer(&server);
    let answer =
        caller.post("jwt/sign/app", json!({"claims": {"order": 7}, "ttl": 60})).expect(200);
    let token = answer.text_at("/data/token");
    let claims = part(&token, 1);
    assert_eq!(claims["sub"], "token-ci");
    assert_eq!(
        (&claims["team"], &claims["order"], &claims["aud"]),
        (&json!("red"), &json!(7), &json!("shop"))
    );
    let issuer = format!("https://127.0.0.1:{}/v1/jwt", server.port());
    assert_eq!(claims["iss"], issuer.as_str());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    assert_eq!(answer.number_at("/data/ttl"), 60);
    assert_eq!(part(&token, 0)["kid"], answer.text_at("/data/kid"));

    let plain = caller.get("jwt/token/app").expect(200).text_at("/data/token");
    let root = server.root();
    let verified = root.post("jwt/verify", json!({"token": plain, "audience": "shop"})).expect(200);
    assert_eq!(verified.json["data"]["claims"], part(&plain, 1));
    for audience in [json!(["else", "shop"]), json!("else,shop")] {
        root.post("jwt/verify", json!({"token": plain, "audience": audience})).expect(200);
    }
    root.post("jwt/verify", json!({"token": plain, "audience": "else"}))
        .refused(400, "another audience");
    root.post("jwt/verify", json!({"token": plain})).refused(400, "say which you are");
    // Of the rest of the engine the caller sees nothing.
    caller.get("jwt/keys/main").refused(403, "permission denied");
    caller.post("jwt/sign/other", json!({})).refused(403, "permission denied");
}

#[test]
fn what_is_wrong_is_a_clear_refusal() {
    let server = prepared("ES256");
    let (root, caller) = (server.root(), signer(&server));
    let big = "x".repeat(9000);
    for (body, words) in [
        (json!({"claims": {"exp": 1}}), "reserved"),
        (json!({"claims": {"admin": true}}), "allowed_claims"),
        (json!({"claims": [1]}), "must be a JSON object"),
        (json!({"claims": {"order": big}}), "longer than"),
        (json!({"ttl": 0}), "a second at least"),
        (json!({"ttl": "soon"}), "invalid duration"),
    ] {
        caller.post("jwt/sign/app", body).refused(400, words);
    }
    let token = caller.get("jwt/token/app").expect(200).text_at("/data/token");
    let parts: Vec<&str> = token.split('.').collect();
    let none =
        URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": part(&token, 0)["kid"]}).to_string());
    let confused =
        URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": part(&token, 0)["kid"]}).to_string());
    for (text, words) in [
        (format!("{none}.{}.", parts[1]), "not signed"),
        (format!("{confused}.{}.{}", parts[1], parts[2]), "not that of its key"),
        (format!("{}.{}.AAAA", parts[0], parts[1]), "does not fit"),
        ("x".to_owned(), "three parts"),
    ] {
        root.post("jwt/verify", json!({"token": text})).refused(400, words);
        let answer = root.post("jwt/introspect", json!({"token": text})).expect(200);
        assert_eq!(answer.json, json!({"active": false}));
    }
    root.post("jwt/verify", json!({})).refused(400, "missing token");
    for (path, body, words) in [
        ("jwt/keys/x", json!({"algorithm": "HS256"}), "unknown signing algorithm"),
        ("jwt/keys/x", json!({"algorithm": "RS256", "rsa_bits": 1024}), "2048, 3072 or 4096"),
        ("jwt/keys/x", json!({"algorithm": "RS256", "rsa_bits": 16384}), "2048, 3072 or 4096"),
        ("jwt/keys/x", json!({"private_key": "canary"}), "PEM"),
        ("jwt/roles/x", json!({"key": "nowhere"}), "cannot find key"),
        ("jwt/roles/x", json!({"key": "main", "ttl": "48h"}), "verification_ttl"),
    ] {
        let refused = root.post(path, body).refused(400, words);
        assert!(!refused.text.contains("canary"));
    }
    root.post("jwt/keys/x/config", json!({})).expect(404);
    root.get("jwt/token/nowhere").refused(400, "role \"nowhere\" not found");
}

#[test]
fn revoked_tokens_are_inactive_also_after_a_restart() {
    let mut server = prepared("EdDSA");
    let root = server.root();
    let token = signer(&server).get("jwt/token/app").expect(200).text_at("/data/token");
    let other = signer(&server).get("jwt/token/app").expect(200).text_at("/data/token");
    let active = |root: &Client, token: &str| {
        let answer = root.post("jwt/introspect", json!({"token": token, "token_type_hint": "x"}));
        answer.expect(200).json
    };
    let shown = active(&root, &token);
    assert_eq!((&shown["active"], &shown["sub"]), (&json!(true), &json!("token-ci")));
    assert_eq!(shown["jti"], part(&token, 1)["jti"]);
    root.post("jwt/revoke", json!({"token": token})).expect(204);
    root.post("jwt/revoke", json!({"token": token})).expect(204);
    let jti = part(&other, 1)["jti"].clone();
    root.post("jwt/revoke", json!({"jti": jti})).expect(204);
    root.post("jwt/revoke", json!({})).refused(400, "missing token or jti");
    server.kill9();
    server.again();
    server.unseal();
    let root = server.root();
    for token in [&token, &other] {
        assert_eq!(active(&root, token), json!({"active": false}));
        root.post("jwt/verify", json!({"token": token, "audience": "shop"}))
            .refused(400, "revoked");
    }
}

#[test]
fn keys_are_public_without_a_token_and_private_never() {
    let server = prepared("ES384");
    let root = server.root();
    let anybody = server.client();
    let jwks = anybody.get("jwt/.well-known/jwks.json").expect(200);
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(jwks.json["keys"].as_array().unwrap().len(), 2);
    let head = server.raw().ask(b"HEAD", b"/v1/jwt/.well-known/jwks.json", "", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let found = anybody.get("jwt/.well-known/openid-configuration").expect(200);
    assert!(found.text_at("/jwks_uri").ends_with("/v1/jwt/.well-known/jwks.json"));
    let key = root.get("jwt/keys/main").expect(200);
    assert_eq!(key.data()["keys"][0]["standing"], "current");
    for text in [&jwks.text, &key.text] {
        assert!(!text.contains("\"d\"") && !text.contains("private"), "{text}");
    }

    root.post("jwt/config", json!({"jwks_max_age": "1h", "issuer": "https://id.example"}))
        .expect(204);
    let jwks = anybody.get("jwt/.well-known/jwks.json").expect(200);
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=3600"));
    let found = anybody.get("jwt/.well-known/openid-configuration").expect(200);
    assert_eq!(found.text_at("/issuer"), "https://id.example");

    let rotated = root.post("jwt/keys/main/rotate", json!({})).expect(200);
    assert!(rotated.warnings().contains("not been public for long enough"));
    assert!(!rotated.data()["rotates_at"].is_null());
    // A mount that goes takes its keys along.
    root.delete("sys/mounts/jwt").expect(204);
    anybody.get("jwt/.well-known/jwks.json").expect(403);
    root.post("sys/mounts/jwt", json!({"type": "jwt-signer"})).expect(204);
    assert_eq!(root.get("jwt/.well-known/jwks.json").expect(200).json, json!({"keys": []}));
}

#[test]
fn vaults_identity_tokens_are_in_vaults_words() {
    let server = Server::open();
    let (root, anybody) = (server.root(), server.client());
    root.post(
        "identity/oidc/key/k",
        json!({"allowed_client_ids": "*", "rotation_period": "1h",
        "verification_ttl": 3600}),
    )
    .expect(204);
    let key = root.get("identity/oidc/key/k").expect(200);
    let expected = json!({"algorithm": "RS256", "allowed_client_ids": ["*"],
        "rotation_period": 3600, "verification_ttl": 3600});
    assert_eq!(key.data(), &expected);
    assert_eq!(root.list("identity/oidc/key").expect(200).keys(), ["k"]);
    let template =
        r#"{"who": {{identity.entity.name}}, "groups": {{identity.entity.groups.names}}}"#;
    let role = json!({"key": "k", "ttl": "30m", "template": URL_SAFE_NO_PAD.encode("")});
    root.post("identity/oidc/role/r", role).expect(204);
    root.post("identity/oidc/role/r", json!({"template": template})).expect(204);
    root.post("identity/oidc/role/bad", json!({"key": "k", "ttl": "2h"}))
        .refused(400, "cannot be longer than the verification_ttl");
    let read = root.get("identity/oidc/role/r").expect(200);
    let client_id = read.text_at("/data/client_id");
    assert_eq!((read.number_at("/data/ttl"), client_id.len()), (1800, 26));
    assert_eq!(read.text_at("/data/template"), template);

    let answer = root.get("identity/oidc/token/r").expect(200);
    assert_eq!(answer.text_at("/data/client_id"), client_id);
    assert_eq!(answer.number_at("/data/ttl"), 1800);
    let token = answer.text_at("/data/token");
    let claims = part(&token, 1);
    let issuer = format!("https://127.0.0.1:{}/v1/identity/oidc", server.port());
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(issuer), &json!(client_id)));
    assert_eq!((&claims["who"], &claims["namespace"]), (&json!("root"), &json!("root")));
    let introspect = |body| root.post("identity/oidc/introspect", body).expect(200).json;
    assert_eq!(introspect(json!({"token": token})), json!({"active": true}));
    assert_eq!(
        introspect(json!({"token": token, "client_id": client_id})),
        json!({"active": true})
    );
    assert_eq!(introspect(json!({"token": token, "client_id": "x"}))["active"], false);
    assert_eq!(
        anybody.get("identity/oidc/.well-known/keys").expect(200).json["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    root.post("identity/oidc/key/k/rotate", json!({})).expect(200);
    root.delete("identity/oidc/key/k").refused(400, "referenced by these roles: r");

    let set = root.post("identity/oidc/config", json!({"issuer": "https://vault.example:1234"}));
    assert!(set.expect(200).warnings().contains("api_addr"));
    for issuer in ["vault.example", "https://a/b", "https://a?b", "ftp://a"] {
        root.post("identity/oidc/config", json!({"issuer": issuer})).refused(400, "invalid issuer");
    }
    let read = root.get("identity/oidc/config").expect(200);
    assert_eq!(read.text_at("/data/issuer"), "https://vault.example:1234");
    let found = anybody.get("identity/oidc/.well-known/openid-configuration").expect(200);
    assert_eq!(found.text_at("/issuer"), "https://vault.example:1234/v1/identity/oidc");
    let token = root.get("identity/oidc/token/r").expect(200).text_at("/data/token");
    assert_eq!(part(&token, 1)["iss"], "https://vault.example:1234/v1/identity/oidc");
    // A key lists the roles that may use it; one that lists none is of use to none.
    root.post("identity/oidc/key/closed", json!({"algorithm": "ES256"})).expect(204);
    root.post("identity/oidc/role/c", json!({"key": "closed"})).expect(200);
    root.get("identity/oidc/token/c").refused(400, "allowed client ID");
    root.post("sys/mounts/identity", json!({"type": "kv"})).expect(400);
    root.delete("sys/mounts/identity").expect(400);
}

#[test]
fn every_signing_is_in_the_audit_log_and_no_token_is() {
    let server = prepared("EdDSA");
    let caller = signer(&server);
    let token = caller.post("jwt/sign/app", json!({})).expect(200).text_at("/data/token");
    let lines = server.audit_lines();
    let signed: Vec<_> =
        lines.iter().filter(|line| line["request"]["path"] == "jwt/sign/app").collect();
    let kinds: Vec<_> = signed.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["request", "response"]);
    assert_eq!(signed[1]["request"]["mount_type"], "jwt-signer");
    assert!(signed[1]["response"]["data"]["token"].as_str().unwrap().starts_with("hmac"));
    let text = server.audit_text();
    let signature = token.rsplit('.').next().unwrap();
    assert!(!text.contains(signature) && !server.log().contains(signature));
}
