//! Statements of roles, and addresses of databases.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    mssm_minter::fuzz::sql(text);
    mssm_minter::fuzz::address(text);
});
