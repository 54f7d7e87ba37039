//! The keys in use: expanded from the keyring, for one thread.

use mssm_crypto::envelope::{EnvelopeError, Place};
use mssm_crypto::fingerprint::FingerprintKey;
use mssm_crypto::keyring::{Keyring, Label, RecordKeys};
use mssm_crypto::names::{NameError, NameKey};
use mssm_domain::{Random, RecordPath, SecretBytes, StoredKey, StoredRecord, Term, Timestamp};
use mssm_messages::keys::{KeyError, PlainRecord, Purpose};

/// Every key that work on records needs, expanded. Each wipes itself on drop.
pub(crate) struct KeySet {
    records: RecordKeys,
    names: NameKey,
    audit: FingerprintKey,
    marker: FingerprintKey,
    token: FingerprintKey,
}

impl KeySet {
    pub(crate) fn new(keyring: &Keyring) -> Self {
        Self {
            records: keyring.record_keys(),
            names: keyring.name_key(),
            audit: keyring.fingerprint_key(Label::Audit),
            marker: keyring.fingerprint_key(Label::Marker),
            token: keyring.fingerprint_key(Label::Token),
        }
    }

    /// The term that seals.
    pub(crate) const fn newest(&self) -> Term {
        self.records.newest()
    }

    pub(crate) fn seal(
        &mut self,
        plain: &PlainRecord,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<(StoredKey, StoredRecord), KeyError> {
        let key = self.hide(&plain.path)?;
        let place = Place { key: &key, version: plain.version };
        // EXPOSE: encrypted here and nowhere else.
        let sealed =
            self.records.seal(place, plain.bytes.expose(), now, random).map_err(damaged)?;
        Ok((key, StoredRecord { version: plain.version, sealed }))
    }

    pub(crate) fn open(
        &self,
        key: &StoredKey,
        record: &StoredRecord,
    ) -> Result<SecretBytes, KeyError> {
        let place = Place { key, version: record.version };
        self.records.open(place, &record.sealed).map_err(damaged)
    }

    pub(crate) fn hide(&mut self, path: &RecordPath) -> Result<StoredKey, KeyError> {
        self.names.hide(path).map_err(name)
    }

    pub(crate) fn show(&mut self, key: &StoredKey) -> Result<String, KeyError> {
        self.names.show_last(key).map_err(name)
    }

    pub(crate) fn fingerprint(&self, purpose: Purpose, item: &SecretBytes) -> [u8; 32] {
        let key = match purpose {
            Purpose::Audit => &self.audit,
            Purpose::Marker => &self.marker,
            Purpose::Token => &self.token,
        };
        // EXPOSE: only the keyed hash leaves.
        key.of(item.expose())
    }
}

fn damaged(error: EnvelopeError) -> KeyError {
    match error {
        EnvelopeError::Truncated
        | EnvelopeError::UnknownFormat(_)
        | EnvelopeError::UnknownSuite(_)
        | EnvelopeError::UnknownTerm(_)
        | EnvelopeError::DoesNotOpen
        | EnvelopeError::TooLarge => {
            tracing::warn!(%error, "a record does not open");
            KeyError::Damaged
        }
    }
}

const fn name(error: NameError) -> KeyError {
    match error {
        NameError::TooLong => KeyError::Name,
        NameError::DoesNotOpen => KeyError::Damaged,
    }
}
