//! TLS to the database: who is believed, and who we say we are.

use std::sync::Arc;

use mssm_domain::SecretText;
use mssm_messages::minter::DatabaseTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What a connection's definition says about TLS, in PEM; empty where it says nothing.
pub(crate) struct Material<'a> {
    pub(crate) ca: &'a str,
    pub(crate) certificate: &'a str,
    pub(crate) key: &'a SecretText,
}

/// The client's side of TLS; `None` where there is none. An error says which part is wrong.
pub(crate) fn client(
    mode: &DatabaseTls,
    material: &Material<'_>,
) -> Result<Option<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match mode {
        DatabaseTls::Disable => return Ok(None),
        DatabaseTls::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider })),
        DatabaseTls::VerifyFull => builder.with_root_certificates(roots(material.ca)?),
    };
    if material.certificate.is_empty() {
        return Ok(Some(builder.with_no_client_auth()));
    }
    let chain = CertificateDer::pem_slice_iter(material.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "tls_certificate is not PEM")?;
    // EXPOSE: TLS signs with the client's key.
    let key = PrivateKeyDer::from_pem_slice(material.key.expose().as_bytes())
        .map_err(|_| "the client certificate's key is missing or not PEM")?;
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|_| "the client certificate and its key do not fit")?;
    Ok(Some(config))
}

fn roots(ca: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        // The system's own; those that do not parse are of no use to anybody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    }
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let added = certificate.map(|certificate| roots.add(certificate));
        if !matches!(added, Ok(Ok(()))) {
            return Err("tls_ca is not a certificate in PEM".to_owned());
        }
    }
    if roots.is_empty() { Err("tls_ca holds no certificate".to_owned()) } else { Ok(roots) }
}

/// Believes whoever answers, as `sslmode=require` promises: encryption, no identity.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_pem_is_refused_by_name() {
        let key = SecretText::new(String::new());
        let with = |ca, certificate| {
            client(&DatabaseTls::VerifyFull, &Material { ca, certificate, key: &key })
        };
        assert!(with("x", "").unwrap_err().contains("tls_ca"));
        assert!(with("", "x").is_err());
        let none = Material { ca: "", certificate: "", key: &key };
        assert!(client(&DatabaseTls::Disable, &none).unwrap().is_none());
        assert!(client(&DatabaseTls::Require, &none).unwrap().is_some());
    }
}
