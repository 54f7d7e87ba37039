//! To the key replica on the sender's own arbiter: what needs a key, in batches.
//!
//! Keys never leave the replica; what travels is plaintext on its way in or out, and sealed bytes.

use actix::{Message, Recipient};
use mssm_domain::{ErrorKind, Fault, RecordPath, SecretBytes, StoredKey, StoredRecord};

/// A plain record on its way into the store.
#[derive(Debug)]
pub struct PlainRecord {
    /// Its name.
    pub path: RecordPath,
    /// Its version, bound into the envelope.
    pub version: u64,
    /// What it says.
    pub bytes: SecretBytes,
}

/// Seals records under the newest term; replies their stored keys and envelopes, in order.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<(StoredKey, StoredRecord)>, KeyError>")]
pub struct Seal(pub Vec<PlainRecord>);

/// Opens records; replies their plaintexts, in order. One that does not open fails alone.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Result<SecretBytes, KeyError>>, KeyError>")]
pub struct Open(pub Vec<(StoredKey, StoredRecord)>);

/// Hides names: replies the stored key of each path, in order.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<StoredKey>, KeyError>")]
pub struct HideNames(pub Vec<RecordPath>);

/// Shows the last segment of stored keys; replies the plain names, in order.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Result<String, KeyError>>, KeyError>")]
pub struct ShowNames(pub Vec<StoredKey>);

/// What a keyed hash is for; no two purposes share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Values in the audit log.
    Audit,
    /// The marker on database roles.
    Marker,
    /// Tokens, as the store knows them.
    Token,
}

/// HMAC-SHA256 of each item under the purpose's key; replies 32 bytes each, in order.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<[u8; 32]>, KeyError>")]
pub struct Fingerprint {
    /// What the hashes are for.
    pub purpose: Purpose,
    /// What is hashed.
    pub items: Vec<SecretBytes>,
}

/// Why nothing was sealed, opened, hidden or hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The server is sealed: there is no key.
    #[error("sealed")]
    Sealed,
    /// The envelope does not open: wrong key, changed, moved, or not an envelope.
    #[error("record does not open")]
    Damaged,
    /// The name cannot be a record's name (a segment of more than 1,024 bytes).
    #[error("name is too long")]
    Name,
}

impl Fault for KeyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Sealed => ErrorKind::Sealed,
            Self::Damaged => ErrorKind::Internal,
            Self::Name => ErrorKind::Invalid,
        }
    }

    fn public(&self) -> Vec<String> {
        vec![
            match self {
                Self::Sealed => "Vault is sealed",
                Self::Damaged => "a stored record is damaged, run mssm storage check",
                Self::Name => "a path segment is too long",
            }
            .to_owned(),
        ]
    }
}

/// How others reach the key replica on their own arbiter.
#[derive(Clone)]
pub struct KeysPort {
    /// Seals.
    pub seal: Recipient<Seal>,
    /// Opens.
    pub open: Recipient<Open>,
    /// Hides names.
    pub hide: Recipient<HideNames>,
    /// Shows names.
    pub show: Recipient<ShowNames>,
    /// Hashes.
    pub fingerprint: Recipient<Fingerprint>,
}

macro_rules! through {
    ($(#[$doc:meta])* $method:ident, $field:ident, $message:ty, $reply:ty) => {
        $(#[$doc])*
        pub async fn $method(&self, message: $message) -> Result<$reply, KeyError> {
            // A replica that is gone has wiped its keys: as good as sealed.
            self.$field.send(message).await.unwrap_or(Err(KeyError::Sealed))
        }
    };
}

impl KeysPort {
    through! {
        /// Seals records; see [`Seal`].
        seal, seal, Seal, Vec<(StoredKey, StoredRecord)>
    }
    through! {
        /// Opens records; see [`Open`].
        open, open, Open, Vec<Result<SecretBytes, KeyError>>
    }
    through! {
        /// Hides names; see [`HideNames`].
        hide, hide, HideNames, Vec<StoredKey>
    }
    through! {
        /// Shows names; see [`ShowNames`].
        show, show, ShowNames, Vec<Result<String, KeyError>>
    }
    through! {
        /// Hashes; see [`Fingerprint`].
        fingerprint, fingerprint, Fingerprint, Vec<[u8; 32]>
    }
}
