//! Writing JSON by hand: members in order, raw documents spliced in as they are.

use std::collections::BTreeMap;
use std::fmt::Write;

use mssm_domain::SecretText;

/// Where a member's text begins; most answers fit without growing, which would leave copies behind.
const CAPACITY: usize = 512;

/// A JSON object being written. What comes out is treated as a secret.
pub(crate) struct Object {
    text: String,
}

impl Object {
    /// An object without members.
    pub(crate) fn new() -> Self {
        Self::sized(CAPACITY)
    }

    /// An object without members, with room for this many bytes.
    pub(crate) fn sized(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self { text }
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        push_text(&mut self.text, key);
        self.text.push(':');
    }

    /// A member that is text.
    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        push_text(&mut self.text, value);
        self
    }

    /// A member that is secret text.
    pub(crate) fn secret(self, key: &str, value: &SecretText) -> Self {
        // EXPOSE: the answer to its caller is where this secret is meant to go.
        self.text(key, value.expose())
    }

    /// A member that is a whole number.
    pub(crate) fn number(mut self, key: &str, value: u64) -> Self {
        self.key(key);
        self.text.push_str(&value.to_string());
        self
    }

    /// A member that is true or false.
    pub(crate) fn flag(mut self, key: &str, value: bool) -> Self {
        self.key(key);
        self.text.push_str(if value { "true" } else { "false" });
        self
    }

    /// A member whose value is JSON text already.
    pub(crate) fn raw(mut self, key: &str, json: &str) -> Self {
        self.key(key);
        self.text.push_str(json);
        self
    }

    /// A member whose value is another object.
    pub(crate) fn object(self, key: &str, value: Self) -> Self {
        let value = value.finish();
        // EXPOSE: moves into the object around it.
        self.raw(key, value.expose())
    }

    /// A member that is a list of texts.
    pub(crate) fn texts<I>(mut self, key: &str, values: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.key(key);
        self.text.push('[');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            push_text(&mut self.text, value.as_ref());
        }
        self.text.push(']');
        self
    }

    /// A member that is null.
    pub(crate) fn null(self, key: &str) -> Self {
        self.raw(key, "null")
    }

    /// A member that is text, or null.
    pub(crate) fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    /// A member that is a map of texts; null if nothing is in it.
    pub(crate) fn map(self, key: &str, entries: &BTreeMap<String, String>) -> Self {
        if entries.is_empty() {
            return self.null(key);
        }
        let add = |map: Self, (key, value): (&String, &String)| map.text(key, value);
        self.object(key, entries.iter().fold(Self::new(), add))
    }

    /// The members of another object, as members of this one.
    pub(crate) fn merge(mut self, object: &str) -> Self {
        let inner = object.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            if self.text.len() > 1 {
                self.text.push(',');
            }
            self.text.push_str(inner);
        }
        self
    }

    /// The object's text.
    pub(crate) fn finish(mut self) -> SecretText {
        self.text.push('}');
        SecretText::new(self.text)
    }
}

/// A list of objects.
pub(crate) fn list(objects: impl Iterator<Item = Object>) -> String {
    // EXPOSE: it moves into the object around it; what is secret is not listed.
    let texts: Vec<String> = objects.map(|one| one.finish().expose().to_owned()).collect();
    format!("[{}]", texts.join(","))
}

/// Writes a JSON string.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\t') => out.push_str("\\t"),
            Some('\r') => out.push_str("\\r"),
            Some(other) => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is written as text is read back the same.
        #[test]
        fn text_survives(key in ".*", value in ".*") {
            let text = Object::new().text(&key, &value).finish();
            let back: serde_json::Value = serde_json::from_str(text.expose()).unwrap();
            prop_assert_eq!(back.get(&key).and_then(|v| v.as_str()), Some(value.as_str()));
        }
    }

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        let object = Object::new()
            .number("n", 1)
            .raw("doc", "{\"x\":1e400,\"y\":12345678901234567890}")
            .texts("l", ["a", "b"])
            .merge("{\"z\":null}")
            .merge("{}")
            .finish();
        assert_eq!(
            object.expose(),
            "{\"n\":1,\"doc\":{\"x\":1e400,\"y\":12345678901234567890},\"l\":[\"a\",\"b\"],\"z\":null}"
        );
    }
}
