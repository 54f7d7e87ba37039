//! A collector over HTTP or HTTPS: each batch is posted as lines of JSON and taken with a 2xx.

use std::io;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::{Carrier, LIMIT};

/// What is posted at once, in bytes, unless one line is longer. Collectors have a bound, many of them 1 MiB: who was
/// away for a while would never get what waits.
const POST: usize = 512 << 10;

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

/// How much of whole lines goes together: at least one.
fn portion(lines: &[u8]) -> usize {
    let Some(head) = lines.get(..POST) else { return lines.len() };
    let is_end = |byte: &u8| *byte == b'\n';
    let end = head.iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
    end.map_or(lines.len(), |at| at + 1)
}

impl Http {
    fn post(&self, lines: &[u8]) -> io::Result<()> {
        let posted = self.agent.post(&self.uri).header("Content-Type", "application/x-ndjson");
        let status = posted.send(lines).map_err(io::Error::other)?.status();
        // A redirection is no receipt.
        if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
    }
}

impl Carrier for Http {
    fn carry(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while let Some((post, later)) = rest.split_at_checked(portion(rest))
            && !post.is_empty()
        {
            self.post(post)?;
            rest = later;
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.uri.clone()
    }
}
