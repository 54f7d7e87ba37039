//! What a role's statements may be on MySQL: such that a failed mint is undone and a login ended.

use std::collections::BTreeSet;

use crate::dialect::Dialect;
use crate::lexer::{Kind, Token};
use crate::rolecheck::{at, check_template, names_login};
use crate::template::mentions;

/// Where a login may come from if its statement does not say.
const ANYWHERE: &str = "%";

/// Checks what makes a login and replies warnings; an error says which statement, counted from 1, and why.
pub(crate) fn check_creation(
    dialect: Dialect,
    statements: &[String],
    privileged: bool,
) -> Result<Vec<String>, String> {
    let mut rights = BTreeSet::new();
    for (index, statement) in statements.iter().enumerate() {
        check_creating(statement, index == 0)
            .and_then(|()| check_template(dialect, statement, true))
            .and_then(|()| check_rights(statement, privileged, &mut rights))
            .map_err(|error| at(index, "creation_statements", &error))?;
    }
    let mut warnings: Vec<String> = rights
        .into_iter()
        .map(|right| {
            format!(
                "{right} lets a login undo or hold up revocations: access may outlive its lease"
            )
        })
        .collect();
    if !statements.iter().any(|statement| mentions(statement, "password")) {
        warnings
            .push("no creation statement has {{password}}: the login has no password".to_owned());
    }
    Ok(warnings)
}

/// Where a login may come from, by the statement that makes it.
pub(crate) fn host(statement: &str) -> String {
    let words = words(statement);
    let host = match (words.get(3), words.get(4)) {
        (Some(at), Some(host)) if at.text == "@" => host.content(),
        _ => ANYWHERE,
    };
    host.to_owned()
}

/// What would change our session, wait for data that never comes, or be something else than it says.
pub(crate) fn check_session(statement: &str) -> Result<(), String> {
    let tokens = Dialect::MySql.lex(statement).unwrap_or_default();
    if tokens.iter().any(|token| token.text.starts_with("/*!") || token.text.starts_with("/*M!")) {
        return Err("a comment that is executed is refused: write it plainly".to_owned());
    }
    let words = words(statement);
    let word = |index: usize| {
        let token = words.get(index).filter(|token| token.kind == Kind::Word);
        token.map(|token| token.text.to_ascii_lowercase()).unwrap_or_default()
    };
    let first = word(0);
    let routine = first == "create"
        && words.iter().take(8).any(|token| {
            ["procedure", "function", "trigger", "event"].iter().any(|kind| token.is_word(kind))
        });
    if !routine && words.iter().any(|token| token.kind == Kind::Semicolon) {
        return Err("only a routine's body may hold semicolons".to_owned());
    }
    let says =
        |texts: &[&str]| words.iter().any(|token| texts.iter().any(|text| token.is_word(text)));
    if !routine && says(&["get_lock", "release_lock", "release_all_locks"]) {
        return Err("named locks are ours: they say whose a session is".to_owned());
    }
    match (first.as_str(), word(1).as_str()) {
        ("begin" | "start" | "commit" | "rollback" | "savepoint" | "release" | "xa", _) => {
            let first = first.to_ascii_uppercase();
            Err(format!("{first} is refused: a change of users is final, whatever is rolled back"))
        }
        ("set", "default" | "password") => Ok(()),
        ("set" | "use" | "reset" | "lock" | "unlock" | "handler", _) => {
            let first = first.to_ascii_uppercase();
            Err(format!("{first} would outlive the statements: name what is meant in full"))
        }
        ("backup" | "flush", _) if first == "backup" || says(&["lock", "export"]) => Err(
            "a lock of all tables would outlive the statements, and hold up every change of users"
                .to_owned(),
        ),
        ("load" | "shutdown" | "kill" | "install" | "uninstall" | "change" | "delimiter", _) => {
            Err(format!("{} is refused", first.to_ascii_uppercase()))
        }
        _ => Ok(()),
    }
}

fn words(statement: &str) -> Vec<Token<'_>> {
    let tokens = Dialect::MySql.lex(statement).unwrap_or_default();
    tokens.into_iter().filter(Token::counts).collect()
}

