//! Paths of requests, and what else is a text with one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    mssm_http::fuzz::path(text);
    mssm_http::fuzz::path(&format!("/v1/{text}"));
    mssm_http::fuzz::names(text);
});
