//! Every route without a token, with too little policy, and while sealed.

use serde_json::json;

use crate::harness::Server;

/// What a client can ask for, each route once for every verb that it answers.
pub(crate) const ROUTES: &[(&str, &str)] = &[
    ("PUT", "sys/seal"),
    ("GET", "sys/key-status"),
    ("PUT", "sys/rotate"),
    ("PUT", "sys/rotate/keyring"),
    ("GET", "sys/metrics"),
    ("GET", "sys/audit"),
    ("GET", "sys/audit/key"),
    ("PUT", "sys/audit/new"),
    ("DELETE", "sys/audit/new"),
    ("POST", "sys/audit-hash/file"),
    ("GET", "sys/config/auditing/request-headers"),
    ("GET", "sys/config/auditing/request-headers/X-Shown"),
    ("PUT", "sys/config/auditing/request-headers/X-Shown"),
    ("DELETE", "sys/config/auditing/request-headers/X-Shown"),
    ("GET", "sys/mounts"),
    ("GET", "sys/mounts/secret"),
    ("POST", "sys/mounts/new"),
    ("DELETE", "sys/mounts/new"),
    ("GET", "sys/mounts/secret/tune"),
    ("POST", "sys/mounts/secret/tune"),
    ("GET", "sys/auth"),
    ("GET", "sys/internal/ui/mounts/secret/a"),
    ("GET", "sys/internal/ui/resultant-acl"),
    ("GET", "sys/policy"),
    ("GET", "sys/policy/default"),
    ("PUT", "sys/policy/new"),
    ("DELETE", "sys/policy/new"),
    ("LIST", "sys/policies/acl"),
    ("GET", "sys/policies/acl/default"),
    ("PUT", "sys/policies/acl/new"),
    ("DELETE", "sys/policies/acl/new"),
    ("POST", "sys/capabilities"),
    ("POST", "sys/capabilities-self"),
    ("POST", "sys/capabilities-accessor"),
    ("PUT", "sys/leases/lookup"),
    ("LIST", "sys/leases/lookup/db"),
    ("PUT", "sys/leases/renew"),
    ("PUT", "sys/leases/revoke"),
    ("PUT", "sys/leases/revoke-prefix/db"),
    ("PUT", "sys/leases/revoke-force/db"),
    ("GET", "sys/leases?type=irrevocable"),
    ("GET", "sys/leases/count"),
    ("GET", "sys/leases/quarantine"),
    ("POST", "sys/leases/tidy"),
    ("POST", "sys/leases/reconcile"),
    ("POST", "auth/token/create"),
    ("POST", "auth/token/create-orphan"),
    ("GET", "auth/token/lookup-self"),
    ("POST", "auth/token/lookup"),
    ("POST", "auth/token/lookup-accessor"),
    ("LIST", "auth/token/accessors"),
    ("POST", "auth/token/renew"),
    ("POST", "auth/token/renew-self"),
    ("POST", "auth/token/renew-accessor"),
    ("POST", "auth/token/revoke"),
    ("POST", "auth/token/revoke-self"),
    ("POST", "auth/token/revoke-accessor"),
    ("POST", "auth/token/revoke-orphan"),
    ("GET", "secret/config"),
    ("POST", "secret/config"),
    ("GET", "secret/data/a"),
    ("POST", "secret/data/a"),
    ("PATCH", "secret/data/a"),
    ("DELETE", "secret/data/a"),
    ("POST", "secret/delete/a"),
    ("POST", "secret/undelete/a"),
    ("POST", "secret/destroy/a"),
    ("GET", "secret/subkeys/a"),
    ("GET", "secret/metadata/a"),
    ("LIST", "secret/metadata"),
    ("POST", "secret/metadata/a"),
    ("PATCH", "secret/metadata/a"),
    ("DELETE", "secret/metadata/a"),
    ("GET", "plain/a"),
    ("LIST", "plain"),
    ("POST", "plain/a"),
    ("DELETE", "plain/a"),
    ("GET", "cubbyhole/a"),
    ("LIST", "cubbyhole"),
    ("POST", "cubbyhole/a"),
    ("DELETE", "cubbyhole/a"),
    ("GET", "db/config/a"),
    ("LIST", "db/config"),
    ("POST", "db/config/a"),
    ("DELETE", "db/config/a"),
    ("POST", "db/reset/a"),
    ("GET", "db/roles/a"),
    ("LIST", "db/roles"),
    ("POST", "db/roles/a"),
    ("DELETE", "db/roles/a"),
    ("GET", "db/creds/a"),
    ("POST", "db/rotate-root/a"),
    ("GET", "db/static-roles/a"),
    ("LIST", "db/static-roles"),
    ("POST", "db/static-roles/a"),
    ("DELETE", "db/static-roles/a"),
    ("GET", "db/static-creds/a"),
    ("POST", "db/rotate-role/a"),
    ("GET", "jwt/config"),
    ("POST", "jwt/config"),
    ("LIST", "jwt/keys"),
    ("GET", "jwt/keys/a"),
    ("POST", "jwt/keys/a"),
    ("DELETE", "jwt/keys/gone"),
    ("GET", "jwt/keys/a/config"),
    ("POST", "jwt/keys/a/config"),
    ("POST", "jwt/keys/a/rotate"),
    ("POST", "jwt/keys/a/trim"),
    ("LIST", "jwt/roles"),
    ("GET", "jwt/roles/a"),
    ("POST", "jwt/roles/a"),
    ("DELETE", "jwt/roles/a"),
    ("POST", "jwt/sign/a"),
    ("GET", "jwt/token/a"),
    ("POST", "jwt/verify"),
    ("POST", "jwt/introspect"),
    ("POST", "jwt/revoke"),
    ("GET", "identity/oidc/config"),
    ("POST", "identity/oidc/config"),
    ("LIST", "identity/oidc/key"),
    ("GET", "identity/oidc/key/a"),
    ("POST", "identity/oidc/key/a"),
    ("DELETE", "identity/oidc/key/gone"),
    ("POST", "identity/oidc/key/a/rotate"),
    ("LIST", "identity/oidc/role"),
    ("GET", "identity/oidc/role/a"),
    ("POST", "identity/oidc/role/a"),
    ("DELETE", "identity/oidc/role/a"),
    ("GET", "identity/oidc/token/a"),
    ("POST", "identity/oidc/introspect"),
];

