//! What a fuzzer throws at the records of this room; in no other build.

use crate::record::SealConfigRecord;

/// The seal's own record; what is read is written as the same bytes.
pub fn record(bytes: &[u8]) {
    let Ok(record) = SealConfigRecord::decode(bytes) else { return };
    assert_eq!(record.encode(), bytes);
}
