//! Roles that make no sense, and what they let callers do.

use mssm_messages::jwt::{RolePatch, WriteRole};

use super::rig::{Rig, claims, mount, reason, role, signs_with};

#[expect(clippy::unnecessary_wraps, reason = "that is what a patch holds")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "that is what a patch holds")]
fn list(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(ToString::to_string).collect())
}

#[actix::test]
async fn a_role_that_makes_no_sense_is_refused_with_the_reason() {
    let rig = Rig::plain().await;
    let none = RolePatch::default;
    let long = "x".repeat(9000);
    for (patch, words) in [
        (RolePatch { key: text("other"), ..none() }, "cannot find key"),
        (RolePatch { key: text(""), ..none() }, "required"),
        (RolePatch { key: text("a b"), ..none() }, "invalid key name"),
        (RolePatch { ttl_secs: Some(0), ..none() }, "a second at least"),
        (RolePatch { ttl_secs: Some(700), ..none() }, "longer than max_ttl"),
        (RolePatch { max_ttl_secs: Some(86_401), ..none() }, "verification_ttl"),
        (RolePatch { subject: text("{{token.policies}}"), ..none() }, "part of a text"),
        (RolePatch { subject: text("{{nobody}}"), ..none() }, "no placeholder"),
        (RolePatch { subject: text("a\nb"), ..none() }, "visible"),
        (RolePatch { claims: text(r#"{"iss": 1}"#), ..none() }, "field of its own"),
        (RolePatch { claims: text(r#"{"aud": "x"}"#), ..none() }, "field of its own"),
        (RolePatch { claims: text("[1]"), ..none() }, "not a JSON object"),
        (RolePatch { claims: Some(format!("{{\"a\":\"{long}\"}}")), ..none() }, "longer than"),
        (RolePatch { allowed_claims: list(&["exp"]), ..none() }, "by the engine alone"),
        (RolePatch { allowed_claims: list(&[""]), ..none() }, "not empty"),
        (RolePatch { audience: list(&["", "a"]), ..none() }, "not empty"),
        (RolePatch { audience: Some(vec!["a".to_owned(); 65]), ..none() }, "up to 64"),
        (RolePatch { headers: text(r#"{"alg": "none"}"#), ..none() }, "cannot be set"),
        (RolePatch { headers: text(r#"{"jku": "https://evil"}"#), ..none() }, "cannot be set"),
        (RolePatch { headers: text("1"), ..none() }, "not a JSON object"),
        (RolePatch { headers: Some(format!("{{\"a\":\"{long}\"}}")), ..none() }, "longer than"),
        (RolePatch { jti: text("maybe"), ..none() }, "random or none"),
        (RolePatch { not_before: text("maybe"), ..none() }, "now or none"),
        (RolePatch { not_before_leeway_secs: Some(301), ..none() }, "not_before_leeway"),
        (RolePatch { token_type: text("jwt"), ..none() }, "JWT or at+jwt"),
    ] {
        let refused = reason(rig.write_role("app", patch).await);
        assert!(refused.contains(words), "{words}: {refused}");
    }
    // Nothing of what was refused is there.
    rig.sign("app").await.unwrap();
}

#[actix::test]
async fn callers_set_what_they_may_and_nothing_that_is_the_engines() {
    let rig = Rig::plain().await;
    let refused = reason(rig.sign_with("app", Some(r#"{"a": 1}"#), None).await);
    assert!(refused.contains("not among the role's allowed_claims"), "{refused}");
    let patch = RolePatch { allowed_claims: list(&["*"]), ..RolePatch::default() };
    rig.write_role("app", patch).await.unwrap();
    rig.sign_with("app", Some(r#"{"a": {"b": [1]}}"#), None).await.unwrap();
    for name in ["iss", "exp", "nbf", "iat", "jti"] {
        let sent = format!("{{\"{name}\": 1}}");
        let refused = reason(rig.sign_with("app", Some(&sent), None).await);
        assert!(refused.contains("reserved"), "{refused}");
    }
    for name in ["sub", "aud", "client_id"] {
        let sent = format!("{{\"{name}\": \"x\"}}");
        let refused = reason(rig.sign_with("app", Some(&sent), None).await);
        assert!(refused.contains("allowed_claims"), "{refused}");
    }
    let patch = RolePatch { allowed_claims: list(&["sub", "aud"]), ..RolePatch::default() };
    rig.write_role("app", patch).await.unwrap();
    for aud in [r#""a""#, r#"["a","b"]"#] {
        let sent = format!("{{\"aud\": {aud}, \"sub\": \"me\"}}");
        let token = rig.sign_with("app", Some(&sent), None).await.unwrap();
        let found = claims(&rig.verify(token.token.expose()).await.unwrap());
        assert_eq!((found["aud"].to_string().as_str(), &found["sub"]), (aud, &"me".into()));
    }
    for wrong in [
        r#"{"aud": 1}"#,
        r#"{"aud": {}}"#,
        r#"{"aud": []}"#,
        r#"{"aud": null}"#,
        r#"{"aud": ["a", 1]}"#,
        r#"{"aud": ""}"#,
        r#"{"aud": [["a"]]}"#,
        r#"{"sub": 1}"#,
        r#"{"sub": ""}"#,
        "[]",
        "1",
    ] {
        reason(rig.sign_with("app", Some(wrong), None).await);
    }
}

#[actix::test]
async fn claims_beyond_all_measure_are_refused() {
    let rig = Rig::plain().await;
    let patch = RolePatch { allowed_claims: list(&["*"]), ..RolePatch::default() };
    rig.write_role("app", patch).await.unwrap();
    let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    rig.sign_with("app", Some(&sized(8000)), None).await.unwrap();
    let refused = reason(rig.sign_with("app", Some(&sized(8192)), None).await);
    assert!(refused.contains("longer than"), "{refused}");
    reason(rig.sign_with("app", None, Some(0)).await);
}

#[actix::test]
async fn a_claim_of_metadata_that_the_caller_has_not_is_refused() {
    let rig = Rig::plain().await;
    let claims = text(r#"{"x": {{token.metadata.nothing}}}"#);
    rig.write_role("app", RolePatch { claims, ..RolePatch::default() }).await.unwrap();
    assert!(reason(rig.sign("app").await).contains("no metadata \"nothing\""));
}

#[actix::test]
async fn identity_roles_have_vaults_claims_and_a_client_of_their_own() {
    let rig = Rig::plain().await;
    let write = |patch| {
        rig.keeper.send(WriteRole { mount: mount(), name: role("id"), patch, identity: true })
    };
    let claims_text = text(r#"{"team": {{identity.entity.metadata.none}}, "nbf": {{time.now}}}"#);
    let patch = RolePatch { claims: claims_text, ..signs_with("k") };
    write(patch).await.unwrap().unwrap();
    let token = rig.sign("id").await.unwrap();
    let found = claims(&rig.verify(token.token.expose()).await.unwrap());
    assert_eq!((found["namespace"].as_str(), found["team"].as_str()), (Some("root"), Some("")));
    assert_eq!(found["aud"], token.client_id.as_str());
    assert_eq!((token.client_id.len(), token.ttl_secs), (26, 86_400));
    assert!(found.get("jti").is_none() && found["nbf"] == found["iat"]);
    for name in ["iat", "aud", "exp", "iss", "sub", "namespace", "nonce"] {
        let patch =
            RolePatch { claims: Some(format!("{{\"{name}\": 1}}")), ..RolePatch::default() };
        assert!(reason(write(patch).await.unwrap()).contains("Restricted keys"), "{name}");
    }
}
