//! Cuts SQL text into tokens as MySQL's and MariaDB's lexers do under the `sql_mode` of our sessions.
//!
//! Both quotes make strings, in which backslashes count; names stand in backticks; `#` and `-- ` begin
//! comments, and those of C do not nest.

use crate::lexer::{
    Escapes, Kind, Token, Unterminated, in_word, is_space, placeholder, run, starts_word,
};

/// All tokens of a text, in order.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, Unterminated> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let token = first(rest)?;
        rest = rest.get(token.text.len()..).unwrap_or_default();
        tokens.push(token);
    }
    Ok(tokens)
}

/// The token that a text begins with.
pub(crate) fn first(rest: &str) -> Result<Token<'_>, Unterminated> {
    let (kind, len) = measure(rest)?;
    let (text, _) = rest.split_at_checked(len.max(1)).unwrap_or((rest, ""));
    Ok(Token { kind, text })
}

fn measure(rest: &str) -> Result<(Kind, usize), Unterminated> {
    let bytes = rest.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    if let Some((_, len)) = placeholder(rest) {
        return Ok((Kind::Placeholder, len));
    }
    let line =
        |from: usize| from + run(bytes.get(from..).unwrap_or_default(), |byte| byte != b'\n');
    Ok(match at(0) {
        byte if is_space(byte) => (Kind::Space, run(bytes, is_space)),
        b'#' => (Kind::Comment, line(1)),
        // Two dashes alone are arithmetic.
        b'-' if at(1) == b'-'
            && (bytes.len() == 2 || is_space(at(2)) || at(2).is_ascii_control()) =>
        {
            (Kind::Comment, line(2))
        }
        b'/' if at(1) == b'*' => {
            let end = rest.get(2..).and_then(|body| body.find("*/"));
            (Kind::Comment, end.ok_or(Unterminated("comment"))? + 4)
        }
        quote @ (b'\'' | b'"') => (Kind::Text(Escapes::Backslash), quoted(bytes, quote)?),
        b'`' => (Kind::Name(Escapes::Doubled), quoted(bytes, b'`')?),
        b';' => (Kind::Semicolon, 1),
        byte if byte.is_ascii_digit() => (Kind::Number, run(bytes, in_word)),
        byte if starts_word(byte) || byte == b'$' => (Kind::Word, run(bytes, in_word)),
        _ => (Kind::Symbol, rest.chars().next().map_or(1, char::len_utf8)),
    })
}

/// The length of what begins and ends with a quote; doubled, it is itself. A backslash takes the next
/// byte along, but not in a name.
fn quoted(bytes: &[u8], quote: u8) -> Result<usize, Unterminated> {
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Err(Unterminated(if quote == b'`' { "quoted name" } else { "string" })),
            Some(b'\\') if quote != b'`' => at += 2,
            Some(byte) if *byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            Some(byte) if *byte == quote => return Ok(at + 1),
            Some(_) => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        lex(text).unwrap().into_iter().filter(Token::counts).map(|token| token.kind).collect()
    }

    #[test]
    fn strings_names_and_comments_hide_what_is_in_them() {
        let (text, name) = (Kind::Text(Escapes::Backslash), Kind::Name(Escapes::Doubled));
        let (word, symbol) = (Kind::Word, Kind::Symbol);
        let cases: [(&str, &[Kind]); 13] = [
            (r"'a\';b'", &[text]),
            ("'a;''b'", &[text]),
            (r#""a;\"b""#, &[text]),
            ("`a;``b`", &[name]),
            (r"`a\`", &[name]),
            ("a # ';\nb", &[word, word]),
            ("a -- ';\nb", &[word, word]),
            ("a--b", &[word, symbol, symbol, word]),
            ("a --", &[word]),
            ("a /* ; /* ' */ b", &[word, word]),
            ("'{{name}}'@'%'", &[text, symbol, text]),
            ("{{name}}@`%`", &[Kind::Placeholder, symbol, name]),
            ("a;b", &[word, Kind::Semicolon, word]),
        ];
        for (sql, expected) in cases {
            assert_eq!(kinds(sql), expected, "{sql}");
        }
        for sql in ["'a", "\"a", "`a", "/* a", r"'a\'"] {
            assert!(lex(sql).is_err(), "{sql}");
        }
        let tokens = lex("`{{name}}` '{{name}}' \"{{name}}\"").unwrap();
        let contents: Vec<&str> = tokens.iter().map(Token::content).collect();
        assert_eq!(contents, ["{{name}}", " ", "{{name}}", " ", "{{name}}"]);
    }

    proptest! {
        #[test]
        fn all_tokens_together_are_the_text(text in "[a-z'\"`\\\\#;/*{}@ \n-]{0,40}|\\PC{0,40}") {
            if let Ok(tokens) = lex(&text) {
                let joined: String = tokens.iter().map(|token| token.text).collect();
                prop_assert_eq!(joined, text);
            }
        }
    }
}
