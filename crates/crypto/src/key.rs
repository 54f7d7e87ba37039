//! A key of 32 bytes that stays where it is and is wiped.

use std::fmt;

use mssm_domain::Random;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes: in a box, so that moving it leaves no copy behind, and wiped on drop.
///
/// `Debug` prints nothing of it; not `Clone`.
pub struct Key32(Box<[u8; 32]>);

impl Key32 {
    /// A new random key.
    pub fn generate(random: &dyn Random) -> Self {
        let mut key = Self::zeroed();
        random.fill(key.0.as_mut_slice());
        key
    }

    /// A copy of 32 bytes, `None` if there are more or fewer; the caller wipes the original.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::zeroed();
        if bytes.len() != key.0.len() {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// Shows the key; each call says in an `EXPOSE:` comment why it must.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn zeroed() -> Self {
        Self(Box::new([0; 32]))
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl Drop for Key32 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key32 {}

impl fmt::Debug for Key32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key32(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_prints_none_of_them() {
        let key = Key32::copy_of(b"0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(key.expose(), b"0123456789abcdef0123456789abcdef");
        assert_eq!(format!("{key:?}"), "Key32(..)");
        assert!(Key32::copy_of(&[0; 31]).is_none() && Key32::copy_of(&[0; 33]).is_none());
    }
}
