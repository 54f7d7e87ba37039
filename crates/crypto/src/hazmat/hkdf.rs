//! HKDF-SHA256 (RFC 5869) with labels, so that no two uses of one secret share a key.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Derives `N` bytes (at most 8,160) for one use of a secret.
pub(crate) fn derive<const N: usize>(
    secret: &[u8; 32],
    label: &str,
    context: &[u8],
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF-SHA256 gives at most 255 blocks") };
    let mut key = Zeroizing::new([0_u8; N]);
    let expander = Hkdf::<Sha256>::new(Some(b"mssm/v1"), secret);
    // The length goes in, so that no short key is the beginning of a long one.
    let length = u32::try_from(N).unwrap_or(u32::MAX).to_be_bytes();
    let info: [&[u8]; 4] = [label.as_bytes(), &[0], &length, context];
    if expander.expand_multi_info(&info, key.as_mut_slice()).is_err() {
        unreachable!("the length is checked when this is compiled");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lengths_and_contexts_give_unrelated_keys() {
        let secret = [7; 32];
        let key = derive::<32>(&secret, "a", b"x");
        assert_eq!(key, derive::<32>(&secret, "a", b"x"));
        assert_ne!(key, derive::<32>(&secret, "b", b"x"));
        assert_ne!(key, derive::<32>(&secret, "a", b"y"));
        assert_ne!(key, derive::<32>(&[8; 32], "a", b"x"));
        assert_ne!(key[..], derive::<64>(&secret, "a", b"x")[..32]);
    }
}
