//! Security catalogue: what is sent in any field, header or setting comes out nowhere.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::coverage::ROUTES;
use crate::fields::fields;
use crate::harness::{Client, Database, Login, Options, Server};

/// What must not be seen again.
pub(crate) const CANARY: &str = "c4naryVALUE";
/// The same as a number.
const NUMBER: u64 = 918_273_645_546_372;

/// Members of a body that are names: as text they are shown, as anything else they are wrong.
const NAMES: &[&str] = &[
    "accessor",
    "db_name",
    "display_name",
    "lease_id",
    "owner",
    "path",
    "paths",
    "plugin_name",
    "plugin_version",
    "policies",
    "prefix",
    "type",
    "url_lease_id",
    "username",
    "usernames",
    "description",
    "allowed_roles",
    "meta",
    "metadata",
    "custom_metadata",
    "id",
    "key",
    "connection",
    "mount",
    "kids",
];
/// Those that are maps of texts.
const MAPS: &[&str] = &["meta", "metadata", "custom_metadata"];

/// A member's name, and a body of it.
type Body = (String, String);

/// Bodies with the canary in one field, in every shape that a field is not meant to have.
fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    let mut fields = fields();
    fields.insert("nobody_reads_this".to_owned());
    assert!(NAMES.iter().all(|name| fields.contains(*name)));
    for field in &fields {
        for value in [
            json!({"inner": {"deeper": CANARY}}),
            json!([[CANARY], {"a": NUMBER}]),
            json!({"inner": NUMBER}),
        ] {
            // A map of texts takes numbers too, and is shown to who may read it.
            let meant = MAPS.contains(&field.as_str()) && value == json!({"inner": NUMBER});
            if !meant {
                bodies.push((field.clone(), json!({field: value}).to_string()));
            }
        }
        if !NAMES.contains(&field.as_str()) {
            bodies.push((field.clone(), json!({field: CANARY}).to_string()));
            bodies.push((field.clone(), json!({field: NUMBER}).to_string()));
        }
    }
    // And bodies that are no object at all.
    let others = [
        format!("\"{CANARY}\""),
        format!("[\"{CANARY}\"]"),
        format!("{{\"a\": \"{CANARY}"),
        format!("{{\"a\" {CANARY}}}"),
        CANARY.to_owned(),
        format!("{{\"data\": {{\"a\": \"{CANARY}\\ud800\"}}}}"),
    ];
    bodies.extend(others.map(|body| (String::new(), body)));
    bodies
}

pub(crate) fn holds_canary(text: &str) -> bool {
    text.contains(CANARY) || text.contains(&NUMBER.to_string())
}

