//! A certificate for development, signed by itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::generate_simple_self_signed;

use crate::tls::TlsError;

/// The certificate's file; clients trust it as their CA.
const CERTIFICATE: &str = "tls.crt";
/// The key's file.
const KEY: &str = "tls.key";

/// Makes a certificate for this machine in a folder, unless there is one; replies certificate and key.
pub fn ensure(folder: &Path, hostname: &str) -> Result<(PathBuf, PathBuf), TlsError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !hostname.is_empty() && hostname.is_ascii() && !names.iter().any(|name| name == hostname) {
        names.push(hostname.to_owned());
    }
    let made = generate_simple_self_signed(names)
        .map_err(|error| TlsError::Unusable(error.to_string()))?;
    write(&key, &made.signing_key.serialize_pem())?;
    write(&certificate, &made.cert.pem())?;
    Ok((certificate, key))
}

fn write(file: &Path, text: &str) -> Result<(), TlsError> {
    let problem = |error: std::io::Error| TlsError::File {
        file: file.to_owned(),
        problem: error.to_string(),
    };
    let _ = std::fs::remove_file(file);
    let mut handle =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(problem)?;
    handle.write_all(text.as_bytes()).and_then(|()| handle.sync_all()).map_err(problem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = ensure(folder.path(), "mssm.test").unwrap();
        let before = std::fs::read(&certificate).unwrap();
        ensure(folder.path(), "mssm.test").unwrap();
        assert_eq!(std::fs::read(&certificate).unwrap(), before);
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