fn check_creating(statement: &str, first: bool) -> Result<(), String> {
    check_session(statement)?;
    let words = words(statement);
    let is = |index: usize, word| words.get(index).is_some_and(|token| token.is_word(word));
    let says = |word| words.iter().any(|token| token.is_word(word));
    if first {
        return check_first(&words);
    }
    if is(0, "create") && (is(1, "user") || (is(1, "or") && is(3, "user"))) {
        return Err("only the first statement may create a user".to_owned());
    }
    if is(0, "rename") && is(1, "user") {
        return Err("a login keeps its name".to_owned());
    }
    if is(0, "alter") && is(1, "user") && says("unlock") {
        return Err("a login is unlocked where it is created".to_owned());
    }
    if is(0, "grant") && says("identified") {
        return Err("a GRANT with IDENTIFIED could make the login anew".to_owned());
    }
    if is(0, "prepare") || is(0, "execute") || is(0, "call") {
        return Err(
            "PREPARE, EXECUTE or CALL could make or enable the login in ways that cannot be undone"
                .to_owned(),
        );
    }
    Ok(())
}

fn check_first(words: &[Token<'_>]) -> Result<(), String> {
    let is = |index: usize, word| words.get(index).is_some_and(|token| token.is_word(word));
    let named = words.get(2).is_some_and(is_login);
    if !(is(0, "create") && is(1, "user") && named) {
        return Err("the first statement must be CREATE USER '{{name}}'@'<host>', without IF NOT \
             EXISTS and OR REPLACE"
            .to_owned());
    }
    if words.get(3).is_some_and(|token| token.text == "@") {
        let host = words.get(4);
        let plain = host.is_some_and(|host| {
            matches!(host.kind, Kind::Text(_) | Kind::Name(_) | Kind::Word)
                && !host.content().contains("{{")
                && !host.content().contains(['\'', '"', '`', '\\'])
        });
        if !plain {
            return Err("the host part must be a plain name or pattern".to_owned());
        }
    }
    // What a comma parts are users, but for the default roles behind them. MariaDB creates those that
    // it can and reports the rest: a login would be left of a mint that failed.
    let is_roles = |pair: &[Token<'_>]| matches!(pair, [default, role] if default.is_word("default") && role.is_word("role"));
    let users = words.windows(2).position(is_roles).unwrap_or(words.len());
    if words.iter().take(users).any(|token| token.text == ",") {
        return Err("only one user may be created".to_owned());
    }
    if words.iter().any(|token| token.is_word("attribute") || token.is_word("comment")) {
        return Err("ATTRIBUTE and COMMENT of a login are ours: they say whose it is".to_owned());
    }
    Ok(())
}

/// True for `'{{name}}'`, `"{{name}}"`, `` `{{name}}` `` and `{{name}}`.
fn is_login(token: &Token<'_>) -> bool {
    let text = matches!(token.kind, Kind::Text(_)).then(|| token.content());
    names_login(token)
        || text.is_some_and(|text| names_login(&Token { kind: Kind::Placeholder, text }))
}

/// Rights with which a login could undo its revocation, as far as the words say them.
fn check_rights(
    statement: &str,
    privileged: bool,
    rights: &mut BTreeSet<String>,
) -> Result<(), String> {
    let words = words(statement);
    if !words.first().is_some_and(|word| word.is_word("grant")) {
        return Ok(());
    }
    let list: Vec<String> = words
        .iter()
        .skip(1)
        .take_while(|token| !token.is_word("to"))
        .map(|token| token.text.to_ascii_uppercase())
        .collect();
    let found = mighty(&list.join(" "), words.iter().any(|token| token.is_word("option")));
    match found.first() {
        Some(right) if !privileged => Err(format!(
            "{right} lets a login undo or hold up revocations; allow_privileged=true permits it"
        )),
        _ => {
            rights.extend(found);
            Ok(())
        }
    }
}

/// Of what a grant lists, as `SELECT , SUPER ON * . *`, the rights with which access outlives its lease:
/// those to change users, to end or keep out who ends it, and to stop every change of users.
pub(crate) fn mighty(list: &str, may_pass_on: bool) -> Vec<String> {
    const EVERYWHERE: [&str; 21] = [
        "ALL",
        "ALL PRIVILEGES",
        "SUPER",
        "CREATE USER",
        "FILE",
        "SHUTDOWN",
        "RELOAD",
        "FLUSH_TABLES",
        "BACKUP_ADMIN",
        "LOCK TABLES",
        "READ ONLY ADMIN",
        "READ_ONLY ADMIN",
        "SYSTEM_VARIABLES_ADMIN",
        "CONNECTION ADMIN",
        "CONNECTION_ADMIN",
        "SET USER",
        "SET_USER_ID",
        "SET_ANY_DEFINER",
        "SYSTEM_USER",
        "ROLE_ADMIN",
        "PROXY",
    ];
    const ON_USERS: [&str; 8] =
        ["ALL", "ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "ALTER", "LOCK TABLES", "DROP"];
    let place = list.split_once(" ON ").map(|(_, place)| place.replace([' ', '`', '\'', '"'], ""));
    let rights = list.split_once(" ON ").map_or(list, |(rights, _)| rights);
    let has = |names: &[&str]| -> Vec<String> {
        let rights = rights.split(',').map(str::trim).filter(|right| names.contains(right));
        rights.map(ToOwned::to_owned).collect()
    };
    let mut found = match place.as_deref() {
        Some("*.*") => {
            let mut found = has(&EVERYWHERE);
            found.extend(has(&["INSERT", "UPDATE", "DELETE"]));
            found
        }
        Some(place) if holds_users(place) => has(&ON_USERS),
        Some(_) => has(&["PROXY"]),
        None => Vec::new(),
    };
    if may_pass_on {
        found.push("GRANT OPTION".to_owned());
    }
    found
}

/// True if a grant on `database.*` or `database.table` is on the tables of users. Of the first form the
/// database is a pattern.
fn holds_users(place: &str) -> bool {
    /// No name is longer, and each of its characters may have a backslash.
    const LEN_MAX: usize = 128;
    let place = place.to_ascii_lowercase();
    match place.strip_suffix(".*") {
        Some(pattern) => pattern.len() > LEN_MAX || is_like(b"mysql", pattern.as_bytes()),
        None => place.starts_with("mysql."),
    }
}

/// As `LIKE` compares, with a backslash before what is meant itself.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'%', b'%', ..], _) => pattern.get(1..).is_some_and(|pattern| is_like(text, pattern)),
        ([b'%', pattern @ ..], _) => {
            (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| is_like(text, pattern)))
        }
        ([b'\\', meant, pattern @ ..], [first, text @ ..]) if meant == first => {
            is_like(text, pattern)
        }
        ([b'\\', _, ..], _) => false,
        ([b'_', pattern @ ..], [_, text @ ..]) => is_like(text, pattern),
        ([same, pattern @ ..], [first, text @ ..]) if same == first => is_like(text, pattern),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::dialect::Dialect;
    use crate::rolecheck::{check_creation, check_later};

    use super::host;

    const CREATE: &str = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'";

    fn check(more: &str) -> Result<Vec<String>, String> {
        check_creation(Dialect::MySql, &[CREATE.to_owned(), more.to_owned()], false)
    }

    #[test]
    fn the_first_statement_creates_the_login_plainly() {
        let good = [
            (CREATE, "%"),
            (
                "create user {{username}}@localhost identified by '{{password}}'; GRANT a TO {{name}}",
                "localhost",
            ),
            ("/* x */ CREATE USER `{{ name }}`@`10.0.%`", "10.0.%"),
            ("CREATE USER \"{{name}}\" IDENTIFIED BY '{{password}}'", "%"),
            ("CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' DEFAULT ROLE a, b", "%"),
        ];
        for (text, expected) in good {
            let checked = check_creation(Dialect::MySql, &[text.to_owned()], false);
            assert!(checked.is_ok(), "{text}: {checked:?}");
            assert_eq!(host(text), expected, "{text}");
        }
        let bad = [
            "GRANT a TO '{{name}}'@'%'",
            "CREATE USER 'x{{name}}'@'%'",
            "CREATE USER x",
            "CREATE USER IF NOT EXISTS '{{name}}'@'%'",
            "CREATE OR REPLACE USER '{{name}}'@'%'",
            "CREATE USER '{{name}}'@'{{role}}'",
            "CREATE USER '{{name}}'@'a', '{{name}}'@'b'",
            "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}', 'x'@'%' IDENTIFIED BY 'y'",
            "CREATE USER '{{name}}'@'%' COMMENT 'x'",
            "CREATE ROLE '{{name}}'",
            "",
            "CREATE USER '{{name}}",
        ];
        for text in bad {
            assert!(check_creation(Dialect::MySql, &[text.to_owned()], false).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_undone_is_refused_and_the_statement_is_named() {
        let bad = [
            "COMMIT",
            "START TRANSACTION",
            "SET SESSION sql_mode = ''",
            "SET ROLE admin",
            "USE shop",
            "CREATE USER other",
            "CREATE OR REPLACE USER '{{name}}'@'%'",
            "RENAME USER '{{name}}'@'%' TO x",
            "ALTER USER '{{name}}'@'%' ACCOUNT UNLOCK",
            "GRANT SELECT ON a.* TO '{{name}}'@'%' IDENTIFIED BY 'x'",
            "PREPARE p FROM 'CREATE USER x'",
            "CALL make('{{name}}')",
            "LOAD DATA LOCAL INFILE 'x' INTO TABLE y",
            "GRANT a TO b /*!50000 WITH GRANT OPTION */",
            "DELIMITER $$\nGRANT a TO b; COMMIT$$",
            "GRANT {{nmae}} TO x",
            "GRANT ALL PRIVILEGES ON *.* TO '{{name}}'@'%'",
            "GRANT SELECT, CREATE USER ON *.* TO '{{name}}'@'%'",
            "GRANT UPDATE ON mysql.* TO '{{name}}'@'%'",
            "GRANT UPDATE ON `%`.* TO '{{name}}'@'%'",
            "GRANT ALL ON `My_q%`.* TO '{{name}}'@'%'",
            "GRANT RELOAD ON *.* TO '{{name}}'@'%'",
            "GRANT SELECT, LOCK TABLES ON *.* TO '{{name}}'@'%'",
            "GRANT PROXY ON 'root'@'%' TO '{{name}}'@'%'",
            "FLUSH TABLES WITH READ LOCK",
            "FLUSH TABLES a FOR EXPORT",
            "BACKUP STAGE START",
            "SELECT RELEASE_ALL_LOCKS()",
            "DO get_lock('mssm', 1)",
            "GRANT SELECT ON shop.* TO '{{name}}'@'%' WITH GRANT OPTION",
        ];
        for text in bad {
            let error = check(text).unwrap_err();
            assert!(error.contains("statement 2"), "{text}: {error}");
        }
        let good = [
            "GRANT SELECT ON shop.* TO '{{name}}'@'%'",
            "GRANT ALL ON shop.* TO '{{name}}'@'%'",
            "GRANT ALL, LOCK TABLES ON `my\\_%`.* TO '{{name}}'@'%'",
            "GRANT UPDATE ON `m_sql`.orders TO '{{name}}'@'%'",
            "FLUSH PRIVILEGES",
            "GRANT reader TO '{{name}}'@'%'",
            "SET DEFAULT ROLE reader FOR '{{name}}'@'%'",
            "ALTER USER '{{name}}'@'%' REQUIRE SSL",
            "INSERT INTO audit.logins VALUES ('{{name}}; COMMIT')",
            "DELIMITER $$\nCREATE PROCEDURE p() BEGIN SELECT 1; END$$",
        ];
        for text in good {
            assert!(check(text).is_ok(), "{text}: {:?}", check(text));
        }
    }

    #[test]
    fn rights_that_undo_a_revocation_are_warned_of() {
        let texts = [CREATE.to_owned(), "GRANT SUPER ON *.* TO '{{name}}'@'%'".to_owned()];
        let checked = check_creation(Dialect::MySql, &texts, true).unwrap();
        assert!(checked.iter().any(|text| text.contains("SUPER")), "{checked:?}");
    }

    #[test]
    fn later_statements_know_no_password() {
        let later =
            |text: &str| check_later(Dialect::MySql, &[text.to_owned()], "renew_statements");
        assert!(later("REVOKE ALL ON shop.* FROM '{{name}}'@'%'").is_ok());
        assert!(later("SELECT '{{password}}'").unwrap_err().contains("statement 1"));
    }
}
