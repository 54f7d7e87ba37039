//! Public keys: as JWK, by their thumbprint, and to verify with.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{Algorithm, JoseError, RSA_BITS_MAX, RSA_BITS_MIN};

/// The one public exponent that is taken: 65537.
const EXPONENT: &[u8] = &[1, 0, 1];

/// A public key with the one algorithm that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
    /// What RFC 7638 hashes: the required members in the order of their names, all of them text
    /// that needs no escape.
    members: Vec<(&'static str, String)>,
}

impl PublicKey {
    /// Takes a key's bytes: an Ed25519 key as it is, a point uncompressed, an RSA key in PKCS#1.
    pub fn parse(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, JoseError> {
        let members = match algorithm {
            Algorithm::EdDsa if bytes.len() == 32 => {
                vec![("crv", text("Ed25519")), ("kty", text("OKP")), ("x", encode(bytes))]
            }
            Algorithm::Es256 => point(bytes, 32, "P-256")?,
            Algorithm::Es384 => point(bytes, 48, "P-384")?,
            Algorithm::Ps256 | Algorithm::Rs256 => modulus(bytes)?,
            Algorithm::EdDsa => return Err(JoseError::Key),
        };
        Ok(Self { algorithm, bytes: bytes.to_vec(), members })
    }

    /// The one algorithm that this key verifies.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes that [`Self::parse`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The size of an RSA key, 0 of any other.
    pub fn rsa_bits(&self) -> usize {
        RsaParts::of(self.algorithm, &self.bytes).map_or(0, |parts| bits(&parts.modulus))
    }

    /// The thumbprint of RFC 7638 with SHA-256: 43 characters of base64url.
    pub fn thumbprint(&self) -> String {
        let json = format!("{{{}}}", self.joined());
        encode(&Sha256::digest(json.as_bytes()))
    }

    /// The key as a JWK, in JSON, named by its thumbprint.
    pub fn to_jwk(&self) -> String {
        let (algorithm, kid) = (self.algorithm.name(), self.thumbprint());
        format!("{{\"alg\":\"{algorithm}\",\"kid\":\"{kid}\",\"use\":\"sig\",{}}}", self.joined())
    }

    /// Checks a signature over a message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), JoseError> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::EdDsa => &ED25519,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.bytes);
        key.verify(message, signature).map_err(|_| JoseError::Signature)
    }

    fn joined(&self) -> String {
        let member = |(name, value): &(&str, String)| format!("\"{name}\":\"{value}\"");
        self.members.iter().map(member).collect::<Vec<_>>().join(",")
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn text(value: &str) -> String {
    value.to_owned()
}

fn point(bytes: &[u8], size: usize, curve: &str) -> Result<Vec<(&'static str, String)>, JoseError> {
    let (mark, numbers) = bytes.split_first().ok_or(JoseError::Key)?;
    if *mark != 4 || numbers.len() != 2 * size {
        return Err(JoseError::Key);
    }
    let (x, y) = numbers.split_at(size);
    Ok(vec![("crv", text(curve)), ("kty", text("EC")), ("x", encode(x)), ("y", encode(y))])
}

/// The two numbers of an RSA key.
struct RsaParts {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaParts {
    fn of(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        if !algorithm.is_rsa() {
            return None;
        }
        let key = rsa::PublicKey::from_der(bytes).ok()?;
        let modulus = key.modulus().big_endian_without_leading_zero().to_vec();
        let exponent = key.exponent().big_endian_without_leading_zero().to_vec();
        Some(Self { modulus, exponent })
    }
}

fn bits(modulus: &[u8]) -> usize {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (modulus.len() * 8).saturating_sub(unused)
}

fn modulus(bytes: &[u8]) -> Result<Vec<(&'static str, String)>, JoseError> {
    let parts = RsaParts::of(Algorithm::Rs256, bytes).ok_or(JoseError::Key)?;
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits(&parts.modulus)) {
        return Err(JoseError::Size);
    }
    if parts.exponent != EXPONENT {
        return Err(JoseError::Exponent);
    }
    Ok(vec![("e", encode(&parts.exponent)), ("kty", text("RSA")), ("n", encode(&parts.modulus))])
}
