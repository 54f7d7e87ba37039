//! Turns a record into sealed bytes and back: the envelope's format, suites and binding.
//!
//! ```text
//! byte  0      format, 1
//! byte  1      suite: 1 XAES-256-GCM, 2 XChaCha20-Poly1305
//! bytes 2-5    term of the data key, big endian (0: the root key)
//! bytes 6-29   nonce, random
//! bytes 30-37  when it was written, milliseconds since 1970, big endian
//! bytes 38-    ciphertext, then a tag of 16 bytes
//! ```
//!
//! Associated data are the 38 bytes of the header, the record's version (8 bytes, big endian) and
//! the record's stored key. So no bit can be changed, and no envelope be moved to another key,
//! another version or another term. Plain AES-GCM with 96-bit nonces is no suite: random ones may
//! repeat after 2^32 messages.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::aead::array::Array;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use mssm_domain::{Random, SealedBytes, SecretBytes, StoredKey, Term, Timestamp};
use zeroize::Zeroizing;

use crate::hazmat::hkdf;
use crate::hazmat::xaes::{NONCE, TAG, Xaes256Gcm};

const FORMAT: u8 = 1;
const HEADER: usize = 38;

/// Why there is no plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short to be an envelope.
    #[error("envelope is cut short")]
    Truncated,
    /// Written by a version that knows more.
    #[error("unknown envelope format {0}")]
    UnknownFormat(u8),
    /// Written by a version that knows more.
    #[error("unknown envelope suite {0}")]
    UnknownSuite(u8),
    /// The key that sealed it is not in the keyring.
    #[error("no data key of term {0}")]
    UnknownTerm(Term),
    /// Wrong key, changed, moved, or of another version.
    #[error("envelope does not open")]
    DoesNotOpen,
    /// The plaintext is larger than the suite can take (64 GiB).
    #[error("plaintext is too large")]
    TooLarge,
}

/// How an envelope is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// C2SP XAES-256-GCM; fast and constant in time where the processor has AES.
    Xaes256Gcm,
    /// draft-irtf-cfrg-xchacha; needs nothing of the processor.
    XChaCha20Poly1305,
}

impl Suite {
    /// The better suite on this processor. Both are readable on all.
    pub fn preferred() -> Self {
        if processor_has_aes() { Self::Xaes256Gcm } else { Self::XChaCha20Poly1305 }
    }

    /// The name, as status and logs print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xaes256Gcm => "XAES-256-GCM",
            Self::XChaCha20Poly1305 => "XChaCha20-Poly1305",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Xaes256Gcm => 1,
            Self::XChaCha20Poly1305 => 2,
        }
    }

    const fn from_number(number: u8) -> Result<Self, EnvelopeError> {
        match number {
            1 => Ok(Self::Xaes256Gcm),
            2 => Ok(Self::XChaCha20Poly1305),
            other => Err(EnvelopeError::UnknownSuite(other)),
        }
    }
}

/// True if AES and GHASH run in hardware, which is also what makes them constant in time.
fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// What an envelope says of itself to anyone; true only once it has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How it is encrypted.
    pub suite: Suite,
    /// Under which data key.
    pub term: Term,
    /// When it was written.
    pub written_at: Timestamp,
    nonce: [u8; NONCE],
}

impl Header {
    /// Reads the header of an envelope.
    pub fn read(sealed: &SealedBytes) -> Result<Self, EnvelopeError> {
        Self::split(sealed.as_bytes()).map(|(header, _)| header)
    }

    fn split(bytes: &[u8]) -> Result<(Self, &[u8]), EnvelopeError> {
        let (&format, rest) = bytes.split_first().ok_or(EnvelopeError::Truncated)?;
        if format != FORMAT {
            return Err(EnvelopeError::UnknownFormat(format));
        }
        let (&suite, rest) = rest.split_first().ok_or(EnvelopeError::Truncated)?;
        let suite = Suite::from_number(suite)?;
        let (term, rest) = rest.split_first_chunk().ok_or(EnvelopeError::Truncated)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(EnvelopeError::Truncated)?;
        let (written_at, rest) = rest.split_first_chunk().ok_or(EnvelopeError::Truncated)?;
        let header = Self {
            suite,
            term: Term::new(u32::from_be_bytes(*term)),
            written_at: Timestamp::from_unix_ms(u64::from_be_bytes(*written_at)),
            nonce: *nonce,
        };
        Ok((header, rest))
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&[FORMAT, self.suite.number()]);
        to.extend_from_slice(&self.term.number().to_be_bytes());
        to.extend_from_slice(&self.nonce);
        to.extend_from_slice(&self.written_at.unix_ms().to_be_bytes());
    }

    fn associated(&self, place: Place<'_>) -> Vec<u8> {
        let mut data = Vec::with_capacity(HEADER + 8 + place.key.as_bytes().len());
        self.write(&mut data);
        data.extend_from_slice(&place.version.to_be_bytes());
        data.extend_from_slice(place.key.as_bytes());
        data
    }
}

