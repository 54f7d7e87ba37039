//! What a token says, and that it is what was signed, revoked or forgotten.

use mssm_domain::SecretText;
use mssm_messages::engine::{EngineError, Unmount};
use mssm_messages::jwt::{Audience, KeyPatch, RevokeJti, RolePatch, Standing, Verify};
use serde_json::{Value, json};

use super::rig::{
    ADDRESS, Rig, claims, key, mount, now, of_algorithm, reason, secs, signs_with, verification,
};

#[actix::test]
async fn every_algorithm_signs_what_verifies() {
    let rig = Rig::open().await;
    for name in ["EdDSA", "ES256", "ES384", "RS256", "PS256"] {
        rig.write_key(name, of_algorithm(name)).await.unwrap();
        rig.write_role(name, signs_with(name)).await.unwrap();
        let token = rig.sign(name).await.unwrap();
        let verified = rig.verify(token.token.expose()).await.unwrap();
        let header: Value = serde_json::from_str(verified.header.expose()).unwrap();
        assert_eq!(header, json!({"alg": name, "kid": token.kid, "typ": "JWT"}));
        assert_eq!(verified.jti, token.jti);
    }
    assert_eq!(rig.copy().await.len(), 10);
}

#[actix::test]
async fn a_token_says_what_role_caller_and_time_make_of_it() {
    let rig = Rig::plain().await;
    let patch = RolePatch {
        audience: Some(vec!["a".to_owned(), "b".to_owned()]),
        subject: Some("ci/{{token.metadata.team}}".to_owned()),
        claims: Some(r#"{"groups": {{token.policies}}, "n": 1.50}"#.to_owned()),
        allowed_claims: Some(vec!["branch".to_owned(), "n".to_owned()]),
        headers: Some(r#"{"cty": "x"}"#.to_owned()),
        not_before_leeway_secs: Some(30),
        ..RolePatch::default()
    };
    rig.write_role("app", patch).await.unwrap();
    let sent = r#"{"branch": "main", "n": 12345678901234567890.10}"#;
    let token = rig.sign_with("app", Some(sent), Some(60)).await.unwrap();
    let verified = rig.verify(token.token.expose()).await.unwrap();
    let issued = now(&rig.clock).unix_secs();
    let found = claims(&verified);
    let expected = json!({
        "iss": ADDRESS, "aud": ["a", "b"], "sub": "ci/red", "groups": ["ci", "default"],
        "branch": "main", "iat": issued, "nbf": issued - 30, "exp": issued + 60,
        "jti": token.jti.unwrap(), "n": found["n"]
    });
    assert_eq!(found, expected);
    assert_eq!(found["n"].to_string(), "12345678901234567890.10");
    let header: Value = serde_json::from_str(verified.header.expose()).unwrap();
    assert_eq!(header["cty"], "x");
    assert_eq!((token.ttl_secs, token.expires_at.unix_secs()), (60, issued + 60));

    let capped = rig.sign_with("app", None, Some(601)).await.unwrap();
    assert_eq!(capped.ttl_secs, 600);
    assert!(capped.warnings[0].contains("capped to 600 s"));
}

#[actix::test]
async fn issuers_come_from_role_mount_and_address_in_that_order() {
    let rig = Rig::plain().await;
    let issuer = async || {
        let token = rig.sign("app").await.unwrap();
        claims(&rig.verify(token.token.expose()).await.unwrap())["iss"].clone()
    };
    assert_eq!(issuer().await, ADDRESS);
    let message = mssm_messages::jwt::WriteConfig {
        mount: mount(),
        issuer: Some("https://mount.example".to_owned()),
        jwks_max_age_secs: None,
    };
    rig.keeper.send(message).await.unwrap().unwrap();
    assert_eq!(issuer().await, "https://mount.example");
    let patch =
        RolePatch { issuer: Some("https://role.example".to_owned()), ..RolePatch::default() };
    rig.write_role("app", patch).await.unwrap();
    assert_eq!(issuer().await, "https://role.example");
}

#[actix::test]
async fn access_tokens_are_as_rfc_9068_wants_them() {
    let rig = Rig::plain().await;
    let access = RolePatch { token_type: Some("at+jwt".to_owned()), ..RolePatch::default() };
    let refused = reason(rig.write_role("app", access.clone()).await);
    assert!(refused.contains("needs subject"), "{refused}");
    let whole = RolePatch {
        subject: Some("{{token.accessor}}".to_owned()),
        audience: Some(vec!["api".to_owned()]),
        client_id: Some("shop".to_owned()),
        ..access
    };
    rig.write_role("app", whole).await.unwrap();
    let token = rig.sign("app").await.unwrap();
    let wanted = Verify {
        token_type: Some("application/AT+JWT".to_owned()),
        ..verification(token.token.expose())
    };
    let verified = rig.verify_as(wanted).await.unwrap();
    let found = claims(&verified);
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        assert!(found.get(name).is_some(), "{name}");
    }
    assert_eq!((&found["client_id"], &found["aud"]), (&json!("shop"), &json!("api")));
    let none = RolePatch { jti: Some("none".to_owned()), ..RolePatch::default() };
    assert!(reason(rig.write_role("app", none).await).contains("needs jti"));
}

/// Catalogue: CVE-2021-29653.
#[actix::test]
async fn a_revoked_token_is_revoked_until_its_end_and_then_forgotten() {
    let rig = Rig::plain().await;
    let token = rig.sign("app").await.unwrap();
    let other = rig.sign("app").await.unwrap();
    let revoke = RevokeJti {
        mount: mount(),
        jti: token.jti.clone().unwrap(),
        expires_at: Some(token.expires_at),
    };
    rig.keeper.send(revoke.clone()).await.unwrap().unwrap();
    rig.keeper.send(revoke).await.unwrap().unwrap();
    assert!(reason(rig.verify(token.token.expose()).await).contains("revoked"));
    rig.verify(other.token.expose()).await.unwrap();

    // Durable: another server over the same store knows it.
    let again = Rig::over(rig.store.copy(), rig.clock.clone()).await;
    assert!(reason(again.verify(token.token.expose()).await).contains("revoked"));

    let records = rig.store.len();
    rig.clock.advance(secs(599));
    rig.tick().await;
    assert_eq!(rig.store.len(), records);
    assert!(reason(rig.verify(token.token.expose()).await).contains("revoked"));
    rig.clock.advance(secs(1000));
    rig.tick().await;
    assert_eq!(rig.store.len(), records - 1);
    assert!(reason(rig.verify(token.token.expose()).await).contains("expired"));

    // By name alone it holds for as long as any token can live.
    let message = RevokeJti { mount: mount(), jti: "a/b\n\u{1f512}".to_owned(), expires_at: None };
    rig.keeper.send(message).await.unwrap().unwrap();
    rig.clock.advance(secs(80_000));
    rig.tick().await;
    assert_eq!(rig.store.len(), records);
}

#[actix::test]
async fn sealed_nothing_signs_and_opened_everything_is_as_before() {
    let rig = Rig::plain().await;
    let token = rig.sign("app").await.unwrap();
    rig.seal().await;
    for result in [
        rig.sign("app").await.map(drop),
        rig.verify(token.token.expose()).await.map(drop),
        rig.write_key("new", KeyPatch::default()).await.map(drop),
    ] {
        assert!(matches!(result, Err(EngineError::Barrier(_))), "{result:?}");
    }
    rig.unseal().await;
    rig.verify(token.token.expose()).await.unwrap();
    assert_eq!(rig.sign("app").await.unwrap().kid, token.kid);
    let restarted = Rig::over(rig.store.copy(), rig.clock.clone()).await;
    restarted.verify(token.token.expose()).await.unwrap();
    assert_eq!(restarted.sign("app").await.unwrap().kid, token.kid);
}

#[actix::test]
async fn an_unmounted_engine_keeps_nothing() {
    let rig = Rig::plain().await;
    let counted = KeyPatch { rotation_count: Some(5), ..KeyPatch::default() };
    rig.write_key("k", counted).await.unwrap();
    rig.keep_copies(60).await;
    let token = rig.sign("app").await.unwrap();
    let jti = token.jti.unwrap();
    let revoke = RevokeJti { mount: mount(), jti, expires_at: Some(token.expires_at) };
    rig.keeper.send(revoke).await.unwrap().unwrap();
    rig.keeper.send(Unmount { mount: mount() }).await.unwrap().unwrap();
    assert!(rig.store.is_empty());
    assert!(matches!(rig.sign("app").await, Err(EngineError::Unknown(_))));
    assert_eq!(rig.copy().await.len(), 0);
}

#[actix::test]
async fn an_imported_key_signs_first_in_a_new_set_and_next_in_one_that_is_there() {
    use mssm_crypto::jose::{Algorithm, SigningKey};
    let rig = Rig::open().await;
    let pem = |algorithm| {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let made = SigningKey::generate(algorithm, 2048).unwrap();
        let body = STANDARD.encode(made.to_pkcs8().unwrap().expose());
        let text = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        (made.public().unwrap().thumbprint(), text)
    };
    let import = |algorithm: &str, text: &str| KeyPatch {
        private_key: Some(SecretText::new(text.to_owned())),
        ..of_algorithm(algorithm)
    };
    let (first, text) = pem(Algorithm::Es256);
    rig.write_key("k", import("ES256", &text)).await.unwrap();
    rig.write_role("app", signs_with("k")).await.unwrap();
    assert_eq!(rig.sign("app").await.unwrap().kid, first);
    let taken = reason(rig.write_key("other", import("ES256", &text)).await);
    assert!(taken.contains("in use already"), "{taken}");
    let wrong = reason(rig.write_key("other", import("EdDSA", &text)).await);
    assert!(wrong.contains("does not fit the algorithm"), "{wrong}");
    assert!(!wrong.contains(&text[40..60]));

    let (second, text) = pem(Algorithm::Es256);
    rig.write_key("k", import("ES256", &text)).await.unwrap();
    assert_eq!(rig.kids("k", Standing::Next).await, [second.as_str()]);
    assert!(rig.rotate("k").await.waits_until.is_some());
    rig.clock.advance(secs(400));
    assert_eq!(rig.sign("app").await.unwrap().kid, second);
}

#[actix::test]
async fn private_keys_that_sign_no_more_are_not_kept() {
    let rig = Rig::plain().await;
    let private = async || {
        let path = crate::record::path(crate::record::KEY, mount(), key("k").as_str());
        let stored = rig.store.stored(&mssm_testkit::FakeKeys::stored_key(&path)).unwrap();
        let text = String::from_utf8_lossy(stored.sealed.as_bytes()).into_owned();
        text.matches("\"private\":").count()
    };
    for _ in 0..3 {
        assert_eq!(private().await, 2);
        rig.clock.advance(secs(86_400));
        rig.tick().await;
    }
}

#[actix::test]
async fn a_key_for_listed_clients_is_of_use_to_no_other_role() {
    let rig = Rig::plain().await;
    let patch =
        KeyPatch { allowed_client_ids: Some(vec!["shop".to_owned()]), ..KeyPatch::default() };
    rig.write_key("k", patch).await.unwrap();
    assert!(reason(rig.sign("app").await).contains("allowed client ID"));
    let shop = RolePatch { client_id: Some("shop".to_owned()), ..RolePatch::default() };
    rig.write_role("app", shop).await.unwrap();
    rig.sign("app").await.unwrap();
}

/// Catalogue: CVE-2024-5798.
#[actix::test]
async fn who_a_token_is_for_is_checked_in_both_forms() {
    let rig = Rig::plain().await;
    for (aud, wanted, holds) in [
        (vec!["a"], vec!["a"], true),
        (vec!["a"], vec!["b", "a"], true),
        (vec!["a", "b"], vec!["b"], true),
        (vec!["a", "b"], vec!["c"], false),
        (vec!["ab"], vec!["a"], false),
        (vec!["a"], vec![], false),
        (vec![], vec![], true),
        (vec![], vec!["a"], false),
    ] {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let patch = RolePatch { audience: Some(texts(&aud)), ..RolePatch::default() };
        rig.write_role("app", patch).await.unwrap();
        let token = rig.sign("app").await.unwrap();
        let audience = Audience::OneOf(texts(&wanted));
        let verified =
            rig.verify_as(Verify { audience, ..verification(token.token.expose()) }).await;
        assert_eq!(verified.is_ok(), holds, "{aud:?} {wanted:?}");
    }
}
