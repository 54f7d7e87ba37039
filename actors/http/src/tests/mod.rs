//! The way of a request, with actors that are fakes.

mod crowd;
mod jwt;
mod minter;
pub(crate) mod world;

use mssm_domain::policy::ParameterRules;
use mssm_messages::audit::{Entry, Redacted};
use world::{CANARY, World, nobody};

use crate::door::DevicePorts;

/// Ports to the keeper of audit devices, whom no test asks.
fn devices() -> DevicePorts {
    DevicePorts { enable: nobody().into(), disable: nobody().into(), list: nobody().into() }
}

#[actix_web::test]
async fn sealed_everything_but_the_open_paths_is_503() {
    let world = World::new();
    world.seal();
    for (method, path) in [
        ("GET", "/v1/secret/data/a"),
        ("GET", "/v1/sys/mounts"),
        ("LIST", "/v1/auth/token/accessors"),
        ("PUT", "/v1/sys/seal"),
        ("GET", "/v1/nope"),
        ("GET", "/v1/sys/internal/ui/mounts"),
    ] {
        for token in ["", "root"] {
            let seen = world.ask(method, path, token, "").await;
            assert_eq!((seen.status, seen.errors()), (503, vec!["Vault is sealed".to_owned()]));
        }
    }
    let seen = world.ask("POST", "/v1/secret/data/a", "root", "{").await;
    assert_eq!((seen.status, world.state().audit.len()), (503, 0));
    for path in ["/v1/sys/seal-status", "/sys/seal-status", "/v1/sys/leader", "/v1/sys/init"] {
        assert_eq!(world.ask("GET", path, "", "").await.status, 200, "{path}");
    }
    assert_eq!(world.ask("GET", "/v1/sys/health", "", "").await.status, 503);
    assert_eq!(world.ask("HEAD", "/v1/sys/health?sealedcode=299", "", "").await.status, 299);
    assert_eq!(world.ask("HEAD", "/v1/secret/data/a", "", "").await.status, 405);
}

#[actix_web::test]
async fn who_may_not_is_told_so_and_written_down() {
    let world = World::new();
    let denied = "1 error occurred:\n\t* permission denied\n\n";
    let cases = [
        ("GET", "/v1/secret/data/a", "", "permission denied"),
        ("GET", "/v1/secret/data/a", "unknown", "permission denied"),
        ("GET", "/v1/secret/data/a", "none", denied),
        ("GET", "/v1/secret/data/a", "deny+read", denied),
        ("GET", "/v1/secret/data/a", "list", denied),
        ("GET", "/v1/nope/a", "none", denied),
        ("POST", "/v1/secret/data/a", "read", denied),
        ("PUT", "/v1/sys/seal", "update", denied),
        ("PUT", "/v1/sys/seal", "", "permission denied"),
    ];
    for (method, path, token, text) in cases {
        let seen = world.ask(method, path, token, "").await;
        assert_eq!((seen.status, seen.errors()), (403, vec![text.to_owned()]), "{path} {token}");
    }
    assert_eq!(world.state().audit.len(), cases.len());
    assert_eq!(world.ask("PUT", "/v1/sys/seal", "update+sudo", "").await.status, 204);
}

#[actix_web::test]
async fn a_token_at_its_last_use_can_still_be_shown_to_its_holder() {
    let world = World::new();
    for (method, path) in [
        ("GET", "/v1/auth/token/lookup-self"),
        ("POST", "/v1/auth/token/lookup-self"),
        ("GET", "/v1/auth/token/lookup"),
    ] {
        let seen = world.ask(method, path, "last", "").await;
        assert_eq!(seen.status, 200, "{method} {path}: {}", seen.text);
        let data = &seen.json()["data"];
        assert_eq!((&data["num_uses"], &data["id"]), (&0.into(), &"last".into()));
        assert_eq!(data["display_name"], "token-last");
    }
    assert_eq!(world.ask("GET", "/v1/auth/token/lookup-self", "root", "").await.status, 403);
}

