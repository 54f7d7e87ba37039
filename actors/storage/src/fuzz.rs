//! What a fuzzer throws at the records of this room, and a test with what it found; in no other build.

/// A stored value under some key; what is read is written as the same bytes.
pub fn record(bytes: &[u8]) {
    let (key, bytes) = bytes.split_at_checked(8).unwrap_or((&[], bytes));
    let Ok(record) = crate::value::decode(key, bytes) else { return };
    assert_eq!(crate::value::encode(key, &record), bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_record() {
        mssm_testkit::fuzzed_records(6, record);
    }
}
