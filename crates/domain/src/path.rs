//! The one form of a path that policies, the router and the audit all use.

use std::fmt;

/// Why a path was refused before anything looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An escape that is not `%` and two hexadecimal digits.
    #[error("path has a broken percent escape")]
    BrokenEscape,
    /// A segment is `.` or `..`, encoded or not.
    #[error("relative paths not supported")]
    Relative,
    /// Two slashes in a row, or an encoded slash.
    #[error("path has an empty segment or an encoded slash")]
    EmptySegment,
    /// A control character, NUL among them, or a backslash.
    #[error("path has a control character or a backslash")]
    ControlCharacter,
    /// Bytes that are not UTF-8.
    #[error("path is not UTF-8")]
    NotUtf8,
    /// Longer than [`CanonicalPath::MAX_LEN`] bytes.
    #[error("path is too long")]
    TooLong,
}

/// A path below `/v1/`, decoded and checked once: no leading slash, no empty segment, no `.` or
/// `..`, no control characters, UTF-8, at most 1,024 bytes. A trailing slash is kept: it means a list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath(String);

impl CanonicalPath {
    /// The longest path, in bytes after decoding. Vault's storage keys end in the same region.
    pub const MAX_LEN: usize = 1024;

    /// Parses the raw, still percent-encoded path of a request, without its `/v1/`.
    pub fn parse_encoded(raw: &str) -> Result<Self, PathError> {
        if raw.len() > Self::MAX_LEN * 3 {
            return Err(PathError::TooLong);
        }
        let mut decoded = Vec::with_capacity(raw.len());
        let mut bytes = raw.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                decoded.push(byte);
                continue;
            }
            let mut digit = || {
                let value = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(value).ok()
            };
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(PathError::BrokenEscape);
            };
            let byte = high * 16 + low;
            // An encoded slash would make two spellings of one path.
            if byte == b'/' {
                return Err(PathError::EmptySegment);
            }
            decoded.push(byte);
        }
        let text = String::from_utf8(decoded).map_err(|_| PathError::NotUtf8)?;
        Self::parse(&text)
    }

    /// Parses a path that is plain text already, as policies and request bodies write it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.len() > Self::MAX_LEN {
            return Err(PathError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::ControlCharacter);
        }
        let body = text.strip_suffix('/').unwrap_or(text);
        if !body.is_empty() {
            for segment in body.split('/') {
                match segment {
                    "" => return Err(PathError::EmptySegment),
                    "." | ".." => return Err(PathError::Relative),
                    _ => {}
                }
            }
        } else if !text.is_empty() {
            return Err(PathError::EmptySegment);
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it ends in a slash, as lists may.
    pub fn is_folder(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The path without its trailing slash.
    pub fn trim_folder(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalPath({:?})", self.0)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a mount hangs: one or more segments and a trailing slash, as `team/db/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Parses a mount's path, with or without slashes at its ends.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let path = CanonicalPath::parse(text)?;
        let body = path.trim_folder();
        if body.is_empty() {
            return Err(PathError::EmptySegment);
        }
        // With its slash: what is stored is parsed again at the next unseal.
        if body.len() >= CanonicalPath::MAX_LEN {
            return Err(PathError::TooLong);
        }
        Ok(Self(format!("{body}/")))
    }

    /// The prefix with its trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the prefix in a path, or `None` if the path is not below it.
    ///
    /// The mount's own root counts with and without its slash.
    pub fn strip<'a>(&self, path: &'a CanonicalPath) -> Option<&'a str> {
        let bare = self.0.strip_suffix('/').unwrap_or(&self.0);
        if path.as_str() == bare { Some("") } else { path.as_str().strip_prefix(&self.0) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzzer: the longest path made a prefix that could not be read again.
    #[test]
    fn a_prefix_is_parsed_as_itself_at_any_length() {
        for length in [1, 2, CanonicalPath::MAX_LEN - 1, CanonicalPath::MAX_LEN] {
            let Ok(prefix) = Prefix::parse(&"a".repeat(length)) else {
                assert_eq!(length, CanonicalPath::MAX_LEN);
                continue;
            };
            assert_eq!(Prefix::parse(prefix.as_str()), Ok(prefix));
        }
    }

    #[test]
    fn every_path_has_one_spelling() {
        let bad = [
            ("a/../b", PathError::Relative),
            ("a/%2e%2E/b", PathError::Relative),
            ("./a", PathError::Relative),
            ("a//b", PathError::EmptySegment),
            ("//", PathError::EmptySegment),
            ("a%2fb", PathError::EmptySegment),
            ("a%00", PathError::ControlCharacter),
            ("a%5cb", PathError::ControlCharacter),
            ("a%0ab", PathError::ControlCharacter),
            ("a%ff", PathError::NotUtf8),
            ("a%2", PathError::BrokenEscape),
            ("a%zz", PathError::BrokenEscape),
        ];
        for (raw, error) in bad {
            assert_eq!(CanonicalPath::parse_encoded(raw), Err(error), "{raw}");
        }
        let good = [("secret/data/a%20b", "secret/data/a b"), ("a/", "a/"), ("/a", "a"), ("", "")];
        for (raw, text) in good {
            assert_eq!(CanonicalPath::parse_encoded(raw).unwrap().as_str(), text, "{raw}");
        }
    }

    #[test]
    fn a_mount_owns_its_root_with_and_without_slash() {
        let mount = Prefix::parse("kv1").unwrap();
        let rest = |path: &str| {
            let path = CanonicalPath::parse(path).unwrap();
            mount.strip(&path).map(str::to_owned)
        };
        assert_eq!(rest("kv1").as_deref(), Some(""));
        assert_eq!(rest("kv1/").as_deref(), Some(""));
        assert_eq!(rest("kv1/a").as_deref(), Some("a"));
        assert_eq!(rest("kv10/a"), None);
    }
}
