//! What a fuzzer throws at the parsers of this room, and a test with what it found; in no other build.

use mssm_domain::{LeaseId, PolicyName, Prefix, SecretBytes};

use crate::body::Body;
use crate::form;
use crate::path::{Address, parse};
use crate::redact::Redactor;

/// The raw path of a request: one spelling, and that one is its own.
pub fn path(text: &str) {
    let Ok(Address::Api(path)) = parse(text) else { return };
    let shown = path.as_str();
    assert!(!shown.contains("//") && !shown.contains('\0') && !shown.starts_with('/'));
    assert!(shown.split('/').all(|segment| segment != "." && segment != ".."));
    assert_eq!(mssm_domain::CanonicalPath::parse(shown).as_ref(), Ok(&path));
}

/// What else is a text with one spelling.
pub fn names(text: &str) {
    let _ = mssm_domain::parse_duration_secs(text);
    let _ = LeaseId::parse(text);
    if let Ok(prefix) = Prefix::parse(text) {
        assert_eq!(Prefix::parse(prefix.as_str()).as_ref(), Ok(&prefix));
    }
    if let Ok(name) = PolicyName::parse(text) {
        assert_eq!(PolicyName::parse(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(name.is_root(), text.eq_ignore_ascii_case("root"));
    }
}

/// A body, every member of it read in every way, and written down without a value.
pub fn body(bytes: &[u8]) {
    let Ok(body) = Body::parse(SecretBytes::new(bytes.to_vec()), None) else { return };
    let names: Vec<String> = body.members().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let _ = (body.text(name), body.flag(name), body.number(name), body.duration(name));
        let _ = (body.list(name), body.statements(name), body.map(name), body.object(name));
    }
    for allowed in [true, false] {
        let _ = Redactor::of(allowed).body(&body, (&[], allowed));
    }
    for (_, raw) in body.members() {
        // What was let in is JSON to whoever reads it later.
        assert!(serde_json::from_str::<serde_json::Value>(raw).is_ok());
    }
}

/// A body that is said to be a form.
pub fn form(bytes: &[u8]) {
    let Ok(json) = form::into_json(SecretBytes::new(bytes.to_vec())) else { return };
    let json = SecretBytes::new(json.expose().to_vec());
    let _ = Body::parse(json, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_breaks_no_path() {
        mssm_testkit::fuzzed("path", |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            path(text);
            path(&format!("/v1/{text}"));
            names(text);
        });
    }

    #[test]
    fn what_fuzzing_found_breaks_no_body() {
        mssm_testkit::fuzzed("body", |bytes| {
            body(bytes);
            form(bytes);
        });
    }
}
