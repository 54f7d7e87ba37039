//! The one place that prints: tables, JSON, one raw field, and notes on standard error.

use std::io::Write;

use serde_json::{Map, Value};

use super::call::Answer;
use super::failure::Failure;
use super::settings::Format;
use super::table::{cell, harmless, rows_of, table};

/// Where results and notes go, and how they look.
pub(crate) struct Output<'a> {
    /// Results: standard output.
    pub(crate) out: &'a mut dyn Write,
    /// Notes, warnings and errors: standard error.
    pub(crate) notes: &'a mut dyn Write,
    /// How results are printed.
    pub(crate) format: Format,
    /// The one field to print, if one was asked for.
    pub(crate) field: Option<String>,
    /// Whether results go to a terminal: then a raw field gets a line end.
    pub(crate) terminal: bool,
}

impl Output<'_> {
    /// Prints text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        written(self.out.write_all(text.as_bytes()))
    }

    /// Prints one line for people; left out in JSON, so that programs read nothing but JSON.
    pub(crate) fn done(&mut self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&format!("{}\n", harmless(text))),
            Format::Json => Ok(()),
        }
    }

    /// Prints a note beside the result.
    pub(crate) fn note(&mut self, text: &str) {
        // Should standard error be gone there is nowhere left to say so.
        let _ = writeln!(self.notes, "{}", harmless_lines(text));
    }

    /// Prints JSON over several lines.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::usage(format!("cannot print the answer: {error}")))?;
        self.text(&format!("{text}\n"))
    }

    /// Prints rows under headings.
    pub(crate) fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let text = table(headings, rows);
        self.text(&text)
    }

    /// Prints an object as one table of keys and values; `json` is what JSON shows in its place.
    pub(crate) fn object(
        &mut self,
        object: &Map<String, Value>,
        json: &Value,
    ) -> Result<(), Failure> {
        match (&self.field, self.format) {
            (Some(name), _) => {
                let value = object.get(name).cloned();
                self.raw(value.as_ref())
            }
            (None, Format::Json) => self.json(json),
            (None, Format::Table) => self.table(&["Key", "Value"], &rows_of(object)),
        }
    }

    /// Prints a list of names; `json` shows it as an array, as Vault's client does.
    pub(crate) fn names(&mut self, names: &[String]) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(&Value::from(names)),
            Format::Table => {
                let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
                self.table(&["Keys"], &rows)
            }
        }
    }

    /// Prints what a read or write brought: its lease, its token, its data.
    pub(crate) fn secret(&mut self, answer: &Answer) -> Result<(), Failure> {
        self.object(&flattened(answer), &answer.body)
    }

    /// Prints the field's value with nothing around it.
    pub(crate) fn raw(&mut self, value: Option<&Value>) -> Result<(), Failure> {
        let name = self.field.clone().unwrap_or_default();
        let value = value.filter(|value| !value.is_null()).ok_or_else(|| {
            Failure::advised(
                format!("the answer has no field `{name}`"),
                "`-format json` shows all that was sent",
            )
        })?;
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let end = if self.terminal { "\n" } else { "" };
        self.text(&format!("{text}{end}"))
    }
}

/// The members worth showing, in one object: lease, token and data.
fn flattened(answer: &Answer) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(id) = answer.member("lease_id").as_str().filter(|id| !id.is_empty()) {
        shown.insert("lease_id".to_owned(), Value::from(id));
        shown.insert("lease_duration".to_owned(), answer.member("lease_duration").clone());
        shown.insert("lease_renewable".to_owned(), answer.member("renewable").clone());
    }
    if let Some(auth) = answer.member("auth").as_object() {
        shown.extend(token_members(auth));
    }
    if let Some(wrapped) = answer.member("wrap_info").as_object() {
        let named = |(name, value): (&String, &Value)| (format!("wrapping_{name}"), value.clone());
        shown.extend(wrapped.iter().map(named));
    }
    shown.extend(answer.data().cloned().unwrap_or_default());
    shown
}

/// A token's members under the names that Vault's client gives them.
fn token_members(auth: &Map<String, Value>) -> Map<String, Value> {
    let names = [
        ("client_token", "token"),
        ("accessor", "token_accessor"),
        ("lease_duration", "token_duration"),
        ("renewable", "token_renewable"),
        ("token_policies", "token_policies"),
        ("identity_policies", "identity_policies"),
        ("policies", "policies"),
    ];
    let member =
        |(from, to): (&str, &str)| auth.get(from).map(|value| (to.to_owned(), value.clone()));
    names.into_iter().filter_map(member).collect()
}

/// One line of key and value for people.
pub(crate) fn line(name: &str, value: &Value) -> Vec<String> {
    vec![name.to_owned(), cell(value)]
}

/// The same, keeping line ends.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// Makes a failure of a result that could not be written.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        // Whoever reads (`| head`) has enough.
        std::io::ErrorKind::BrokenPipe => Failure::Silent(0),
        _ => Failure::usage(format!("cannot write the result: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(
        format: Format,
        field: Option<&str>,
        terminal: bool,
        body: &str,
    ) -> Result<String, Failure> {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut output = Output {
            out: &mut out,
            notes: &mut notes,
            format,
            field: field.map(str::to_owned),
            terminal,
        };
        let body = serde_json::from_str(body).unwrap();
        output.secret(&Answer { status: 200, body })?;
        Ok(String::from_utf8(out).unwrap())
    }

    const CREDENTIAL: &str = r#"{"lease_id":"db/creds/r/1","lease_duration":60,"renewable":true,
        "data":{"username":"u","password":"p"},"auth":null}"#;

    #[test]
    fn a_credential_shows_its_lease_and_its_data() {
        let text = printed(Format::Table, None, true, CREDENTIAL).unwrap();
        assert!(text.contains("lease_id           db/creds/r/1\n"), "{text}");
        assert!(text.contains("password           p\n"), "{text}");
    }

    #[test]
    fn a_field_is_printed_raw_and_ends_a_line_only_at_a_terminal() {
        assert_eq!(printed(Format::Table, Some("password"), false, CREDENTIAL).unwrap(), "p");
        assert_eq!(
            printed(Format::Json, Some("lease_duration"), true, CREDENTIAL).unwrap(),
            "60\n"
        );
    }

    #[test]
    fn a_field_that_is_not_there_is_a_failure() {
        let failure = printed(Format::Table, Some("nope"), false, CREDENTIAL).unwrap_err();
        assert!(failure.message().contains("nope"));
        assert!(!failure.message().contains("db/creds"));
    }

    #[test]
    fn json_is_what_the_server_sent_numbers_and_all() {
        let text = printed(Format::Json, None, false, r#"{"data":{"n":1.50}}"#).unwrap();
        assert_eq!(text, "{\n  \"data\": {\n    \"n\": 1.50\n  }\n}\n");
    }

    #[test]
    fn a_new_token_is_shown_under_vaults_names() {
        let body = r#"{"auth":{"client_token":"s.x","policies":["default"],"lease_duration":9}}"#;
        assert_eq!(printed(Format::Table, Some("token"), false, body).unwrap(), "s.x");
        assert_eq!(printed(Format::Table, Some("token_duration"), false, body).unwrap(), "9");
    }
}
