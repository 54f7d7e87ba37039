//! How the seal's own records are named and written down: raw keys, plain or under the root key.
//!
//! ```text
//! seal configuration, in the clear:
//! byte  0      form, 1
//! byte  1      kind: 1 shamir, 2 static
//! byte  2      shares (0 for static)
//! byte  3      threshold (0 for static)
//! bytes 4-7    set of shares
//! bytes 8-39   commitment to the root key
//! bytes 40-55  cluster id
//! bytes 56-63  checksum over the rest
//! ```

use mssm_crypto::checksum;
use mssm_domain::{ClusterId, StoredKey};
use mssm_messages::seal::SealKind;

const FORM: u8 = 1;
const LEN: usize = 64;
const CHECKSUM: usize = 8;

/// What the store says about its root key without knowing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealConfigRecord {
    /// How the root key is kept.
    pub(crate) kind: SealKind,
    /// How many shares there are; 0 for a static key.
    pub(crate) shares: u8,
    /// How many unseal; 0 for a static key.
    pub(crate) threshold: u8,
    /// Which splitting the shares are of.
    pub(crate) set: [u8; 4],
    /// What tells the right root key from a wrong one.
    pub(crate) commitment: [u8; 32],
    /// The store.
    pub(crate) cluster: ClusterId,
}

/// Why bytes are no seal configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("is of an unknown form {0}, written by another version")]
    UnknownForm(u8),
    #[error("is damaged")]
    Damaged,
}

impl SealConfigRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            SealKind::Shamir => 1,
            SealKind::Static => 2,
        };
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend_from_slice(&[FORM, kind, self.shares, self.threshold]);
        bytes.extend_from_slice(&self.set);
        bytes.extend_from_slice(&self.commitment);
        bytes.extend_from_slice(self.cluster.uuid().as_bytes());
        let sum: [u8; CHECKSUM] = checksum("mssm/seal-config/v1", &bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let form = *bytes.first().ok_or(RecordError::Damaged)?;
        if form != FORM {
            return Err(RecordError::UnknownForm(form));
        }
        let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| RecordError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(RecordError::Damaged)?;
        if checksum::<CHECKSUM>("mssm/seal-config/v1", body) != *sum {
            return Err(RecordError::Damaged);
        }
        let kind = match bytes[1] {
            1 => SealKind::Shamir,
            2 => SealKind::Static,
            _ => return Err(RecordError::Damaged),
        };
        let part = |start: usize, len: usize| body.get(start..start + len).unwrap_or_default();
        let cluster = ClusterId::parse(&hex::encode(part(40, 16)));
        Ok(Self {
            kind,
            shares: bytes[2],
            threshold: bytes[3],
            set: part(4, 4).try_into().map_err(|_| RecordError::Damaged)?,
            commitment: part(8, 32).try_into().map_err(|_| RecordError::Damaged)?,
            cluster: cluster.map_err(|_| RecordError::Damaged)?,
        })
    }
}

/// Where the seal configuration lies.
pub(crate) fn config_key() -> StoredKey {
    raw_key("seal-config")
}

/// Where the keyring lies.
pub(crate) fn keyring_key() -> StoredKey {
    raw_key("keyring")
}

/// A key that needs no name key. Every hidden name begins with the length of its first segment,
/// which is at least the 16 bytes of its tag, so never with two zero bytes.
fn raw_key(name: &str) -> StoredKey {
    StoredKey::new([&[0, 0], name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(
        kind: SealKind,
        set: [u8; 4],
        commitment: [u8; 32],
        id: [u8; 16],
    ) -> SealConfigRecord {
        let cluster = ClusterId::parse(&hex::encode(id)).unwrap();
        SealConfigRecord { kind, shares: 5, threshold: 3, set, commitment, cluster }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(
            kind in prop_oneof![Just(SealKind::Shamir), Just(SealKind::Static)],
            set in any::<[u8; 4]>(),
            commitment in any::<[u8; 32]>(),
            id in any::<[u8; 16]>(),
        ) {
            let record = record(kind, set, commitment, id);
            prop_assert_eq!(SealConfigRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(SealConfigRecord::decode(&bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = record(SealKind::Shamir, [1; 4], [2; 32], [3; 16]).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SealConfigRecord::decode(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SealConfigRecord::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
