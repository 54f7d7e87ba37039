//! What a fuzzer throws at the parsers of this room, and a test with what it found; in no other build.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_policy() {
        mssm_testkit::fuzzed("policy", |bytes| {
            std::str::from_utf8(bytes).into_iter().for_each(policy);
        });
    }

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(0, record);
    }
}
