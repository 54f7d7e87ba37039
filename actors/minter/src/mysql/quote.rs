//! Writes values as MySQL's SQL so that they cannot be anything but values.

/// A name in backticks.
pub(crate) fn identifier(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// A string in single quotes; in every session of ours backslashes count.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Strings in single quotes, with commas between; `NULL` for none, which equals nothing.
pub(crate) fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let list: Vec<String> = texts.into_iter().map(literal).collect();
    if list.is_empty() { "NULL".to_owned() } else { list.join(", ") }
}

/// An account: a user and where it comes from.
pub(crate) fn account(user: &str, host: &str) -> String {
    format!("{}@{}", literal(user), literal(host))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lexer::{Escapes, Kind};
    use crate::mysql::lexer::lex;

    proptest! {
        /// Whatever a value holds, it stays one token, and that token says the value.
        /// Catalogue: CVE-2023-0620.
        #[test]
        fn no_value_breaks_out(value in "[a'\"`\\\\;$\n#-]{0,12}|\\PC{0,12}") {
            let sql = identifier(&value);
            let tokens = lex(&sql).unwrap();
            prop_assert_eq!(tokens.len(), 1);
            prop_assert_eq!(tokens[0].kind, Kind::Name(Escapes::Doubled));
            prop_assert_eq!(tokens[0].content().replace("``", "`"), value.clone());
            let sql = literal(&value);
            let tokens = lex(&sql).unwrap();
            prop_assert_eq!(tokens.len(), 1);
            prop_assert_eq!(tokens[0].kind, Kind::Text(Escapes::Backslash));
            let said = tokens[0].content().replace("''", "'").replace("\\\\", "\\");
            prop_assert_eq!(said, value);
        }
    }
}
