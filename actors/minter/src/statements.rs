//! Splits SQL text into statements, where PostgreSQL does and nowhere else.

use crate::lexer::{Kind, Token, Unterminated, lex};

/// The statements of one text, without their semicolons and without empty ones.
pub(crate) fn split(text: &str) -> Result<Vec<String>, Unterminated> {
    let mut statements = Vec::new();
    let mut current = Current::default();
    for token in lex(text)? {
        if token.kind == Kind::Semicolon && current.ends_here() {
            statements.extend(current.take());
        } else {
            current.push(token);
        }
    }
    statements.extend(current.take());
    Ok(statements)
}

/// The statement being read, and how deep in it we are.
#[derive(Default)]
struct Current {
    text: String,
    words: Vec<String>,
    counts: bool,
    parentheses: usize,
    atomic: usize,
}

impl Current {
    /// A semicolon in parentheses (rules) or in a routine's `BEGIN ATOMIC .. END` ends nothing.
    const fn ends_here(&self) -> bool {
        self.parentheses == 0 && self.atomic == 0
    }

    fn push(&mut self, token: Token<'_>) {
        self.text.push_str(token.text);
        self.counts |= token.counts();
        match token.kind {
            Kind::Symbol if token.text == "(" => self.parentheses += 1,
            Kind::Symbol if token.text == ")" => {
                self.parentheses = self.parentheses.saturating_sub(1);
            }
            Kind::Word => self.word(&token),
            _ => {}
        }
    }

    fn word(&mut self, token: &Token<'_>) {
        let is = |word| token.is_word(word);
        if self.words.len() < 4 {
            self.words.push(token.text.to_ascii_lowercase());
        }
        let routine = self.words.first().is_some_and(|word| word == "create")
            && self.words.iter().any(|word| word == "function" || word == "procedure");
        if !routine {
        } else if is("begin") || (is("case") && self.atomic > 0) {
            self.atomic += 1;
        } else if is("end") {
            self.atomic = self.atomic.saturating_sub(1);
        }
    }

    fn take(&mut self) -> Option<String> {
        let done = std::mem::take(self);
        done.counts.then(|| done.text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statements_end_at_semicolons_that_are_not_hidden() {
        let cases: [(&str, &[&str]); 10] = [
            ("a; b", &["a", "b"]),
            (" ;; a ;; -- c\n; /* ; */", &["a"]),
            ("a ';' b; c", &["a ';' b", "c"]),
            ("a $x$ ; $x$; c", &["a $x$ ; $x$", "c"]),
            (r"a E'\';' ; c", &[r"a E'\';'", "c"]),
            ("a \";\"; c", &["a \";\"", "c"]),
            ("a -- ;\n b; c", &["a -- ;\n b", "c"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO (a; b); c",
                &["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"],
            ),
            (
                "CREATE FUNCTION f() BEGIN ATOMIC a; CASE WHEN b THEN c END; END; d",
                &["CREATE FUNCTION f() BEGIN ATOMIC a; CASE WHEN b THEN c END; END", "d"],
            ),
            ("GRANT a TO \"{{name}}\"", &["GRANT a TO \"{{name}}\""]),
        ];
        for (sql, expected) in cases {
            assert_eq!(split(sql).unwrap(), expected, "{sql}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,8}",
            "'([a-z;\"$ -]|''){0,8}'",
            "E'([a-z;\"$]|\\\\'|\\\\\\\\|''){0,8}'",
            "\"([a-z;'$]|\"\"){1,8}\"",
            "\\$t\\$[a-z;'\" ]{0,8}\\$t\\$",
            "/\\*[a-z;' ]{0,8}\\*/",
            "--[a-z;' ]{0,8}\n",
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
