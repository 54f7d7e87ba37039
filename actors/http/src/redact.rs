//! From data to what the audit log may show of it: structure and names in clear, values hashed.

use mssm_domain::SecretBytes;
use mssm_domain::SecretText;
use mssm_messages::audit::Redacted;

use crate::body::scalar;

/// More values than this in one record are hidden, not hashed, so that a record stays bounded.
const MAX_VALUES: usize = 16_384;
/// Deeper than any body may be.
const MAX_DEPTH: usize = 160;
/// Members whose values are public wherever an answer speaks of a token.
const PUBLIC: [&str; 5] =
    ["policies", "token_policies", "identity_policies", "token_type", "display_name"];

/// Collects the values of one record, to be hashed in one message.
#[derive(Default)]
pub(crate) struct Redactor {
    items: Vec<SecretBytes>,
    /// True to leave in clear what [`PUBLIC`] names.
    names_policies: bool,
}

impl Redactor {
    /// A value to be hashed: its place among the items, until [`fill`] puts the hash there.
    pub(crate) fn value(&mut self, text: &str) -> Redacted {
        if self.items.len() >= MAX_VALUES {
            return Redacted::Hidden;
        }
        let mut place = [0_u8; 32];
        let index = u64::try_from(self.items.len()).unwrap_or(u64::MAX).to_be_bytes();
        place.iter_mut().zip(index).for_each(|(slot, byte)| *slot = byte);
        self.items.push(SecretBytes::new(text.as_bytes().to_vec()));
        Redacted::Hash(place)
    }

    /// A whole JSON text; what is not JSON is one value.
    pub(crate) fn json(&mut self, text: &SecretText) -> Redacted {
        // EXPOSE: every value in it is hashed before it leaves this room.
        self.document(text.expose())
    }

    /// What an answer says of a token: policies stay readable.
    pub(crate) fn auth(&mut self, text: &SecretText) -> Redacted {
        self.names_policies = true;
        let redacted = self.json(text);
        self.names_policies = false;
        redacted
    }

    /// Raw JSON text.
    pub(crate) fn document(&mut self, text: &str) -> Redacted {
        let mut reader = Reader { text, at: 0 };
        reader.value(self, MAX_DEPTH, false).unwrap_or_else(|| self.value(text))
    }

    /// What is to be hashed.
    pub(crate) fn take(&mut self) -> Vec<SecretBytes> {
        std::mem::take(&mut self.items)
    }
}

/// Puts the hashes where their values were; without hashes (sealed) values are hidden.
pub(crate) fn fill(redacted: &mut Redacted, hashes: Option<&[[u8; 32]]>) {
    match redacted {
        Redacted::Hash(place) => match hashes.and_then(|hashes| hashes.get(index(place))) {
            Some(hash) => *place = *hash,
            None => *redacted = Redacted::Hidden,
        },
        Redacted::List(items) => items.iter_mut().for_each(|item| fill(item, hashes)),
        Redacted::Map(members) => members.iter_mut().for_each(|(_, item)| fill(item, hashes)),
        Redacted::Null | Redacted::Hidden | Redacted::Public(_) => {}
    }
}

/// The hash of a single value.
pub(crate) fn hash_of(redacted: &Redacted, hashes: Option<&[[u8; 32]]>) -> Option<[u8; 32]> {
    match redacted {
        Redacted::Hash(place) => hashes?.get(index(place)).copied(),
        _ => None,
    }
}

fn index(place: &[u8; 32]) -> usize {
    let number = place.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Walks JSON text that has been checked before.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, out: &mut Redactor, depth: usize, public: bool) -> Option<Redacted> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            b'{' => self.map(out, depth),
            b'[' => self.list(out, depth, public),
            _ => {
                let raw = self.token()?;
                match (raw, public) {
                    ("null", _) => Some(Redacted::Null),
                    (raw, true) => scalar(raw).map(Redacted::Public),
                    (raw, false) => Some(match plain(raw) {
                        Some(text) => out.value(text),
                        None => out.value(&scalar(raw)?),
                    }),
                }
            }
        }
    }

    fn map(&mut self, out: &mut Redactor, depth: usize) -> Option<Redacted> {
        self.at += 1;
        let mut members = Vec::new();
        if self.eat(b'}') {
            return Some(Redacted::Map(members));
        }
        loop {
            self.peek()?;
            let name = scalar(self.token()?)?;
            if !self.eat(b':') {
                return None;
            }
            let public = out.names_policies && PUBLIC.contains(&name.as_str());
            let value = self.value(out, depth, public)?;
            members.push((name, value));
            if self.eat(b'}') {
                return Some(Redacted::Map(members));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn list(&mut self, out: &mut Redactor, depth: usize, public: bool) -> Option<Redacted> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Some(Redacted::List(items));
        }
        loop {
            items.push(self.value(out, depth, public)?);
            if self.eat(b']') {
                return Some(Redacted::List(items));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    /// The raw text of the scalar that begins here.
    fn token(&mut self) -> Option<&'a str> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        if bytes.get(start) == Some(&b'"') {
            let mut at = start + 1;
            loop {
                match bytes.get(at)? {
                    b'\\' => at += 2,
                    b'"' => break,
                    _ => at += 1,
                }
            }
            self.at = at + 1;
        } else {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
            let length = bytes.get(start..)?.iter().position(ends);
            self.at = length.map_or(bytes.len(), |length| start + length);
            if self.at == start {
                return None;
            }
        }
        self.text.get(start..self.at)
    }
}

/// The text of a scalar that needs no unescaping, without a copy.
fn plain(raw: &str) -> Option<&str> {
    match raw.strip_prefix('"') {
        Some(text) if !text.contains('\\') => text.strip_suffix('"'),
        Some(_) => None,
        None => Some(raw),
    }
}

#[cfg(test)]
mod tests {
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
        let (mut redacted, items) =
            redact(r#"{"pin":482913,"on":true,"s":"a\"b","n":null,"l":[1]}"#);
        assert_eq!(items, ["482913", "true", "a\"b", "1"]);
        let hashes: Vec<[u8; 32]> = (1..=4).map(|byte| [byte; 32]).collect();
        fill(&mut redacted, Some(&hashes));
        let Redacted::Map(members) = redacted else { panic!("a map") };
        assert_eq!(members[0], ("pin".to_owned(), Redacted::Hash([1; 32])));
        assert_eq!(members[3].1, Redacted::Null);
        assert_eq!(members[4].1, Redacted::List(vec![Redacted::Hash([4; 32])]));
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
                prop::collection::btree_map(".*", inner, 0..4).prop_map(|map| Value::from(
                    map.into_iter().collect::<serde_json::Map<_, _>>()
                )),
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
}
