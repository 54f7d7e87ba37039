//! Fills `{{placeholders}}` into SQL, each value quoted by the rule of the place it stands in.

use mssm_domain::SecretText;

use crate::dialect::Dialect;
use crate::lexer::{Escapes, Kind, Token, Unterminated, placeholder};
use crate::mysql;

/// What a statement may name. `None`: this kind of statement may not.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    /// Whose SQL it is.
    pub(crate) dialect: Dialect,
    /// The login: `{{name}}`, `{{username}}`.
    pub(crate) name: &'a str,
    /// The role that was asked for: `{{role}}`.
    pub(crate) role: &'a str,
    /// When the login ends: `{{expiration}}`.
    pub(crate) expiration: Option<&'a str>,
    /// The password as it is: `{{password}}`.
    pub(crate) password: Option<&'a SecretText>,
    /// What a password's clause gets instead, if not the password itself.
    pub(crate) verifier: Option<&'a str>,
}

/// Why a template cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error(
        "unknown placeholder {{{{{0}}}}}: there are {{{{name}}}}, {{{{username}}}}, {{{{password}}}}, {{{{expiration}}}} and {{{{role}}}}"
    )]
    Unknown(String),
    #[error("{{{{{0}}}}} is not known in these statements")]
    NotHere(&'static str),
    #[error("{{{{{0}}}}} must stand alone or in quotes, not beside other letters")]
    Glued(String),
    #[error("placeholders cannot stand in U&'..' or U&\"..\"")]
    Unicode,
    #[error("a value with a dollar sign cannot stand in a dollar-quoted string")]
    Dollar,
    #[error(transparent)]
    Unterminated(#[from] Unterminated),
}

/// One statement with its values in place.
pub(crate) fn render(statement: &str, values: &Values<'_>) -> Result<SecretText, TemplateError> {
    // Room for all of it at once: growing would leave copies of the password behind.
    let mut out = String::with_capacity(statement.len() * 2 + 1024);
    fill(statement, values, false, &mut out)?;
    Ok(SecretText::new(out))
}

/// True if a statement has the placeholder somewhere.
pub(crate) fn mentions(statement: &str, name: &str) -> bool {
    let mut rest = statement;
    while let Some(at) = rest.find("{{") {
        rest = rest.get(at..).unwrap_or_default();
        if placeholder(rest).is_some_and(|(found, _)| found == name) {
            return true;
        }
        rest = rest.get(2..).unwrap_or_default();
    }
    false
}

fn fill(
    sql: &str,
    values: &Values<'_>,
    in_dollar: bool,
    out: &mut String,
) -> Result<(), TemplateError> {
    let tokens = values.dialect.lex(sql)?;
    for (index, token) in tokens.iter().enumerate() {
        let before = tokens.get(..index).unwrap_or_default();
        let place = Place { values, in_dollar, clause: verifier_clause(values.dialect, before) };
        match token.kind {
            Kind::Placeholder => {
                let after = tokens.get(index + 1);
                place.bare(token, before.last(), after, out)?;
            }
            Kind::Comment => strip(token.text, out),
            Kind::Text(escapes) | Kind::Name(escapes) => place.quoted(token, escapes, out)?,
            Kind::Dollar(delimiter) if token.content().contains("{{") => {
                let delimiter = token.text.get(..delimiter).unwrap_or_default();
                out.push_str(delimiter);
                fill(token.content(), values, true, out)?;
                out.push_str(delimiter);
            }
            _ => out.push_str(token.text),
        }
    }
    Ok(())
}

/// Copies a comment without its placeholders: a value could end it.
fn strip(comment: &str, out: &mut String) {
    out.push_str(&comment.replace("{{", "{ {"));
}

/// What stands before a verifier that is given in the place of a password; `None` where none can be.
fn verifier_clause(dialect: Dialect, before: &[Token<'_>]) -> Option<&'static str> {
    match dialect {
        Dialect::Postgres => takes_verifier(before).then_some(""),
        Dialect::MySql | Dialect::MariaDb => mysql::password::clause(dialect, before),
    }
}

/// True right after `PASSWORD` in a statement that makes or alters a role.
fn takes_verifier(before: &[Token<'_>]) -> bool {
    let mut words = before.iter().filter(|token| token.counts());
    let (first, second, third) = (words.next(), words.next(), words.next());
    let is = |token: Option<&Token<'_>>, word| token.is_some_and(|token| token.is_word(word));
    let head = (is(first, "create") || is(first, "alter"))
        && (is(second, "role") || is(second, "user"))
        && !is(third, "mapping");
    let last = before.iter().rfind(|token| token.counts());
    head && is(last, "password")
}

struct Place<'a> {
    values: &'a Values<'a>,
    in_dollar: bool,
    clause: Option<&'static str>,
}

impl Place<'_> {
    /// The value, and what must stand before it.
    fn value(&self, name: &str, alone: bool) -> Result<(&'static str, &str), TemplateError> {
        let mut before = "";
        let values = self.values;
        let value = match name {
            "name" | "username" => values.name,
            "role" => values.role,
            "expiration" => values.expiration.ok_or(TemplateError::NotHere("expiration"))?,
            "password" => {
                let password = values.password.ok_or(TemplateError::NotHere("password"))?;
                match (values.verifier, self.clause) {
                    (Some(verifier), Some(clause)) if alone => {
                        before = clause;
                        verifier
                    }
                    // EXPOSE: the statement is the password's way into the database.
                    _ => password.expose(),
                }
            }
            other => return Err(TemplateError::Unknown(other.to_owned())),
        };
        if self.in_dollar && value.contains('$') {
            return Err(TemplateError::Dollar);
        }
        Ok((before, value))
    }

    /// Outside all quotes a name becomes a quoted name, anything else a string.
    fn bare(
        &self,
        token: &Token<'_>,
        before: Option<&Token<'_>>,
        after: Option<&Token<'_>>,
        out: &mut String,
    ) -> Result<(), TemplateError> {
        let Some((name, _)) = placeholder(token.text) else { return Ok(()) };
        let glues = |token: &Token<'_>| {
            !matches!(token.kind, Kind::Space | Kind::Comment | Kind::Symbol | Kind::Semicolon)
        };
        let ampersand = |token: &Token<'_>| token.text == "&";
        if before.is_some_and(|before| glues(before) || ampersand(before))
            || after.is_some_and(glues)
        {
            return Err(TemplateError::Glued(name.to_owned()));
        }
        let (clause, value) = self.value(name, true)?;
        let dialect = self.values.dialect;
        let quoted = match name {
            "password" | "expiration" => SecretText::new(dialect.literal(value)),
            _ => SecretText::new(dialect.identifier(value)),
        };
        out.push_str(clause);
        // EXPOSE: the statement is the value's way into the database.
        out.push_str(quoted.expose());
        Ok(())
    }

    fn quoted(
        &self,
        token: &Token<'_>,
        escapes: Escapes,
        out: &mut String,
    ) -> Result<(), TemplateError> {
        let alone =
            placeholder(token.content()).is_some_and(|(_, length)| length == token.content().len());
        let mut rest = token.text;
        if alone && let Some((name, _)) = placeholder(token.content()) {
            out.push_str(self.value(name, true)?.0);
        }
        while let Some(at) = rest.find("{{") {
            let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
            out.push_str(plain);
            let Some((name, length)) = placeholder(tail) else {
                out.push_str("{{");
                rest = tail.get(2..).unwrap_or_default();
                continue;
            };
            if escapes == Escapes::Unicode {
                return Err(TemplateError::Unicode);
            }
            let (_, value) = self.value(name, alone)?;
            push_escaped(value, token, out);
            rest = tail.get(length..).unwrap_or_default();
        }
        out.push_str(rest);
        Ok(())
    }
}

/// Letter by letter, so that no copy of a password is left behind.
fn push_escaped(value: &str, place: &Token<'_>, out: &mut String) {
    let quote = place.text.chars().find(|letter| matches!(letter, '\'' | '"' | '`'));
    let backslash = place.kind == Kind::Text(Escapes::Backslash);
    for letter in value.chars() {
        if Some(letter) == quote || (backslash && letter == '\\') {
            out.push(letter);
        }
        out.push(letter);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lexer::lex;

    const POSTGRES: Dialect = Dialect::Postgres;

    fn rendered(statement: &str) -> Result<String, TemplateError> {
        let password = SecretText::new("hunter2".to_owned());
        let values = Values {
            dialect: POSTGRES,
            name: "v-a",
            role: "app",
            expiration: Some("2027-01-01 00:00:00+00"),
            password: Some(&password),
            verifier: Some("SCRAM$x"),
        };
        render(statement, &values).map(|text| text.expose().to_owned())
    }

    /// Catalogue: CVE-2025-49827, CVE-2025-49828, CVE-2025-49829, CVE-2025-49830, CVE-2025-49831.
    #[test]
    fn values_are_quoted_by_their_place() {
        let cases = [
            ("GRANT a TO \"{{name}}\"", "GRANT a TO \"v-a\""),
            ("GRANT a TO {{name}}", "GRANT a TO \"v-a\""),
            ("GRANT a TO {{ username }}, x", "GRANT a TO \"v-a\", x"),
            ("SELECT '{{role}} of {{name}}'", "SELECT 'app of v-a'"),
            ("SELECT '{{1,2},{3,4}}'::int[]", "SELECT '{{1,2},{3,4}}'::int[]"),
            ("a -- {{name}}\n b", "a -- { {name}}\n b"),
            ("SELECT $x$ {{name}} '{{name}}' $x$", "SELECT $x$ \"v-a\" 'v-a' $x$"),
            ("VALID UNTIL '{{expiration}}'", "VALID UNTIL '2027-01-01 00:00:00+00'"),
        ];
        for (template, expected) in cases {
            assert_eq!(rendered(template).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn only_a_roles_password_clause_gets_the_verifier() {
        let cases = [
            ("CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'", "PASSWORD 'SCRAM$x'"),
            ("alter user x with encrypted password {{password}}", "password 'SCRAM$x'"),
            ("CREATE USER MAPPING FOR x OPTIONS (PASSWORD '{{password}}')", "PASSWORD 'hunter2'"),
            ("SELECT dblink('password={{password}}')", "password=hunter2"),
            ("CREATE ROLE x PASSWORD 'a{{password}}'", "PASSWORD 'ahunter2'"),
        ];
        for (template, expected) in cases {
            assert!(rendered(template).unwrap().contains(expected), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_filled_is_refused() {
        let cases = [
            ("GRANT {{nmae}} TO x", TemplateError::Unknown("nmae".to_owned())),
            ("SELECT 'a {{nmae}}'", TemplateError::Unknown("nmae".to_owned())),
            ("CREATE SCHEMA app_{{name}}", TemplateError::Glued("name".to_owned())),
            ("SELECT {{name}}'x'", TemplateError::Glued("name".to_owned())),
            ("SELECT U&'{{name}}'", TemplateError::Unicode),
        ];
        for (template, error) in cases {
            assert_eq!(rendered(template), Err(error), "{template}");
        }
        let values = Values {
            dialect: POSTGRES,
            name: "a",
            role: "b",
            expiration: None,
            password: None,
            verifier: None,
        };
        let refused = render("SELECT '{{password}}'", &values).unwrap_err();
        assert_eq!(refused, TemplateError::NotHere("password"));
    }

    proptest! {
        /// Whatever a value holds, each statement keeps its shape, and says the value.
        /// Catalogue: CVE-2023-0620.
        #[test]
        fn no_value_breaks_out(value in "[a'\"\\\\;$\n/*-]{0,12}|\\PC{0,12}") {
            let values =
                Values { dialect: POSTGRES, name: &value, role: "r", expiration: None, password: None, verifier: None };
            let templates = [
                "GRANT a TO \"{{name}}\"", "GRANT a TO {{name}};", "SELECT '{{name}}'",
                "SELECT E'a\\'{{name}}'", "SELECT 1 -- {{name}}\n", "SELECT /* {{name}} */ 1",
                "DO $x$ SELECT '{{name}}' $x$", "DO $$ SELECT \"{{name}}\" $$",
            ];
            for template in templates {
                let sql = match render(template, &values) {
                    Ok(sql) => sql,
                    Err(error) => {
                        prop_assert!(error == TemplateError::Dollar && value.contains('$'));
                        continue;
                    }
                };
                let shape = |text: &str| -> Vec<Kind> {
                    let kinds = lex(text).unwrap().into_iter().map(|token| token.kind);
                    let named = kinds.map(|kind| match kind {
                        Kind::Placeholder => Kind::Name(Escapes::Doubled),
                        other => other,
                    });
                    named.collect()
                };
                prop_assert_eq!(shape(sql.expose()), shape(template), "{}", template);
            }
        }
    }
}
