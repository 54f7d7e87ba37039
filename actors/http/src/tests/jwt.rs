//! Signed tokens at the door: what verifiers ask without a token, and what stays closed.

use mssm_messages::jwt::{ConfigView, Jwks};

use super::world::{World, fake, nobody};
use crate::door::{JwtKeeperPorts, JwtPorts, JwtSignerPorts};

/// A jwt engine with one public key that is none.
pub(super) fn ports() -> JwtPorts {
    let config = ConfigView {
        issuer: String::new(),
        jwks_max_age_secs: 300,
        algorithms: vec!["EdDSA", "ES256"],
    };
    JwtPorts {
        keeper: JwtKeeperPorts {
            write_config: nobody().into(),
            write_key: nobody().into(),
            rotate_key: nobody().into(),
            trim_key: nobody().into(),
            delete_key: nobody().into(),
            write_role: nobody().into(),
            delete_role: nobody().into(),
            revoke: nobody().into(),
        },
        signer: JwtSignerPorts {
            sign: nobody().into(),
            verify: nobody().into(),
            config: fake(move |_| Ok(config.clone())).into(),
            read_key: nobody().into(),
            list_keys: nobody().into(),
            read_role: nobody().into(),
            list_roles: nobody().into(),
            jwks: fake(|_| {
                Ok(Jwks { json: "{\"keys\":[{\"kid\":\"k\"}]}".into(), max_age_secs: 300 })
            })
            .into(),
        },
    }
}

#[actix_web::test]
async fn the_public_keys_need_no_token_and_may_be_kept_for_a_while() {
    let world = World::new();
    for (path, text) in [
        ("/v1/jwt/.well-known/jwks.json", "{\"keys\":[{\"kid\":\"k\"}]}"),
        ("/v1/identity/oidc/.well-known/keys", "{\"keys\":[{\"kid\":\"k\"}]}"),
    ] {
        let response = world.send("GET", path, "", "").await;
        assert_eq!(response.status().as_u16(), 200, "{path}");
        assert_eq!(response.headers().get("cache-control").unwrap(), "public, max-age=300");
        assert_eq!(world.ask("GET", path, "", "").await.text, text);
    }
    let secret = world.send("GET", "/v1/sys/health", "", "").await;
    assert_eq!(secret.headers().get("cache-control").unwrap(), "no-store");
}

#[actix_web::test]
async fn discovery_names_the_issuer_and_where_its_keys_are() {
    let world = World::new();
    let own = world.ask("GET", "/v1/jwt/.well-known/openid-configuration", "", "").await.json();
    assert_eq!(own["issuer"], "https://mssm.example:8200/v1/jwt");
    assert_eq!(own["jwks_uri"], "https://mssm.example:8200/v1/jwt/.well-known/jwks.json");
    assert_eq!(own["id_token_signing_alg_values_supported"][0], "EdDSA");
    let path = "/v1/identity/oidc/.well-known/openid-configuration";
    let vaults = world.ask("GET", path, "", "").await.json();
    assert_eq!(vaults["issuer"], "https://mssm.example:8200/v1/identity/oidc");
    let keys = "https://mssm.example:8200/v1/identity/oidc/.well-known/keys";
    assert_eq!(vaults["jwks_uri"], keys);
}

#[actix_web::test]
async fn a_path_that_looks_like_a_well_known_one_elsewhere_stays_closed() {
    let world = World::new();
    for (method, path) in [
        ("GET", "/v1/secret/data/.well-known/jwks.json"),
        ("GET", "/v1/kv1/.well-known/jwks.json"),
        ("GET", "/v1/jwt/keys/.well-known/jwks.json"),
        ("GET", "/v1/jwt/.well-known/keys"),
        ("GET", "/v1/identity/.well-known/jwks.json"),
        ("GET", "/v1/nowhere/.well-known/jwks.json"),
        ("POST", "/v1/jwt/.well-known/jwks.json"),
        ("LIST", "/v1/jwt/.well-known/jwks.json"),
    ] {
        let seen = world.ask(method, path, "", "").await;
        assert_eq!(seen.status, 403, "{method} {path}: {}", seen.text);
    }
    world.seal();
    let seen = world.ask("GET", "/v1/jwt/.well-known/jwks.json", "", "").await;
    assert_eq!(seen.status, 503, "{}", seen.text);
}
