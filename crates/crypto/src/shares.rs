//! Splits the root key into shares (Shamir over GF(2^8)), each of which knows whether it is whole.
//!
//! ```text
//! byte  0      form, 1
//! bytes 1-4    set, random: which splitting this share is of
//! byte  5      index, 1 to 255: where the polynomials are evaluated
//! byte  6      threshold: how many recombine
//! bytes 7-38   the values, one for each byte of the secret
//! bytes 39-42  checksum over the rest
//! ```
//!
//! Fewer than the threshold say nothing about the secret. A forged share with a right checksum is
//! caught by the commitment, which the caller keeps.

use mssm_domain::{Random, SecretBytes, SecretText};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::hazmat::gf256;
use crate::{Key32, checksum};

const FORM: u8 = 1;
/// The bytes of a share.
pub const SHARE_LEN: usize = 43;

/// Why a share, or a set of them, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Neither hexadecimal nor base64.
    #[error("not valid hex or base64")]
    Encoding,
    /// Not 43 bytes.
    #[error("wrong length, a share has 43 bytes")]
    Length,
    /// Written by a version that knows more, or no share.
    #[error("unknown form")]
    UnknownForm,
    /// Mistyped or cut: the checksum does not fit.
    #[error("damaged, the checksum does not fit")]
    Damaged,
    /// From another splitting.
    #[error("belongs to another set of shares")]
    Foreign,
    /// The same index twice.
    #[error("the same share twice")]
    Repeated,
    /// Fewer than the threshold.
    #[error("too few shares")]
    TooFew,
    /// Shares and threshold do not fit together.
    #[error("needs 1 to 255 shares and a threshold of 1 to as many")]
    Numbers,
}

/// One share of a secret. Wiped on drop; cannot be printed.
pub struct Share {
    set: [u8; 4],
    index: u8,
    threshold: u8,
    values: Key32,
}

impl Share {
    /// Reads a share as people hand it over: hexadecimal, or base64 with or without padding.
    pub fn parse_text(text: &SecretText) -> Result<Self, ShareError> {
        use base64::Engine;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
        // EXPOSE: decoded here and nowhere else.
        let text = text.expose().trim();
        let bytes = hex::decode(text)
            .or_else(|_| STANDARD.decode(text))
            .or_else(|_| STANDARD_NO_PAD.decode(text))
            .map(Zeroizing::new)
            .map_err(|_| ShareError::Encoding)?;
        Self::parse(&bytes)
    }

    /// Reads a share's bytes; refuses one that is not whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, ShareError> {
        let bytes: &[u8; SHARE_LEN] = bytes.try_into().map_err(|_| ShareError::Length)?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(ShareError::Length)?;
        if bytes[0] != FORM {
            return Err(ShareError::UnknownForm);
        }
        if !bool::from(checksum_of(body).ct_eq(checksum)) || bytes[5] == 0 || bytes[6] == 0 {
            return Err(ShareError::Damaged);
        }
        let (_, values) = body.split_at_checked(7).ok_or(ShareError::Length)?;
        let values = Key32::copy_of(values).ok_or(ShareError::Length)?;
        let set = [bytes[1], bytes[2], bytes[3], bytes[4]];
        Ok(Self { set, index: bytes[5], threshold: bytes[6], values })
    }

    /// The share's bytes.
    pub fn encode(&self) -> SecretBytes {
        let mut bytes = Vec::with_capacity(SHARE_LEN);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.set);
        bytes.extend_from_slice(&[self.index, self.threshold]);
        // EXPOSE: copied into the secret that is returned.
        bytes.extend_from_slice(self.values.expose());
        let checksum = checksum_of(&bytes);
        bytes.extend_from_slice(&checksum);
        SecretBytes::new(bytes)
    }

    /// Which splitting it is of.
    pub const fn set(&self) -> [u8; 4] {
        self.set
    }

    /// Its number, 1 to 255.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// How many shares recombine.
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }
}

fn checksum_of(body: &[u8]) -> [u8; 4] {
    checksum("mssm/share/v1", body)
}

