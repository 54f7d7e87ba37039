//! What a role's statements may be: such that a mint in doubt can be fenced and a login ended.

use std::collections::BTreeSet;

use crate::dialect::Dialect;
use crate::lexer::{Kind, Token, lex, placeholder};
use crate::mysql;
use crate::template::{TemplateError, Values, mentions, render};

/// Checks what makes a login and replies warnings; an error says which statement, counted from 1, and why.
pub(crate) fn check_creation(
    dialect: Dialect,
    texts: &[String],
    privileged: bool,
) -> Result<Vec<String>, String> {
    let statements = split(dialect, texts, "creation_statements")?;
    if statements.is_empty() {
        return Err("creation_statements must not be empty".to_owned());
    }
    if !dialect.is_postgres() {
        return mysql::rolecheck::check_creation(dialect, &statements, privileged);
    }
    let mut warnings = Vec::new();
    let mut rights = BTreeSet::new();
    for (index, statement) in statements.iter().enumerate() {
        check_creating(statement, index == 0)
            .and_then(|()| check_template(dialect, statement, true))
            .and_then(|()| check_rights(statement, privileged, &mut rights))
            .map_err(|error| at(index, "creation_statements", &error))?;
    }
    for right in rights {
        warnings.push(format!(
            "{right} lets a login undo its own revocation: what it does outlives its lease"
        ));
    }
    if statements.iter().any(|statement| grants_on_all(statement)) {
        let text = "GRANT … ON ALL … for each login writes the catalogue entry of every table, at \
                    each mint and each end: grant it once to a role that cannot log in, and that \
                    role to the login";
        warnings.push(text.to_owned());
    }
    if !statements.iter().any(|statement| mentions(statement, "password")) {
        warnings
            .push("no creation statement has {{password}}: the login has no password".to_owned());
    }
    Ok(warnings)
}

/// Checks statements about a login that is there; `field` names them in errors.
pub(crate) fn check_later(dialect: Dialect, texts: &[String], field: &str) -> Result<(), String> {
    let statements = split(dialect, texts, field)?;
    for (index, statement) in statements.iter().enumerate() {
        check_outside(dialect, statement)
            .and_then(|()| check_template(dialect, statement, false))
            .map_err(|error| at(index, field, &error))?;
    }
    Ok(())
}

/// Checks statements that change the password of a user that is there.
pub(crate) fn check_rotation(
    dialect: Dialect,
    texts: &[String],
    field: &str,
) -> Result<(), String> {
    let statements = split(dialect, texts, field)?;
    for (index, statement) in statements.iter().enumerate() {
        check_outside(dialect, statement)
            .and_then(|()| check_template(dialect, statement, true))
            .map_err(|error| at(index, field, &error))?;
    }
    if !statements.is_empty() && !statements.iter().any(|text| mentions(text, "password")) {
        return Err(format!("{field}: no statement has {{{{password}}}}"));
    }
    Ok(())
}

/// True if some statement has these words in a row, outside quotes and comments.
pub(crate) fn says(statements: &[String], phrase: &[&str]) -> bool {
    statements.iter().any(|statement| {
        let words = words(statement);
        words
            .windows(phrase.len())
            .any(|window| window.iter().zip(phrase).all(|(token, word)| token.is_word(word)))
    })
}

/// What a statement must not do to our session.
fn check_outside(dialect: Dialect, statement: &str) -> Result<(), String> {
    match dialect {
        Dialect::Postgres => check_session(&words(statement)),
        Dialect::MySql | Dialect::MariaDb => mysql::rolecheck::check_session(statement),
    }
}

fn split(dialect: Dialect, texts: &[String], field: &str) -> Result<Vec<String>, String> {
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(format!("{field}: a NUL character cannot stand in SQL"));
    }
    dialect.split_all(texts).map_err(|error| format!("{field}: {error}"))
}

pub(crate) fn at(index: usize, field: &str, error: &str) -> String {
    format!("{field}: statement {}: {error}", index + 1)
}

fn words(statement: &str) -> Vec<Token<'_>> {
    lex(statement).unwrap_or_default().into_iter().filter(Token::counts).collect()
}

