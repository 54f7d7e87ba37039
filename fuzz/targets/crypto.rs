//! Shares, keyrings and envelopes: what opens was sealed, and what is read is written as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mssm_crypto::envelope::Header;
use mssm_crypto::keyring::Keyring;
use mssm_crypto::shares::Share;
use mssm_domain::{SealedBytes, SecretText};

fuzz_target!(|bytes: &[u8]| {
    let _ = Header::read(&SealedBytes::new(bytes.to_vec()));
    if let Ok(share) = Share::parse(bytes) {
        assert_eq!(share.encode().expose(), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Share::parse_text(&SecretText::new(text.to_owned()));
    }
    if let Ok(keyring) = Keyring::decode(bytes) {
        assert!(Keyring::decode(keyring.encode().expose()).is_ok());
    }
});
