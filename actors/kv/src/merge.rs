//! JSON merge patches (RFC 7396) and a document's structure without its values.

use mssm_domain::{Document, SecretText};
use mssm_messages::kv::KvError;
use serde_json::{Map, Value};

/// Merges a patch into a document; both are objects. Numbers keep the digits they were sent with.
pub(crate) fn merge(document: &Document, patch: &Document) -> Result<Document, KvError> {
    // EXPOSE: merged in memory and wrapped again.
    let mut target: Value =
        serde_json::from_str(document.expose()).map_err(|_| KvError::Internal)?;
    let patch: Value = serde_json::from_str(patch.expose())
        .map_err(|_| KvError::Invalid("the patch is not JSON".to_owned()))?;
    apply(&mut target, patch);
    Ok(Document::from_checked_json(SecretText::new(target.to_string())))
}

fn apply(target: &mut Value, patch: Value) {
    let Value::Object(members) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return };
    for (name, value) in members {
        if value.is_null() {
            object.remove(&name);
        } else {
            apply(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// A document with every value replaced by `null`, down to a depth (0: all the way).
pub(crate) fn structure(document: &Document, depth: u32) -> Result<Document, KvError> {
    // EXPOSE: only names are kept.
    let value: Value = serde_json::from_str(document.expose()).map_err(|_| KvError::Internal)?;
    let hollow = hollow(value, if depth == 0 { u32::MAX } else { depth });
    Ok(Document::from_checked_json(SecretText::new(hollow.to_string())))
}

fn hollow(value: Value, depth: u32) -> Value {
    match value {
        Value::Object(members) if depth > 0 && !members.is_empty() => Value::Object(
            members.into_iter().map(|(name, value)| (name, hollow(value, depth - 1))).collect(),
        ),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::from_checked_json(SecretText::new(text.to_owned()))
    }

    /// The examples of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, merged) in cases {
            let result = merge(&document(target), &document(patch)).unwrap();
            assert_eq!(result.expose(), merged, "{target} + {patch}");
        }
    }

    #[test]
    fn a_merge_keeps_numbers_as_they_were_sent() {
        let result = merge(&document(r#"{"n":9007199254740993.10}"#), &document(r#"{"m":1E400}"#));
        assert!(result.unwrap().expose().contains("9007199254740993.10"));
    }

    #[test]
    fn a_structure_has_names_and_no_values() {
        let deep = document(r#"{"a":{"b":{"c":"secret"}},"d":[1]}"#);
        let cases = [(0, r#"{"a":{"b":{"c":null}},"d":null}"#), (1, r#"{"a":null,"d":null}"#)];
        for (depth, expected) in cases {
            assert_eq!(structure(&deep, depth).unwrap().expose(), expected, "depth {depth}");
        }
    }
}