#[actix_web::test]
async fn what_is_not_there_has_its_own_words() {
    let world = World::new();
    for (method, path, status, text) in [
        ("GET", "/v1/nope/x", 404, "no handler for route \"nope/x\". route entry not found."),
        ("GET", "/v1/sys/nope", 404, "1 error occurred:\n\t* unsupported path\n\n"),
        ("DELETE", "/v1/sys/mounts", 405, "1 error occurred:\n\t* unsupported operation\n\n"),
        ("BREW", "/v1/sys/mounts", 405, "1 error occurred:\n\t* unsupported operation\n\n"),
        ("POST", "/v1/db/creds/app", 405, "1 error occurred:\n\t* unsupported operation\n\n"),
        ("GET", "/v1/db/creds/nope", 400, "unknown role: nope"),
        ("POST", "/v1/secret/data/a", 400, "no data provided"),
    ] {
        let seen = world.ask(method, path, "root", "").await;
        assert_eq!((seen.status, seen.errors()), (status, vec![text.to_owned()]), "{path}");
    }
    for path in ["/", "/v2/sys/health", "/v1/secret/data/missing", "/v1/db/config?list=true"] {
        let seen = world.ask("GET", path, "root", "").await;
        assert_eq!((seen.status, seen.errors()), (404, Vec::new()), "{path}");
    }
    for path in ["/v1/secret/../sys/mounts", "/v1/secret/%2e%2e/a", "/v1//sys/mounts", "/v1/a%00"] {
        assert_eq!(world.ask("GET", path, "root", "").await.status, 400, "{path}");
    }
}

