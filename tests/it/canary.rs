//! Every route there is, with a word that must not be seen again in every header and behind the question mark.

use crate::catalogue_leaks::{CANARY, holds_canary, nowhere};
use crate::coverage::ROUTES;
use crate::harness::{Client, Server};

/// Headers that the server, those between, or Vault's clients know, and one that nobody does.
const HEADERS: &[(&str, &str)] = &[
    ("Authorization", "Basic "),
    ("Authorization", "Bearer "),
    ("Content-Type", ""),
    ("Cookie", ""),
    ("Idempotency-Key", ""),
    ("Origin", ""),
    ("User-Agent", ""),
    ("X-Canary", ""),
    ("X-Forwarded-For", ""),
    ("X-Request-Id", ""),
    ("X-Vault-Namespace", ""),
    ("X-Vault-Policy-Override", ""),
    ("X-Vault-Request", ""),
    ("X-Vault-Wrap-TTL", ""),
];

fn send(client: &Client, verb: &str, path: &str, header: &[(&str, &str)]) {
    let body = matches!(verb, "POST" | "PUT" | "PATCH").then_some("{}");
    let answer = client.send(verb, path, header, body);
    let echoed = answer.headers.values().any(|value| value.to_str().is_ok_and(holds_canary));
    assert!(!echoed && !holds_canary(&answer.text), "{verb} {path} {header:?}: {}", answer.text);
    assert_ne!(answer.status, 500, "{verb} {path} {header:?}: {}", answer.text);
}

#[test]
fn what_stands_in_any_header_or_query_of_any_route_is_seen_nowhere_again() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/plain", serde_json::json!({"type": "kv"})).expect(204);
    let kept = |route: &&(&str, &str)| !matches!(route.1, "sys/seal" | "auth/token/revoke-self");
    let routes: Vec<_> = ROUTES.iter().filter(kept).collect();
    std::thread::scope(|scope| {
        for part in routes.chunks(routes.len().div_ceil(8)) {
            let root = &root;
            scope.spawn(move || {
                for (verb, path) in part {
                    for (name, before) in HEADERS {
                        send(root, verb, path, &[(name, &format!("{before}{CANARY}"))]);
                    }
                    let joined = if path.contains('?') { '&' } else { '?' };
                    for query in ["version", "after", "limit", "list", "type"] {
                        send(root, verb, &format!("{path}{joined}{query}={CANARY}"), &[]);
                    }
                    send(&root.with_token(CANARY), verb, path, &[]);
                }
            });
        }
    });
    nowhere(&server);
}
