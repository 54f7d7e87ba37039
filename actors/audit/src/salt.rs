//! A device's own salt: the same value stands in no two devices under the same hash.

use mssm_crypto::fingerprint::FingerprintKey;
use mssm_domain::SecretBytes;

/// How a device shows what is a keyed hash already.
#[derive(Default)]
pub(crate) enum Salt {
    /// As it is: the log of the configuration.
    #[default]
    Bare,
    /// Hashed once more under a key that no other device has.
    Of(Box<FingerprintKey>),
    /// Not at all: its salt is known while the server is open only.
    Unknown,
}

impl Salt {
    /// The salt of a device, by what names it for good.
    pub(crate) fn derive(salts: &SecretBytes, device: &str) -> Self {
        // EXPOSE: the salts derive from it, and leave in no answer.
        let Ok(root) = <&[u8; 32]>::try_from(salts.expose()) else { return Self::Unknown };
        let salt = zeroize::Zeroizing::new(FingerprintKey::new(root).of(device.as_bytes()));
        Self::Of(Box::new(FingerprintKey::new(&salt)))
    }

    /// The hash that the device shows.
    pub(crate) fn shown(&self, hash: &[u8; 32]) -> Option<[u8; 32]> {
        match self {
            Self::Bare => Some(*hash),
            Self::Of(key) => Some(key.of(hash)),
            Self::Unknown => None,
        }
    }
}
