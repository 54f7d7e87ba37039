//! What a fuzzer throws at the records of this room, and a test with what it found; in no other build.

use mssm_domain::SecretBytes;

use crate::letter;
use crate::record::LeaseRecord;

/// A lease, and lines that the audit log does not have yet. What is read is written as the same.
pub fn record(bytes: &[u8]) {
    let bytes = SecretBytes::new(bytes.to_vec());
    let _ = letter::decode(&bytes);
    let Ok(record) = LeaseRecord::decode(&bytes) else { return };
    let written = record.encode();
    assert!(written.is_ok_and(|written| LeaseRecord::decode(&written).is_ok()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(2, record);
    }
}
