//! Reads the part of HCL 1 and JSON that policies are written in, into one tree.
//!
//! A reader of its own because policies are HCL 1, and what Vault's users paste (quoted keys, commas
//! or none between members, several blocks on a line) is not the HCL 2 that libraries read.

use std::iter::Peekable;
use std::str::Chars;

/// How deep braces and brackets may nest.
const DEPTH_MAX: usize = 16;

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A string, unescaped.
    Text(String),
    /// A number or a bare word, as written.
    Word(String),
    /// A list.
    List(Vec<Value>),
    /// A block or an object.
    Object(Vec<Item>),
}

/// A key, or several as in `path "secret/*" {..}`, and what stands behind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    /// One or more keys.
    pub(crate) keys: Vec<String>,
    /// What stands behind them.
    pub(crate) value: Value,
    /// The line of the first key, from 1.
    pub(crate) line: usize,
}

/// Reads a whole text; JSON if it begins with a brace. The error says where and what.
pub(crate) fn read(text: &str) -> Result<Vec<Item>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { chars: text.chars().peekable(), line: 1, column: 0 };
    reader.skip_blank()?;
    let json = reader.chars.peek() == Some(&'{');
    if !json {
        return reader.items(None, 0);
    }
    reader.next();
    let items = reader.items(Some('}'), 1)?;
    reader.skip_blank()?;
    match reader.chars.peek() {
        None => Ok(items),
        Some(_) => Err(reader.error("nothing may follow the closing brace")),
    }
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    column: usize,
}