/// Where a record belongs: an envelope opens there and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its key in the store.
    pub key: &'a StoredKey,
    /// The count of writes of that key.
    pub version: u64,
}

/// A key that seals and opens envelopes, expanded once for any number of them.
///
/// Each suite has a key of its own, derived from the one given, so that none is used twice.
pub struct EnvelopeKey {
    xaes: Xaes256Gcm,
    chacha: XChaCha20Poly1305,
}

impl EnvelopeKey {
    /// Expands 32 bytes of key.
    pub fn new(key: &[u8; 32]) -> Self {
        let xaes = hkdf::derive(key, "envelope/xaes-256-gcm", &[]);
        let chacha = hkdf::derive::<32>(key, "envelope/xchacha20-poly1305", &[]);
        match XChaCha20Poly1305::new_from_slice(chacha.as_slice()) {
            Ok(chacha) => Self { xaes: Xaes256Gcm::new(&xaes), chacha },
            Err(_) => unreachable!("the key has 32 bytes"),
        }
    }

    /// Seals with the preferred suite; `term` names this key.
    pub fn seal(
        &self,
        term: Term,
        place: Place<'_>,
        plaintext: &[u8],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SealedBytes, EnvelopeError> {
        self.seal_with(Suite::preferred(), term, place, plaintext, now, random)
    }

    /// Seals with a suite of the caller's choice.
    pub fn seal_with(
        &self,
        suite: Suite,
        term: Term,
        place: Place<'_>,
        plaintext: &[u8],
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SealedBytes, EnvelopeError> {
        let mut nonce = [0; NONCE];
        random.fill(&mut nonce);
        let header = Header { suite, term, written_at: now, nonce };
        let mut envelope = Vec::with_capacity(HEADER + plaintext.len() + TAG);
        header.write(&mut envelope);
        envelope.extend_from_slice(plaintext);
        let associated = header.associated(place);
        let Some(text) = envelope.get_mut(HEADER..) else { return Err(EnvelopeError::Truncated) };
        let tag = match suite {
            Suite::Xaes256Gcm => {
                self.xaes.seal(&nonce, &associated, text).map_err(|_| EnvelopeError::TooLarge)?
            }
            Suite::XChaCha20Poly1305 => {
                let nonce = Array::from(nonce);
                self.chacha
                    .encrypt_inout_detached(&nonce, &associated, text.into())
                    .map_err(|_| EnvelopeError::TooLarge)?
                    .0
            }
        };
        envelope.extend_from_slice(&tag);
        Ok(SealedBytes::new(envelope))
    }

    /// Opens an envelope that this key sealed for this very place.
    pub fn open(
        &self,
        place: Place<'_>,
        sealed: &SealedBytes,
    ) -> Result<SecretBytes, EnvelopeError> {
        let (header, rest) = Header::split(sealed.as_bytes())?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(EnvelopeError::Truncated)?;
        let associated = header.associated(place);
        let mut text = Zeroizing::new(text.to_vec());
        match header.suite {
            Suite::Xaes256Gcm => self
                .xaes
                .open(&header.nonce, &associated, &mut text, tag)
                .map_err(|_| EnvelopeError::DoesNotOpen)?,
            Suite::XChaCha20Poly1305 => {
                let (nonce, tag) = (Array::from(header.nonce), Array::from(*tag));
                let buffer = text.as_mut_slice().into();
                self.chacha
                    .decrypt_inout_detached(&nonce, &associated, buffer, &tag)
                    .map_err(|_| EnvelopeError::DoesNotOpen)?;
            }
        }
        Ok(SecretBytes::new(std::mem::take(&mut *text)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Seeded;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

    fn suite() -> impl Strategy<Value = Suite> {
        prop_oneof![Just(Suite::Xaes256Gcm), Just(Suite::XChaCha20Poly1305)]
    }

    fn seal(suite: Suite, key: &EnvelopeKey, place: Place<'_>, text: &[u8]) -> SealedBytes {
        key.seal_with(suite, Term::new(7), place, text, NOW, &Seeded::new(1)).unwrap()
    }

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn the_published_xchacha_vector_passes() {
        let key: [u8; 32] = std::array::from_fn(|index| 0x80 + u8::try_from(index).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|index| 0x40 + u8::try_from(index).unwrap());
        let associated = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
            tip for the future, sunscreen would be it."
            .to_vec();
        let cipher = XChaCha20Poly1305::new(&Array::from(key));
        let buffer = text.as_mut_slice().into();
        let tag = cipher.encrypt_inout_detached(&Array::from(nonce), &associated, buffer).unwrap();
        assert_eq!(hex::encode(tag), "c0875924c1c7987947deafd8780acf49");
        assert_eq!(
            hex::encode(text),
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
             731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
             2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52e"
        );
    }

    #[test]
    fn the_header_says_what_the_format_promises() {
        let stored = StoredKey::new(b"k".to_vec());
        let place = Place { key: &stored, version: 1 };
        let sealed = seal(Suite::Xaes256Gcm, &EnvelopeKey::new(&[1; 32]), place, b"text");
        assert_eq!(sealed.as_bytes().len(), 38 + 4 + 16);
        assert_eq!(sealed.as_bytes()[..6], [1, 1, 0, 0, 0, 7]);
        let header = Header::read(&sealed).unwrap();
        assert_eq!((header.term, header.written_at), (Term::new(7), NOW));
    }

    #[test]
    fn unknown_formats_and_suites_say_so() {
        let stored = StoredKey::new(Vec::new());
        let place = Place { key: &stored, version: 1 };
        let key = EnvelopeKey::new(&[1; 32]);
        let bytes = seal(Suite::Xaes256Gcm, &key, place, b"text").into_bytes();
        for number in 0..=u8::MAX {
            let mut other = bytes.clone();
            other[0] = number;
            let refused = key.open(place, &SealedBytes::new(other)).err();
            let expected = (number != 1).then_some(EnvelopeError::UnknownFormat(number));
            assert_eq!(refused, expected);
            let mut other = bytes.clone();
            other[1] = number;
            let refused = key.open(place, &SealedBytes::new(other)).err();
            let expected = match number {
                1 => None,
                2 => Some(EnvelopeError::DoesNotOpen),
                _ => Some(EnvelopeError::UnknownSuite(number)),
            };
            assert_eq!(refused, expected);
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            suite in suite(),
            key in any::<[u8; 32]>(),
            stored in any::<Vec<u8>>(),
            version in any::<u64>(),
            text in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (key, stored) = (EnvelopeKey::new(&key), StoredKey::new(stored));
            let place = Place { key: &stored, version };
            let sealed = seal(suite, &key, place, &text);
            let opened = key.open(place, &sealed).unwrap();
            prop_assert_eq!(opened.expose(), text.as_slice());
        }

        /// Any flipped bit in any byte, tried one by one.
        /// Catalogue: CVE-2023-2197.
        #[test]
        fn no_flipped_bit_opens(
            suite in suite(),
            text in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let stored = StoredKey::new(b"key".to_vec());
            let place = Place { key: &stored, version: 3 };
            let key = EnvelopeKey::new(&[9; 32]);
            let bytes = seal(suite, &key, place, &text).into_bytes();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(key.open(place, &SealedBytes::new(flipped)).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn no_other_key_place_or_version_opens(
            suite in suite(),
            (key, other_key) in any::<([u8; 32], [u8; 32])>(),
            (stored, other_stored) in any::<(Vec<u8>, Vec<u8>)>(),
            (version, other_version) in any::<(u64, u64)>(),
        ) {
            prop_assume!(key != other_key && stored != other_stored && version != other_version);
            let (key, other_key) = (EnvelopeKey::new(&key), EnvelopeKey::new(&other_key));
            let (stored, other_stored) = (StoredKey::new(stored), StoredKey::new(other_stored));
            let place = Place { key: &stored, version };
            let sealed = seal(suite, &key, place, b"text");
            let moved = Place { key: &other_stored, version };
            let replayed = Place { key: &stored, version: other_version };
            prop_assert_eq!(other_key.open(place, &sealed).err(), Some(EnvelopeError::DoesNotOpen));
            prop_assert_eq!(key.open(moved, &sealed).err(), Some(EnvelopeError::DoesNotOpen));
            prop_assert_eq!(key.open(replayed, &sealed).err(), Some(EnvelopeError::DoesNotOpen));
        }

        #[test]
        fn cut_and_random_bytes_are_refused(
            suite in suite(),
            cut in 0_usize..62,
            noise in prop::collection::vec(any::<u8>(), 0..128),
        ) {
            let stored = StoredKey::new(b"key".to_vec());
            let place = Place { key: &stored, version: 3 };
            let key = EnvelopeKey::new(&[9; 32]);
            let mut bytes = seal(suite, &key, place, b"some text").into_bytes();
            bytes.truncate(cut);
            prop_assert!(key.open(place, &SealedBytes::new(bytes)).is_err());
            prop_assert!(key.open(place, &SealedBytes::new(noise)).is_err());
        }
    }
}
