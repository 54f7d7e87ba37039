//! Bytes and text that are never printed and are wiped when dropped, and bytes that are sealed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// True if both are the same bytes; how long that takes shows their lengths and nothing else.
///
/// For what nobody may find out byte by byte though it is no secret where it stands: MACs, verifiers.
pub fn same_in_constant_time(left: impl AsRef<[u8]>, right: impl AsRef<[u8]>) -> bool {
    left.as_ref().ct_eq(right.as_ref()).into()
}

/// Secret bytes: wiped on drop, `Debug` prints nothing of them, not `Clone`.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership of the bytes; they are wiped when this is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Shows the bytes; each call says in an `EXPOSE:` comment why it must.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Copies the secret, deliberately.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// True if both are the same bytes; how long that takes shows their lengths and nothing else.
    pub fn is_same_as(&self, other: &Self) -> bool {
        same_in_constant_time(&*self.0, &*other.0)
    }

    /// Reads the bytes as UTF-8 text, without leaving a copy behind.
    pub fn into_text(mut self) -> Result<SecretText, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)?;
        let bytes = std::mem::take(&mut *self.0);
        match String::from_utf8(bytes) {
            Ok(text) => Ok(SecretText::new(text)),
            Err(error) => Err(error.utf8_error()),
        }
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

/// Secret text: wiped on drop, `Debug` prints nothing of it, not `Clone`.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes ownership of the text; it is wiped when this is dropped.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Shows the text; each call says in an `EXPOSE:` comment why it must.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Copies the secret, deliberately.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// True if both are the same text; how long that takes shows their lengths and nothing else.
    pub fn is_same_as(&self, other: &Self) -> bool {
        same_in_constant_time(&*self.0, &*other.0)
    }

    /// Turns the text into its UTF-8 bytes, without leaving a copy behind.
    pub fn into_bytes(mut self) -> SecretBytes {
        SecretBytes::new(std::mem::take(&mut *self.0).into_bytes())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// An envelope: what encryption made of a secret. Only `crypto` looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBytes(Vec<u8>);

impl SealedBytes {
    /// Wraps the bytes of an envelope.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The envelope's bytes, which are no secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the envelope's bytes away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBytes({} B)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_nothing_secret() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"hunter2".to_vec())), "SecretBytes(..)");
        assert_eq!(format!("{:?}", SecretText::new("hunter2".into())), "SecretText(..)");
    }

    #[test]
    fn the_same_text_is_the_same_secret() {
        let secret = |text: &str| SecretText::new(text.to_owned());
        assert!(secret("hunter2").is_same_as(&secret("hunter2")));
        for other in ["hunter3", "Hunter2", "hunter", "hunter22", ""] {
            assert!(!secret("hunter2").is_same_as(&secret(other)), "{other}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_become_text() {
        assert!(SecretBytes::new(vec![0xff]).into_text().is_err());
        assert_eq!(SecretBytes::new(b"ok".to_vec()).into_text().unwrap().expose(), "ok");
    }
}
