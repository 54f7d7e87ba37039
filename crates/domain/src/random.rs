//! Where randomness comes from, and the ids made of it.

use uuid::Uuid;

/// A source of random bytes: the system's in the server, a seeded one in tests.
pub trait Random: Send + Sync {
    /// Fills the buffer with bytes that nobody can predict.
    fn fill(&self, buffer: &mut [u8]);
}

/// The alphabet of tokens, accessors and lease ids.
pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes `len` characters of `[0-9A-Za-z]`, each equally likely (5.95 bits each).
pub fn generate_base62(random: &dyn Random, len: usize) -> String {
    let mut text = String::with_capacity(len);
    let mut pool = [0_u8; 64];
    while text.len() < len {
        random.fill(&mut pool);
        for byte in pool {
            // 248 = 4 × 62: bytes above would favour the first letters.
            if byte < 248 && text.len() < len {
                let letter = BASE62.get(usize::from(byte) % 62).copied().unwrap_or(b'0');
                text.push(char::from(letter));
            }
        }
    }
    zeroize::Zeroize::zeroize(&mut pool);
    text
}

/// Makes a random UUID (RFC 9562 version 4).
pub fn generate_uuid(random: &dyn Random) -> Uuid {
    let mut bytes = [0_u8; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
