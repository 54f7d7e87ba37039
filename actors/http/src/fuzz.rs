//! What a fuzzer throws at the parsers of this room; in no other build.

use mssm_domain::SecretBytes;

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

/// A body, every member of it read in every way, and written down without a value.
pub fn body(bytes: &[u8]) {
    let Ok(body) = Body::parse(SecretBytes::new(bytes.to_vec()), None) else { return };
    let names: Vec<String> = body.members().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let _ = (body.text(name), body.flag(name), body.number(name), body.duration(name));
        let _ = (body.list(name), body.statements(name), body.map(name), body.object(name));
    }
    for (_, raw) in body.members() {
        let _ = Redactor::default().document(raw);
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
