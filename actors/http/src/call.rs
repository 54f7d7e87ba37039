//! One request, parsed into what the rest of the room works with.

use std::net::SocketAddr;
use std::rc::Rc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, Uri, header};
use actix_web::{HttpMessage, HttpRequest};
use mssm_domain::policy::Capability;
use mssm_domain::{CanonicalPath, RequestId, SecretText};

use crate::body::{Body, truth};
use crate::error::Refusal;
use crate::form::decode;
use crate::masked::{MASK, masked};

/// What a request wants to do, whatever word it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// GET.
    Read,
    /// LIST, or GET with `?list=true`.
    List,
    /// POST or PUT.
    Write,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// The verb of a method and its query; `None` for what nothing here answers.
    fn of(method: &Method, query: &Query) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" if query.flag("list") => Some(Self::List),
            "GET" | "HEAD" if query.flag("scan") => None,
            "GET" | "HEAD" => Some(Self::Read),
            "LIST" => Some(Self::List),
            "POST" | "PUT" => Some(Self::Write),
            "PATCH" => Some(Self::Patch),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }

    /// True if a body may come with it.
    pub(crate) const fn has_body(self) -> bool {
        matches!(self, Self::Write | Self::Patch | Self::Delete)
    }

    /// The right that it needs, and Vault's word for the audit, if `exists` says which it is.
    pub(crate) const fn capability(self, exists: bool) -> Capability {
        match self {
            Self::Read => Capability::Read,
            Self::List => Capability::List,
            Self::Write if exists => Capability::Update,
            Self::Write => Capability::Create,
            Self::Patch => Capability::Patch,
            Self::Delete => Capability::Delete,
        }
    }
}

/// The parameters behind the question mark.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    sent: String,
}

impl Query {
    fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let Some(raw) = uri.query().filter(|raw| !raw.is_empty()) else {
            return Ok(Self::default());
        };
        let decode =
            |text: &str| decode(text).ok_or_else(|| Refusal::invalid("query is not UTF-8"));
        let parse = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(parse);
        let pairs: Result<_, Refusal> = pairs.collect();
        Ok(Self { pairs: pairs?, sent: raw.to_owned() })
    }

    /// A parameter's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True if a parameter is set to true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(truth) == Some(true)
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong =
            |_| Refusal::invalid(format!("Field validation failed: {name} must be a number"));
        text.parse().map(Some).map_err(wrong)
    }

    /// All parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.pairs.iter()
    }

    /// All of it, as it was sent.
    pub(crate) fn sent(&self) -> &str {
        &self.sent
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its id, in its answer too.
    pub(crate) id: RequestId,
    /// What it wants.
    pub(crate) verb: Verb,
    /// On what.
    pub(crate) path: CanonicalPath,
    /// What is behind the question mark.
    pub(crate) query: Query,
    /// What came with it.
    pub(crate) body: Body,
    /// The token, if one was sent.
    pub(crate) token: Option<SecretText>,
    /// What makes a repeated request the same one, if it says so.
    pub(crate) idempotency_key: Option<String>,
    /// Where it came from.
    pub(crate) remote: Option<SocketAddr>,
    /// What the body is said to be.
    pub(crate) media: Media,
    /// The headers, of which the audit log may show some.
    pub(crate) headers: Headers,
}

/// The headers of a request. Prints nothing: the token is among them.
#[derive(Clone)]
pub(crate) struct Headers(Rc<HeaderMap>);

impl Headers {
    /// Takes them out of a request, whose head is kept as it is, once it is answered, for a later one.
    pub(crate) fn take_out(request: &mut ServiceRequest) {
        let headers = std::mem::replace(request.headers_mut(), HeaderMap::new());
        request.extensions_mut().insert(Self(Rc::new(headers)));
    }

    /// Those that came with a request.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let taken_out = request.extensions().get::<Self>().cloned();
        taken_out.unwrap_or_else(|| Self(Rc::new(request.headers().clone())))
    }

    /// All of them.
    pub(crate) fn map(&self) -> &HeaderMap {
        &self.0
    }

    /// Every value of one header, as text.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let values = self.0.get_all(name);
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Headers(..)")
    }
}

impl Call {
    /// Parses the head of a request; its body comes later.
    pub(crate) fn parse(
        request: &HttpRequest,
        id: RequestId,
        path: CanonicalPath,
    ) -> Result<Self, Refusal> {
        let query = Query::parse(request.uri())?;
        let sent = Headers::of(request);
        let headers = sent.map();
        let verb = Verb::of(request.method(), &query).ok_or_else(Refusal::unsupported_operation)?;
        let wrap = headers.get("x-vault-wrap-ttl").map(header::HeaderValue::as_bytes);
        if !matches!(wrap, None | Some(b"" | b"0" | b"0s")) {
            // Handing the secret out unwrapped would break what the caller counts on.
            return Err(Refusal::invalid("response wrapping is not supported yet"));
        }
        let namespace = headers.get("x-vault-namespace").map(header::HeaderValue::as_bytes);
        if !matches!(namespace, None | Some(b"" | b"root" | b"root/" | b"/")) {
            return Err(Refusal {
                errors: vec!["namespace not found".to_owned()],
                ..Refusal::not_found()
            });
        }
        Ok(Self {
            id,
            verb,
            path,
            query,
            body: Body::empty(),
            token: token(headers),
            idempotency_key: idempotency_key(headers)?,
            remote: request.peer_addr(),
            media: Media::of(headers),
            headers: sent.clone(),
        })
    }

