//! What lies in the store once it is opened: the first byte says whose record it is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((whose, bytes)) = bytes.split_first() else { return };
    match whose % 7 {
        0 => mssm_access::fuzz::record(bytes),
        1 => mssm_kv::fuzz::record(bytes),
        2 => mssm_lease::fuzz::record(bytes),
        3 => mssm_minter::fuzz::record(bytes),
        4 => mssm_mounts::fuzz::record(bytes),
        5 => mssm_seal::fuzz::record(bytes),
        _ => mssm_storage::fuzz::record(bytes),
    }
});
