//! The decision, against cases seen on OpenBao and against the reference.

use proptest::prelude::*;

use super::*;
use crate::policy::reference;

fn acl(texts: &[&str]) -> Acl {
    let policies: Vec<(PolicyName, Policy)> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| {
            (PolicyName::parse(&format!("p{i}")).unwrap(), Policy::parse(text).unwrap())
        })
        .collect();
    Acl::new(policies.iter().map(|(name, policy)| (name, policy)))
}

fn names(acl: &Acl, path: &str, asked: Asked) -> Vec<&'static str> {
    let granted = acl.decide(path, asked);
    granted.map(|g| g.capabilities.iter().map(Capability::name).collect()).unwrap_or_default()
}

/// Seen on OpenBao 2.7.2, but for those marked: there a more specific deny does not hold.
#[test]
fn lists_are_decided_as_openbao_decides_them() {
    let foo = "secret/metadata/foo";
    let m = "secret/metadata";
    let cases: [(&str, &str, &str, &str, &str); 9] = [
        ("secret/*=list", "secret/metadata/foo/*=read", foo, "list", "read"),
        ("secret/*=deny", "secret/metadata/*=list", m, "deny", "list"),
        ("secret/metadata/+=list", "x=read", foo, "list", "list"),
        ("secret/metadata/+=list", "secret/metadata/foo/*=deny", foo, "list", "deny"),
        // The deny is the more specific: its `+` stands where the other's `*` does, and it is whole.
        ("secret/metadata/+=deny", "secret/metadata/*=list", foo, "deny", "deny"),
        ("secret/metadata/+=deny", "secret/metadata/foo/*=list", foo, "deny", "list"),
        ("secret/metadata/foo=deny", "secret/metadata/*=list", foo, "deny", "deny"),
        ("secret/metadata/foo=deny", "secret/metadata/foo/=list", foo, "deny", "list"),
        ("secret/+/fo*=list", "secret/metadata/+/=read", foo, "list", "read"),
    ];
    for (a, b, path, bare, folder) in cases {
        let text = |rule: &str| {
            let (path, capability) = rule.split_once('=').unwrap();
            format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}")
        };
        let acl = acl(&[&text(a), &text(b)]);
        let slashed = format!("{path}/");
        assert_eq!(names(&acl, path, Asked::Capabilities), [bare], "{a} {b}");
        assert_eq!(names(&acl, &slashed, Asked::Capabilities), [folder], "{a} {b}");
        assert_eq!(names(&acl, path, Asked::Listing), [folder], "{a} {b}");
        assert_eq!(names(&acl, &slashed, Asked::Listing), [folder], "{a} {b}");
    }
}

/// Catalogue: CVE-2026-63131, GHSA-xp3c.
#[test]
fn a_slash_at_the_end_leads_around_no_deny() {
    let acl = acl(&["path \"a/*\" { policy = \"read\" } path \"a/b\" { policy = \"deny\" }"]);
    assert_eq!(names(&acl, "a/b/", Asked::Request), ["deny"]);
    assert_eq!(names(&acl, "a/c/", Asked::Request), ["list", "read"]);
}

#[test]
fn parameters_of_one_path_are_merged_as_vault_merges_them() {
    let acl = acl(&[
        "path \"a\" { capabilities = [\"read\"] allowed_parameters = { x = [1] y = [] } }",
        "path \"a\" { capabilities = [\"update\"] allowed_parameters = { x = [2] y = [3] z = [] }
           required_parameters = [\"x\"] }",
    ]);
    let granted = acl.decide("a", Asked::Request).unwrap();
    let parameters = granted.parameters.clone().unwrap();
    assert_eq!(parameters.allowed["x"], ["1", "2"]);
    assert!(parameters.allowed["y"].is_empty() && parameters.allowed["z"].is_empty());
    assert_eq!((parameters.required.len(), granted.granting.len()), (1, 2));
}

#[test]
fn a_rule_below_a_mount_reaches_it() {
    let acl = acl(&[
        "path \"secret/data/a\" { policy = \"read\" } path \"+/creds/*\" { policy = \"read\" }
         path \"no/*\" { policy = \"deny\" } path \"team/a*\" { policy = \"read\" }",
    ]);
    let cases = [("secret/", true), ("no/", true), ("team/abc/", true), ("team/b/", false)];
    for (prefix, reaches) in cases {
        assert_eq!(acl.reaches_below(prefix), reaches, "{prefix}");
    }
    assert!(Acl::root().reaches_below("x/"));
    assert_eq!(acl.resultant().patterns.len(), 3);
}

#[test]
fn each_kind_of_rule_reaches_by_itself_and_none_that_denies() {
    for path in ["db/creds/a", "db/creds/*", "db/+/a", "db/*", "db/"] {
        let rule = |policy| format!("path \"{path}\" {{ policy = \"{policy}\" }}");
        let (reads, denies) = (rule("read"), rule("deny"));
        assert!(acl(&[reads.as_str()]).reaches_below("db/"), "{path}");
        assert!(!acl(&[reads.as_str()]).reaches_below("other/"), "{path}");
        assert!(!acl(&[denies.as_str()]).reaches_below("db/"), "{path}");
    }
}

fn pattern() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof!["a", "b", "ab", r"\+", ""], 1..5)
        .prop_map(|segments| segments.join("/"))
        .prop_flat_map(|path| prop_oneof![Just(path.clone()), Just(format!("{path}*"))])
        .prop_filter("refused by the parser", |path| !path.contains("+*"))
}

