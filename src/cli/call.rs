//! One call of Vault's wire API, its answer, and the seam through which calls are sent.

use mssm_domain::SecretText;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::failure::Failure;

/// What stays as it is in a path: unreserved characters and the slash.
const PATH_BYTES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// The same in a query's value, where a slash is encoded too.
const QUERY_BYTES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The verbs of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reads.
    Get,
    /// Names what is below a path.
    List,
    /// Writes.
    Put,
    /// Merges into what is there.
    Patch,
    /// Deletes.
    Delete,
}

impl Verb {
    /// The verb as it stands on the wire.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One call. Its body may hold secrets: no `Debug`.
pub(crate) struct Call {
    /// The verb.
    pub(crate) verb: Verb,
    /// The path below `/v1/`, plain text.
    pub(crate) path: String,
    /// Query parameters, plain text.
    pub(crate) query: Vec<(&'static str, String)>,
    /// The JSON body, if one is sent.
    pub(crate) body: Option<Value>,
    /// A token to use in place of the session's.
    pub(crate) token: Option<SecretText>,
}

impl Call {
    fn new(verb: Verb, path: &str, body: Option<Value>) -> Self {
        let path = path.trim().trim_start_matches('/').to_owned();
        Self { verb, path, query: Vec::new(), body, token: None }
    }

    /// Reads `path`.
    pub(crate) fn read(path: &str) -> Self {
        Self::new(Verb::Get, path, None)
    }

    /// Lists what is below `path`.
    pub(crate) fn list(path: &str) -> Self {
        Self::new(Verb::List, path, None)
    }

    /// Writes `body` to `path`.
    pub(crate) fn write(path: &str, body: Value) -> Self {
        Self::new(Verb::Put, path, Some(body))
    }

    /// Merges `body` into what is at `path` (RFC 7396).
    pub(crate) fn patch(path: &str, body: Value) -> Self {
        Self::new(Verb::Patch, path, Some(body))
    }

    /// Deletes `path`.
    pub(crate) fn delete(path: &str) -> Self {
        Self::new(Verb::Delete, path, None)
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sends this token in place of the session's.
    pub(crate) fn with_token(mut self, token: SecretText) -> Self {
        self.token = Some(token);
        self
    }

    /// The request target: `/v1/...`, percent-encoded, with its query.
    pub(crate) fn target(&self) -> String {
        let path = utf8_percent_encode(&self.path, PATH_BYTES);
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY_BYTES)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/v1/{path}{mark}{}", query.join("&"))
    }
}

/// What came back.
#[derive(Default)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The JSON body; null where there was none.
    pub(crate) body: Value,
}

impl Answer {
    /// The member `data`, where it is an object.
    pub(crate) fn data(&self) -> Option<&Map<String, Value>> {
        self.member("data").as_object()
    }

    /// A member of the body; null where it is absent.
    pub(crate) fn member(&self, name: &str) -> &Value {
        self.body.get(name).unwrap_or(&Value::Null)
    }

    /// The texts under `name`, for lists of texts.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        texts_of(self.member(name))
    }
}

/// The texts in a JSON array; whatever is no text is left out.
pub(crate) fn texts_of(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Sends calls: the network, or a test's script.
pub(crate) trait Transport {
    /// Sends one call; an answer of any status is `Ok`.
    fn send(&self, call: &Call) -> Result<Answer, Failure>;

    /// Whether calls go out with a token of the session.
    fn has_token(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_byte_by_byte_and_slashes_are_kept() {
        let call = Call::read("/kv/my key/ü?#%2F").query("prefix", "a/b c");
        assert_eq!(call.target(), "/v1/kv/my%20key/%C3%BC%3F%23%252F?prefix=a%2Fb%20c");
    }
}
