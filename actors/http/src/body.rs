//! A request's body: a JSON object parsed once, its values kept as the raw text that was sent.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::{Document, SecretBytes, SecretText, parse_duration_secs};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Refusal;
use crate::limits::Reservation;
use crate::scan::scan;

/// One member: its name, where its value lies in the text, and whether a resource has asked for it.
struct Member {
    name: String,
    value: Range<usize>,
    used: Cell<bool>,
}

/// A body, parsed. What nobody asks for is named in a warning.
pub(crate) struct Body {
    text: SecretText,
    members: Vec<Member>,
    /// The body's part of the budget for all bodies in flight, given back with it.
    _reservation: Option<Reservation>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} members)", self.members.len())
    }
}

/// The members of a JSON object, borrowed from its text; a name that comes twice counts last.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

/// The refusal of a value of the wrong type; holds the field's name, never its value.
fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::invalid(format!("error converting input for field \"{name}\": expected {expected}"))
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { text: SecretText::new(String::new()), members: Vec::new(), _reservation: None }
    }

    /// Parses what was sent: a JSON object, `null` or nothing.
    pub(crate) fn parse(
        bytes: SecretBytes,
        reservation: Option<Reservation>,
    ) -> Result<Self, Refusal> {
        let bad = |what: &str| Refusal::invalid(format!("failed to decode JSON input: {what}"));
        // EXPOSE: parsing reads what was sent.
        scan(bytes.expose()).map_err(|error| Refusal::invalid(error.to_string()))?;
        let text = bytes.into_text().map_err(|_| bad("not UTF-8"))?;
        // EXPOSE: as above.
        let raw = text.expose();
        if matches!(raw.trim_ascii(), "" | "null") {
            return Ok(Self { _reservation: reservation, ..Self::empty() });
        }
        let parsed: Result<Members<'_>, _> = serde_json::from_str(raw);
        let Members(parsed) = parsed.map_err(|error| {
            if serde_json::from_str::<IgnoredAny>(raw).is_ok() {
                bad("expected a JSON object")
            } else {
                // The library's own text may quote what was sent.
                bad(&format!("invalid JSON at line {} column {}", error.line(), error.column()))
            }
        })?;
        let mut places: BTreeMap<String, Range<usize>> = BTreeMap::new();
        for (name, value) in parsed {
            let start = (value.get().as_ptr() as usize).saturating_sub(raw.as_ptr() as usize);
            places.insert(name, start..start.saturating_add(value.get().len()));
        }
        let members = places
            .into_iter()
            .map(|(name, value)| Member { name, value, used: Cell::new(false) })
            .collect();
        Ok(Self { text, members, _reservation: reservation })
    }

    /// True if there is no member.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn value(&self, member: &Member) -> &str {
        // EXPOSE: the resource that asked parses the value.
        self.text.expose().get(member.value.clone()).unwrap_or("null")
    }

    /// All of it, as it was sent.
    pub(crate) fn sent(&self) -> &str {
        // EXPOSE: what is written down of it is hashed.
        self.text.expose()
    }

    /// The names and raw values of all members, sorted by name.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|member| (member.name.as_str(), self.value(member)))
    }

    /// The raw JSON text of a member; `None` if it is missing or null.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| member.name == name)?;
        member.used.set(true);
        Some(self.value(member)).filter(|value| *value != "null")
    }

    /// The whole body as a document; every member counts as asked for.
    pub(crate) fn document(&self) -> Option<Document> {
        self.members.iter().for_each(|member| member.used.set(true));
        // EXPOSE: moves into the document, another secret.
        let text = self.text.expose().trim_ascii();
        (!self.is_empty()).then(|| Document::from_checked_json(SecretText::new(text.to_owned())))
    }

    /// The names that nobody asked for.
    pub(crate) fn unknown(&self) -> Vec<&str> {
        let unused = self.members.iter().filter(|member| !member.used.get());
        unused.map(|member| member.name.as_str()).collect()
    }

    /// Text; numbers and truth values count as what they look like.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.raw(name).map(|raw| scalar(raw).ok_or_else(|| wrong(name, "text"))).transpose()
    }

    /// Secret text.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<SecretText>, Refusal> {
        Ok(self.text(name)?.map(SecretText::new))
    }

    /// Text that must be there and not be empty.
    pub(crate) fn required(&self, name: &str, error: &str) -> Result<String, Refusal> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| Refusal::invalid(error))
    }

    /// A truth value.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match truth(&text) {
            None if text.is_empty() => Ok(Some(false)),
            None => Err(wrong(name, "true or false")),
            some => Ok(some),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, "a whole number"))
    }

    /// A duration in seconds: `600`, `"600"`, `"10m"`; empty text is none.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let error = || {
            let expected = "a duration in seconds or as 1h30m";
            Refusal::invalid(format!(
                "error converting input for field \"{name}\": time: invalid duration, expected {expected}"
            ))
        };
        parse_duration_secs(&text).map(Some).map_err(|_| error())
    }

    /// A list of texts; text with commas counts as one.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if raw.starts_with('[') {
            return elements(raw).map(Some).ok_or_else(|| wrong(name, "a list of texts"));
        }
        let text = scalar(raw).ok_or_else(|| wrong(name, "a list of texts"))?;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Some(parts.map(str::to_owned).collect()))
    }

    /// A list of texts in which commas mean nothing, as SQL; text alone is a list of one.
    ///
    /// As in Vault, a text may be base64, and may be a JSON list of texts itself.
    pub(crate) fn statements(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let texts =
            if raw.starts_with('[') { elements(raw) } else { scalar(raw).map(|text| vec![text]) };
        let texts = texts.ok_or_else(|| wrong(name, "a list of texts"))?;
        Ok(Some(texts.into_iter().filter(|text| !text.is_empty()).flat_map(unpack).collect()))
    }

    /// A map of texts.
    pub(crate) fn map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let Some(entries) = self.nullable_map(name)? else { return Ok(None) };
        let entries = entries.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(Some(entries.collect()))
    }

    /// A map of texts, in which null takes a key out.
    pub(crate) fn nullable_map(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Option<String>>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let expected = || wrong(name, "an object of texts");
        let Members(members) = serde_json::from_str(raw).map_err(|_| expected())?;
        let entry = |(key, value): (String, &RawValue)| match value.get() {
            "null" => Ok((key, None)),
            raw => scalar(raw).map(|text| (key, Some(text))).ok_or_else(expected),
        };
        members.into_iter().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// A member that is an object, as a body of its own.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.starts_with('{') {
            return Err(wrong(name, "an object"));
        }
        Self::parse(SecretBytes::new(raw.as_bytes().to_vec()), None).map(Some)
    }
}