impl Reader<'_> {
    /// Members up to the closing brace, or to the end of the text. Commas between them may be there.
    fn items(&mut self, end: Option<char>, depth: usize) -> Result<Vec<Item>, String> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            match self.chars.peek().copied() {
                None if end.is_none() => return Ok(items),
                None => return Err(self.error("object is not closed")),
                Some('}') if end.is_some() => {
                    self.next();
                    return Ok(items);
                }
                Some(',') if end.is_some() && !items.is_empty() => {
                    self.next();
                }
                Some(_) => items.push(self.item(depth)?),
            }
        }
    }

    fn item(&mut self, depth: usize) -> Result<Item, String> {
        let line = self.line;
        let mut keys = vec![self.key()?];
        loop {
            self.skip_blank()?;
            match self.chars.peek().copied() {
                Some('=' | ':') if keys.len() == 1 => {
                    self.next();
                    self.skip_blank()?;
                    let value = self.value(depth)?;
                    return Ok(Item { keys, value, line });
                }
                Some('{') => {
                    self.next();
                    let value = Value::Object(self.items(Some('}'), depth + 1)?);
                    return Ok(Item { keys, value, line });
                }
                Some('"') => keys.push(self.key()?),
                _ => return Err(self.error("expected '=' or '{' behind a key")),
            }
        }
    }

    fn key(&mut self) -> Result<String, String> {
        match self.chars.peek().copied() {
            Some('"') => self.text(),
            Some(c) if c.is_alphabetic() || c == '_' => Ok(self.word()),
            _ => Err(self.error("expected a key")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        match self.chars.peek().copied() {
            Some('"') => Ok(Value::Text(self.text()?)),
            Some('{') => {
                self.next();
                Ok(Value::Object(self.items(Some('}'), depth + 1)?))
            }
            Some('[') => {
                self.next();
                Ok(Value::List(self.list(depth + 1)?))
            }
            Some('<') => Ok(Value::Text(self.heredoc()?)),
            Some(c) if c.is_alphanumeric() || c == '-' => Ok(Value::Word(self.word())),
            _ => Err(self.error("expected a value")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, String> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        let mut values = Vec::new();
        let mut comma = true;
        loop {
            self.skip_blank()?;
            match self.chars.peek().copied() {
                Some(']') => {
                    self.next();
                    return Ok(values);
                }
                Some(',') if !comma => {
                    self.next();
                    comma = true;
                }
                Some(_) if comma => {
                    values.push(self.value(depth)?);
                    comma = false;
                }
                Some(_) => return Err(self.error("expected ',' or ']' in a list")),
                None => return Err(self.error("list is not closed")),
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.chars.peek().copied() {
            if !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')) {
                break;
            }
            word.push(c);
            self.next();
        }
        word
    }

    /// A string in quotes, with the escapes of HCL and JSON.
    fn text(&mut self) -> Result<String, String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some('\n') | None => return Err(self.error("literal not terminated")),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        match self.next() {
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => {
                let high = self.hex4()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or_else(|| self.error("unknown escape"));
                }
                if (self.next(), self.next()) != (Some('\\'), Some('u')) {
                    return Err(self.error("unknown escape"));
                }
                let low = self.hex4()?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400);
                low.and_then(|low| char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low))
                    .ok_or_else(|| self.error("unknown escape"))
            }
            _ => Err(self.error("unknown escape")),
        }
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|c| c.to_digit(16));
            value = value * 16 + digit.ok_or_else(|| self.error("unknown escape"))?;
        }
        Ok(value)
    }

    /// `<<EOF`, lines, `EOF`; with `<<-` the closing word may be indented.
    fn heredoc(&mut self) -> Result<String, String> {
        self.next();
        if self.next() != Some('<') {
            return Err(self.error("expected a value"));
        }
        if self.chars.peek() == Some(&'-') {
            self.next();
        }
        let mark = self.line_of_text();
        let mark = mark.trim().to_owned();
        if mark.is_empty() {
            return Err(self.error("heredoc has no closing word"));
        }
        let mut text = String::new();
        loop {
            if self.chars.peek().is_none() {
                return Err(self.error("heredoc not terminated"));
            }
            let line = self.line_of_text();
            if line.trim() == mark {
                return Ok(text);
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    fn line_of_text(&mut self) -> String {
        let mut line = String::new();
        while let Some(c) = self.next() {
            if c == '\n' {
                break;
            }
            line.push(c);
        }
        line
    }

    /// Skips white space and comments: `#`, `//`, `/* */`.
    fn skip_blank(&mut self) -> Result<(), String> {
        while let Some(c) = self.chars.peek().copied() {
            if c.is_whitespace() {
                self.next();
            } else if c == '#' {
                self.line_of_text();
            } else if c == '/' {
                self.next();
                match self.next() {
                    Some('/') => {
                        self.line_of_text();
                    }
                    Some('*') => self.skip_block_comment()?,
                    _ => return Err(self.error("expected a comment behind '/'")),
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    fn skip_block_comment(&mut self) -> Result<(), String> {
        loop {
            match self.next() {
                Some('*') if self.chars.peek() == Some(&'/') => {
                    self.next();
                    return Ok(());
                }
                Some(_) => {}
                None => return Err(self.error("comment not terminated")),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn error(&self, what: &str) -> String {
        format!("At {}:{}: {what}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hcl_and_json_give_the_same_tree() {
        let texts = [
            "path \"a\" { capabilities = [\"read\", \"list\",], min = 5 }",
            "/* x */ path \"a\" {\n \"capabilities\" = [\"read\", # no\n \"list\"] // y\n min = 5\n}",
            "{\"path\": {\"a\": {\"capabilities\": [\"re\\u0061d\", \"list\"], \"min\": 5},},}",
        ];
        let inner = |item: &Item| match &item.value {
            Value::Object(items) if item.keys.len() == 2 => items.clone(),
            Value::Object(items) => match &items[0].value {
                Value::Object(items) => items.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        for text in texts {
            let items = inner(&read(text).unwrap()[0]);
            let list = vec![Value::Text("read".into()), Value::Text("list".into())];
            assert_eq!(items[0].value, Value::List(list), "{text}");
            assert_eq!(items[1].value, Value::Word("5".into()), "{text}");
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_its_place() {
        let cases = [
            ("path \"a {", "At 1:9: literal not terminated"),
            ("path \"a\" {", "At 1:10: object is not closed"),
            ("path \"a\"\n= 5", "At 2:0: expected '=' or '{' behind a key"),
            ("a = [1 2]", "At 1:7: expected ',' or ']' in a list"),
            ("a = <<E\nx", "At 2:1: heredoc not terminated"),
            ("{} x", "At 1:3: nothing may follow the closing brace"),
            ("/* x", "At 1:4: comment not terminated"),
        ];
        for (text, error) in cases {
            assert_eq!(read(text).unwrap_err(), error, "{text}");
        }
        assert!(read(&format!("a = {}", "[".repeat(100_000))).is_err());
    }

    #[test]
    fn heredocs_are_texts() {
        let items = read("a = <<-EOT\n one\n two\n  EOT\nb = 1").unwrap();
        assert_eq!(items[0].value, Value::Text(" one\n two\n".into()));
        assert_eq!(items[1].keys, ["b"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a{}\\[\\]\"=,:/*#<\\\\u \n-]{0,60}") {
            let _ = read(&text);
        }
    }
}
