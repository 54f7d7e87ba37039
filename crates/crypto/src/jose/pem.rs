//! From a PEM text (RFC 7468) with one PKCS#8 private key to its bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::{SecretBytes, SecretText};
use zeroize::Zeroizing;

use super::JoseError;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Longer than any key of 4,096 bits.
const MAX: usize = 16 * 1024;

/// The bytes between the two lines; nothing but blanks may be before, behind or between.
pub(super) fn decode(pem: &SecretText) -> Result<SecretBytes, JoseError> {
    // EXPOSE: decoded into secret bytes, the copy in between is wiped.
    let text = pem.expose().trim();
    if text.len() > MAX {
        return Err(JoseError::Pem);
    }
    let body = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let body = body.ok_or(JoseError::Pem)?;
    let mut packed = Zeroizing::new(Vec::with_capacity(body.len()));
    packed.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let bytes = STANDARD.decode(packed.as_slice()).map_err(|_| JoseError::Pem)?;
    Ok(SecretBytes::new(bytes))
}
