//! Keys that sign JSON Web Tokens, and the public halves that verify them.
//!
//! Algorithms are those of RFC 7518 and RFC 8037, public keys are written as RFC 7517 says and named
//! by their thumbprint (RFC 7638). The primitives are those of aws-lc, which takes randomness from no
//! source but its own generator, seeded by the system.

mod pem;
mod public;
#[cfg(test)]
mod tests;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use mssm_domain::{SecretBytes, SecretText};

pub use public::PublicKey;

/// The least size of an RSA key: RFC 7518 allows no smaller one.
pub const RSA_BITS_MIN: usize = 2048;
/// The greatest: larger ones cost whoever verifies more than they give.
pub const RSA_BITS_MAX: usize = 4096;

/// How a token is signed (RFC 7518, section 3; RFC 8037 for EdDSA, here over Ed25519 alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Ps256, Self::Rs256];

    /// The name in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of a name; names have one spelling.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// True if keys come in several sizes, and making or using one takes milliseconds.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Ps256 | Self::Rs256)
    }
}

/// Why there is no key, or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    /// An RSA key of a size that is not made here.
    #[error("an RSA key has 2048, 3072 or 4096 bits")]
    Bits,
    /// An RSA key that is too small or too large.
    #[error("an RSA key must have from 2048 to 4096 bits")]
    Size,
    /// An RSA key whose public exponent is small or odd in another way.
    #[error("an RSA key's public exponent must be 65537")]
    Exponent,
    /// The text is not one unencrypted private key.
    #[error(
        "expected one PEM block \"PRIVATE KEY\" (PKCS#8, not encrypted), as `openssl pkcs8 -topk8 -nodes` writes it"
    )]
    Pem,
    /// The key is damaged, or of another kind than the algorithm needs.
    #[error("the private key is damaged or does not fit the algorithm")]
    Key,
    /// The signature is not this key's over these bytes.
    #[error("the signature does not fit")]
    Signature,
    /// The primitives failed.
    #[error("the key cannot be made or used")]
    Failed,
}

/// A private key. Cannot be printed; its memory is wiped by aws-lc when it is dropped.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Makes a key; `bits` is the size of an RSA key (2048, 3072, 4096) and means nothing else.
    ///
    /// An RSA key takes up to seconds: not on a thread that others wait for.
    pub fn generate(algorithm: Algorithm, bits: usize) -> Result<Self, JoseError> {
        let failed = |_| JoseError::Failed;
        let pair = match algorithm {
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::generate().map_err(failed)?),
            Algorithm::Es256 | Algorithm::Es384 => {
                Pair::Ec(EcdsaKeyPair::generate(curve(algorithm)).map_err(failed)?)
            }
            Algorithm::Ps256 | Algorithm::Rs256 => {
                let size = match bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    _ => return Err(JoseError::Bits),
                };
                Pair::Rsa(RsaKeyPair::generate(size).map_err(failed)?)
            }
        };
        Ok(Self { algorithm, pair })
    }

    /// Reads a key from PKCS#8; refuses one that the algorithm cannot use.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &SecretBytes) -> Result<Self, JoseError> {
        // EXPOSE: becomes the key.
        let der = pkcs8.expose();
        let wrong = |_| JoseError::Key;
        let pair = match algorithm {
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::from_pkcs8(der).map_err(wrong)?),
            Algorithm::Es256 | Algorithm::Es384 => {
                Pair::Ec(EcdsaKeyPair::from_pkcs8(curve(algorithm), der).map_err(wrong)?)
            }
            Algorithm::Ps256 | Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|error| {
                    // The reason's name is all that the library says of it.
                    if matches!(error.to_string().as_str(), "TooSmall" | "TooLarge") {
                        JoseError::Size
                    } else {
                        JoseError::Key
                    }
                })?;
                Pair::Rsa(pair)
            }
        };
        let key = Self { algorithm, pair };
        // Bounds and form of the public half are the same for all keys, whoever made them.
        key.public()?;
        Ok(key)
    }

    /// Reads a key from a PEM text that holds one PKCS#8 key and nothing else.
    pub fn from_pem(algorithm: Algorithm, pem: &SecretText) -> Result<Self, JoseError> {
        Self::from_pkcs8(algorithm, &pem::decode(pem)?)
    }

    /// The key in PKCS#8, for the store.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, JoseError> {
        let failed = |_| JoseError::Failed;
        let bytes = match &self.pair {
            Pair::Ed(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Ec(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
        };
        Ok(SecretBytes::new(bytes))
    }

    /// The half that everybody may know.
    pub fn public(&self) -> Result<PublicKey, JoseError> {
        let bytes = match &self.pair {
            Pair::Ed(pair) => pair.public_key().as_ref(),
            Pair::Ec(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        };
        PublicKey::parse(self.algorithm, bytes)
    }

    /// Signs; replies the signature as JWS has it (for ECDSA the two numbers one after the other).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoseError> {
        let random = SystemRandom::new();
        let failed = |_| JoseError::Failed;
        match &self.pair {
            Pair::Ed(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding(self.algorithm), &random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.algorithm.name())
    }
}

fn curve(algorithm: Algorithm) -> &'static EcdsaSigningAlgorithm {
    if algorithm == Algorithm::Es384 {
        &ECDSA_P384_SHA384_FIXED_SIGNING
    } else {
        &ECDSA_P256_SHA256_FIXED_SIGNING
    }
}

fn padding(algorithm: Algorithm) -> &'static dyn RsaEncoding {
    if algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 }
}