/// Splits a secret into `count` shares, any `threshold` of which recombine.
pub fn split(
    secret: &[u8; 32],
    count: u8,
    threshold: u8,
    random: &dyn Random,
) -> Result<Vec<Share>, ShareError> {
    if threshold == 0 || threshold > count {
        return Err(ShareError::Numbers);
    }
    let mut set = [0; 4];
    random.fill(&mut set);
    let mut shares: Vec<Share> =
        (1..=count).map(|index| Share { set, index, threshold, values: Key32::zeroed() }).collect();
    let mut coefficients = Zeroizing::new(vec![0_u8; usize::from(threshold) - 1]);
    for (position, byte) in secret.iter().enumerate() {
        random.fill(&mut coefficients);
        for share in &mut shares {
            // Horner's rule, highest coefficient first; the secret is the value at 0.
            let high = coefficients
                .iter()
                .fold(0, |sum, coefficient| gf256::multiply(sum, share.index) ^ coefficient);
            if let Some(value) = share.values.expose_mut().get_mut(position) {
                *value = gf256::multiply(high, share.index) ^ byte;
            }
        }
    }
    Ok(shares)
}

/// Recombines a secret from at least as many shares as their threshold.
///
/// Whether it is the right secret only a commitment can tell; see [`commit`].
pub fn combine(shares: &[Share]) -> Result<Key32, ShareError> {
    let first = shares.first().ok_or(ShareError::TooFew)?;
    for (position, share) in shares.iter().enumerate() {
        if share.set != first.set || share.threshold != first.threshold {
            return Err(ShareError::Foreign);
        }
        if shares.iter().take(position).any(|other| other.index == share.index) {
            return Err(ShareError::Repeated);
        }
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(ShareError::TooFew);
    }
    let mut secret = Key32::zeroed();
    for share in shares {
        // Lagrange's polynomial of this share at 0; indexes are public.
        let mut weight = 1;
        for other in shares.iter().filter(|other| other.index != share.index) {
            let inverse = gf256::invert(other.index ^ share.index);
            weight = gf256::multiply(weight, gf256::multiply(other.index, inverse));
        }
        // EXPOSE: summed up into the secret that is returned.
        for (byte, value) in secret.expose_mut().iter_mut().zip(share.values.expose()) {
            *byte ^= gf256::multiply(*value, weight);
        }
    }
    Ok(secret)
}

/// A hash of the secret that may be stored in the clear: 256 random bits cannot be guessed.
pub fn commit(secret: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"mssm/root-key-commitment/v1");
    hash.update(secret);
    hash.finalize().into()
}

