//! Splits SQL text into statements as MySQL's own client does, `DELIMITER` included.

use super::lexer::first;
use crate::lexer::{Kind, Unterminated};

/// The statements of one text, without delimiters and without empty ones.
///
/// The bodies of routines hold semicolons: whoever writes one says `DELIMITER` first, as for the
/// client.
pub(crate) fn split(text: &str) -> Result<Vec<String>, Unterminated> {
    let mut statements = Vec::new();
    let (mut delimiter, mut current, mut counts) = (";", String::new(), false);
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with(delimiter) {
            rest = rest.get(delimiter.len()..).unwrap_or_default();
            take(&mut current, &mut counts, &mut statements);
            continue;
        }
        let token = first(rest)?;
        if !counts && token.is_word("delimiter") {
            let line = rest.get(token.text.len()..).unwrap_or_default();
            let (said, tail) = line.split_once('\n').unwrap_or((line, ""));
            delimiter = said.split_whitespace().next().ok_or(Unterminated("DELIMITER"))?;
            (current, rest) = (String::new(), tail);
            continue;
        }
        // A word may end where the delimiter begins, as in `END$$`.
        let cut = match token.kind {
            Kind::Word | Kind::Number => token.text.find(delimiter).filter(|at| *at > 0),
            _ => None,
        };
        let taken = cut.unwrap_or(token.text.len());
        current.push_str(rest.get(..taken).unwrap_or_default());
        counts |= token.counts();
        rest = rest.get(taken..).unwrap_or_default();
    }
    take(&mut current, &mut counts, &mut statements);
    Ok(statements)
}

fn take(current: &mut String, counts: &mut bool, statements: &mut Vec<String>) {
    let text = std::mem::take(current);
    if std::mem::take(counts) {
        statements.push(text.trim().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statements_end_at_delimiters_that_are_not_hidden() {
        let cases: [(&str, &[&str]); 10] = [
            ("a; b", &["a", "b"]),
            (" ;; a ;; -- c\n; # ;\n /* ; */", &["a"]),
            (r"a ';\';' b; c", &[r"a ';\';' b", "c"]),
            ("a \";\" `;`; c", &["a \";\" `;`", "c"]),
            ("a -- ;\n b; c", &["a -- ;\n b", "c"]),
            ("a # it's\n; c", &["a # it's", "c"]),
            ("DELIMITER $$\na; b$$\nDELIMITER ;\nc; d", &["a; b", "c", "d"]),
            ("delimiter //\na 'x//y' // b; c //", &["a 'x//y'", "b; c"]),
            ("x; -- why\nDELIMITER $$\nBEGIN a; END$$", &["x", "BEGIN a; END"]),
            ("GRANT a TO '{{name}}'@'%'", &["GRANT a TO '{{name}}'@'%'"]),
        ];
        for (sql, expected) in cases {
            assert_eq!(split(sql).unwrap(), expected, "{sql}");
        }
        assert!(split("DELIMITER").is_err());
        assert!(split("DELIMITER \na;").is_err());
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,8}",
            "'([a-z;\"` -]|''|\\\\'){0,8}'",
            "\"([a-z;'`]|\"\"|\\\\\\\\){0,8}\"",
            "`([a-z;'\"]|``){1,8}`",
            "/\\*[a-z;' ]{0,8}\\*/",
            "-- [a-z;' ]{0,8}\n",
            "#[a-z;' ]{0,8}\n",
        ]
    }

    proptest! {
        /// Statements put together out of anything that hides semicolons come apart as they were.
        #[test]
        fn what_is_joined_is_split_again(
            statements in prop::collection::vec(prop::collection::vec(piece(), 0..6), 1..5)
        ) {
            let statements: Vec<String> =
                statements.iter().map(|pieces| format!("x {}", pieces.join(" "))).collect();
            let joined = statements.join(" ;\n");
            let expected: Vec<&str> = statements.iter().map(|text| text.trim()).collect();
            prop_assert_eq!(split(&joined).unwrap(), expected);
        }
    }
}
