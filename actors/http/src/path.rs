//! From the raw path of a request to the one canonical form, or a refusal.

use mssm_domain::{CanonicalPath, PathError};

/// Where every path of the API begins.
const BASE: &str = "/v1/";
/// The one path that is answered outside of it as well.
const SEAL_STATUS: &str = "/sys/seal-status";

/// What the raw path of a request means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A path of the API.
    Api(CanonicalPath),
    /// Nothing that we answer.
    Elsewhere,
}

/// Parses the raw, percent-encoded path of a request line.
pub(crate) fn parse(raw: &str) -> Result<Address, PathError> {
    let rest = match raw.strip_prefix(BASE) {
        Some(rest) => rest,
        None if raw == SEAL_STATUS => raw.strip_prefix('/').unwrap_or(raw),
        None => return Ok(Address::Elsewhere),
    };
    // `CanonicalPath` forgives one leading slash; here it would be a second spelling of a path.
    if rest.starts_with('/') {
        return Err(PathError::EmptySegment);
    }
    CanonicalPath::parse_encoded(rest).map(Address::Api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_api_are_looked_at() {
        for raw in ["/", "/v1", "/v2/sys/health", "/ui/", "*", "/V1/sys/health"] {
            assert_eq!(parse(raw), Ok(Address::Elsewhere), "{raw}");
        }
        for (raw, path) in [
            ("/v1/sys/health", "sys/health"),
            ("/sys/seal-status", "sys/seal-status"),
            ("/v1/secret/data/a%20b", "secret/data/a b"),
            ("/v1/secret/metadata/", "secret/metadata/"),
        ] {
            let path = CanonicalPath::parse(path).unwrap();
            assert_eq!(parse(raw), Ok(Address::Api(path)), "{raw}");
        }
    }

    #[test]
    fn a_second_spelling_is_refused() {
        for raw in [
            "/v1//secret/data/a",
            "/v1/secret//data/a",
            "/v1/secret/../sys/seal",
            "/v1/secret/%2e%2e/sys/seal",
            "/v1/secret%2fdata",
            "/v1/a%00",
            "/v1/a%ff",
        ] {
            assert!(parse(raw).is_err(), "{raw}");
        }
    }
}