/// True if this is the secret that was committed to; in constant time.
pub fn is_committed(secret: &[u8; 32], commitment: &[u8; 32]) -> bool {
    let mut own = commit(secret);
    let same = own.ct_eq(commitment).into();
    own.zeroize();
    same
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Seeded;

    fn again(share: &Share) -> Share {
        Share::parse(share.encode().expose()).unwrap()
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let random = Seeded::new(1);
        for (count, threshold) in [(0, 0), (1, 0), (0, 1), (3, 4)] {
            let refused = split(&[1; 32], count, threshold, &random).err();
            assert_eq!(refused, Some(ShareError::Numbers), "{count} {threshold}");
        }
        assert_eq!(split(&[1; 32], 255, 255, &random).unwrap().len(), 255);
    }

    #[test]
    fn a_share_says_what_it_is_of() {
        let shares = split(&[1; 32], 5, 3, &Seeded::new(1)).unwrap();
        for (number, share) in (1..).zip(&shares) {
            let read = again(share);
            assert_eq!((read.index(), read.threshold()), (number, 3));
            assert_eq!(read.set(), share.set);
            assert!(![[0; 4], [1; 4]].contains(&read.set()), "drawn by the seed");
        }
    }

    #[test]
    fn a_share_without_a_number_or_a_threshold_is_none() {
        for (index, threshold) in [(0, 2), (2, 0)] {
            let values = Key32::copy_of(&[1; 32]).unwrap();
            let share = Share { set: [0; 4], index, threshold, values };
            let refused = Share::parse(share.encode().expose()).err();
            assert_eq!(refused, Some(ShareError::Damaged), "{index} {threshold}");
        }
    }

    /// Two shares worked by hand: f(x) = 0x2a + 0x53·x, so f(1) = 0x79 and f(2) = 0x8c.
    #[test]
    fn a_known_line_recombines() {
        let share = |index, value| Share {
            set: [0; 4],
            index,
            threshold: 2,
            values: Key32::copy_of(&[value; 32]).unwrap(),
        };
        let secret = combine(&[share(1, 0x79), share(2, 0x8c)]).unwrap();
        assert_eq!(secret.expose(), &[0x2a; 32]);
    }

    #[test]
    fn shares_are_read_from_hex_and_base64() {
        use base64::Engine;
        let shares = split(&[5; 32], 2, 2, &Seeded::new(3)).unwrap();
        let bytes = shares[0].encode();
        let hex = hex::encode(bytes.expose());
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes.expose());
        let texts = [hex.clone(), hex.to_uppercase(), base64.clone(), format!(" {base64}\n")];
        for text in texts.into_iter().chain([base64.trim_end_matches('=').to_owned()]) {
            let share = Share::parse_text(&SecretText::new(text)).unwrap();
            assert_eq!(share.encode().expose(), bytes.expose());
        }
        let cases = [
            ("not a share!", ShareError::Encoding),
            ("", ShareError::Length),
            (&hex[2..], ShareError::Length),
        ];
        for (text, error) in cases {
            assert_eq!(Share::parse_text(&text.to_owned().into()).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn shares_of_another_set_and_repeated_ones_do_not_combine() {
        let random = Seeded::new(1);
        let first = split(&[1; 32], 3, 2, &random).unwrap();
        let second = split(&[1; 32], 3, 2, &random).unwrap();
        let mixed = combine(&[again(&first[0]), again(&second[1])]).err();
        assert_eq!(mixed, Some(ShareError::Foreign));
        let twice = combine(&[again(&first[0]), again(&first[0])]).err();
        assert_eq!(twice, Some(ShareError::Repeated));
    }

    proptest! {
        #[test]
        fn any_threshold_many_recombine_and_fewer_do_not(
            secret in any::<[u8; 32]>(),
            (count, threshold) in (1_u8..9).prop_flat_map(|n| (Just(n), 1..=n)),
            seed in any::<u64>(),
            start in any::<usize>(),
        ) {
            let mut shares = split(&secret, count, threshold, &Seeded::new(seed)).unwrap();
            let length = shares.len();
            shares.rotate_left(start % length);
            let enough: Vec<Share> =
                shares.iter().take(threshold.into()).map(again).collect();
            prop_assert!(combine(&enough).unwrap().expose() == &secret);
            prop_assert!(combine(&shares).unwrap().expose() == &secret);
            prop_assert!(is_committed(combine(&enough).unwrap().expose(), &commit(&secret)));

            let few = &enough[1..];
            prop_assert_eq!(combine(few).err(), Some(ShareError::TooFew));
            // Even if fewer claim to be enough, they give something else.
            let liars: Vec<Share> = few
                .iter()
                .map(|share| Share { threshold: 1, ..again(share) })
                .collect();
            if let Ok(wrong) = combine(&liars) {
                prop_assert!(!is_committed(wrong.expose(), &commit(&secret)));
            }
        }

        #[test]
        fn every_flipped_bit_of_a_share_is_refused(secret: [u8; 32], seed: u64) {
            let shares = split(&secret, 2, 2, &Seeded::new(seed)).unwrap();
            let bytes = shares[0].encode();
            for bit in 0..SHARE_LEN * 8 {
                let mut flipped = bytes.expose().to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Share::parse(&flipped).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, text: String) {
            prop_assert!(Share::parse(&bytes).is_err());
            let _ = Share::parse_text(&text.into());
        }
    }
}
