//! Templates: JSON and text in which `{{..}}` stands for what is known of the caller.
//!
//! In JSON a placeholder may stand where a value stands, as in Vault's templates, or be a whole text:
//! both become the value as it is. Within a longer text it becomes text. What is put in is a JSON
//! value from the start, so nothing that a caller chooses can end a text or add a member.

use std::collections::BTreeMap;

use mssm_domain::{Caller, PolicyName, Timestamp, parse_duration_secs};
use serde_json::{Map, Value};

/// What placeholders stand for.
pub(crate) struct Facts<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) metadata: &'a BTreeMap<String, String>,
    pub(crate) role: &'a str,
    pub(crate) now: Timestamp,
    /// True if metadata that a token does not have is empty text, as in Vault; else it is refused.
    pub(crate) lenient: bool,
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name<'a> {
    Shown,
    Accessor,
    Policies,
    AllMetadata,
    Metadata(&'a str),
    Nothing,
    Role,
    Now { plus: bool, secs: u64 },
}

impl<'a> Name<'a> {
    /// The names of the token, and what Vault calls the same of an entity.
    fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let unknown = || format!("there is no placeholder {{{{{text}}}}}");
        Ok(match text {
            "token.display_name" | "identity.entity.name" => Self::Shown,
            "token.accessor" | "identity.entity.id" => Self::Accessor,
            "token.policies" => Self::Policies,
            "token.metadata" | "identity.entity.metadata" => Self::AllMetadata,
            "identity.entity.groups.names" | "identity.entity.groups.ids" => Self::Nothing,
            "role" => Self::Role,
            "time.now" => Self::Now { plus: true, secs: 0 },
            _ => {
                let metadata = ["token.metadata.", "identity.entity.metadata."];
                let key = metadata.iter().find_map(|prefix| text.strip_prefix(prefix));
                if let Some(key) = key.filter(|key| !key.is_empty()) {
                    return Ok(Self::Metadata(key));
                }
                let shifts = [("time.now.plus.", true), ("time.now.minus.", false)];
                let shift = shifts.into_iter().find_map(|(prefix, plus)| {
                    let secs = parse_duration_secs(text.strip_prefix(prefix)?).ok()?;
                    Some(Self::Now { plus, secs })
                });
                return shift.ok_or_else(unknown);
            }
        })
    }

    fn is_text(&self) -> bool {
        !matches!(self, Self::Policies | Self::AllMetadata | Self::Nothing)
    }

    fn value(&self, facts: &Facts<'_>) -> Result<Value, String> {
        Ok(match self {
            Self::Shown => facts.caller.display_name.as_str().into(),
            Self::Accessor => facts.caller.accessor.as_str().into(),
            Self::Policies => facts.caller.policies.iter().map(PolicyName::as_str).collect(),
            Self::AllMetadata => facts.metadata.clone().into_iter().collect(),
            Self::Metadata(key) => match facts.metadata.get(*key) {
                Some(value) => value.as_str().into(),
                None if facts.lenient => "".into(),
                None => {
                    return Err(format!("the token has no metadata {key:?}, which the role needs"));
                }
            },
            Self::Nothing => Value::Array(Vec::new()),
            Self::Role => facts.role.into(),
            Self::Now { plus: true, secs } => facts.now.unix_secs().saturating_add(*secs).into(),
            Self::Now { plus: false, secs } => facts.now.unix_secs().saturating_sub(*secs).into(),
        })
    }
}

/// A piece of a text.
enum Piece<'a> {
    Plain(&'a str),
    Name(Name<'a>),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind.split_once("}}").ok_or("a placeholder is not closed by }}")?;
        if !before.is_empty() {
            found.push(Piece::Plain(before));
        }
        found.push(Piece::Name(Name::parse(name)?));
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Plain(rest));
    }
    Ok(found)
}

/// Reads a JSON object with placeholders, also where they stand for a value outside of quotes, and
/// checks them.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_str(&quoted(text)?)
        .map_err(|error| format!("not a JSON object: line {}", error.line()))?;
    let Value::Object(object) = value else { return Err("not a JSON object".to_owned()) };
    object.values().try_for_each(check)?;
    Ok(object)
}

/// Puts quotes around the placeholders that have none.
fn quoted(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut inside, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !inside && rest.starts_with("{{") {
            let end = rest.find("}}").ok_or("a placeholder is not closed by }}")?;
            let (name, after) = rest.split_at(end + 2);
            out.push_str(&Value::from(name).to_string());
            rest = after;
            continue;
        }
        match first {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ => {}
        }
        out.push(first);
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    Ok(out)
}