/// What some routes want besides, before they look at the rest.
const BESIDES: &[(&str, &str)] = &[
    (
        "db/config/besides",
        r#"{"plugin_name": "postgresql-database-plugin", "username": "u", "password": "p", "verify_connection": false,
            "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/d"}"#,
    ),
    (
        "db/config/besides",
        r#"{"plugin_name": "mysql-database-plugin", "username": "u", "password": "p", "verify_connection": false,
            "connection_url": "{{username}}:{{password}}@tcp(127.0.0.1:1)/"}"#,
    ),
    (
        "db/roles/besides",
        r#"{"db_name": "none", "creation_statements": "SELECT 1", "verify": false}"#,
    ),
    ("db/static-roles/besides", r#"{"db_name": "none", "username": "u", "rotation_period": 60}"#),
    ("jwt/keys/besides", r#"{"algorithm": "RS256", "private_key": "x"}"#),
    ("jwt/roles/besides", r#"{"key": "a", "subject": "s", "audience": "a", "client_id": "c"}"#),
    ("jwt/verify", r#"{"token": "e30.e30.e30"}"#),
    ("jwt/introspect", r#"{"token": "e30.e30.e30"}"#),
    ("jwt/revoke", r#"{"token": "e30.e30.e30"}"#),
    ("identity/oidc/role/besides", r#"{"key": "a"}"#),
    ("secret/data/besides", r#"{"data": {}}"#),
    ("sys/audit/besides", r#"{"type": "socket"}"#),
    ("sys/mounts/besides", r#"{"type": "none"}"#),
];

/// The bodies, with what a route wants besides.
fn with_besides(besides: &str, bodies: &[Body]) -> Vec<Body> {
    let merged = bodies.iter().filter(|(name, _)| !name.is_empty()).map(|(name, body)| {
        let mut merged: Value = serde_json::from_str(besides).unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        merged[name] = body[name].take();
        (name.clone(), merged.to_string())
    });
    merged.collect()
}

/// Sends every body to one route.
fn send_all(root: &Client, verb: &str, path: &str, bodies: &[Body]) {
    let merge = [("Content-Type", "application/merge-patch+json")];
    let headers: &[(&str, &str)] = if verb == "PATCH" { &merge } else { &[] };
    let mut ignored = "";
    for (name, body) in bodies {
        // What means nothing here means nothing in any shape.
        if !name.is_empty() && ignored == name {
            continue;
        }
        let answer = root.send(verb, path, headers, Some(body));
        // A new token's answer shows its holder what was just said of it.
        let own = path.starts_with("auth/token/create") && answer.status == 200;
        assert!(own || !holds_canary(&answer.text), "{verb} {path} {body}: {}", answer.text);
        assert_ne!(answer.status, 500, "{verb} {path} {body}: {}", answer.text);
        if answer.text.contains("ignored these unrecognized") {
            ignored = name;
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(fs::read(&path).unwrap());
        }
    }
    found
}

pub(crate) fn nowhere(server: &Server) {
    let metrics = server.root().get("sys/metrics").expect(200).text;
    assert!(metrics.contains("mssm_http_panics_total 0"), "{metrics}");
    for (what, text) in
        [("log", server.log()), ("audit", server.audit_text()), ("metrics", metrics)]
    {
        let line = text.lines().find(|line| holds_canary(line));
        assert!(line.is_none(), "in the {what}: {line:?}");
    }
    for bytes in files(&server.data()) {
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
    }
}

/// Catalogue: CVE-2024-0831, CVE-2024-8365, CVE-2025-4166, CVE-2025-52893, CVE-2026-115358,
/// CVE-2025-62513, CVE-2025-62705, MEASURED-2.
#[test]
fn a_value_in_the_wrong_place_or_shape_is_seen_nowhere_again() {
    let server = Server::open();
    let root = server.root();
    root.post("sys/mounts/plain", json!({"type": "kv"})).expect(204);
    let bodies = bodies();
    let skipped = ["sys/seal", "sys/rotate", "sys/rotate/keyring", "auth/token/revoke-self"];
    let routes: Vec<_> = ROUTES
        .iter()
        .chain(&[("PUT", "sys/unseal"), ("PUT", "sys/init")])
        .filter(|(verb, path)| matches!(*verb, "POST" | "PUT" | "PATCH") && !skipped.contains(path))
        .collect();
    std::thread::scope(|scope| {
        for part in routes.chunks(routes.len().div_ceil(24)) {
            let (root, bodies) = (&root, &bodies);
            scope.spawn(move || {
                for (verb, path) in part {
                    send_all(root, verb, path, bodies);
                }
            });
        }
    });
    // Nobody needs a token to try.
    let shares = [json!({"key": CANARY}).to_string(), json!({"key": NUMBER}).to_string()];
    for body in bodies.iter().map(|(_, body)| body).chain(&shares) {
        let answer = server.client().send("PUT", "sys/unseal", &[], Some(body));
        assert!(!holds_canary(&answer.text), "{body}: {}", answer.text);
    }
    nowhere(&server);
}

#[test]
fn a_wrong_value_among_right_ones_is_seen_nowhere_again() {
    let server = Server::open();
    let root = server.root();
    root.post("jwt/keys/a", json!({})).expect(204);
    let bodies = bodies();
    std::thread::scope(|scope| {
        for (path, besides) in BESIDES {
            let (root, bodies) = (&root, &bodies);
            scope.spawn(move || send_all(root, "POST", path, &with_besides(besides, bodies)));
        }
    });
    nowhere(&server);
}

/// Catalogue: CVE-2024-2877, CVE-2026-46358, CVE-2026-4525.
#[test]
fn headers_and_what_is_behind_the_question_mark_are_seen_nowhere_again() {
    let server = Server::open();
    let root = server.root();
    let basic = format!("Basic {CANARY}");
    let bearer = format!("Bearer {CANARY}");
    for (name, value) in [
        ("Authorization", basic.as_str()),
        ("Authorization", bearer.as_str()),
        ("Cookie", CANARY),
        ("User-Agent", CANARY),
        ("X-Forwarded-For", CANARY),
        ("X-Correlation-Id", CANARY),
        ("X-Request-Id", CANARY),
        ("X-Vault-Request", CANARY),
        ("X-Vault-Wrap-TTL", CANARY),
        ("X-Vault-Namespace", CANARY),
        ("X-Vault-Policy-Override", CANARY),
        ("X-Vault-Inline-Auth-Parameter-a", CANARY),
        ("Content-Type", CANARY),
        ("Idempotency-Key", CANARY),
        ("Origin", CANARY),
        ("Expect", CANARY),
    ] {
        for (verb, path) in [("GET", "secret/data/a"), ("POST", "secret/data/a"), ("GET", "x/y")] {
            let body = (verb == "POST").then_some("{\"data\": {\"a\": 1}}");
            for client in [&root, &root.without_token()] {
                let answer = client.send(verb, path, &[(name, value)], body);
                assert!(!holds_canary(&answer.text), "{name}: {}", answer.text);
                let echoed =
                    answer.headers.values().any(|value| value.to_str().is_ok_and(holds_canary));
                assert!(!echoed, "{name}: {:?}", answer.headers);
            }
        }
    }
    for query in ["a", "version", "list", "after", "limit", "help", "token", "type"] {
        for path in ["secret/data/a", "secret/metadata", "sys/mounts", "sys/leases/count"] {
            let answer = root.get(&format!("{path}?{query}={CANARY}"));
            assert!(!holds_canary(&answer.text), "{path}?{query}: {}", answer.text);
        }
    }
    nowhere(&server);
}

/// Catalogue: CVE-2020-13223, CVE-2026-115363.
#[test]
fn credentials_of_the_settings_are_in_no_log_and_no_answer() {
    let file = CANARY.to_owned();
    let more = "[db.connections.main]\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"d\"\n\
         username = \"u\"\npassword_file = \"{folder}/password\"\nallowed_roles = [\"*\"]\n\
         tls = \"disable\"\n"
        .to_owned();
    let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
    let key = "6b".repeat(32);
    let files = vec![("password", file), ("root.key", key.clone())];
    let mut server = Server::start(Options { seal, more, files, ..Options::default() });
    let founded = server.client().put("sys/init", json!({})).expect(200);
    server.root_token = founded.text_at("/root_token");
    let _ = server.client().put("sys/unseal", json!({}));
    let root = server.root();
    for path in ["db/config/main", "db/config", "sys/mounts", "sys/audit", "sys/metrics"] {
        let answer = root.get(path);
        assert!(!holds_canary(&answer.text) && !answer.text.contains(&key), "{}", answer.text);
    }
    let role = json!({"db_name": "main", "creation_statements": [crate::harness::CREATE]});
    let _ = root.post("db/roles/app", role);
    // Nothing listens there.
    assert_ne!(root.get("db/creds/app").status, 200);
    assert!(!server.log().contains(&key) && !server.audit_text().contains(&key));
    nowhere(&server);
}

/// Catalogue: CVE-2026-46405.
#[test]
fn what_ends_in_an_error_hands_out_nothing() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let tokens = || root.list("auth/token/accessors").expect(200).keys().len();
    let before = tokens();
    for body in [
        json!({"policies": ["root"], "ttl": "soon"}),
        json!({"policies": [7, {}], "ttl": "1h"}),
        json!({"policies": ["a b"], "ttl": "1h"}),
        json!({"num_uses": -1}),
        json!({"meta": {"a": {}}}),
        json!({"type": "batch"}),
        json!({"entity_alias": "x"}),
        json!({"id": "s.with a space"}),
    ] {
        let answer = root.post("auth/token/create", body.clone());
        assert!(answer.status == 200 || answer.json["auth"].is_null(), "{body}: {}", answer.text);
        if answer.status == 200 {
            let accessor = json!({"accessor": answer.text_at("/auth/accessor")});
            root.post("auth/token/revoke-accessor", accessor).expect(204);
        }
    }
    assert_eq!(tokens(), before, "no token is left of what was refused");
    let wrapped = root.send("GET", "db/creds/app", &[("X-Vault-Wrap-TTL", "60")], None);
    assert!(wrapped.status == 400 && wrapped.json["data"] == Value::Null, "{}", wrapped.text);
    root.list("sys/leases/lookup/db/creds").expect(404);
    let login = Login::mint(&root, "db/creds/app");
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
}

/// Where a token comes to stand by a slip of the hand.
#[test]
fn a_token_in_any_path_or_name_is_written_nowhere() {
    let server = Server::open();
    let client = server.limited("few", "path \"secret/*\" { capabilities = [\"read\"] }");
    let token = client.token();
    let root = server.root();
    for client in [&root, &client, &server.client()] {
        for (verb, path) in [
            ("GET", format!("secret/data/{token}")),
            ("GET", format!("secret/data/a-{token}/b")),
            ("PUT", format!("sys/leases/renew/{token}")),
            ("POST", format!("auth/token/create/{token}")),
            ("POST", format!("auth/token/lookup/{token}")),
            ("GET", format!("{token}/x")),
            ("GET", format!("db/creds/{token}")),
            ("GET", format!("secret/data/a?{token}=1")),
        ] {
            let answer = client.send(verb, &path, &[], None);
            assert!(!answer.errors().contains(token), "{verb} {path}: {}", answer.text);
        }
        client.send("POST", "secret/data/a", &[], Some(&json!({token: {"a": 1}}).to_string()));
    }
    assert!(server.audit_text().contains("secret/data/a-<token>/b"));
    assert!(!server.audit_text().contains(token));
    assert!(!server.log().contains(token));
}
