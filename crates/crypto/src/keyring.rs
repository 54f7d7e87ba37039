//! The keyring: data keys by term, the purpose secret, and their one binary form.
//!
//! ```text
//! byte  0      form, 1
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

const FORM: u8 = 1;
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
        let mut keyring = Self { cluster, purpose_secret, terms: Vec::new() };
        keyring.push(Term::FIRST, now, random);
        keyring
    }

    /// The store that these keys belong to.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
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
        bytes.push(FORM);
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
        if form != FORM {
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
        Ok(Self { cluster, purpose_secret, terms })
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
mod tests {
    use mssm_domain::StoredKey;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Seeded;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

    fn keyring(seed: u64, rotations: usize) -> Keyring {
        let random = Seeded::new(seed);
        let mut keyring = Keyring::generate(NOW, &random);
        for _ in 0..rotations {
            keyring.rotate(NOW, &random).unwrap();
        }
        keyring
    }

    #[test]
    fn rotation_seals_under_the_new_term_and_opens_the_old() {
        let mut keyring = keyring(1, 0);
        let (random, stored) = (Seeded::new(2), StoredKey::new(b"key".to_vec()));
        let place = Place { key: &stored, version: 1 };
        let old = keyring.record_keys().seal(place, b"old", NOW, &random).unwrap();
        assert_eq!(keyring.rotate(NOW, &random), Ok(Term::new(2)));
        let keys = keyring.record_keys();
        let new = keys.seal(place, b"new", NOW, &random).unwrap();
        assert_eq!(Header::read(&new).unwrap().term, Term::new(2));
        assert_eq!(keys.open(place, &old).unwrap().expose(), b"old");
        assert_eq!(keys.open(place, &new).unwrap().expose(), b"new");
        // A keyring from before the rotation does not know the new term.
        let before = Keyring::decode(super::tests::keyring(1, 0).encode().expose()).unwrap();
        let refused = before.record_keys().open(place, &new).err();
        assert_eq!(refused, Some(EnvelopeError::UnknownTerm(Term::new(2))));
    }

    #[test]
    fn rotation_leaves_purposes_alone_and_no_two_share_a_key() {
        let mut keyring = keyring(1, 0);
        let labels = [Label::Audit, Label::Index, Label::Marker, Label::Token];
        let hashes =
            |keyring: &Keyring| labels.map(|label| keyring.fingerprint_key(label).of(b"x"));
        let before = hashes(&keyring);
        for (index, hash) in before.iter().enumerate() {
            assert!(!before[..index].contains(hash));
        }
        let [seed, salts] = keyring.audit_keys();
        assert!(!seed.is_same_as(&salts));
        keyring.rotate(NOW, &Seeded::new(9)).unwrap();
        assert_eq!(hashes(&keyring), before);
        assert!(keyring.audit_keys()[0].is_same_as(&seed));
    }

    #[test]
    fn a_new_term_is_due_before_the_bound() {
        let mut keyring = keyring(1, 1);
        let limit = Keyring::SEALS_MAX - Keyring::SEALS_RESERVE;
        keyring.count(Term::FIRST, Keyring::SEALS_MAX);
        keyring.count(Term::new(2), limit - 1);
        assert!(!keyring.must_rotate());
        keyring.count(Term::new(2), 1);
        assert!(keyring.must_rotate());
        keyring.rotate(NOW, &Seeded::new(1)).unwrap();
        assert!(!keyring.must_rotate());
    }

    #[test]
    fn terms_out_of_order_are_refused() {
        let mut bytes = keyring(1, 1).encode().expose().to_vec();
        bytes[HEAD + ENTRY + 3] = 1;
        assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::Malformed));
        bytes[HEAD + 3] = 0;
        assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::Malformed));
        bytes[0] = 2;
        assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::UnknownForm(2)));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(seed in any::<u64>(), rotations in 0_usize..5, seals in any::<u64>()) {
            let mut original = keyring(seed, rotations);
            original.count(Term::FIRST, seals);
            let bytes = original.encode();
            let decoded = Keyring::decode(bytes.expose()).unwrap();
            prop_assert!(decoded.encode().expose() == bytes.expose());
            prop_assert_eq!(decoded.cluster(), original.cluster());
            prop_assert!(decoded.terms().eq(original.terms()));
        }

        #[test]
        fn no_other_length_decodes(seed in any::<u64>(), rotations in 0_usize..3, cut in 1_usize..200) {
            let mut bytes = keyring(seed, rotations).encode().expose().to_vec();
            bytes.push(0);
            prop_assert!(Keyring::decode(&bytes).is_err());
            let keep = bytes.len().saturating_sub(1 + cut);
            prop_assert!(Keyring::decode(&bytes[..keep]).is_err());
        }

        #[test]
        fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Keyring::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = FORM;
            }
            if let Ok(keyring) = Keyring::decode(&bytes) {
                prop_assert!(keyring.encode().expose() == bytes);
            }
        }
    }
}