/// Checks every placeholder in a value.
fn check(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => check_text(text, true),
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(members) => members.values().try_for_each(check),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Checks every placeholder in a text; one that is not text may stand alone, where that is `whole`.
pub(crate) fn check_text(text: &str, whole: bool) -> Result<(), String> {
    let pieces = pieces(text)?;
    let alone = whole && pieces.len() == 1;
    for piece in &pieces {
        match piece {
            Piece::Name(name) if !alone && !name.is_text() => {
                return Err("a list or an object cannot be part of a text".to_owned());
            }
            Piece::Name(_) | Piece::Plain(_) => {}
        }
    }
    Ok(())
}

/// The value with every placeholder filled.
pub(crate) fn fill(value: &Value, facts: &Facts<'_>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            let pieces = pieces(text)?;
            match pieces.as_slice() {
                [Piece::Name(name)] => name.value(facts)?,
                _ => Value::String(joined(&pieces, facts)?),
            }
        }
        Value::Array(items) => {
            let filled: Result<Vec<_>, _> = items.iter().map(|item| fill(item, facts)).collect();
            filled?.into()
        }
        Value::Object(members) => {
            let fill = |(name, value): (&String, &Value)| Ok((name.clone(), fill(value, facts)?));
            Value::Object(members.iter().map(fill).collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// The text with every placeholder filled.
pub(crate) fn fill_text(text: &str, facts: &Facts<'_>) -> Result<String, String> {
    joined(&pieces(text)?, facts)
}

fn joined(pieces: &[Piece<'_>], facts: &Facts<'_>) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Name(name) => match name.value(facts)? {
                Value::String(text) => out.push_str(&text),
                other => out.push_str(&other.to_string()),
            },
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use mssm_domain::{Accessor, TokenId, TokenKind};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn caller() -> Caller {
        Caller {
            token: TokenId::from_fingerprint([1; 32]),
            accessor: Accessor::parse(&"a".repeat(24)).unwrap(),
            display_name: "token-ci".to_owned(),
            policies: vec![PolicyName::parse("ci").unwrap(), PolicyName::default_policy()],
            kind: TokenKind::Service,
            issued_at: Timestamp::from_unix_ms(0),
            expires_at: None,
        }
    }

    fn filled(template: &str, metadata: &[(&str, &str)], lenient: bool) -> Result<Value, String> {
        let object = Value::Object(parse_object(template)?);
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let caller = caller();
        let now = Timestamp::from_unix_ms(1_000_500);
        let facts = Facts { caller: &caller, metadata: &metadata, role: "r", now, lenient };
        fill(&object, &facts)
    }

    #[test]
    fn placeholders_become_values_where_they_stand_alone_and_text_elsewhere() {
        let template = r#"{ "who": {{token.display_name}}, "id": "{{ token.accessor }}",
            "policies": {{token.policies}}, "groups": {{identity.entity.groups.names}},
            "nbf": {{time.now.minus.1m}}, "exp2": "{{time.now.plus.1h}}", "at": "t={{time.now}}!",
            "deep": [{"team": "{{token.metadata.team}}-x"}], "all": {{token.metadata}}, "n": 1.50 }"#;
        let expected = json!({
            "who": "token-ci", "id": "a".repeat(24), "policies": ["ci", "default"], "groups": [],
            "nbf": 940, "exp2": 4600, "at": "t=1000!", "deep": [{"team": "red-x"}],
            "all": {"team": "red"}, "n": 1.5
        });
        let value = filled(template, &[("team", "red")], false).unwrap();
        assert_eq!(value["n"].to_string(), "1.50");
        for (name, value) in value.as_object().unwrap().iter().filter(|(name, _)| *name != "n") {
            assert_eq!(value, &expected[name], "{name}");
        }
    }

    #[test]
    fn metadata_that_is_not_there_is_refused_or_empty_as_vault_has_it() {
        let template = r#"{"team": {{identity.entity.metadata.team}}}"#;
        assert!(filled(template, &[], false).unwrap_err().contains("no metadata \"team\""));
        assert_eq!(filled(template, &[], true).unwrap(), json!({"team": ""}));
    }

    #[test]
    fn templates_that_make_no_sense_are_refused_when_they_are_written() {
        for template in [
            "[]",
            "{",
            r#"{"a": {{token.display_name}"#,
            r#"{"a": "{{token.display_name"}"#,
            r#"{"a": {{token.secret}}}"#,
            r#"{"a": {{identity.entity.aliases.x.name}}}"#,
            r#"{"a": {{time.now.plus.soon}}}"#,
            r#"{"a": {{token.metadata.}}}"#,
            r#"{"a": "x {{token.policies}}"}"#,
        ] {
            assert!(parse_object(template).is_err(), "{template}");
        }
        assert!(check_text("{{token.policies}}", false).is_err());
        assert!(check_text("spiffe://x/{{token.metadata.team}}", false).is_ok());
        assert!(parse_object("").unwrap().is_empty());
    }

    proptest! {
        /// Whatever metadata says, it stays within its own text.
        #[test]
        fn no_value_breaks_out(value in ".*") {
            let template = r#"{"a": {{token.metadata.x}}, "b": "<{{token.metadata.x}}>"}"#;
            let filled = filled(template, &[("x", &value)], false).unwrap();
            prop_assert_eq!(&filled, &json!({"a": value, "b": format!("<{value}>")}));
            let read: Value = serde_json::from_str(&filled.to_string()).unwrap();
            prop_assert_eq!(read, filled);
        }

        /// Whatever a template says, it is read or refused.
        #[test]
        fn no_template_breaks_the_reader(text in r#"[{}"\\:,a.\[\]]{0,40}"#) {
            let _ = parse_object(&text);
            let _ = check_text(&text, true);
        }
    }
}
