//! What is read of policies' texts, and what is refused.

use super::*;

fn caps(names: &[&str]) -> Capabilities {
    names.iter().map(|name| Capability::parse(name).unwrap()).collect()
}

#[test]
fn what_users_of_vault_paste_is_understood() {
    type Case<'a> = (&'a str, &'a [(Pattern, &'a [&'a str])]);
    let cases: [Case<'_>; 6] = [
        (
            "path \"secret/*\" { capabilities = [\"read\", \"list\"] } path \"/a\" { policy = \"read\" }",
            &[
                (Pattern::Prefix("secret/".into()), &["read", "list"]),
                (Pattern::Exact("a".into()), &["read", "list"]),
            ],
        ),
        (
            "path \"+/x*\" { \"capabilities\" = [\"read\"], comment = \"hi\" }",
            &[(Pattern::Segments("+/x*".into()), &["read"])],
        ),
        (
            "{\"path\":{\"secret/*\":{\"capabilities\":[\"read\"]},\"b\":{\"policy\":\"write\"}}}",
            &[
                (Pattern::Prefix("secret/".into()), &["read"]),
                (Pattern::Exact("b".into()), &["create", "read", "update", "delete", "list"]),
            ],
        ),
        (
            "{\"path\":[{\"a\":{\"capabilities\":[\"read\",\"deny\"]}},{\"b\":{\"capabilities\":[]}}]}",
            &[(Pattern::Exact("a".into()), &["deny"]), (Pattern::Exact("b".into()), &[])],
        ),
        (
            "path \"a\" { capabilities = [\"subscribe\", \"read\"] }\npath \"{{x}}/b\" { policy = \"sudo\" }",
            &[(Pattern::Exact("a".into()), &["read"])],
        ),
        (super::super::DEFAULT_POLICY, &[]),
    ];
    for (text, rules) in cases {
        let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (rule, (pattern, names)) in policy.rules.iter().zip(rules) {
            assert_eq!((&rule.pattern, rule.capabilities), (pattern, caps(names)), "{text}");
        }
        assert!(rules.is_empty() || rules.len() == policy.rules.len(), "{text}");
    }
}

#[test]
fn mistakes_are_named() {
    let cases = [
        ("path \"a\" { capabilities = [\"rxad\"] }", "path \"a\": invalid capability \"rxad\""),
        (
            "path \"a\" {\n capabilites = [\"read\"] }",
            "path \"a\": invalid key \"capabilites\" on line 2",
        ),
        ("pat \"a\" { }", "invalid key \"pat\" on line 1"),
        ("path \"a\" { policy = \"x\" }", "path \"a\": invalid policy \"x\""),
        ("path \"a+*\" { }", "path \"a+*\": invalid use of wildcards ('+*' is forbidden)"),
        (
            "path \"a\" { min_wrapping_ttl = \"10s\" max_wrapping_ttl = 5 }",
            "path \"a\": max_wrapping_ttl cannot be less than min_wrapping_ttl",
        ),
        (
            "path \"a\" { capabilities = \"read\" }",
            "path \"a\": \"capabilities\" must be a list of strings",
        ),
        ("path \"a {", "At 1:9: literal not terminated"),
    ];
    for (text, error) in cases {
        let expected = format!("failed to parse policy: {error}");
        assert_eq!(Policy::parse(text).unwrap_err(), expected, "{text}");
    }
    assert!(Policy::parse(&"#".repeat(TEXT_MAX + 1)).is_err());
    assert!(Policy::parse(&"path \"a\" {}".repeat(RULES_MAX + 1)).is_err());
}

#[test]
fn a_rule_for_wrapped_answers_alone_denies() {
    for bound in ["min_wrapping_ttl = \"1m\"", "max_wrapping_ttl = 60"] {
        let text = format!("path \"a\" {{ capabilities = [\"read\"] {bound} }}");
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(policy.rules[0].capabilities, caps(&["deny"]), "{text}");
        assert!(policy.unkept.unwrap().starts_with("path \"a\": min_wrapping_ttl"), "{text}");
    }
    for rest in
        ["capabilities = [\"read\"] min_wrapping_ttl = 0", "policy = \"deny\" max_wrapping_ttl = 9"]
    {
        let policy = Policy::parse(&format!("path \"a\" {{ {rest} }}")).unwrap();
        assert!(policy.unkept.is_none(), "{rest}");
    }
}

#[test]
fn parameters_are_kept_as_json() {
    let text = "path \"a\" { allowed_parameters = { \"Foo\" = [\"x*\", 1, true] \"*\" = [] }\n\
                required_parameters = [\"foo\"] }";
    let policy = Policy::parse(text).unwrap();
    let parameters = &policy.rules[0].parameters;
    assert_eq!(parameters.allowed["foo"], ["\"x*\"", "1", "true"]);
    assert!(parameters.allowed["*"].is_empty());
    assert!(parameters.allow(&[("foo", "\"xy\"")]) && !parameters.allow(&[("foo", "\"z\"")]));
}

#[test]
fn base64_is_unwrapped() {
    assert_eq!(decode_text("cGF0aCAiYSIge30="), "path \"a\" {}");
    assert_eq!(decode_text("path \"a\" {}"), "path \"a\" {}");
}
