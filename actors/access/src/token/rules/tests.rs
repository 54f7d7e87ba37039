//! What may become of a token, case by case and over random lives.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

fn parent(policies: &[&str]) -> Token {
    let accessor = Accessor::parse("abcdefghijklmnopqrstuvwx").unwrap();
    let mut token = root(NOW, TokenId::from_fingerprint([1; 32]), accessor);
    token.view.policies = policies.iter().map(|p| PolicyName::parse(p).unwrap()).collect();
    token.view.expires_at = (!token.is_root()).then(|| NOW.after(Ttl::SYSTEM_DEFAULT.duration()));
    token
}

fn make(parent: &Token, sudo: bool, wish: &TokenWish) -> Result<(Token, Vec<String>), AccessError> {
    let birth = Birth {
        now: NOW,
        parent,
        sudo,
        id: TokenId::from_fingerprint([2; 32]),
        accessor: Accessor::parse("ABCDEFGHIJKLMNOPQRSTUVWX").unwrap(),
        exists: &|policy| policy.as_str() != "missing",
    };
    create(&birth, wish)
}

fn ttl(secs: u64) -> Ttl {
    Ttl::from_secs(secs).unwrap()
}

fn wish(policies: &[&str]) -> TokenWish {
    TokenWish {
        policies: policies.iter().map(|p| (*p).to_owned()).collect(),
        ..TokenWish::default()
    }
}

