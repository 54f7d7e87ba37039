//! What a fuzzer throws at the records of this room; in no other build.

use mssm_domain::SecretBytes;

/// A mount's record; what is read is written as the same.
pub fn record(bytes: &[u8]) {
    let Ok(mount) = crate::record::mount(&SecretBytes::new(bytes.to_vec())) else { return };
    let written = crate::record::bytes(&mount).expect("a mount that was read");
    assert!(crate::record::mount(&written).is_ok());
}
