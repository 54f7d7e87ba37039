//! The keyring: data keys by term, the purpose secret, and their one binary form.
//!
//! ```text
//! byte  0      form: 2, or 1 while the store has no index
//! bytes 1-16   cluster id
//! bytes 17-48  purpose secret
//! bytes 49-50  how many terms follow, big endian, at least one
//! then each    term u32, installed at u64 (ms since 1970), seals u64, key 32 bytes
//! ```
//!
//! Data keys encrypt records and nothing else. Everything else derives from the purpose secret,
//! which rotation leaves alone: changing it would rename every record and forget every token.

use std::collections::BTreeMap;

use mssm_domain::{ClusterId, Random, SealedBytes, SecretBytes, Term, Timestamp, generate_uuid};
use zeroize::Zeroizing;

use crate::Key32;
use crate::envelope::{EnvelopeError, EnvelopeKey, Header, Place};
use crate::fingerprint::FingerprintKey;
use crate::hazmat::hkdf;
use crate::names::NameKey;

const FORM: u8 = 2;
const FORM_UNINDEXED: u8 = 1;
const HEAD: usize = 51;
const ENTRY: usize = 52;

/// Why bytes are no keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Written by a version that knows more.
    #[error("unknown keyring form {0}")]
    UnknownForm(u8),
    /// Cut short, too long, without a term, or with terms out of order.
    #[error("keyring is malformed")]
    Malformed,
    /// No more terms fit.
    #[error("keyring is full")]
    Full,
}

/// What is known of a data key without seeing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermInfo {
    /// Its number.
    pub term: Term,
    /// When it was made.
    pub installed_at: Timestamp,
    /// How many envelopes it has sealed, as far as it was written down.
    pub seals: u64,
}

struct DataKey {
    info: TermInfo,
    key: Key32,
}

/// All keys of a store. Wiped on drop; cannot be printed or copied.
///
/// Invariant: at least one term, terms rise.
pub struct Keyring {
    cluster: ClusterId,
    purpose_secret: Key32,
    terms: Vec<DataKey>,
    indexed: bool,
}

impl Keyring {
    /// How many envelopes one data key may seal.
    ///
    /// XAES-256-GCM would allow 2^80 with random nonces. 2^32 is NIST's figure for random nonces
    /// (SP 800-38D, 8.3) and is kept because rotation costs nothing here, because it holds even if
    /// the random source were far worse than believed, and because a key that leaks then opens a
    /// bounded part of the store.
    pub const SEALS_MAX: u64 = 1 << 32;

    /// How far before the bound a new term is due: what replicas have sealed and not yet reported,
    /// and what a crash forgets, is far less.
    pub const SEALS_RESERVE: u64 = 1 << 28;

    /// A new store's keys.
    pub fn generate(now: Timestamp, random: &dyn Random) -> Self {
        let cluster = ClusterId::from_uuid(generate_uuid(random));
        let purpose_secret = Key32::generate(random);
        let mut keyring = Self { cluster, purpose_secret, terms: Vec::new(), indexed: true };
        keyring.push(Term::FIRST, now, random);
        keyring
    }

    /// The store that these keys belong to.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// True if the store is known to have an index: one that is gone was taken away.
    pub const fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// The store has an index from now on.
    pub const fn set_indexed(&mut self) {
        self.indexed = true;
    }

    /// The data key that encrypts: the newest.
    pub fn newest(&self) -> TermInfo {
        match self.terms.last() {
            Some(key) => key.info,
            None => unreachable!("a keyring is made with a term and loses none"),
        }
    }

    /// What is known of every data key, oldest first.
    pub fn terms(&self) -> impl Iterator<Item = TermInfo> {
        self.terms.iter().map(|key| key.info)
    }

    /// Adds a data key, which encrypts from now on; the old ones still open.
    pub fn rotate(&mut self, now: Timestamp, random: &dyn Random) -> Result<Term, KeyringError> {
        let newest = self.newest().term;
        let next = newest.next();
        if next == newest || self.terms.len() >= usize::from(u16::MAX) {
            return Err(KeyringError::Full);
        }
        self.push(next, now, random);
        Ok(next)
    }

    /// Counts envelopes sealed under a term; an unknown term is ignored.
    pub fn count(&mut self, term: Term, seals: u64) {
        if let Some(key) = self.terms.iter_mut().find(|key| key.info.term == term) {
            key.info.seals = key.info.seals.saturating_add(seals);
        }
    }

    /// True if a new term is due before the newest reaches [`Self::SEALS_MAX`].
    pub fn must_rotate(&self) -> bool {
        self.newest().seals >= Self::SEALS_MAX - Self::SEALS_RESERVE
    }

