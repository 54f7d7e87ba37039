//! Cuts SQL text into tokens as PostgreSQL's own lexer does, `{{placeholders}}` included.
//!
//! Knows what hides a semicolon or a quote: strings, quoted names, dollar quotes, comments.

/// How a quoted token writes what it cannot hold plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// Quotes are doubled, nothing else.
    Doubled,
    /// `E'..'`: backslashes count too.
    Backslash,
    /// `U&'..'` and `U&".."`: the escape character may be any.
    Unicode,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space.
    Space,
    /// `-- ..` to the end of the line, or `/* .. */` with others inside.
    Comment,
    /// A keyword or a bare name.
    Word,
    /// Digits.
    Number,
    /// One character of an operator or of punctuation.
    Symbol,
    /// The end of a statement.
    Semicolon,
    /// A bare `{{name}}`.
    Placeholder,
    /// A single-quoted string.
    Text(Escapes),
    /// A double-quoted name.
    Name(Escapes),
    /// A dollar-quoted string; the number of bytes of its delimiter.
    Dollar(usize),
}

/// One token and its own text; the texts of all tokens together are the whole input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

impl<'a> Token<'a> {
    /// True unless it is white space or a comment.
    pub(crate) const fn counts(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// True if it is this bare word, in any case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// What stands between the quotes of a quoted token; the whole text of another.
    pub(crate) fn content(&self) -> &'a str {
        let (quote, end) = match self.kind {
            Kind::Text(_) | Kind::Name(_) => {
                (self.text.find(['\'', '"', '`']).map_or(0, |at| at + 1), 1)
            }
            Kind::Dollar(delimiter) => (delimiter, delimiter),
            _ => (0, 0),
        };
        self.text.get(quote..self.text.len() - end).unwrap_or_default()
    }
}

/// A quote or a comment that never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unterminated {0}")]
pub(crate) struct Unterminated(pub(crate) &'static str);

/// All tokens of a text, in order.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, Unterminated> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (kind, len) = first(rest)?;
        let (token, tail) = rest.split_at_checked(len.max(1)).unwrap_or((rest, ""));
        tokens.push(Token { kind, text: token });
        rest = tail;
    }
    Ok(tokens)
}

/// The name and length of a `{{name}}` that a text begins with; spaces around the name are fine.
pub(crate) fn placeholder(text: &str) -> Option<(&str, usize)> {
    let inner = text.strip_prefix("{{")?;
    let end = inner.find("}}")?;
    let name = inner.get(..end)?.trim_matches(' ');
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let goes_on = chars.all(|next| next.is_ascii_alphanumeric() || next == '_');
    (starts && goes_on).then_some((name, end + 4))
}

fn first(rest: &str) -> Result<(Kind, usize), Unterminated> {
    let bytes = rest.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    if let Some((_, len)) = placeholder(rest) {
        return Ok((Kind::Placeholder, len));
    }
    Ok(match at(0) {
        byte if is_space(byte) => (Kind::Space, run(bytes, is_space)),
        b'-' if at(1) == b'-' => (Kind::Comment, run(bytes, |byte| byte != b'\n' && byte != b'\r')),
        b'/' if at(1) == b'*' => (Kind::Comment, block_comment(bytes)?),
        b'\'' => (Kind::Text(Escapes::Doubled), string(bytes, 1, Escapes::Doubled)?),
        b'"' => (Kind::Name(Escapes::Doubled), name(bytes, 1)?),
        b'E' | b'e' if at(1) == b'\'' => {
            (Kind::Text(Escapes::Backslash), string(bytes, 2, Escapes::Backslash)?)
        }
        b'B' | b'b' | b'X' | b'x' | b'N' | b'n' if at(1) == b'\'' => {
            (Kind::Text(Escapes::Doubled), string(bytes, 2, Escapes::Doubled)?)
        }
        b'U' | b'u' if at(1) == b'&' && at(2) == b'\'' => {
            (Kind::Text(Escapes::Unicode), string(bytes, 3, Escapes::Unicode)?)
        }
        b'U' | b'u' if at(1) == b'&' && at(2) == b'"' => {
            (Kind::Name(Escapes::Unicode), name(bytes, 3)?)
        }
        b'$' => dollar(rest)?,
        b';' => (Kind::Semicolon, 1),
        byte if starts_word(byte) => (Kind::Word, run(bytes, in_word)),
        byte if byte.is_ascii_digit() => {
            (Kind::Number, run(bytes, |byte| byte.is_ascii_digit() || byte == b'.'))
        }
        _ => (Kind::Symbol, rest.chars().next().map_or(1, char::len_utf8)),
    })
}

pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

pub(crate) const fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

pub(crate) const fn in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