fn policy() -> impl Strategy<Value = String> {
    let capabilities = prop::collection::vec(
        prop_oneof![4 => Just("read"), 4 => Just("list"), 2 => Just("update"), 1 => Just("deny")],
        0..3,
    );
    prop::collection::vec((pattern(), capabilities), 0..6).prop_map(|rules| {
        let rules = rules.iter().map(|(path, capabilities)| {
            format!("path \"{path}\" {{ capabilities = {capabilities:?} }}\n")
        });
        rules.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    /// The compiled decision is that of the slow, obvious one.
    /// Catalogue: CVE-2026-63131, GHSA-xp3c, INFISICAL.
    #[test]
    fn the_decision_is_the_references(
        texts in prop::collection::vec(policy(), 1..4),
        path in prop::collection::vec(prop_oneof!["a", "b", "ab", "c"], 1..5),
        folder in any::<bool>(),
    ) {
        let path = path.join("/") + if folder { "/" } else { "" };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let acl = acl(&texts);
        let policies: Vec<Policy> = texts.iter().map(|t| Policy::parse(t).unwrap()).collect();
        for asked in [Asked::Request, Asked::Listing, Asked::Capabilities] {
            let decided = acl.decide(&path, asked).map(|granted| granted.capabilities);
            let expected = reference::decide(&policies, &path, asked);
            prop_assert_eq!(decided, expected, "{} {:?}", path, asked);
        }
    }
}

#[test]
fn a_policys_name_is_the_same_in_every_spelling() {
    for (rules, path, expected) in [
        ("sys/policies/acl/admin", "sys/policies/acl/ADMIN", "deny"),
        ("sys/policies/acl/Admin", "sys/policies/acl/admin", "deny"),
        ("sys/policies/acl/Adm*", "sys/policies/acl/aDMin", "deny"),
        ("sys/policies/+/Admin", "sys/policies/acl/admin", "deny"),
        ("sys/policy/Admin", "sys/policy/admin", "deny"),
        ("sys/policies/acl/admin", "sys/policies/acl/other", "update"),
    ] {
        let deny = format!("path \"{rules}\" {{ capabilities = [\"deny\"] }}");
        let acl = acl(&["path \"sys/pol*\" { capabilities = [\"update\"] }", &deny]);
        for asked in [Asked::Request, Asked::Capabilities] {
            assert_eq!(names(&acl, path, asked), [expected], "{rules} {path}");
        }
    }
    let acl = acl(&["path \"secret/data/Admin\" { capabilities = [\"read\"] }"]);
    assert_eq!(names(&acl, "secret/data/Admin", Asked::Request), ["read"]);
    assert!(names(&acl, "secret/data/admin", Asked::Request).is_empty());
}

#[test]
fn a_policy_that_cannot_be_read_denies_what_others_allow_by_longer_paths() {
    let name = |name| PolicyName::parse(name).unwrap();
    let wide = Policy::parse("path \"secret/*\" { capabilities = [\"read\"] }").unwrap();
    let (lost, wide) = ((name("lost"), Policy::deny_everything()), (name("wide"), wide));
    for policies in [[&lost, &wide], [&wide, &lost]] {
        let acl = Acl::new(policies.map(|(name, policy)| (name, policy)));
        assert_eq!(names(&acl, "secret/a", Asked::Capabilities), ["deny"]);
    }
}
