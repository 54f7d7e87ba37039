//! What another library makes of tokens and keys: `jsonwebtoken`.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use mssm_messages::jwt::RolePatch;
use serde_json::Value;

use super::rig::{ADDRESS, Rig, of_algorithm, secs, signs_with};

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("EdDSA", Algorithm::EdDSA),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
];

fn validation(algorithm: Algorithm, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[ADDRESS]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    // The tests' clock is not that of the library.
    validation.validate_exp = false;
    validation
}

fn key_of(set: &JwkSet, token: &str) -> Jwk {
    let kid = decode_header(token).unwrap().kid.unwrap();
    set.find(&kid).unwrap().clone()
}

#[actix::test]
async fn another_library_believes_every_algorithm_across_a_rotation() {
    let rig = Rig::open().await;
    for (name, _) in ALGORITHMS {
        rig.write_key(name, of_algorithm(name)).await.unwrap();
        let patch = RolePatch {
            audience: Some(vec!["a".to_owned(), "b".to_owned()]),
            subject: Some("me".to_owned()),
            ..signs_with(name)
        };
        rig.write_role(name, patch).await.unwrap();
    }
    let copy: JwkSet = serde_json::from_str(rig.copy().await.json()).unwrap();
    rig.clock.advance(secs(400));
    for (name, algorithm) in ALGORITHMS {
        let before = rig.sign(name).await.unwrap();
        rig.rotate(name).await;
        let after = rig.sign(name).await.unwrap();
        assert_ne!(before.kid, after.kid);
        for token in [before.token.expose(), after.token.expose()] {
            let jwk = key_of(&copy, token);
            assert_eq!(jwk.common.key_algorithm.unwrap().to_string(), name);
            let key = DecodingKey::from_jwk(&jwk).unwrap();
            let good = decode::<Value>(token, &key, &validation(algorithm, "b")).unwrap();
            assert_eq!(good.claims["sub"], "me");
            assert!(decode::<Value>(token, &key, &validation(algorithm, "c")).is_err());
            let confused = if name == "EdDSA" { Algorithm::ES256 } else { Algorithm::EdDSA };
            assert!(decode::<Value>(token, &key, &validation(confused, "b")).is_err());
        }
    }
}
