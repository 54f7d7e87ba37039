//! What a fuzzer throws at the parsers of this room, and a test with what it found; in no other build.

use mssm_domain::{SecretBytes, SecretText};

use crate::dialect::Dialect;
use crate::dsn::Dsn;
use crate::lexer::lex;
use crate::record::{ConnectionRecord, RoleRecord, decode};
use crate::template::{Values, render};
use crate::{dsn, rolecheck, statements};

const DIALECTS: [Dialect; 2] = [Dialect::Postgres, Dialect::MySql];

/// A role's statements: split, checked, filled.
pub fn sql(text: &str) {
    for dialect in DIALECTS {
        sql_of(dialect, text);
    }
}

fn sql_of(dialect: Dialect, text: &str) {
    let texts = [text.to_owned()];
    let _ = rolecheck::check_creation(dialect, &texts, false);
    let _ = rolecheck::check_later(dialect, &texts, "revocation_statements");
    let Ok(split) = statements::split(text) else { return };
    let password = SecretText::new("pass'word\\".to_owned());
    let values = Values {
        dialect,
        name: "na\"me",
        role: "ro'le",
        expiration: Some("2026-01-01 00:00:00+00"),
        password: Some(&password),
        verifier: None,
    };
    for statement in &split {
        let Ok(filled) = render(statement, &values) else { continue };
        // A value ends no statement and begins none, by the rules of the database that reads it.
        if dialect == Dialect::Postgres {
            let again = statements::split(filled.expose());
            assert!(again.is_ok_and(|again| again.len() <= 1), "{statement}");
        }
    }
    let Ok(tokens) = lex(text) else { return };
    let whole: String = tokens.iter().map(|token| token.text).collect();
    assert_eq!(whole, text);
}

/// The address of a database.
pub fn address(text: &str) {
    for dialect in DIALECTS {
        let _ = dsn::masked(dialect, text);
        let _ = Dsn::parse(dialect, text);
    }
}

/// Records of connections and roles.
pub fn record(bytes: &[u8]) {
    let bytes = SecretBytes::new(bytes.to_vec());
    let _ = decode::<ConnectionRecord>(&bytes);
    let _ = decode::<RoleRecord>(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_statement() {
        mssm_testkit::fuzzed("sql", |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            sql(text);
            address(text);
        });
    }

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(3, record);
    }
}
