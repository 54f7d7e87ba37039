//! Checksums that catch accidents: the beginning of a SHA-256. They keep nobody out.

use sha2::{Digest, Sha256};

/// The first `N` (at most 32) bytes of SHA-256 over a label and the bytes.
pub fn checksum<const N: usize>(label: &str, bytes: &[u8]) -> [u8; N] {
    const { assert!(N <= 32, "SHA-256 gives 32 bytes") };
    let digest = Sha256::new().chain_update(label).chain_update(bytes).finalize();
    let mut checksum = [0; N];
    checksum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    checksum
}
