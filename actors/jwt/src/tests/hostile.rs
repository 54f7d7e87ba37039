//! Tokens that somebody made to be believed, and keys that nobody should use.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mssm_crypto::jose::{Algorithm, SigningKey};
use mssm_domain::SecretText;
use mssm_messages::jwt::{KeyPatch, RevokeJti, RolePatch, Verify};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::rig::{Rig, mount, now, of_algorithm, reason, secs, signs_with, verification};

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}.{}", encode(header), encode(claims), URL_SAFE_NO_PAD.encode(signature))
}

#[actix::test]
async fn no_token_is_believed_but_those_that_its_key_signed() {
    let rig = Rig::plain().await;
    rig.write_key("r", of_algorithm("RS256")).await.unwrap();
    rig.write_role("rsa", signs_with("r")).await.unwrap();
    let token = rig.sign("app").await.unwrap();
    let rsa = rig.sign("rsa").await.unwrap();
    let parts: Vec<&str> = token.token.expose().split('.').collect();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let mut more = claims.clone();
    more["admin"] = true.into();
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid, "typ": "JWT"});
    let own = SigningKey::generate(Algorithm::EdDsa, 0).unwrap();
    let by_own = |header: &Value| {
        let message = format!("{}.{}", encode(header), encode(&claims));
        let signature = own.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let with_key = json!({"alg": "EdDSA", "kid": token.kid,
        "jwk": serde_json::from_str::<Value>(&own.public().unwrap().to_jwk()).unwrap()});
    for (text, words) in [
        (forged(&header("none", &token.kid), &claims, b""), "not signed"),
        (forged(&header("NoNe", &token.kid), &claims, b""), "not signed"),
        // The public key as a shared secret, and one algorithm's key for another's.
        (forged(&header("HS256", &rsa.kid), &claims, &signature), "not one of this engine's"),
        (forged(&header("RS256", &token.kid), &claims, &signature), "not that of its key"),
        (forged(&header("PS256", &rsa.kid), &claims, &signature), "not that of its key"),
        (forged(&header("EdDSA", &token.kid), &more, &signature), "does not fit"),
        (forged(&header("EdDSA", &token.kid), &claims, b""), "does not fit"),
        (forged(&header("EdDSA", "nobody"), &claims, &signature), "not one of this mount's"),
        (by_own(&header("EdDSA", &token.kid)), "does not fit"),
        // A key that the token brings along is not looked at.
        (by_own(&with_key), "does not fit"),
        (forged(&json!({"alg": "EdDSA"}), &claims, &signature), "no kid"),
        (forged(&json!({"kid": "x"}), &claims, &signature), "no alg"),
        (forged(&json!({"alg": ["EdDSA"], "kid": "x"}), &claims, &signature), "no alg"),
        (forged(&json!({"alg": "EdDSA", "kid": token.kid, "crit": ["b64"]}), &claims, b""), "crit"),
        (String::new(), "three parts"),
        ("a.b".to_owned(), "three parts"),
        (format!("{}.x", token.token.expose()), "three parts"),
        (format!("!.{}.{}", parts[1], parts[2]), "not base64url"),
        (format!("{}=.{}.{}", parts[0], parts[1], parts[2]), "not base64url"),
        (format!("{}.{}.{}", encode(&json!([])), parts[1], parts[2]), "not a JSON object"),
        ("x".repeat(40_000), "longer than"),
    ] {
        let refused = reason(rig.verify(&text).await);
        assert!(refused.contains(words), "{words}: {refused}");
    }
    rig.verify(token.token.expose()).await.unwrap();
}

#[actix::test]
async fn clocks_may_be_apart_by_what_is_said_and_no_more() {
    let rig = Rig::plain().await;
    let token = rig.sign("app").await.unwrap();
    let with = |leeway_secs| Verify { leeway_secs, ..verification(token.token.expose()) };
    rig.clock.advance(secs(599));
    rig.verify_as(with(0)).await.unwrap();
    rig.clock.advance(secs(1));
    assert!(reason(rig.verify_as(with(0)).await).contains("expired"));
    rig.verify_as(with(1)).await.unwrap();
    assert!(reason(rig.verify_as(with(301)).await).contains("leeway"));
    // A clock that is behind sees a token from its future.
    rig.clock.set(mssm_testkit::TestClock::START);
    rig.clock.advance(secs(100));
    let later = rig.sign("app").await.unwrap();
    rig.clock.set(mssm_testkit::TestClock::START.after(secs(50)));
    let with = |leeway_secs| Verify { leeway_secs, ..verification(later.token.expose()) };
    assert!(reason(rig.verify_as(with(0)).await).contains("not valid yet"));
    assert!(now(&rig.clock) > mssm_testkit::TestClock::START);
    rig.verify_as(with(60)).await.unwrap();
    let none = RolePatch { not_before: Some("none".to_owned()), ..RolePatch::default() };
    rig.write_role("app", none).await.unwrap();
    let plain = rig.sign("app").await.unwrap();
    rig.clock.set(mssm_testkit::TestClock::START);
    assert!(reason(rig.verify(plain.token.expose()).await).contains("in the future"));
}

