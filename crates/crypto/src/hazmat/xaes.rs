//! XAES-256-GCM: AES-256-GCM under a key derived for each message, with nonces of 192 bits.
//!
//! Source: C2SP XAES-256-GCM. NIST SP 800-108 counter mode over CMAC-AES-256 turns the key and the
//! nonce's first half into the message's key; the second half is GCM's own nonce. Both CMAC inputs
//! are one full block, so CMAC is one AES call on the block and the subkey K1, which is kept.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::{Zeroize, Zeroizing};

/// The bytes of a nonce.
pub(crate) const NONCE: usize = 24;
/// The bytes of a tag.
pub(crate) const TAG: usize = 16;

/// What is wrong with a message: it does not open, or is longer than GCM can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// A key, ready for any number of messages: its AES schedule and its CMAC subkey.
pub(crate) struct Xaes256Gcm {
    aes: Aes256,
    k1: Zeroizing<[u8; 16]>,
}

impl Xaes256Gcm {
    /// Expands a key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let aes = schedule(key);
        let mut block = Array::from([0_u8; 16]);
        aes.encrypt_block(&mut block);
        let l = Zeroizing::new(u128::from_be_bytes(block.0));
        block.zeroize();
        // K1 = L · x in GF(2^128); the mask keeps the secret top bit out of any branch.
        let carry = (*l >> 127).wrapping_neg() & 0x87;
        Self { aes, k1: Zeroizing::new(((*l << 1) ^ carry).to_be_bytes()) }
    }

    /// Encrypts in place and returns the tag. The nonce must be random.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG], Refused> {
        let (cipher, nonce) = self.derive(nonce);
        let tag = cipher.encrypt_inout_detached(&Array::from(nonce), associated, text.into());
        tag.map(|tag| tag.0).map_err(|_| Refused)
    }

    /// Decrypts in place; leaves the text as it was if the tag is not right.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Refused> {
        let (cipher, nonce) = self.derive(nonce);
        let tag = Array::from(*tag);
        cipher
            .decrypt_inout_detached(&Array::from(nonce), associated, text.into(), &tag)
            .map_err(|_| Refused)
    }

    /// The message's cipher and GCM's nonce.
    fn derive(&self, nonce: &[u8; NONCE]) -> (Aes256Gcm, [u8; 12]) {
        let mut key = Zeroizing::new([0_u8; 32]);
        let (salt, rest) = nonce.split_at(12);
        for (counter, half) in (1_u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = Array::from([0_u8; 16]);
            let prefix = [0, counter, b'X', 0];
            for (byte, (input, subkey)) in
                block.iter_mut().zip(prefix.iter().chain(salt).zip(self.k1.iter()))
            {
                *byte = input ^ subkey;
            }
            self.aes.encrypt_block(&mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        let mut gcm_nonce = [0_u8; 12];
        gcm_nonce.copy_from_slice(rest);
        (Aes256Gcm::from(schedule(&key)), gcm_nonce)
    }
}

/// Expands a key without a copy of it on the way.
fn schedule(key: &[u8; 32]) -> Aes256 {
    match Aes256::new_from_slice(key) {
        Ok(schedule) => schedule,
        Err(_) => unreachable!("the key has 32 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hazmat::shake::Shake128;

    fn seal(key: [u8; 32], nonce: &[u8; 24], associated: &[u8], text: &[u8]) -> Vec<u8> {
        let cipher = Xaes256Gcm::new(&key);
        let mut sealed = text.to_vec();
        let tag = cipher.seal(nonce, associated, &mut sealed).unwrap();
        let mut opened = sealed.clone();
        cipher.open(nonce, associated, &mut opened, &tag).unwrap();
        assert_eq!(opened, text);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// C2SP XAES-256-GCM, "Test vectors", both with their intermediate values.
    #[test]
    fn the_published_vectors_pass() {
        let cases = [
            (
                [1; 32],
                &b""[..],
                "e531954aca063d5b8d9c47a47d4cc6f0",
                "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
            ),
            (
                [3; 32],
                b"c2sp.org/XAES-256-GCM",
                "23810ec50edb99f374409466ed1f4b7b",
                "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
            ),
        ];
        for (key, associated, k1, sealed) in cases {
            assert_eq!(hex::encode(*Xaes256Gcm::new(&key).k1), k1);
            let got = seal(key, b"ABCDEFGHIJKLMNOPQRSTUVWX", associated, b"XAES-256-GCM");
            assert_eq!(hex::encode(got), sealed);
        }
    }

    /// C2SP XAES-256-GCM, "Accumulated randomized tests": 10,000 messages drawn from SHAKE128.
    #[test]
    fn the_published_accumulated_vector_passes() {
        let (mut source, mut sink) = (Shake128::new(), Shake128::new());
        for _ in 0..10_000 {
            let key: [u8; 32] = source.squeeze(32).try_into().unwrap();
            let nonce: [u8; 24] = source.squeeze(24).try_into().unwrap();
            let length = source.squeeze(1)[0];
            let text = source.squeeze(length.into());
            let length = source.squeeze(1)[0];
            let associated = source.squeeze(length.into());
            sink.absorb(&seal(key, &nonce, &associated, &text));
        }
        assert_eq!(
            hex::encode(sink.squeeze(32)),
            "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
        );
    }
}
