//! What a fuzzer throws at the records of this room, and a test with what it found; in no other build.

use mssm_crypto::envelope::Header;
use mssm_crypto::keyring::Keyring;
use mssm_crypto::shares::Share;
use mssm_domain::{SealedBytes, SecretText};

use crate::record::SealConfigRecord;

/// Shares, keyrings and envelopes; what is read is written as the same.
pub fn crypto(bytes: &[u8]) {
    let _ = Header::read(&SealedBytes::new(bytes.to_vec()));
    if let Ok(share) = Share::parse(bytes) {
        // EXPOSE: compared with what the fuzzer made up.
        assert_eq!(share.encode().expose(), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Share::parse_text(&SecretText::new(text.to_owned()));
    }
    if let Ok(keyring) = Keyring::decode(bytes) {
        // EXPOSE: read again.
        assert!(Keyring::decode(keyring.encode().expose()).is_ok());
    }
}

/// The seal's own record; what is read is written as the same bytes.
pub fn record(bytes: &[u8]) {
    let Ok(record) = SealConfigRecord::decode(bytes) else { return };
    assert_eq!(record.encode(), bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_share_and_no_keyring() {
        mssm_testkit::fuzzed("crypto", crypto);
    }

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(5, record);
    }
}