/// What is answered without a token. This list may only shrink.
const OPEN: &[(&str, &str)] = &[
    ("GET", "sys/health"),
    ("GET", "sys/seal-status"),
    ("GET", "sys/leader"),
    ("GET", "sys/init"),
    ("PUT", "sys/init"),
    ("PUT", "sys/unseal"),
    // Shows what a mount wishes to show to everybody: nothing, unless tuned.
    ("GET", "sys/internal/ui/mounts"),
    // Public keys, for whoever verifies what was signed; answered by an open server alone.
    ("GET", "jwt/.well-known/openid-configuration"),
    ("GET", "jwt/.well-known/jwks.json"),
    ("GET", "identity/oidc/.well-known/openid-configuration"),
    ("GET", "identity/oidc/.well-known/keys"),
];

fn body(verb: &str) -> Option<&'static str> {
    matches!(verb, "POST" | "PUT" | "PATCH").then_some("{}")
}

fn prepared() -> Server {
    let server = Server::open();
    server.root().post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    server
}

/// Catalogue: CVE-2021-3282, CVE-2021-27668, CVE-2022-36129.
#[test]
fn no_route_answers_without_a_token() {
    let server = prepared();
    for client in [server.client(), server.client().with_token("hvs.unknown")] {
        for (verb, path) in ROUTES {
            let answer = client.send(verb, path, &[], body(verb)).expect(403);
            assert!(
                answer.errors().contains("permission denied"),
                "{verb} {path}: {}",
                answer.text
            );
        }
    }
}

/// Catalogue: CVE-2020-35453, CVE-2023-0665.
#[test]
fn no_route_answers_with_too_little_policy() {
    let server = prepared();
    let client = server.limited("other", "path \"elsewhere/a\" { capabilities = [\"read\"] }");
    for (verb, path) in ROUTES {
        let answer = client.send(verb, path, &[], body(verb)).expect(403);
        let preflight = path.starts_with("sys/internal/ui/mounts/");
        let words =
            if preflight { "preflight capability check returned 403" } else { "permission denied" };
        assert!(answer.errors().contains(words), "{verb} {path}: {}", answer.text);
    }
    // Nothing that was refused has happened.
    assert!(server.root().get("sys/mounts").expect(200).json.get("new/").is_none());
    server.root().get("sys/policies/acl/new").expect(404);
}

#[test]
fn every_route_is_there_for_whoever_may() {
    let server = prepared();
    let root = server.root();
    for (verb, path) in
        ROUTES.iter().filter(|(_, path)| !matches!(*path, "sys/seal" | "auth/token/revoke-self"))
    {
        let answer = root.send(verb, path, &[], body(verb));
        let text = &answer.text;
        assert!(
            answer.status != 405 && answer.status < 500,
            "{verb} {path}: {} {text}",
            answer.status
        );
        assert!(
            !text.contains("unsupported path") && !text.contains("no handler"),
            "{verb} {path}: {text}"
        );
    }
}

/// What takes a path of any length: what is below it is another thing of the same kind.
const DEEP: &[&str] =
    &["secret/", "plain", "cubbyhole", "sys/internal/ui/mounts/", "sys/leases/revoke"];

/// Rules, and the demand for `sudo`, name a route's path: what is below it must not be the same route.
#[test]
fn nothing_below_a_route_answers_as_it_does() {
    let server = prepared();
    let root = server.root();
    let flat = |path: &str| !DEEP.iter().any(|deep| path.starts_with(deep));
    // Deleting what is not there is done at once.
    let routes = ROUTES.iter().filter(|(verb, path)| *verb != "DELETE" && flat(path));
    let answered: Vec<String> = routes
        .filter_map(|(verb, path)| {
            let below = format!("{}/x", path.split('?').next().unwrap_or_default());
            let answer = root.send(verb, &below, &[], body(verb));
            (answer.status < 400).then(|| format!("{verb} {below}: {}", answer.text))
        })
        .collect();
    assert!(answered.is_empty(), "{answered:#?}");
}

#[test]
fn no_route_answers_while_sealed() {
    let server = prepared();
    let root = server.root();
    root.put("sys/seal", json!({})).expect(204);
    for (verb, path) in ROUTES {
        root.send(verb, path, &[], body(verb)).refused(503, "Vault is sealed");
        root.without_token().send(verb, path, &[], body(verb)).refused(503, "Vault is sealed");
    }
}

/// Catalogue: CVE-2021-3282, CVE-2021-27668, CVE-2022-36129.
#[test]
fn the_open_routes_are_these_and_no_more() {
    let server = prepared();
    for (verb, path) in OPEN {
        assert!(!ROUTES.contains(&(*verb, *path)), "{path}");
        let status = server.client().send(verb, path, &[], body(verb)).status;
        assert!(status == 200 || status == 400, "{verb} {path}: {status}");
    }
}
