//! Names and ids, each its own type; what exists is valid.

use std::fmt;

use uuid::Uuid;

/// Why a word was refused: what it was meant to be and what would be right. Never holds the word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: must be {rule}")]
pub struct Invalid {
    what: &'static str,
    rule: &'static str,
}

impl Invalid {
    /// A refusal of a `what`, which must be as `rule` says.
    pub const fn new(what: &'static str, rule: &'static str) -> Self {
        Self { what, rule }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Reads the hyphenated form.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text).map(Self).map_err(|_| Invalid::new("id", "a UUID"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id! {
    /// One store, from its initialisation on; every server that opens it shares this id.
    ClusterId
}
uuid_id! {
    /// One run of the server process.
    BootId
}
uuid_id! {
    /// One mount; a new one even where the path was used before.
    MountId
}
uuid_id! {
    /// One database connection's definition; never reused, even under the same name.
    ConnectionId
}
uuid_id! {
    /// One HTTP request.
    RequestId
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps the name.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Invalid::new($what, $rule))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// True for 1 to 128 of `[A-Za-z0-9_.@-]`, beginning and ending with a letter, digit or `_`.
fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let inner = |byte: u8| word(byte) || matches!(byte, b'.' | b'@' | b'-');
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes.iter().copied().all(inner)
        && bytes.first().copied().is_some_and(word)
        && bytes.last().copied().is_some_and(word)
}

text_id! {
    /// A role's name within its mount: 1 to 128 of `[A-Za-z0-9_.@-]`.
    RoleName, "role name", "1 to 128 letters, digits, '_', '.', '@' or '-'", is_name
}
text_id! {
    /// A database connection's name within its mount: 1 to 128 of `[A-Za-z0-9_.@-]`.
    ConnectionName, "connection name", "1 to 128 letters, digits, '_', '.', '@' or '-'", is_name
}
text_id! {
    /// The name of a set of signing keys within its mount: 1 to 128 of `[A-Za-z0-9_.@-]`.
    KeyName, "key name", "1 to 128 letters, digits, '_', '.', '@' or '-'", is_name
}
text_id! {
    /// The public handle of a token: 24 characters of base62. Lets one act on a token unseen.
    Accessor, "accessor", "24 letters or digits",
    |text| text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
text_id! {
    /// A lease's id: `<mount path><engine's path>/<24 of base62>`, as Vault writes it.
    LeaseId, "lease id", "a path that ends in 24 letters or digits",
    |text| {
        let tail = text.rsplit('/').next().unwrap_or_default();
        text.len() <= 512
            && text.contains('/')
            && tail.len() == 24
            && tail.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && text.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != "..")
    }
}

/// A policy's name: 1 to 128 lower-case `[a-z0-9_.@/-]`.
///
/// Vault compares policy names without case, so upper case becomes lower case here, once. Anything
/// else that could spell one name in two ways (spaces, other alphabets) is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(String);

impl PolicyName {
    /// Checks, lower-cases and wraps the name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'@' | b'/' | b'-')
        };
        let segments = text.split('/').all(|segment| !segment.is_empty());
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) && segments {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Invalid::new(
                "policy name",
                "1 to 128 letters, digits, '_', '.', '@' or '-', with single slashes between",
            ))
        }
    }

    /// The policy that may do everything; it has no text and cannot be written.
    pub fn root() -> Self {
        Self("root".to_owned())
    }

    /// The policy that every token gets unless it asks not to.
    pub fn default_policy() -> Self {
        Self("default".to_owned())
    }

    /// True for the policy that may do everything.
    pub fn is_root(&self) -> bool {
        self.0 == "root"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a data key in the keyring, from 1; the highest encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u32);

impl Term {
    /// The first data key of a store.
    pub const FIRST: Self = Self(1);

    /// Wraps a term's number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The next data key's number.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token as the server knows it: a keyed hash of the token's text, never the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 32]);

impl TokenId {
    /// Nobody's: what the server does for itself. No token's hash is this.
    pub const SERVER: Self = Self([0; 32]);

    /// Wraps a keyed hash.
    pub const fn from_fingerprint(fingerprint: [u8; 32]) -> Self {
        Self(fingerprint)
    }

    /// The keyed hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash in 64 hexadecimal digits, as records name it.
    pub fn hex(&self) -> String {
        use fmt::Write;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse_hex(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("token id", "64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(invalid());
        }
        let mut bytes = [0_u8; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for bad in ["", "a b", "-a", "a-", "ä", "a/b", "..", "a\n", &"x".repeat(129)] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "app-ro", "team.app_1", "x@y"] {
            assert!(RoleName::parse(good).is_ok(), "{good:?}");
        }
    }

    /// Catalogue: CVE-2024-9180, CVE-2025-5999, CVE-2025-54996, CVE-2025-64761, CVE-2026-55775.
    #[test]
    fn no_spelling_of_root_but_root_names_the_root_policy() {
        assert!(PolicyName::parse("ROOT").unwrap().is_root());
        for bad in [" root", "root ", "rооt", "root\0", "ro\tot", "/root", "root/", "a//b"] {
            assert!(PolicyName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_id_survives_its_hexadecimal_form() {
        let id = TokenId::from_fingerprint([0xa5; 32]);
        assert_eq!(TokenId::parse_hex(&id.hex()).unwrap(), id);
        assert!(TokenId::parse_hex("a5").is_err());
    }

    #[test]
    fn a_lease_id_is_a_path_with_a_random_tail() {
        assert!(LeaseId::parse("db/creds/app/0123456789abcdefghijABCD").is_ok());
        for bad in
            ["", "0123456789abcdefghijABCD", "db/creds/app/", "db/../0123456789abcdefghijABCD"]
        {
            assert!(LeaseId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
