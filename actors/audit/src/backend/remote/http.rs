//! A collector over HTTP or HTTPS: each batch is posted as lines of JSON and taken with a 2xx.

use std::io;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::{Carrier, LIMIT};

/// A way to a collector.
pub(crate) struct Http {
    uri: String,
    agent: ureq::Agent,
}

impl Http {
    /// A way to this address; `authority` in PEM is believed instead of the system's.
    pub(crate) fn new(uri: String, authority: Option<&str>) -> Result<Self, String> {
        let mut config = ureq::Agent::config_builder()
            // What is to be written down goes nowhere but there.
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(LIMIT))
            .user_agent(concat!("mssm/", env!("CARGO_PKG_VERSION")));
        if uri.starts_with("https://") {
            config = config.tls_config(tls(authority)?);
        }
        Ok(Self { uri, agent: config.build().into() })
    }
}

fn tls(authority: Option<&str>) -> Result<TlsConfig, String> {
    let certificates: Vec<Certificate<'static>> = if let Some(pem) = authority {
        let items = parse_pem(pem.as_bytes()).filter_map(Result::ok);
        let certificate = |item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        };
        items.filter_map(certificate).collect()
    } else {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect()
    };
    if certificates.is_empty() {
        return Err("no certificate authority is known: give one in ca_cert, in PEM".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .build())
}

impl Carrier for Http {
    fn carry(&mut self, lines: &[u8]) -> io::Result<()> {
        let posted = self.agent.post(&self.uri).header("Content-Type", "application/x-ndjson");
        let status = posted.send(lines).map_err(io::Error::other)?.status();
        // A redirection is no receipt.
        if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
    }

    fn place(&self) -> String {
        self.uri.clone()
    }
}