pub(crate) fn check_template(
    dialect: Dialect,
    statement: &str,
    creates: bool,
) -> Result<(), String> {
    let password = mssm_domain::SecretText::new("x".to_owned());
    let values = Values {
        dialect,
        name: "x",
        role: "x",
        expiration: Some("x"),
        password: creates.then_some(&password),
        verifier: None,
    };
    match render(statement, &values) {
        Ok(_) | Err(TemplateError::Dollar) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Rights with which a login could undo its revocation, as far as the words say them.
fn check_rights(
    statement: &str,
    privileged: bool,
    rights: &mut BTreeSet<String>,
) -> Result<(), String> {
    const ATTRIBUTES: [&str; 4] = ["superuser", "createrole", "replication", "bypassrls"];
    const MEMBERSHIPS: [&str; 2] = ["pg_execute_server_program", "pg_write_server_files"];
    let words = words(statement);
    let is =
        |index: usize, word| words.get(index).is_some_and(|token: &Token<'_>| token.is_word(word));
    let says =
        |word: &&&str| words.iter().any(|token| token.is_word(word) || token.content() == **word);
    let of_role = (is(0, "create") || is(0, "alter")) && (is(1, "role") || is(1, "user"));
    let mut found: Vec<String> = Vec::new();
    if of_role && !is(2, "mapping") {
        found.extend(ATTRIBUTES.iter().filter(says).map(|right| right.to_ascii_uppercase()));
    }
    if is(0, "grant") || of_role {
        found.extend(MEMBERSHIPS.iter().filter(says).map(|role| (*role).to_owned()));
        // CREATE ROLE .. ADMIN x makes others the login's masters, which is another thing.
        let admin = |index| is(index, "with") && is(index + 1, "admin");
        if is(0, "grant") && (0..words.len()).any(admin) {
            found.push("ADMIN OPTION".to_owned());
        }
    }
    match found.first() {
        Some(right) if !privileged => Err(format!(
            "{right} lets a login undo its own revocation; allow_privileged=true permits it"
        )),
        _ => {
            rights.extend(found);
            Ok(())
        }
    }
}

/// True for `GRANT .. ON ALL TABLES` and the like.
fn grants_on_all(statement: &str) -> bool {
    let words = words(statement);
    let grants = words.first().is_some_and(|word| word.is_word("grant"));
    let on_all =
        |pair: &[Token<'_>]| matches!(pair, [on, all] if on.is_word("on") && all.is_word("all"));
    grants && words.windows(2).any(on_all)
}

fn check_creating(statement: &str, first: bool) -> Result<(), String> {
    let words = words(statement);
    check_session(&words)?;
    let is =
        |index: usize, word| words.get(index).is_some_and(|token: &Token<'_>| token.is_word(word));
    let role = is(1, "role") || is(1, "user");
    let named = words.get(2).is_some_and(names_login);
    if first && !(is(0, "create") && role && named) {
        return Err(
            "the first statement must be CREATE ROLE \"{{name}}\" or CREATE USER \"{{name}}\""
                .to_owned(),
        );
    }
    if is(0, "do") || (is(0, "call")) {
        return Err(
            "a DO block or CALL could make or enable the login in ways that cannot be fenced"
                .to_owned(),
        );
    }
    let altered = is(0, "alter") && (role || is(1, "group"));
    if altered && words.iter().any(|token| token.is_word("login") || token.is_word("rename")) {
        return Err("a login is enabled where it is created, and keeps its name".to_owned());
    }
    if !first && is(0, "create") && (role || is(1, "group")) && !is(2, "mapping") {
        return Err("only the first statement may create a role".to_owned());
    }
    Ok(())
}

/// What would end our transaction, change our session, or wait for data that never comes.
fn check_session(words: &[Token<'_>]) -> Result<(), String> {
    let word = |index: usize| {
        words
            .get(index)
            .filter(|token| token.kind == Kind::Word)
            .map(|token| token.text.to_ascii_lowercase())
    };
    let (first, second) = (word(0).unwrap_or_default(), word(1).unwrap_or_default());
    match (first.as_str(), second.as_str()) {
        (
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release",
            _,
        )
        | ("prepare", "transaction") => Err(format!(
            "{} is refused: all statements run in one transaction of ours",
            first.to_ascii_uppercase()
        )),
        ("set", "local") => Ok(()),
        ("set" | "reset" | "discard" | "listen" | "load", _) => Err(format!(
            "{} would outlive the transaction: use SET LOCAL",
            first.to_ascii_uppercase()
        )),
        ("copy", _) => Err("COPY is refused".to_owned()),
        _ => Ok(()),
    }
}

/// True for `"{{name}}"` and `{{name}}`.
pub(crate) fn names_login(token: &Token<'_>) -> bool {
    let whole = matches!(token.kind, Kind::Placeholder | Kind::Name(_));
    placeholder(token.content()).is_some_and(|(name, length)| {
        whole && length == token.content().len() && (name == "name" || name == "username")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'";

    fn check(more: &str) -> Result<Vec<String>, String> {
        check_creation(Dialect::Postgres, &[CREATE.to_owned(), more.to_owned()], false)
    }

    #[test]
    fn the_first_statement_creates_the_login_plainly() {
        let good = [
            CREATE,
            "create user {{username}} password '{{password}}'; GRANT a TO {{name}}",
            "/* x */ CREATE ROLE \"{{ name }}\"",
        ];
        for text in good {
            assert!(check_creation(Dialect::Postgres, &[text.to_owned()], false).is_ok(), "{text}");
        }
        let bad = [
            "GRANT a TO \"{{name}}\"",
            "CREATE ROLE \"x{{name}}\"",
            "CREATE ROLE x",
            "CREATE USER MAPPING FOR \"{{name}}\" SERVER s",
            "CREATE GROUP \"{{name}}\"",
            "CREATE ROLE '{{name}}'",
            "DO $$ BEGIN CREATE ROLE \"{{name}}\"; END $$",
            "",
            "CREATE ROLE \"{{name}}",
        ];
        for text in bad {
            assert!(
                check_creation(Dialect::Postgres, &[text.to_owned()], false).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_breaks_the_fence_is_refused_and_the_statement_is_named() {
        let bad = [
            "COMMIT",
            "BEGIN",
            "end",
            "ROLLBACK",
            "SAVEPOINT a",
            "START TRANSACTION",
            "ABORT",
            "PREPARE TRANSACTION 'x'",
            "SET ROLE postgres",
            "RESET ALL",
            "COPY a FROM STDIN",
            "DO $$ BEGIN END $$",
            "ALTER ROLE \"{{name}}\" LOGIN",
            "ALTER USER {{name}} RENAME TO x",
            "CREATE ROLE other",
            "GRANT {{nmae}} TO x",
            "/* a */ COMMIT",
            "CREATE SCHEMA s_{{name}}",
        ];
        for text in bad {
            let error = check(text).unwrap_err();
            assert!(error.contains("statement 2"), "{text}: {error}");
        }
        let good = [
            "SET LOCAL search_path = x",
            "GRANT a TO \"{{name}}\"",
            "ALTER ROLE \"{{name}}\" SET search_path = 'x'",
            "ALTER ROLE \"{{name}}\" NOLOGIN",
            "CREATE USER MAPPING FOR \"{{name}}\" SERVER s OPTIONS (password '{{password}}')",
            "SELECT 'COMMIT; BEGIN'",
            "COMMENT ON ROLE \"{{name}}\" IS $$;COMMIT$$",
        ];
        for text in good {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn rights_that_undo_a_revocation_are_warned_of() {
        let checked =
            check_creation(Dialect::Postgres, &[format!("{CREATE} CREATEROLE")], true).unwrap();
        assert!(checked.iter().any(|text| text.contains("CREATEROLE")));
    }

    #[test]
    fn later_statements_know_no_password() {
        assert!(
            check_later(
                Dialect::Postgres,
                &["DROP ROLE \"{{name}}\"".to_owned()],
                "revocation_statements"
            )
            .is_ok()
        );
        let error = check_later(
            Dialect::Postgres,
            &["SELECT '{{password}}'".to_owned()],
            "renew_statements",
        );
        assert!(error.unwrap_err().contains("renew_statements: statement 1"));
    }

    #[test]
    fn phrases_are_found_outside_quotes_only() {
        let statement = ["CREATE ROLE x CONNECTION  LIMIT 3 -- VALID UNTIL\n".to_owned()];
        assert!(says(&statement, &["connection", "limit"]));
        assert!(!says(&statement, &["valid", "until"]));
    }
}
