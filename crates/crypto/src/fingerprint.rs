//! Keyed hashes: HMAC-SHA256 (RFC 2104, FIPS 198-1) with the key's state computed once.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key for one purpose.
pub struct FingerprintKey(Hmac<Sha256>);

impl FingerprintKey {
    /// Expands 32 bytes of key.
    pub fn new(key: &[u8; 32]) -> Self {
        match Hmac::new_from_slice(key) {
            Ok(state) => Self(state),
            Err(_) => unreachable!("HMAC takes keys of any length"),
        }
    }

    /// The 32-byte hash of an item.
    pub fn of(&self, item: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(item).finalize().into_bytes().0
    }

    /// Checks a hash in constant time.
    pub fn matches(&self, item: &[u8], fingerprint: &[u8; 32]) -> bool {
        self.0.clone().chain_update(item).verify_slice(fingerprint).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 3 with its key of 20 bytes 0xaa padded: HMAC pads with zeros itself.
    #[test]
    fn the_published_vector_passes() {
        let mut key = [0; 32];
        key[..20].fill(0xaa);
        assert_eq!(
            hex::encode(FingerprintKey::new(&key).of(&[0xdd; 50])),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        );
    }

    #[test]
    fn keys_and_items_decide_the_hash() {
        let key = FingerprintKey::new(&[1; 32]);
        let hash = key.of(b"token");
        assert!(key.matches(b"token", &hash));
        assert!(!key.matches(b"tokem", &hash));
        assert!(!FingerprintKey::new(&[2; 32]).matches(b"token", &hash));
    }
}