    /// The path as it may be written down: old clients put tokens into it, others by mistake.
    pub(crate) fn shown_path(&self) -> String {
        let path = self.path.as_str();
        for verb in ["lookup", "renew", "revoke", "revoke-orphan"] {
            let below = path.strip_prefix("auth/token/").and_then(|rest| rest.strip_prefix(verb));
            if below.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')) {
                return format!("auth/token/{verb}/{MASK}");
            }
        }
        // EXPOSE: compared, so that one that was chosen and has no shape is hidden too.
        let own = self.token.as_ref().map(SecretText::expose);
        let segments = path.split('/').map(|one| if Some(one) == own { MASK } else { one });
        masked(&segments.collect::<Vec<_>>().join("/")).into_owned()
    }

    /// The path without a trailing slash, which in most places says nothing.
    pub(crate) fn trimmed(&self) -> &str {
        self.path.trim_folder()
    }
}

/// What a body is said to be, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// Nothing is said.
    Unsaid,
    /// A JSON merge patch.
    MergePatch,
    /// A form; curl says so of everything.
    Form,
    /// Anything else; it is read as JSON.
    Other,
}

impl Media {
    fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.split(';').next()).map(str::trim) {
            None => Self::Unsaid,
            Some("application/merge-patch+json") => Self::MergePatch,
            Some("application/x-www-form-urlencoded") => Self::Form,
            Some(_) => Self::Other,
        }
    }
}

/// The key under which a request may be repeated: 1 to 255 visible characters.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let value = value.as_bytes();
    let visible = value.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(value) {
        Ok(key) if visible && (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Refusal::invalid("Idempotency-Key must be 1 to 255 visible characters")),
    }
}

/// The token, from either header that may carry it.
fn token(headers: &HeaderMap) -> Option<SecretText> {
    sent_token(headers).map(|token| SecretText::new(token.to_owned()))
}

/// The same, where it stands.
pub(crate) fn sent_token(headers: &HeaderMap) -> Option<&str> {
    let value = if let Some(value) = headers.get("x-vault-token") {
        value.to_str().ok()?
    } else {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)?
    };
    let value = value.trim();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn call(request: TestRequest) -> Result<Call, Refusal> {
        let id = RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap();
        let request = request.to_http_request();
        Call::parse(&request, id, CanonicalPath::parse("a/b").unwrap())
    }

    #[test]
    fn a_list_has_three_spellings() {
        let list = Method::from_bytes(b"LIST").unwrap();
        for request in [
            TestRequest::default().method(list),
            TestRequest::default().uri("/v1/a?list=true"),
            TestRequest::default().uri("/v1/a?x=y&list=1"),
            TestRequest::default().uri("/v1/a?list=True"),
        ] {
            assert_eq!(call(request).unwrap().verb, Verb::List);
        }
        assert_eq!(call(TestRequest::default().uri("/v1/a?list=no")).unwrap().verb, Verb::Read);
        assert_eq!(call(TestRequest::put()).unwrap().verb, Verb::Write);
        let odd = TestRequest::default().method(Method::from_bytes(b"BREW").unwrap());
        assert_eq!(call(odd).unwrap_err().status.as_u16(), 405);
    }

    #[test]
    fn a_token_comes_in_one_of_two_headers() {
        for (name, value, token) in [
            ("X-Vault-Token", "t1", Some("t1")),
            ("Authorization", "Bearer t2", Some("t2")),
            ("Authorization", "bearer t3", Some("t3")),
            ("Authorization", "Basic abc", None),
            ("X-Vault-Token", "", None),
        ] {
            let call = call(TestRequest::default().insert_header((name, value))).unwrap();
            assert_eq!(call.token.as_ref().map(SecretText::expose), token, "{name}: {value}");
        }
    }

    #[test]
    fn a_token_in_a_path_is_not_written_down() {
        let id = RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap();
        for (path, shown) in [
            ("auth/token/revoke/s.canary", "auth/token/revoke/<token>"),
            ("auth/token/lookup/s.canary/x", "auth/token/lookup/<token>"),
            ("auth/token/revoke-self", "auth/token/revoke-self"),
            ("auth/token/renew", "auth/token/renew"),
            ("secret/data/a", "secret/data/a"),
            ("secret/data/chosen/x/", "secret/data/<token>/x/"),
            ("secret/data/s.c4naryVALUEc4naryVALUE00", "secret/data/<token>"),
        ] {
            let sent = TestRequest::default().insert_header(("X-Vault-Token", "chosen"));
            let request = sent.to_http_request();
            let call = Call::parse(&request, id, CanonicalPath::parse(path).unwrap()).unwrap();
            assert_eq!(call.shown_path(), shown);
        }
    }

    #[test]
    fn what_is_not_there_yet_is_refused_not_ignored() {
        let wrapped = TestRequest::default().insert_header(("x-vault-wrap-ttl", "60"));
        assert_eq!(call(wrapped).unwrap_err().status.as_u16(), 400);
        let tenant = TestRequest::default().insert_header(("X-Vault-Namespace", "team"));
        assert_eq!(call(tenant).unwrap_err().status.as_u16(), 404);
    }
}