#[actix::test]
async fn a_token_of_another_type_or_issuer_is_refused_where_that_is_asked() {
    let rig = Rig::plain().await;
    let token = rig.sign("app").await.unwrap();
    let asked = || verification(token.token.expose());
    let other = Verify { token_type: Some("at+jwt".to_owned()), ..asked() };
    assert!(reason(rig.verify_as(other).await).contains("another type"));
    let other = Verify { issuer: Some("https://else".to_owned()), ..asked() };
    assert!(reason(rig.verify_as(other).await).contains("another issuer"));
    let same = Verify { issuer: Some(super::rig::ADDRESS.to_owned()), ..asked() };
    rig.verify_as(same).await.unwrap();
}

#[actix::test]
async fn keys_that_nobody_should_use_are_refused() {
    let rig = Rig::open().await;
    for (patch, words) in [
        (of_algorithm("none"), "there are EdDSA, ES256, ES384, PS256, RS256"),
        (of_algorithm("HS256"), "unknown signing algorithm"),
        (of_algorithm("rs256"), "unknown signing algorithm"),
        (KeyPatch { rsa_bits: Some(1024), ..of_algorithm("RS256") }, "2048, 3072 or 4096"),
        (KeyPatch { rsa_bits: Some(8192), ..of_algorithm("RS256") }, "2048, 3072 or 4096"),
        (KeyPatch { rsa_bits: Some(u64::MAX), ..of_algorithm("PS256") }, "bits"),
    ] {
        let refused = reason(rig.write_key("k", patch).await);
        assert!(refused.contains(words), "{refused}");
    }
    for pem in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
        let private_key = Some(SecretText::new(pem.to_owned()));
        let patch = KeyPatch { private_key, ..of_algorithm("RS256") };
        let refused = reason(rig.write_key("k", patch).await);
        assert!(refused.contains("PEM") || refused.contains("damaged"), "{refused}");
    }
    assert!(rig.store.is_empty());
}

#[actix::test]
async fn a_damaged_record_is_left_out_and_the_others_serve() {
    let rig = Rig::plain().await;
    rig.write_key("other", KeyPatch::default()).await.unwrap();
    let name = super::rig::key("other");
    let path = crate::record::path(crate::record::KEY, super::rig::mount(), name.as_str());
    let stored = mssm_testkit::FakeKeys::stored_key(&path);
    let mut record = rig.store.stored(&stored).unwrap();
    let mut bytes = record.sealed.into_bytes();
    *bytes.last_mut().unwrap() = b'x';
    record.sealed = mssm_domain::SealedBytes::new(bytes);
    rig.store.tamper(&stored, Some(record));
    let again = Rig::over(rig.store.copy(), rig.clock.clone()).await;
    again.sign("app").await.unwrap();
    assert_eq!(again.copy().await.len(), 2);
}

proptest! {
    /// Whatever is sent as a token, it is refused and nothing breaks.
    #[test]
    fn no_text_breaks_the_reader(text in r"[A-Za-z0-9_.=\-]{0,80}") {
        let _ = crate::token::take_apart(&text);
    }

    /// The same for records.
    #[test]
    fn hostile_records_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = mssm_domain::SecretBytes::new(bytes);
        prop_assert!(crate::record::key(&bytes).is_err());
        prop_assert!(crate::record::role(&bytes).is_err());
        prop_assert!(crate::record::config(&bytes).is_err());
        prop_assert!(crate::record::used(&bytes).is_err());
        prop_assert!(crate::record::revoked(&bytes).is_err());
    }
}

/// An imported key has signed what it liked before.
#[actix::test]
async fn a_token_that_outlives_what_is_signed_here_stays_revoked_until_its_own_end() {
    let rig = Rig::open().await;
    let made = SigningKey::generate(Algorithm::EdDsa, 0).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(made.to_pkcs8().unwrap().expose());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let patch = KeyPatch {
        private_key: Some(SecretText::new(pem)),
        rotation_period_secs: Some(0),
        verification_ttl_secs: Some(600),
        ..KeyPatch::default()
    };
    rig.write_key("k", patch).await.unwrap();
    let header = json!({"alg": "EdDSA", "kid": made.public().unwrap().thumbprint()});
    let end = now(&rig.clock).unix_secs() + 100_000;
    let message = format!("{}.{}", encode(&header), encode(&json!({"exp": end, "jti": "old"})));
    let signature = URL_SAFE_NO_PAD.encode(made.sign(message.as_bytes()).unwrap());
    let token = format!("{message}.{signature}");
    let verified = rig.verify(&token).await.unwrap();
    // Once by the token, and then by its name alone, which says less.
    for expires_at in [Some(verified.expires_at), None] {
        let revoke = RevokeJti { mount: mount(), jti: "old".to_owned(), expires_at };
        rig.keeper.send(revoke).await.unwrap().unwrap();
    }
    for _ in 0..49 {
        rig.clock.advance(secs(2000));
        rig.tick().await;
        assert!(reason(rig.verify(&token).await).contains("revoked"));
    }
    let records = rig.store.len();
    rig.clock.advance(secs(3000));
    rig.tick().await;
    assert_eq!(rig.store.len(), records - 1);
    assert!(reason(rig.verify(&token).await).contains("expired"));
}