pub(crate) fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

fn block_comment(bytes: &[u8]) -> Result<usize, Unterminated> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            }
            Some(_) => at += 1,
            None => return Err(Unterminated("comment")),
        }
    }
}

/// The length of a string whose first quote ends before `at`; it may go on after a line break.
fn string(bytes: &[u8], mut at: usize, escapes: Escapes) -> Result<usize, Unterminated> {
    loop {
        match bytes.get(at) {
            None => return Err(Unterminated("string")),
            Some(b'\\') if escapes == Escapes::Backslash => at += 2,
            Some(b'\'') if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            Some(b'\'') => match continues(bytes.get(at + 1..).unwrap_or_default()) {
                Some(len) => at += 1 + len,
                None => return Ok(at + 1),
            },
            Some(_) => at += 1,
        }
    }
}

/// SQL's rule: strings parted by white space with a line break in it are one, of the first's kind.
/// Replies the length up to and with the next quote.
fn continues(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut broken = false;
    loop {
        match bytes.get(at)? {
            b'\'' => return broken.then_some(at + 1),
            b'\n' | b'\r' => broken = true,
            byte if is_space(*byte) => {}
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                let rest = bytes.get(at..)?;
                at += run(rest, |byte| byte != b'\n' && byte != b'\r');
                continue;
            }
            _ => return None,
        }
        at += 1;
    }
}

fn name(bytes: &[u8], mut at: usize) -> Result<usize, Unterminated> {
    loop {
        match bytes.get(at) {
            None => return Err(Unterminated("quoted name")),
            Some(b'"') if bytes.get(at + 1) == Some(&b'"') => at += 2,
            Some(b'"') => return Ok(at + 1),
            Some(_) => at += 1,
        }
    }
}

fn dollar(rest: &str) -> Result<(Kind, usize), Unterminated> {
    let bytes = rest.as_bytes();
    let tag = run(bytes.get(1..).unwrap_or_default(), |byte| in_word(byte) && byte != b'$');
    let first = bytes.get(1).copied().unwrap_or(0);
    let closes = bytes.get(tag + 1) == Some(&b'$');
    if !closes || (tag > 0 && !starts_word(first)) {
        return Ok((Kind::Symbol, 1));
    }
    let delimiter = rest.get(..tag + 2).unwrap_or_default();
    let body = rest.get(delimiter.len()..).unwrap_or_default();
    let end = body.find(delimiter).ok_or(Unterminated("dollar-quoted string"))?;
    Ok((Kind::Dollar(delimiter.len()), end + 2 * delimiter.len()))
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
        let text = Kind::Text(Escapes::Doubled);
        let escaped = Kind::Text(Escapes::Backslash);
        let cases: [(&str, &[Kind]); 14] = [
            ("'a;''b'", &[text]),
            (r"E'a\';b'", &[escaped]),
            (r"'a\'", &[text]),
            ("E'a'\n'b\\';c'", &[escaped]),
            ("E'a' -- c\n 'b\\';c'", &[escaped]),
            ("'a' 'b'", &[text, text]),
            (r#""a;""b""#, &[Kind::Name(Escapes::Doubled)]),
            ("$$;'$$", &[Kind::Dollar(2)]),
            ("$a$ $b$;$b$ $a$", &[Kind::Dollar(3)]),
            ("a$$b", &[Kind::Word]),
            ("/* a /* ; */ ' */ --;'\n;", &[Kind::Semicolon]),
            ("{{name}}", &[Kind::Placeholder]),
            ("U&'a;'", &[Kind::Text(Escapes::Unicode)]),
            ("$1", &[Kind::Symbol, Kind::Number]),
        ];
        for (sql, expected) in cases {
            assert_eq!(kinds(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_never_ends_is_refused() {
        for sql in ["'a", "E'a\\'", "\"a", "$$a$", "$a$ $b$", "/* /* */", "'a\n'\n'b"] {
            assert!(lex(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn placeholders_are_read_and_array_literals_are_not() {
        let cases = [
            ("{{name}}", Some(("name", 8))),
            ("{{ name }} x", Some(("name", 10))),
            ("{{1,2},{3,4}}", None),
            ("{{name}", None),
            ("{name}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(placeholder(text), expected, "{text}");
        }
    }

    proptest! {
        /// Nothing is lost, nothing is added, nothing panics.
        #[test]
        fn tokens_are_the_text(sql in "[a-zE'\"$;\\\\/*{}\n -]{0,40}|\\PC{0,40}") {
            if let Ok(tokens) = lex(&sql) {
                let all: String = tokens.iter().map(|token| token.text).collect();
                prop_assert_eq!(all, sql);
            }
        }
    }
}
