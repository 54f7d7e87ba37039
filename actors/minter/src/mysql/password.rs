//! Where a password's ready-made hash can stand in its place.

use mssm_domain::SecretText;

use crate::dialect::Dialect;
use crate::lexer::Token;

/// What `mysql_native_password` keeps of a password.
pub(crate) fn verifier(password: &SecretText) -> String {
    mssm_crypto::native::hash(password)
}

/// What must stand before a hash that takes a password's place; `None` where none can.
///
/// MariaDB takes `IDENTIFIED BY PASSWORD '*..'` wherever it takes `IDENTIFIED BY '..'`; MySQL only
/// what a template itself says, as `IDENTIFIED WITH mysql_native_password AS '{{password}}'`.
pub(crate) fn clause(dialect: Dialect, before: &[Token<'_>]) -> Option<&'static str> {
    let words: Vec<&Token<'_>> = before.iter().filter(|token| token.counts()).collect();
    let says = |at: usize, word| words.get(at).is_some_and(|token| token.is_word(word));
    if !((says(0, "create") || says(0, "alter")) && says(1, "user")) {
        return None;
    }
    let back = |steps: usize, word: &str| {
        let token = words.len().checked_sub(steps).and_then(|at| words.get(at));
        token.is_some_and(|token| token.content().eq_ignore_ascii_case(word))
    };
    let after_by = back(2, "identified") && back(1, "by");
    if after_by && dialect == Dialect::MariaDb {
        return Some("PASSWORD ");
    }
    let ready_made = back(2, "by") && back(1, "password");
    let native = back(2, "mysql_native_password") && (back(1, "as") || back(1, "using"));
    (ready_made || native).then_some("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Values, render};

    fn rendered(dialect: Dialect, statement: &str) -> String {
        let password = SecretText::new("hunter2".to_owned());
        let values = Values {
            dialect,
            name: "v-a",
            role: "app",
            expiration: None,
            password: Some(&password),
            verifier: Some("*94BD"),
        };
        render(statement, &values).unwrap().expose().to_owned()
    }

    #[test]
    fn a_hash_is_sent_wherever_the_server_takes_one() {
        let by = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'";
        let ready = "CREATE USER '{{name}}'@'%' IDENTIFIED BY PASSWORD '{{password}}'";
        let native =
            "alter user {{name}} identified with `mysql_native_password` as \"{{password}}\"";
        let other = "CREATE USER '{{name}}' IDENTIFIED VIA ed25519 USING PASSWORD('{{password}}')";
        let option = "SELECT 'IDENTIFIED BY {{password}}'";
        let cases = [
            (Dialect::MariaDb, by, "CREATE USER 'v-a'@'%' IDENTIFIED BY PASSWORD '*94BD'"),
            (Dialect::MySql, by, "CREATE USER 'v-a'@'%' IDENTIFIED BY 'hunter2'"),
            (Dialect::MySql, ready, "CREATE USER 'v-a'@'%' IDENTIFIED BY PASSWORD '*94BD'"),
            (Dialect::MariaDb, ready, "CREATE USER 'v-a'@'%' IDENTIFIED BY PASSWORD '*94BD'"),
            (
                Dialect::MySql,
                native,
                "alter user `v-a` identified with `mysql_native_password` as \"*94BD\"",
            ),
            (
                Dialect::MariaDb,
                other,
                "CREATE USER 'v-a' IDENTIFIED VIA ed25519 USING PASSWORD('hunter2')",
            ),
            (Dialect::MariaDb, option, "SELECT 'IDENTIFIED BY hunter2'"),
        ];
        for (dialect, template, expected) in cases {
            assert_eq!(rendered(dialect, template), expected, "{dialect:?} {template}");
        }
        let bare = "CREATE USER {{name}}@'%' IDENTIFIED BY {{password}}";
        let expected = "CREATE USER `v-a`@'%' IDENTIFIED BY PASSWORD '*94BD'";
        assert_eq!(rendered(Dialect::MariaDb, bare), expected);
    }
}