#[test]
fn policies_come_from_the_parent_or_are_within_it() {
    let no_default = |policies: &[&str]| TokenWish { no_default_policy: true, ..wish(policies) };
    type Case<'a> = (&'a [&'a str], bool, TokenWish, Result<&'a [&'a str], &'a str>);
    let cases: [Case<'_>; 11] = [
        (&["a", "default"], false, wish(&[]), Ok(&["a", "default"])),
        (&["a"], false, wish(&[]), Ok(&["a"])),
        (&["a", "b", "default"], false, wish(&["b"]), Ok(&["b", "default"])),
        (&["a", "default"], false, no_default(&["a"]), Ok(&["a"])),
        (&["a"], false, wish(&["b"]), Err("child policies must be subset of parent")),
        (&["a"], true, wish(&["b", "B"]), Ok(&["b", "default"])),
        (&["root"], false, wish(&[]), Ok(&["root"])),
        (&["root"], false, wish(&["x"]), Ok(&["default", "x"])),
        (&["root"], false, wish(&["x", "ROOT"]), Ok(&["root"])),
        (
            &["a"],
            true,
            wish(&["Root"]),
            Err("root tokens may not be created without parent token being root"),
        ),
        (
            &["a"],
            true,
            wish(&[" root"]),
            Err(
                "invalid policy name: must be 1 to 128 letters, digits, '_', '.', '@' or '-', with single slashes between",
            ),
        ),
    ];
    for (policies, sudo, wish, expected) in cases {
        let made = make(&parent(policies), sudo, &wish).map(|(token, _)| token.view.policies);
        let expected = expected
            .map(|names| names.iter().map(|n| PolicyName::parse(n).unwrap()).collect::<Vec<_>>())
            .map_err(|text| AccessError::Invalid(text.to_owned()));
        assert_eq!(made, expected, "{policies:?} {sudo} {wish:?}");
    }
}

#[test]
fn what_needs_more_than_a_policy_is_refused_without_it() {
    let custom =
        |id: &str| TokenWish { id: Some(SecretText::new(id.to_owned())), ..TokenWish::default() };
    let orphan = TokenWish { orphan: true, ..TokenWish::default() };
    let by_path = TokenWish { orphan: true, by_orphan_path: true, ..TokenWish::default() };
    let periodic = TokenWish { period: Some(ttl(60)), ..TokenWish::default() };
    let batch = TokenWish { kind: "batch".to_owned(), ..TokenWish::default() };
    let cases = [
        (&["a"], false, &orphan, false),
        (&["a"], true, &orphan, true),
        (&["a"], false, &by_path, true),
        (&["a"], false, &periodic, false),
        (&["a"], true, &periodic, true),
        (&["a"], true, &custom("mine"), false),
        (&["root"], false, &custom("mine"), true),
        (&["root"], false, &custom("s.mine"), false),
        (&["root"], false, &batch, false),
    ];
    for (policies, sudo, wish, allowed) in cases {
        let made = make(&parent(policies), sudo, wish);
        assert_eq!(made.is_ok(), allowed, "{policies:?} {sudo} {wish:?}");
    }
    let mut limited = parent(&["root"]);
    limited.view.num_uses = 2;
    assert!(make(&limited, true, &TokenWish::default()).is_err());
    let mut deep = parent(&["a"]);
    deep.depth = DEPTH_MAX;
    assert!(make(&deep, false, &TokenWish::default()).is_err());
}

#[test]
fn lifetimes_stay_within_their_bounds() {
    let with = |ttl: Option<Ttl>, max: Option<Ttl>| TokenWish {
        ttl,
        explicit_max_ttl: max,
        ..wish(&["a", "missing"])
    };
    let system = Ttl::SYSTEM_DEFAULT;
    let cases = [
        (with(None, None), system, 1),
        (with(Some(ttl(60)), None), ttl(60), 1),
        (with(Some(ttl(9_999_999)), None), system, 2),
        (with(Some(ttl(60)), Some(ttl(30))), ttl(30), 2),
        (with(None, Some(ttl(9_999_999))), system, 2),
    ];
    for (wish, expected, warned) in cases {
        let (token, warnings) = make(&parent(&["root"]), false, &wish).unwrap();
        assert_eq!(token.view.creation_ttl, Some(expected), "{wish:?}");
        assert_eq!(warnings.len(), warned, "{warnings:?}");
    }
    let (endless, _) = make(&parent(&["root"]), false, &TokenWish::default()).unwrap();
    assert_eq!((endless.view.expires_at, endless.view.renewable), (None, false));
    let mut ending = parent(&["root"]);
    ending.view.expires_at = Some(NOW.after(Duration::from_secs(9)));
    assert!(make(&ending, false, &TokenWish::default()).is_err());
}

proptest! {
    /// However often it is renewed, a token stays within its bound and ends after now.
    #[test]
    fn no_renewal_passes_the_bound(
        max in prop::option::of(1_u64..5_000),
        period in prop::option::of(1_u64..5_000),
        steps in prop::collection::vec((0_u64..2_000, prop::option::of(1_u64..10_000)), 0..20),
    ) {
        let wish = TokenWish {
            ttl: Some(ttl(600)),
            explicit_max_ttl: max.map(ttl),
            period: period.map(ttl),
            ..wish(&["a"])
        };
        let (mut token, _) = make(&parent(&["root"]), false, &wish).unwrap();
        let mut now = NOW;
        for (wait, increment) in steps {
            now = now.after(Duration::from_secs(wait));
            if token.is_over(now) {
                break;
            }
            if let Ok((renewed, _)) = renew(now, &token, increment.map(ttl)) {
                token = renewed;
            }
            let end = token.view.expires_at.unwrap();
            prop_assert!(end > now);
            let bound = max.or(period.is_none().then_some(Ttl::SYSTEM_DEFAULT.secs()));
            prop_assert!(bound.is_none_or(|s| end <= NOW.after(Duration::from_secs(s))));
        }
    }
}

#[test]
fn names_for_people_hold_nothing_strange() {
    let cases = [
        (None, "token"),
        (Some("ci"), "token-ci"),
        (Some("a b/ß "), "token-a-b"),
        (Some("/"), "token"),
    ];
    for (wished, name) in cases {
        assert_eq!(display_name(wished), name);
    }
}

#[test]
fn what_is_kept_of_a_token_is_bounded() {
    let refused = |wish: &TokenWish| match make(&parent(&["root"]), true, wish) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let policies = |count: usize| TokenWish {
        policies: (0..count).map(|number| format!("p{number}")).collect(),
        ..TokenWish::default()
    };
    // Beside `default`; those that come twice count once.
    assert_eq!(refused(&policies(255)), "");
    assert!(refused(&policies(256)).contains("at most 256 policies"));
    let twice = TokenWish { policies: vec!["p".to_owned(); 10_000], ..TokenWish::default() };
    assert_eq!(refused(&twice), "");
    let metadata = |bytes: usize| TokenWish {
        metadata: [("note".to_owned(), "x".repeat(bytes))].into(),
        ..TokenWish::default()
    };
    assert_eq!(refused(&metadata((16 << 10) - 4)), "");
    assert!(refused(&metadata((16 << 10) - 3)).contains("16384 bytes"));
}
