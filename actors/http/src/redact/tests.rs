//! What of data is hashed, hidden and shown.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn redact(text: &str) -> (Redacted, Vec<String>) {
    let mut redactor = Redactor::default();
    let redacted = redactor.document(text);
    let items = redactor.take();
    let texts = items.iter().map(|item| String::from_utf8(item.expose().to_vec()).unwrap());
    (redacted, texts.collect())
}

/// Catalogue: MEASURED-2.
#[test]
fn numbers_and_truth_values_are_hashed_like_text() {
    let (mut redacted, items) = redact(r#"{"pin":482913,"on":true,"s":"a\"b","n":null,"l":[1]}"#);
    assert_eq!(items, ["482913", "true", "a\"b", "1"]);
    let hashes: Vec<[u8; 32]> = (1..=4).map(|byte| [byte; 32]).collect();
    fill(&mut redacted, Some(&hashes));
    let Redacted::Map(members) = redacted else { panic!("a map") };
    assert_eq!(members[0], ("pin".to_owned(), Redacted::Hash([1; 32])));
    assert_eq!(members[3].1, Redacted::Null);
    assert_eq!(members[4].1, Redacted::List(vec![Redacted::Hash([4; 32])]));
}

#[test]
fn only_the_datas_own_members_that_the_rules_name_stay_in_clear() {
    let mut redactor = Redactor::default();
    let text = r#"{"a":{"b":1,"c":["x"]},"d":{"a":"canary"}}"#;
    let clear = ["a".to_owned()];
    let redacted = redactor.json(&SecretText::new(text.to_owned()), (&clear, false));
    let Redacted::Map(members) = redacted else { panic!("a map") };
    let public = |text: &str| Redacted::Public(text.to_owned());
    let list = Redacted::List(vec![public("x")]);
    let shown = Redacted::Map(vec![("b".to_owned(), public("1")), ("c".to_owned(), list)]);
    assert_eq!(members[0].1, shown);
    assert_eq!(redactor.take().len(), 1);
}

#[test]
fn names_are_hashed_as_well_when_asked() {
    let mut redactor = Redactor::default();
    let text = SecretText::new(r#"{"canary":{"other":1}}"#.to_owned());
    let mut redacted = redactor.json(&text, (&[], true));
    assert_eq!(redactor.take().len(), 3);
    let hashes: Vec<[u8; 32]> = (1..=3).map(|byte| [byte; 32]).collect();
    fill(&mut redacted, Some(&hashes));
    let inner = Redacted::HashedMap(vec![([2; 32], Redacted::Hash([1; 32]))]);
    assert_eq!(redacted, Redacted::HashedMap(vec![([3; 32], inner)]));
    assert!(!format!("{redacted:?}").contains("canary"));
}

#[test]
fn without_keys_values_are_hidden() {
    let (mut redacted, _) = redact(r#"{"key":"share"}"#);
    fill(&mut redacted, None);
    assert_eq!(redacted, Redacted::Map(vec![("key".to_owned(), Redacted::Hidden)]));
}

#[test]
fn policies_of_a_token_stay_readable() {
    let mut redactor = Redactor::default();
    let text = r#"{"client_token":"canary","policies":["default"],"num_uses":1}"#;
    let redacted = redactor.auth(&SecretText::new(text.to_owned()));
    let Redacted::Map(members) = redacted else { panic!("a map") };
    assert_eq!(members[1].1, Redacted::List(vec![Redacted::Public("default".to_owned())]));
    assert_eq!(redactor.take().len(), 2);
}

#[test]
fn a_record_has_a_bounded_number_of_values() {
    let text = format!("[{}1]", "1,".repeat(MAX_VALUES + 10));
    let (redacted, items) = redact(&text);
    assert_eq!(items.len(), MAX_VALUES);
    let Redacted::List(values) = redacted else { panic!("a list") };
    assert_eq!(values.last(), Some(&Redacted::Hidden));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..4)
                .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        Value::Object(map) => map.values().for_each(|item| leaves(item, out)),
        other => out.push(other.to_string()),
    }
}

proptest! {
    /// Exactly the scalars of a document are hashed, in order, and none stays in clear.
    /// Catalogue: CVE-2025-62513, CVE-2025-62705.
    #[test]
    fn every_scalar_is_hashed(value in json()) {
        let mut expected = Vec::new();
        leaves(&value, &mut expected);
        let (redacted, items) = redact(&value.to_string());
        prop_assert_eq!(items, expected);
        let shown = format!("{redacted:?}");
        prop_assert!(!shown.contains("Public("));
    }

    /// Text that is no JSON becomes something hashed, never a panic.
    #[test]
    fn no_text_breaks_the_reader(text in r#"[\[\]{}:,"\\0-9a-f ]{0,64}"#) {
        let _ = redact(&text);
    }
}
