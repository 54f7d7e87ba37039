//! Paths of requests, and what else is a text with one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mssm_domain::{LeaseId, PolicyName, Prefix};

fuzz_target!(|text: &str| {
    mssm_http::fuzz::path(text);
    mssm_http::fuzz::path(&format!("/v1/{text}"));
    let _ = mssm_domain::parse_duration_secs(text);
    let _ = LeaseId::parse(text);
    if let Ok(prefix) = Prefix::parse(text) {
        assert_eq!(Prefix::parse(prefix.as_str()).as_ref(), Ok(&prefix));
    }
    if let Ok(name) = PolicyName::parse(text) {
        assert_eq!(PolicyName::parse(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(name.is_root(), text.eq_ignore_ascii_case("root"));
    }
});
