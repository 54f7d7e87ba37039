//! What of data is hashed, hidden and shown.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn redact(text: &str) -> (Redacted, Vec<String>) {
    redact_within(text, ROOM)
}

fn redact_within(text: &str, room: usize) -> (Redacted, Vec<String>) {
    let mut redactor = Redactor::within(room);
    let redacted = redactor.json(&SecretText::new(text.to_owned()), (&[], false));
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
    let mut redactor = Redactor::of(true);
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
    let mut redactor = Redactor::of(true);
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
    let mut redactor = Redactor::of(true);
    let text = r#"{"client_token":"canary","policies":["default"],"num_uses":1}"#;
    let redacted = redactor.auth(&SecretText::new(text.to_owned()));
    let Redacted::Map(members) = redacted else { panic!("a map") };
    assert_eq!(members[1].1, Redacted::List(vec![Redacted::Public("default".to_owned())]));
    assert_eq!(redactor.take().len(), 2);
}

#[test]
fn what_would_take_too_much_is_one_hash_of_the_whole() {
    let text = format!("[{}1]", "1,".repeat(9_999));
    let (redacted, items) = redact(&text);
    assert_eq!((redacted, items), (Redacted::Hash([0; 32]), vec![text]));

    let body = r#"{"a":[1,2,3],"b":{"c":4}}"#;
    let whole = Body::parse(SecretBytes::new(body.as_bytes().to_vec()), None).unwrap();
    let mut redactor = Redactor::within(4 * HASH + 21);
    assert!(matches!(redactor.body(&whole, (&[], false)), Redacted::Map(_)));
    assert_eq!(redactor.value("other"), Redacted::Hash(place(4)));
    // A byte less, and what is hashed already of it is not sent to be hashed.
    let mut redactor = Redactor::within(4 * HASH + 20);
    assert_eq!(redactor.value("before"), Redacted::Hash(place(0)));
    assert_eq!(redactor.body(&whole, (&[], false)), Redacted::Hash(place(1)));
    let items: Vec<Vec<u8>> = redactor.take().iter().map(|item| item.expose().to_vec()).collect();
    assert_eq!(items, [b"before".to_vec(), body.as_bytes().to_vec()]);
    assert!(Redactor::of(false).most * 50 < Redactor::of(true).most);
}

fn place(index: u8) -> [u8; 32] {
    let mut place = [0; 32];
    place[7] = index;
    place
}

#[test]
fn what_comes_twice_under_one_name_stands_under_it_as_a_list() {
    let (redacted, items) = redact(r#"{"o":{"b":1,"a":2,"b":[3],"b":null}}"#);
    assert_eq!(items, ["1", "2", "3"]);
    let list = |items: Vec<Redacted>| Redacted::List(items);
    let hash = |index| Redacted::Hash(place(index));
    let b = list(vec![hash(0), list(vec![hash(2)]), Redacted::Null]);
    let inner = Redacted::Map(vec![("a".to_owned(), hash(1)), ("b".to_owned(), b)]);
    assert_eq!(redacted, Redacted::Map(vec![("o".to_owned(), inner)]));
}

/// What the log writes, but for the digits of hashes.
fn shown(redacted: &Redacted) -> Value {
    let hash = |number: usize| format!("hmac-sha256:{number:064}");
    match redacted {
        Redacted::Null => Value::Null,
        Redacted::Hidden => Value::from("hidden"),
        Redacted::Hash(_) => Value::from(hash(0)),
        Redacted::Public(text) => Value::from(text.clone()),
        Redacted::List(items) => items.iter().map(shown).collect(),
        Redacted::Map(members) => {
            members.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
        }
        Redacted::HashedMap(members) => {
            let members = members.iter().enumerate();
            members.map(|(number, (_, value))| (hash(number), shown(value))).collect()
        }
    }
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

    /// Whatever is sent takes the room that it may and no more; what fits is written as it is.
    #[test]
    fn no_data_takes_more_than_its_room(
        value in json(), room in 100_usize..2_000, clear: bool, hashed: bool,
    ) {
        let text = format!("{{\"a\":{value}}}");
        let names = clear.then(|| "a".to_owned());
        let rules = (names.as_slice(), hashed);
        let mut redactor = Redactor::within(room);
        let redacted = redactor.json(&SecretText::new(text.clone()), rules);
        let length = shown(&redacted).to_string().len();
        prop_assert!(length <= room, "{length} of {room}");
        if redacted == Redacted::Hash([0; 32]) {
            let whole = Redactor::of(true).json(&SecretText::new(text), rules);
            // What is escaped may have been thought longer than it is.
            prop_assert!(shown(&whole).to_string().len() * 3 > room);
        }
    }

    /// Text that is no JSON becomes something hashed, never a panic.
    #[test]
    fn no_text_breaks_the_reader(text in r#"[\[\]{}:,"\\0-9a-f ]{0,64}"#) {
        let _ = redact(&text);
    }
}
