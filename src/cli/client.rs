//! Sends calls over HTTPS: the one place of the command line that knows the network.

use std::path::Path;
use std::sync::Arc;

use mssm_domain::SecretText;
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::call::{Answer, Call, Transport, Verb};
use super::failure::Failure;
use super::hints;
use super::settings::Settings;

/// The largest answer that is read, in bytes: twice what a server accepts as a request.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A client of one server.
pub(crate) struct Client {
    agent: ureq::Agent,
    address: String,
    namespace: Option<String>,
    token: Option<SecretText>,
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    pub(crate) fn new(settings: &Settings, token: Option<SecretText>) -> Result<Self, Failure> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            // A token follows no redirect, and goes through no proxy that was set for something else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(settings.timeout))
            .user_agent(concat!("mssm/", env!("CARGO_PKG_VERSION")));
        if settings.address.starts_with("https://") {
            config = config.tls_config(tls(settings)?);
        }
        Ok(Self {
            agent: config.build().into(),
            address: settings.address.clone(),
            namespace: settings.namespace.clone(),
            token,
        })
    }

    fn request(&self, call: &Call) -> Result<ureq::http::Request<Vec<u8>>, ureq::http::Error> {
        let mut request = ureq::http::Request::builder()
            .method(call.verb.text())
            .uri(format!("{}{}", self.address, call.target()))
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = call.token.as_ref().or(self.token.as_ref()) {
            // EXPOSE: the server must see the token; the header is marked so that nothing prints it.
            let mut value = ureq::http::HeaderValue::from_str(token.expose())?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if call.body.is_some() {
            let patch = call.verb == Verb::Patch;
            let kind = if patch { "application/merge-patch+json" } else { "application/json" };
            request = request.header("Content-Type", kind);
        }
        request
            .body(call.body.as_ref().map(|body| body.to_string().into_bytes()).unwrap_or_default())
    }

    /// Takes a token out of a text that came from elsewhere, should it have got in there.
    fn without_token(&self, call: &Call, text: String) -> String {
        match call.token.as_ref().or(self.token.as_ref()) {
            // EXPOSE: compared with the text, to take it out of there.
            Some(token) if !token.expose().is_empty() => text.replace(token.expose(), "<token>"),
            _ => text,
        }
    }
}

impl Transport for Client {
    fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let failed = |error: ureq::Error| {
            let text = self.without_token(call, error.to_string());
            hints::unreachable(&self.address, &text)
        };
        // The reason is not repeated: it can only be a token or namespace that fits no header.
        let request = self.request(call).map_err(|_| {
            Failure::usage(
                "the address, the token or the namespace holds a character that HTTP cannot carry",
            )
        })?;
        let mut response = match &call.body {
            Some(_) => self.agent.run(request),
            None => self.agent.run(request.map(|_| ())),
        }
        .map_err(failed)?;
        let status = response.status().as_u16();
        let bytes = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(failed)?;
        let body = parsed(&bytes, status)?;
        Ok(Answer { status, body: cleaned(body, |text| self.without_token(call, text)) })
    }

    fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Reads a body as JSON; an error's body may be plain text, which is kept as the error's text.
fn parsed(bytes: &[u8], status: u16) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice(bytes) {
        Ok(body) => Ok(body),
        Err(_) if status >= 400 => {
            let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
            Ok(serde_json::json!({ "errors": [text.trim()] }))
        }
        // The parser's reason is left out: it may quote the answer.
        Err(_) => Err(Failure::advised(
            format!("the answer ({status}) is not JSON"),
            "check that MSSM_ADDR is the address of a secrets server; what is no JSON, like sys/metrics, read with curl",
        )),
    }
}

/// Takes the token out of error texts; data is left as the server sent it.
fn cleaned(mut body: Value, clean: impl Fn(String) -> String) -> Value {
    if let Some(Value::Array(errors)) = body.get_mut("errors") {
        for error in errors {
            if let Value::String(text) = error {
                *text = clean(std::mem::take(text));
            }
        }
    }
    body
}

fn tls(settings: &Settings) -> Result<TlsConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = if settings.skip_verify {
        RootCerts::Specific(Arc::new(Vec::new()))
    } else {
        let authorities = match &settings.ca_cert {
            Some(path) => authorities_in(path)?,
            None => system_authorities()?,
        };
        RootCerts::Specific(Arc::new(authorities))
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots)
        .disable_verification(settings.skip_verify)
        .build())
}

fn authorities_in(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let place = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "check MSSM_CACERT (or -ca-cert); a self-signed server writes it at its first start: is the server running?"
            }
            _ => "check MSSM_CACERT (or -ca-cert)",
        };
        Failure::advised(format!("cannot read {place}: {error}"), hint)
    })?;
    let certificates: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Failure::advised(
            format!("{place} holds no PEM certificate"),
            "MSSM_CACERT names a file with -----BEGIN CERTIFICATE----- in it",
        ));
    }
    Ok(certificates)
}

fn system_authorities() -> Result<Vec<Certificate<'static>>, Failure> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(Failure::advised(
            "this system has no certificate authorities installed",
            "set MSSM_CACERT to the PEM file of the server's authority",
        ));
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_literal() {
        let body = parsed(b"{\"n\":12345678901234567890123.50,\"z\":1e400}", 200).unwrap();
        assert_eq!(body.to_string(), "{\"n\":12345678901234567890123.50,\"z\":1e+400}");
    }

    #[test]
    fn an_error_page_that_is_not_json_is_still_shown() {
        let body = parsed(b"Client sent an HTTP request to an HTTPS server.\n", 400).unwrap();
        assert!(body.to_string().contains("HTTPS server."));
    }

    #[test]
    fn a_good_status_with_something_else_than_json_is_a_failure_that_quotes_nothing() {
        let failure = parsed(b"<html>hunter2", 200).unwrap_err();
        assert!(!failure.message().contains("hunter2"));
    }

    /// Catalogue: GHSA-444v.
    #[test]
    fn the_token_is_taken_out_of_error_texts() {
        let body = serde_json::json!({"errors": ["bad token s.abc", 1], "data": "s.abc"});
        let body = cleaned(body, |text| text.replace("s.abc", "<token>"));
        assert_eq!(body.to_string(), r#"{"data":"s.abc","errors":["bad token <token>",1]}"#);
    }
}
