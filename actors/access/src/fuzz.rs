//! What a fuzzer throws at the parsers of this room; in no other build.

use mssm_domain::SecretBytes;

use crate::policy::Policy;
use crate::token::decode_token;

/// The text of a policy.
pub fn policy(text: &str) {
    let _ = Policy::parse(text);
}

/// A token's record.
pub fn record(bytes: &[u8]) {
    let _ = decode_token(&SecretBytes::new(bytes.to_vec()));
}
