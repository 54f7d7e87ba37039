//! Audit logs that somebody made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mssm_crypto::chain::CheckpointKey;

fuzz_target!(|bytes: &[u8]| {
    let verifier = CheckpointKey::from_seed(&[7; 32]).verifier();
    let _ = mssm_audit::verify(bytes, &verifier);
});
