//! Policies in HCL and JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| mssm_access::fuzz::policy(text));
