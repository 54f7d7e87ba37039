//! What every line begins with, read without reading the rest of it.

/// The members that come first in a line, in the one form in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix<'a> {
    pub(crate) seq: u64,
    /// 64 hexadecimal digits.
    pub(crate) prev: &'a str,
    pub(crate) time: &'a str,
    pub(crate) kind: &'a str,
    /// What follows the kind, from its comma on.
    pub(crate) rest: &'a [u8],
}

impl<'a> Prefix<'a> {
    /// Reads the beginning of a line; `None` if it is not one of ours.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        if line.last() != Some(&b'}') {
            return None;
        }
        let (digits, rest) = until(line.strip_prefix(b"{\"seq\":")?, b',')?;
        let (prev, rest) = until(rest.strip_prefix(b"\"prev\":\"")?, b'"')?;
        let (time, rest) = until(rest.strip_prefix(b",\"time\":\"")?, b'"')?;
        let (kind, rest) = until(rest.strip_prefix(b",\"type\":\"")?, b'"')?;
        let seq: u64 = digits.parse().ok()?;
        let is_hash = prev.len() == 64 && prev.bytes().all(|digit| digit.is_ascii_hexdigit());
        // A number has one spelling.
        (is_hash && digits == seq.to_string()).then_some(Self { seq, prev, time, kind, rest })
    }
}

/// The text before a byte, and what follows the byte.
fn until(bytes: &[u8], end: u8) -> Option<(&str, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == end)?;
    let (text, rest) = bytes.split_at_checked(at)?;
    Some((std::str::from_utf8(text).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_in_its_one_spelling() {
        let prev = "ab".repeat(32);
        let line = format!(r#"{{"seq":7,"prev":"{prev}","time":"t","type":"event","event":"x"}}"#);
        let prefix = Prefix::parse(line.as_bytes()).unwrap();
        assert_eq!((prefix.seq, prefix.prev, prefix.time), (7, prev.as_str(), "t"));
        assert_eq!((prefix.kind, prefix.rest), ("event", br#","event":"x"}"#.as_slice()));
        for (from, to) in [(":7", ":07"), (":7", ":+7"), (":7", ": 7"), ("ab", "g"), ("}", "")] {
            assert_eq!(Prefix::parse(line.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }
}
