//! What a fuzzer throws at the records of this room, and a test with what it found; in no other build.

use mssm_domain::SecretBytes;

/// A mount's record; what is read is written as the same.
pub fn record(bytes: &[u8]) {
    let Ok(mount) = crate::record::mount(&SecretBytes::new(bytes.to_vec())) else { return };
    let written = crate::record::bytes(&mount);
    assert!(written.is_ok_and(|written| crate::record::mount(&written).is_ok()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(4, record);
    }
}