    /// The keyring as bytes; whoever asks seals them.
    pub fn encode(&self) -> SecretBytes {
        // Sized at once: growing would leave copies behind.
        let mut bytes = Vec::with_capacity(HEAD + ENTRY * self.terms.len());
        bytes.push(if self.indexed { FORM } else { FORM_UNINDEXED });
        bytes.extend_from_slice(self.cluster.uuid().as_bytes());
        // EXPOSE: copied into the secret that is returned.
        bytes.extend_from_slice(self.purpose_secret.expose());
        let count = u16::try_from(self.terms.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for key in &self.terms {
            bytes.extend_from_slice(&key.info.term.number().to_be_bytes());
            bytes.extend_from_slice(&key.info.installed_at.unix_ms().to_be_bytes());
            bytes.extend_from_slice(&key.info.seals.to_be_bytes());
            // EXPOSE: as above.
            bytes.extend_from_slice(key.key.expose());
        }
        SecretBytes::new(bytes)
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyringError> {
        let mut reader = Reader(bytes);
        let [form] = reader.take()?;
        if ![FORM, FORM_UNINDEXED].contains(&form) {
            return Err(KeyringError::UnknownForm(form));
        }
        let cluster: [u8; 16] = reader.take()?;
        let cluster =
            ClusterId::parse(&hex::encode(cluster)).map_err(|_| KeyringError::Malformed)?;
        let purpose_secret = reader.key()?;
        let count = usize::from(u16::from_be_bytes(reader.take()?));
        if count == 0 || reader.0.len() != count * ENTRY {
            return Err(KeyringError::Malformed);
        }
        let mut terms: Vec<DataKey> = Vec::with_capacity(count);
        for _ in 0..count {
            let info = TermInfo {
                term: Term::new(u32::from_be_bytes(reader.take()?)),
                installed_at: Timestamp::from_unix_ms(u64::from_be_bytes(reader.take()?)),
                seals: u64::from_be_bytes(reader.take()?),
            };
            let before = terms.last().map_or(Term::new(0), |key| key.info.term);
            if info.term <= before {
                return Err(KeyringError::Malformed);
            }
            terms.push(DataKey { info, key: reader.key()? });
        }
        Ok(Self { cluster, purpose_secret, terms, indexed: form == FORM })
    }

    /// The data keys, ready to seal and open.
    pub fn record_keys(&self) -> RecordKeys {
        // EXPOSE: expanded into the key that seals and opens.
        let keys = self.terms.iter().map(|key| (key.info.term, EnvelopeKey::new(key.key.expose())));
        RecordKeys { newest: self.newest().term, keys: keys.collect() }
    }

    /// The key that hides names.
    pub fn name_key(&self) -> NameKey {
        NameKey::new(&self.derive("purpose/names"))
    }

    /// The key of a kind of keyed hash.
    pub fn fingerprint_key(&self, label: Label) -> FingerprintKey {
        FingerprintKey::new(&self.derive(label.text()))
    }

    /// The seed of the key that signs audit checkpoints (see [`crate::chain::CheckpointKey`]), and
    /// the root of the audit devices' salts.
    pub fn audit_keys(&self) -> [SecretBytes; 2] {
        ["purpose/audit-signing", "purpose/audit-salts"]
            .map(|label| SecretBytes::new(self.derive::<32>(label).to_vec()))
    }

    fn derive<const N: usize>(&self, label: &str) -> Zeroizing<[u8; N]> {
        // EXPOSE: only what is derived leaves.
        hkdf::derive(self.purpose_secret.expose(), label, self.cluster.uuid().as_bytes())
    }

    fn push(&mut self, term: Term, now: Timestamp, random: &dyn Random) {
        let info = TermInfo { term, installed_at: now, seals: 0 };
        self.terms.push(DataKey { info, key: Key32::generate(random) });
    }
}

/// What a keyed hash is for; no two share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Values in the audit log.
    Audit,
    /// The index over the store.
    Index,
    /// The marker on database roles.
    Marker,
    /// Tokens, as the store knows them.
    Token,
}

impl Label {
    const fn text(self) -> &'static str {
        match self {
            Self::Audit => "purpose/audit",
            Self::Index => "purpose/index",
            Self::Marker => "purpose/marker",
            Self::Token => "purpose/token",
        }
    }
}

/// The data keys, expanded: the newest seals, each opens what it sealed.
pub struct RecordKeys {
    newest: Term,
    keys: BTreeMap<Term, EnvelopeKey>,
}

impl RecordKeys {
    /// The term that seals.
    pub const fn newest(&self) -> Term {
        self.newest
    }

    /// Seals under the newest term.
    pub fn seal(
        &self,
        place: Place<'_>,
        plaintext: &[u8],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SealedBytes, EnvelopeError> {
        self.key(self.newest)?.seal(self.newest, place, plaintext, now, random)
    }

    /// Opens what any term sealed.
    pub fn open(
        &self,
        place: Place<'_>,
        sealed: &SealedBytes,
    ) -> Result<SecretBytes, EnvelopeError> {
        self.key(Header::read(sealed)?.term)?.open(place, sealed)
    }

    fn key(&self, term: Term) -> Result<&EnvelopeKey, EnvelopeError> {
        self.keys.get(&term).ok_or(EnvelopeError::UnknownTerm(term))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyringError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(KeyringError::Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn key(&mut self) -> Result<Key32, KeyringError> {
        let (bytes, rest) = self.0.split_at_checked(32).ok_or(KeyringError::Malformed)?;
        self.0 = rest;
        Key32::copy_of(bytes).ok_or(KeyringError::Malformed)
    }
}

#[cfg(test)]
mod tests;