#[actix_web::test]
async fn a_secret_comes_back_as_it_was_sent_and_is_written_down_without_its_values() {
    let world = World::new();
    let document = r#"{"n":12345678901234567890,"x":1e400,"s":"canary-7f3a","o":{"b":true}}"#;
    let body = format!("{{\"data\": {document}}}");
    assert_eq!(world.ask("PUT", "/v1/secret/data/a", "root", &body).await.status, 200);
    world.state().audit.clear();

    let seen = world.ask("GET", "/v1/secret/data/a", "read", "").await;
    assert_eq!(seen.status, 200);
    assert!(seen.text.contains(&format!("\"data\":{{\"data\":{document},\"metadata\":")));
    assert!(seen.text.contains("\"mount_type\":\"kv\""));

    let state = world.state();
    let [lines] = state.audit.as_slice() else { panic!("one batch a read") };
    assert!(matches!(lines.as_slice(), [Entry::Request { .. }, Entry::Response { .. }]));
    let shown = format!("{lines:?}");
    for secret in [CANARY, "12345678901234567890", "Hash([0, 0, 0, 0, 0, 0, 0, 0"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(shown.contains("secret/data/a"));
}

#[actix_web::test]
async fn a_deleted_version_is_a_404_that_says_what_became_of_it() {
    let world = World::new();
    world.state().secrets.insert("gone".to_owned(), "deleted".to_owned());
    let seen = world.ask("GET", "/v1/secret/data/gone", "read", "").await;
    assert_eq!(seen.status, 404);
    assert!(seen.json()["data"]["data"].is_null());
    assert_eq!(seen.json()["data"]["metadata"]["version"], 1);
    let seen = world.ask("GET", "/v1/secret/gone", "read", "").await;
    assert_eq!(seen.status, 404);
    assert!(seen.json()["warnings"][0].as_str().unwrap().contains("versioned K/V"));
}

#[actix_web::test]
async fn what_the_server_does_not_know_is_named_in_a_warning() {
    let world = World::new();
    let seen = world.ask("POST", "/v1/secret/config", "root", r#"{"max_versions":3}"#).await;
    assert_eq!((seen.status, seen.text.as_str()), (204, ""));
    let body = r#"{"max_versions":3,"max_version":4}"#;
    let seen = world.ask("POST", "/v1/secret/config", "root", body).await;
    assert_eq!(seen.status, 200);
    let warning = "Endpoint ignored these unrecognized parameters: [max_version]";
    assert_eq!(seen.json()["warnings"][0], warning);
    let seen = world.ask("PUT", "/v1/kv1/a", "root", r#"{"any":"thing"}"#).await;
    assert_eq!(seen.status, 204);
}

#[actix_web::test]
async fn a_body_that_makes_no_sense_is_a_400_without_its_values() {
    let world = World::new();
    for body in ["{", "[1]", "\"canary-7f3a\"", "{\"data\":\"canary-7f3a\"}", "{\"data\":[]}"] {
        let seen = world.ask("POST", "/v1/secret/data/a", "root", body).await;
        assert_eq!(seen.status, 400, "{body}");
        assert!(!seen.text.contains(CANARY), "{body}");
    }
    assert!(!format!("{:?}", world.state().audit).contains(CANARY));
}

/// Catalogue: CVE-2025-6203, CVE-2025-59043.
#[actix_web::test]
async fn a_large_body_is_read_only_for_a_token_that_lives() {
    let world = World::new();
    // Not even looked at: it is no JSON.
    let seen = world.ask("POST", "/v1/secret/data/a", "made-up", &"x".repeat(65 << 10)).await;
    assert_eq!((seen.status, seen.errors()), (403, vec!["permission denied".to_owned()]));
    assert_eq!(world.state().audit.len(), 1);
    let seen = world.ask("POST", "/v1/secret/data/a", "root", &"x".repeat(64 << 10)).await;
    assert_eq!(seen.status, 400);
}

#[actix_web::test]
async fn create_and_update_are_told_apart_where_a_rule_grants_one_of_them() {
    let world = World::new();
    let body = r#"{"data":{}}"#;
    let status =
        async |token: &str| world.ask("POST", "/v1/secret/data/a", token, body).await.status;
    assert_eq!(status("update").await, 403);
    assert_eq!(status("create").await, 200);
    assert_eq!(status("create").await, 403);
    assert_eq!(status("update").await, 200);
    assert_eq!(status("create+update").await, 200);
}

#[actix_web::test]
async fn a_rule_may_demand_something_of_parameters() {
    let world = World::new();
    let denied = [("mode".to_owned(), vec!["\"bad\"".to_owned()])];
    let rules = ParameterRules { denied: denied.into_iter().collect(), ..Default::default() };
    world.state().rules = Some(std::sync::Arc::new(rules));
    for (body, status) in [
        (r#"{"mode":"good"}"#, 204),
        (r#"{"mode":"bad"}"#, 403),
        (r#"{"mode" : "b\u0061d" }"#, 403),
        (r#"{"mode":"good","mode":"bad"}"#, 403),
    ] {
        let seen = world.ask("PUT", "/v1/kv1/a", "create+update", body).await;
        assert_eq!(seen.status, status, "{body}");
    }
}

#[actix_web::test]
async fn a_rule_about_parameters_holds_for_those_of_a_read_too() {
    let world = World::new();
    world.state().secrets.insert("a".to_owned(), "{}".to_owned());
    let denied = [("version".to_owned(), vec!["\"1\"".to_owned()])];
    let rules = ParameterRules { denied: denied.into_iter().collect(), ..Default::default() };
    world.state().rules = Some(std::sync::Arc::new(rules));
    for (query, status) in
        [("", 200), ("?version=2", 200), ("?version=1", 403), ("?version=2&%56ersion=1", 403)]
    {
        let path = format!("/v1/secret/data/a{query}");
        assert_eq!(world.ask("GET", &path, "read", "").await.status, status, "{query}");
    }
    let rules = ParameterRules { required: vec!["version".to_owned()], ..Default::default() };
    world.state().rules = Some(std::sync::Arc::new(rules));
    assert_eq!(world.ask("GET", "/v1/secret/data/a", "read", "").await.status, 403);
    assert_eq!(world.ask("GET", "/v1/secret/data/a?version=1", "read", "").await.status, 200);
}

#[actix_web::test]
async fn a_login_comes_with_its_lease_and_stays_once_it_is_delivered() {
    let world = World::new();
    let seen = world.ask("GET", "/v1/db/creds/app", "read", "").await;
    assert_eq!(seen.status, 200);
    let json = seen.json();
    assert_eq!(json["data"]["password"], CANARY);
    assert_eq!(json["lease_id"], "db/creds/app/0123456789abcdefghijABCD");
    assert_eq!((&json["lease_duration"], &json["renewable"]), (&60.into(), &true.into()));
    world.settle().await;
    let state = world.state();
    assert!(state.revoked.is_empty());
    assert_eq!(
        state.audit.len(),
        2,
        "the request before the effect, the response before the answer"
    );
    assert!(!format!("{:?}", state.audit).contains(CANARY));
    assert!(format!("{:?}", state.audit).contains("db/creds/app/0123456789abcdefghijABCD"));
}

#[actix_web::test]
async fn nothing_is_made_that_cannot_be_written_down_first() {
    let world = World::new();
    world.state().audit_left = Some(0);
    let seen = world.ask("GET", "/v1/db/creds/app", "read", "").await;
    assert_eq!(seen.status, 503);
    assert!(!seen.text.contains("disk full"), "the reason names paths of the server");
    assert_eq!(world.state().issued, 0);
    assert_eq!(world.ask("GET", "/v1/secret/data/a", "read", "").await.status, 503);
}

/// Catalogue: CVE-2026-46405.
#[actix_web::test]
async fn a_login_whose_answer_cannot_be_written_down_ends() {
    let world = World::new();
    world.state().audit_left = Some(1);
    let seen = world.ask("GET", "/v1/db/creds/app", "read", "").await;
    assert_eq!(seen.status, 503);
    assert!(!seen.text.contains(CANARY));
    world.settle().await;
    let state = world.state();
    assert_eq!((state.issued, state.revoked.len()), (1, 1));
}

#[actix_web::test]
async fn a_login_whose_answer_is_not_taken_ends() {
    let world = World::new();
    let response = world.send("GET", "/v1/db/creds/app", "read", "").await;
    assert_eq!(response.status().as_u16(), 200);
    drop(response);
    world.settle().await;
    assert_eq!(world.state().revoked.len(), 1);
}

#[actix_web::test]
async fn a_login_whose_caller_goes_away_in_the_middle_ends() {
    // Wherever the caller goes away: nothing was issued, or what was issued has ended.
    for polls in 1..12 {
        let world = World::new();
        {
            let mut request = Box::pin(world.send("GET", "/v1/db/creds/app", "read", ""));
            for _ in 0..polls {
                if futures_util::poll!(request.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        world.settle().await;
        let state = world.state();
        assert_eq!(state.issued, state.revoked.len(), "{polls} polls");
    }
}

/// Catalogue: CVE-2026-55776.
#[actix_web::test]
async fn a_panic_ends_one_request_and_is_written_down() {
    let world = World::new();
    // The fake kv engine dies of it, as no real actor does; the front door answers all the same.
    let seen = world.ask("GET", "/v1/secret/data/panic", "read", "").await;
    assert!(seen.status >= 500);
    assert_eq!(world.state().audit.len(), 1);
    assert_eq!(world.ask("GET", "/v1/sys/mounts", "root", "").await.status, 200);
}

#[actix_web::test]
async fn founding_is_written_down_without_values_while_there_is_no_key() {
    let world = World::new();
    world.seal();
    let body = r#"{"secret_shares":5,"secret_threshold":3}"#;
    let seen = world.ask("PUT", "/v1/sys/init", "", body).await;
    assert_eq!(seen.status, 200);
    assert_eq!(seen.json()["root_token"], CANARY);
    assert_eq!(seen.json()["keys"][0], hex::encode(CANARY));
    let state = world.state();
    let [request, event, response] = state.audit.as_slice() else { panic!("three batches") };
    assert!(
        matches!(event.as_slice(), [Entry::Event { event, .. }] if event.name == "initialized")
    );
    let [Entry::Request { asked, .. }] = request.as_slice() else { panic!("a request") };
    let [Entry::Response { answered, .. }] = response.as_slice() else { panic!("a response") };
    let hidden = |name: &str| (name.to_owned(), Redacted::Hidden);
    let shares = vec![hidden("secret_shares"), hidden("secret_threshold")];
    assert_eq!(asked.data, Redacted::Map(shares));
    assert!(!format!("{answered:?}").contains(CANARY));
}

#[actix_web::test]
async fn a_preflight_tells_nobody_what_is_there() {
    let world = World::new();
    for path in ["secret/a", "nope/a"] {
        let url = format!("/v1/sys/internal/ui/mounts/{path}");
        let seen = world.ask("GET", &url, "none", "").await;
        assert_eq!(seen.status, 403, "{path}");
        assert!(seen.errors()[0].contains(&format!("grant access to path \"{path}/\"")));
    }
    let seen = world.ask("GET", "/v1/sys/internal/ui/mounts/secret/a/b", "root", "").await;
    assert_eq!((seen.status, &seen.json()["data"]["path"]), (200, &"secret/".into()));
    assert_eq!(seen.json()["data"]["options"]["version"], "2");
    let seen = world.ask("GET", "/v1/sys/internal/ui/mounts", "", "").await;
    assert_eq!((seen.status, seen.json()["data"]["secret"].to_string()), (200, "{}".to_owned()));
}

#[actix_web::test]
async fn the_mounts_come_in_both_shapes() {
    let world = World::new();
    let json = world.ask("GET", "/v1/sys/mounts", "root", "").await.json();
    assert_eq!(json["secret/"], json["data"]["secret/"]);
    assert_eq!(json["secret/"]["options"]["version"], "2");
    assert!(json["data"]["auth/token/"].is_null());
    let json = world.ask("GET", "/v1/sys/auth", "root", "").await.json();
    assert_eq!(json["token/"]["type"], "token");
}

#[actix_web::test]
async fn metrics_are_text_for_prometheus() {
    let world = World::new();
    world.ask("GET", "/v1/sys/health", "", "").await;
    let seen = world.ask("GET", "/v1/sys/metrics?format=prometheus", "read", "").await;
    assert_eq!(seen.status, 200);
    assert!(seen.text.contains("mssm_http_requests_total{status=\"2xx\"} 1\n"));
    assert!(seen.text.contains("mssm_leases{state=\"active\"} 0\n"));
    assert_eq!(world.ask("GET", "/v1/sys/metrics", "", "").await.status, 403);
}
