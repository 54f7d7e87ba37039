//! What a fuzzer throws at the records of this room, and a test with what it found; in no other build.

use mssm_domain::{Document, SecretBytes, SecretText};

use crate::{merge, record};

/// A secret's head, a mount's settings, a document.
pub fn record(bytes: &[u8]) {
    let _ = record::config(&SecretBytes::new(bytes.to_vec()));
    let _ = record::document(SecretBytes::new(bytes.to_vec()));
    let Ok(secret) = record::head(&SecretBytes::new(bytes.to_vec())) else { return };
    let written = record::head_bytes(&secret);
    assert!(written.is_ok_and(|written| record::head(&written).is_ok()));
}

/// A patch of a document.
pub fn patch(text: &str) {
    let document = |text: &str| Document::from_checked_json(SecretText::new(text.to_owned()));
    let target = document(r#"{"a":{"b":[1,{"c":null}]},"d":"e"}"#);
    let _ = merge::merge(&target, &document(text));
    let _ = merge::structure(&document(text), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_patch() {
        mssm_testkit::fuzzed("body", |bytes| {
            std::str::from_utf8(bytes).into_iter().for_each(patch);
        });
    }

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(1, record);
    }
}
