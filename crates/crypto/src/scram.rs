//! Makes PostgreSQL's SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), so that no password is sent.
//!
//! Needs no key: the minter uses this module alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use mssm_domain::{Random, SecretText, same_in_constant_time};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Why there is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The password is empty, or holds more than printable ASCII: what SASLprep would make of it
    /// is not known here, and a wrong guess would lock its owner out.
    #[error("the password must be printable ASCII and not empty")]
    Password,
    /// PBKDF2 needs at least one round.
    #[error("iterations must be at least 1")]
    Iterations,
}

/// The iterations that every client accepts (RFC 7677's least).
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// Makes `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` with a random salt.
///
/// This is what PostgreSQL keeps in `pg_authid.rolpassword`, and takes as a password.
pub fn generate_verifier(
    password: &SecretText,
    iterations: u32,
    random: &dyn Random,
) -> Result<String, ScramError> {
    let mut salt = [0; 16];
    random.fill(&mut salt);
    derive_verifier(password, iterations, &salt)
}

/// True if a verifier is this password's; `None` if it is not a SCRAM-SHA-256 verifier.
pub fn matches(password: &SecretText, verifier: &str) -> Option<bool> {
    let (iterations, rest) = verifier.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
    let (salt, _) = rest.split_once('$')?;
    let salt = STANDARD.decode(salt).ok()?;
    let own = derive_verifier(password, iterations.parse().ok()?, &salt);
    Some(own.is_ok_and(|own| same_in_constant_time(own, verifier)))
}

fn derive_verifier(
    password: &SecretText,
    iterations: u32,
    salt: &[u8],
) -> Result<String, ScramError> {
    // EXPOSE: the verifier is a hash of the password's bytes.
    let password = password.expose().as_bytes();
    if password.is_empty() || !password.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Err(ScramError::Password);
    }
    if iterations == 0 {
        return Err(ScramError::Iterations);
    }
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, salted.as_mut_slice());
    let client_key = Zeroizing::new(hmac(&salted, b"Client Key"));
    let stored_key: [u8; 32] = Sha256::digest(client_key.as_slice()).into();
    let server_key = hmac(&salted, b"Server Key");
    Ok(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    ))
}

fn hmac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(state) => state.chain_update(text).finalize().into_bytes().0,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    #[test]
    fn a_verifier_is_known_again_and_no_others() {
        let (one, other) = ("pencil".to_owned().into(), "pencils".to_owned().into());
        let made = generate_verifier(&one, 4096, &Seeded::new(1)).unwrap();
        assert_eq!((matches(&one, &made), matches(&other, &made)), (Some(true), Some(false)));
        for text in ["", "md5abc", "SCRAM-SHA-256$x:y$z", "SCRAM-SHA-256$4096"] {
            assert_eq!(matches(&one, text), None, "{text}");
        }
    }

    /// RFC 7677, section 3: the exchange of user `user` with password `pencil`.
    ///
    /// The RFC gives no verifier, but a proof that only the right StoredKey accepts and a server
    /// signature that only the right ServerKey makes.
    #[test]
    fn the_published_exchange_accepts_the_verifier() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = derive_verifier(&"pencil".to_owned().into(), 4096, &salt).unwrap();
        let (prefix, keys) = verifier.rsplit_once('$').unwrap();
        assert_eq!(prefix, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==");
        let (stored, server) = keys.split_once(':').unwrap();
        let key = |text: &str| -> [u8; 32] { STANDARD.decode(text).unwrap().try_into().unwrap() };
        let (stored, server) = (key(stored), key(server));

        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let exchange = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r={nonce}"
        );
        let proof = key("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let signature = hmac(&stored, exchange.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&client_key)), stored);
        assert_eq!(
            STANDARD.encode(hmac(&server, exchange.as_bytes())),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn salts_differ_and_the_form_is_postgresqls() {
        let random = Seeded::new(5);
        let password = SecretText::new("x".repeat(24));
        let first = generate_verifier(&password, 1, &random).unwrap();
        let second = generate_verifier(&password, 1, &random).unwrap();
        assert_ne!(first, second);
        assert!(first.starts_with("SCRAM-SHA-256$1:"), "{first}");
        assert_eq!(first.len(), "SCRAM-SHA-256$1:".len() + 24 + 1 + 44 + 1 + 44);
    }

    #[test]
    fn what_saslprep_could_change_is_refused() {
        for bad in ["", "ä", "a\n", "\u{a0}"] {
            let refused = generate_verifier(&bad.to_owned().into(), 1, &Seeded::new(1));
            assert_eq!(refused, Err(ScramError::Password), "{bad:?}");
        }
        let refused = generate_verifier(&"ok".to_owned().into(), 0, &Seeded::new(1));
        assert_eq!(refused, Err(ScramError::Iterations));
    }
}
