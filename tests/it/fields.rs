//! The members of a body that some route reads, as the front door's source says, so that none is forgotten.

use std::collections::BTreeSet;
use std::fs;

use crate::rooms::{sources, workspace};

/// Every name that a resource asks a body for: `text("x")`, `required("x", ...)`, `helper(body, "x")`, or a list
/// that is gone through. A word that is none does no harm: it is one more to send.
pub(crate) fn fields() -> BTreeSet<String> {
    let resources = workspace().join("actors/http/src/resources");
    let mut found = BTreeSet::new();
    for file in sources().iter().filter(|file| file.starts_with(&resources)) {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
        let code: Vec<&str> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
        // Between quotes lies every second piece.
        let text = code.join("\n").replace("\\\\", "").replace("\\\"", "").replace("'\"'", "");
        let pieces: Vec<&str> = text.split('"').collect();
        let mut in_loop = false;
        for index in (1..pieces.len().saturating_sub(1)).step_by(2) {
            let (before, name, after) = (pieces[index - 1], pieces[index], pieces[index + 1]);
            let trimmed = before.trim_end();
            let begins = trimmed.strip_suffix('[').is_some_and(|code| code.ends_with(" in "));
            in_loop = begins || in_loop && trimmed == ",";
            let first = before.rsplit_once('(').map_or("", |(_, inner)| inner);
            let helper = first.strip_suffix(", ").is_some_and(is_word);
            let asked =
                (first.is_empty() || helper) && before.contains('(') && after.starts_with(')');
            let required = before.ends_with(".required(");
            if is_word(name) && (asked || required || in_loop) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// One of each way in which the source asks, and of each resource that takes secrets.
#[test]
fn the_source_tells_which_fields_there_are() {
    let found = fields();
    for name in [
        "accessor",
        "claims",
        "connection_url",
        "data",
        "default_lease_ttl",
        "headers",
        "input",
        "key",
        "max_idle_connections",
        "max_leases",
        "password",
        "pgp_keys",
        "plugin_version",
        "policy",
        "private_key",
        "root_rotation_statements",
        "root_token_pgp_key",
        "secret_shares",
        "template",
        "tls_certificate_key",
        "token",
        "ttl",
        "type",
    ] {
        assert!(found.contains(name), "{name} of {found:?}");
    }
    assert!(found.len() > 120, "{}", found.len());
}
