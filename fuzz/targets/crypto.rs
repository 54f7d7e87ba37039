//! Shares, keyrings and envelopes: what opens was sealed, and what is read is written as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mssm_seal::fuzz::crypto(bytes));
