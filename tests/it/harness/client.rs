//! An HTTPS client that trusts one server's certificate and judges nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Longer than any time limit of the server's own.
const PATIENCE: Duration = Duration::from_secs(70);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A client of one server, with or without a token.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    asked: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The text parsed; null if it is empty.
    pub(crate) json: Value,
}

impl Client {
    pub(crate) fn new(port: u16, certificate: &[u8], token: Option<&str>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Certificate::from_pem(certificate).expect("the server's certificate");
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[roots]))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .tls_config(tls)
            .build()
            .into();
        let base = format!("https://127.0.0.1:{port}");
        Self { agent, base, token: token.map(str::to_owned) }
    }

    /// The same client with a token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without one.
    pub(crate) fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("a client with a token")
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    #[track_caller]
    pub(crate) fn list(&self, path: &str) -> Answer {
        self.send("LIST", path, &[], None)
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    /// Sends a body as it is, for numbers that no library would leave alone.
    #[track_caller]
    pub(crate) fn post_text(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], Some(body))
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[], Some(&body.to_string()))
    }

    #[track_caller]
    pub(crate) fn merge(&self, path: &str, body: Value) -> Answer {
        let kind = [("Content-Type", "application/merge-patch+json")];
        self.send("PATCH", path, &kind, Some(&body.to_string()))
    }

    /// Sends anything to a path below `/v1/`.
    #[track_caller]
    pub(crate) fn send(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        match self.try_send(verb, path, headers, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{verb} {path}: {error}"),
        }
    }

    /// The same, for servers that may not be there.
    pub(crate) fn try_send(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let asked = format!("{verb} {path}");
        let mut request = Request::builder().method(verb).uri(format!("{}/v1/{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("X-Vault-Token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body.to_owned())?),
            None => self.agent.run(request.body(())?),
        }?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        let text = String::from_utf8(bytes).expect("an answer in UTF-8");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { asked, status, headers, text, json })
    }
}

impl Answer {
    /// Fails unless the status is this.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text);
        self
    }

    /// Fails unless it says this status and these words.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, words: &str) -> Self {
        let answer = self.expect(status);
        assert!(
            answer.errors().contains(words),
            "{}: {words:?} is not in {}",
            answer.asked,
            answer.text
        );
        answer
    }

    /// What it says went wrong.
    pub(crate) fn errors(&self) -> String {
        let errors = self.json["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn data(&self) -> &Value {
        &self.json["data"]
    }

    /// The names that a list holds.
    pub(crate) fn keys(&self) -> Vec<String> {
        texts(&self.json["data"]["keys"])
    }

    pub(crate) fn warnings(&self) -> String {
        texts(&self.json["warnings"]).join("\n")
    }

    /// A member that must be text.
    #[track_caller]
    pub(crate) fn text_at(&self, pointer: &str) -> String {
        match self.json.pointer(pointer).and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => panic!("{}: no text at {pointer} in {}", self.asked, self.text),
        }
    }

    /// A member that must be a whole number.
    #[track_caller]
    pub(crate) fn number_at(&self, pointer: &str) -> i64 {
        match self.json.pointer(pointer).and_then(Value::as_i64) {
            Some(number) => number,
            None => panic!("{}: no number at {pointer} in {}", self.asked, self.text),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
