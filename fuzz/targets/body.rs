//! Bodies of requests: JSON, forms, patches.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mssm_http::fuzz::body(bytes);
    mssm_http::fuzz::form(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        mssm_kv::fuzz::patch(text);
    }
});
