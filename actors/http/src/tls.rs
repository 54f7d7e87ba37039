//! The certificate and the rules of TLS; both can be renewed while the server runs.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind that is needed.
    #[error("{file}: {problem}")]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not go together, or the key is of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(String),
}

/// The certificate in force; every new connection asks for it.
#[derive(Debug)]
pub struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the certificate chain and its key from PEM files.
    pub fn load(
        certificate_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> Result<Arc<Self>, TlsError> {
        let (certificate_file, key_file) = (certificate_file.into(), key_file.into());
        let current = RwLock::new(read(&certificate_file, &key_file)?);
        Ok(Arc::new(Self { certificate_file, key_file, current }))
    }

    /// Reads the files again; if they do not go together the certificate in force stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = read(&self.certificate_file, &self.key_file)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(certificate_file: &PathBuf, key_file: &PathBuf) -> Result<Arc<CertifiedKey>, TlsError> {
    let file = |file: &PathBuf, problem: String| TlsError::File { file: file.clone(), problem };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate_file)
        .map_err(|error| file(certificate_file, error.to_string()))?
        .collect();
    let chain = chain.map_err(|error| file(certificate_file, error.to_string()))?;
    if chain.is_empty() {
        return Err(file(certificate_file, "holds no certificate".to_owned()));
    }
    let mode =
        std::fs::metadata(key_file).map_err(|error| file(key_file, error.to_string()))?.mode();
    if mode & 0o007 != 0 {
        let problem = format!("can be read by other users; run chmod 600 {}", key_file.display());
        return Err(file(key_file, problem));
    }
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| file(key_file, error.to_string()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| TlsError::Unusable(error.to_string()))
}

/// TLS 1.2 and 1.3 with this certificate, for HTTP/1.1.
pub(crate) fn config(certificate: Arc<Certificate>) -> Result<ServerConfig, TlsError> {
    let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumption saves the server nothing worth a second ticket.
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::selfsigned;

    #[test]
    fn a_new_certificate_is_taken_up_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = selfsigned::ensure(folder.path(), "mssm.test").unwrap();
        let certificate = Certificate::load(&chain, &key).unwrap();
        let serial =
            || certificate.current.read().unwrap().cert.first().map(|cert| cert.to_vec()).unwrap();
        let before = serial();
        std::fs::write(&chain, "no certificate").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(serial(), before);
        std::fs::remove_file(&chain).unwrap();
        selfsigned::ensure(folder.path(), "mssm.test").unwrap();
        certificate.reload().unwrap();
        assert_ne!(serial(), before);
        // A key that others can read is refused; the one in force stays.
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("chmod 600"));
        assert!(config(certificate).is_ok());
    }
}