/// A truth value as Go reads it: Python's `True` is one too.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The text of a JSON scalar; `None` for lists, objects and null.
pub(crate) fn scalar(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(raw.to_owned()),
    }
}

fn elements(raw: &str) -> Option<Vec<String>> {
    let values: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    values.into_iter().map(|value| scalar(value.get())).collect()
}

/// The statements in one text; no SQL is valid base64, since it would need a space.
fn unpack(text: String) -> Vec<String> {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.unwrap_or(text);
    let list = if text.trim_start().starts_with('[') { elements(text.trim()) } else { None };
    list.unwrap_or_else(|| vec![text])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str) -> Result<Body, Refusal> {
        Body::parse(SecretBytes::new(text.as_bytes().to_vec()), None)
    }

    #[test]
    fn a_body_is_an_object_or_nothing() {
        for empty in ["", " ", "null", "{}", "\n{ }\t"] {
            assert!(body(empty).unwrap().is_empty(), "{empty:?}");
        }
        for bad in ["[]", "1", "\"canary\"", "{", "{\"a\":}", "{'a':1}", "{\"a\":canary}", "{}{}"] {
            let refusal = body(bad).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 400, "{bad}");
            assert!(!refusal.errors[0].contains("canary"), "{bad}");
        }
    }

    #[test]
    fn values_come_in_the_forms_that_clients_send() {
        let body = body(
            r#"{"a":"10m","b":600,"c":"600","l":"x, y","m":["x",1],"t":"true","d":{"k":1,"n":null},
                "n":null,"num":12345678901234567890,"dup":1,"dup":2}"#,
        )
        .unwrap();
        assert_eq!(body.duration("a").unwrap(), Some(600));
        assert_eq!(body.duration("b").unwrap(), Some(600));
        assert_eq!(body.duration("c").unwrap(), Some(600));
        assert_eq!(body.list("l").unwrap().unwrap(), ["x", "y"]);
        assert_eq!(body.list("m").unwrap().unwrap(), ["x", "1"]);
        assert_eq!(body.flag("t").unwrap(), Some(true));
        assert_eq!(body.map("d").unwrap().unwrap()["k"], "1");
        assert_eq!(body.nullable_map("d").unwrap().unwrap()["n"], None);
        assert_eq!(body.text("n").unwrap(), None);
        assert_eq!(body.raw("num"), Some("12345678901234567890"));
        assert_eq!(body.number("dup").unwrap(), Some(2));
        assert!(body.unknown().is_empty());
    }

    #[test]
    fn what_nobody_asks_for_is_known_by_name() {
        let body = body(r#"{"known":1,"typo":2}"#).unwrap();
        body.number("known").unwrap();
        assert_eq!(body.unknown(), ["typo"]);
    }

    /// Catalogue: CVE-2025-4166, CVE-2025-52893, CVE-2026-115358.
    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        let body = body(r#"{"a":{"canary":1},"b":"canary","c":["canary"],"d":[[1]]}"#).unwrap();
        let refusals = [
            body.text("a").unwrap_err(),
            body.number("b").unwrap_err(),
            body.flag("b").unwrap_err(),
            body.duration("b").unwrap_err(),
            body.text("c").unwrap_err(),
            body.list("d").unwrap_err(),
            body.map("c").unwrap_err(),
            body.object("b").unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.status.as_u16(), 400);
            assert!(!refusal.errors[0].contains("canary"), "{:?}", refusal.errors);
        }
    }

    proptest! {
        /// Whatever bytes come, there is a body or a refusal in the 400s, never a panic.
        #[test]
        fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Err(refusal) = Body::parse(SecretBytes::new(bytes), None) {
                prop_assert!(refusal.status.is_client_error());
            }
        }

        /// The same for what looks like JSON.
        #[test]
        fn no_text_like_json_breaks_the_parser(text in r#"[\[\]{}:,"\\0-9eE.a-f \-]{0,64}"#) {
            match body(&text) {
                Ok(body) => for (name, _) in body.members() {
                    let _ = (body.text(name), body.list(name), body.map(name), body.duration(name));
                },
                Err(refusal) => prop_assert!(refusal.status.is_client_error()),
            }
        }
    }

    #[test]
    fn statements_are_read_in_every_form_that_vault_reads() {
        let drop = "DROP ROLE \"{{name}}\"; SELECT 'a,b'";
        let listed = r#"["SELECT 1", "SELECT 2"]"#;
        let cases = [
            (serde_json::json!(drop), vec![drop]),
            (serde_json::json!([drop, "SELECT 1;"]), vec![drop, "SELECT 1;"]),
            (serde_json::json!(STANDARD.encode(drop)), vec![drop]),
            (serde_json::json!(listed), vec!["SELECT 1", "SELECT 2"]),
            (serde_json::json!(STANDARD.encode(listed)), vec!["SELECT 1", "SELECT 2"]),
            (serde_json::json!([STANDARD.encode(drop)]), vec![drop]),
            (serde_json::json!(""), vec![]),
            (serde_json::json!([""]), vec![]),
            (serde_json::json!("COMMIT"), vec!["COMMIT"]),
        ];
        for (value, expected) in cases {
            let body = body(&serde_json::json!({ "sql": value }).to_string()).unwrap();
            assert_eq!(body.statements("sql").unwrap().unwrap(), expected, "{value}");
        }
        assert!(body(r#"{"sql":{"a":1}}"#).unwrap().statements("sql").is_err());
    }
}
