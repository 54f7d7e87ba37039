//! Secrets that settings point to: read once, refused if others can read them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::{SecretBytes, SecretText};

use super::{Environment, inline};

/// A file's secrets are a password or a key: more is a mistake.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads the settings. Others may read them while no secret stands in them; who could write them could name
/// another store, log and key.
pub(super) fn settings_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o022 != 0 {
        return Err(format!("{shown} can be written by other users; run chmod go-w {shown}"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    if let Some(key) = inline::secret(&text).filter(|_| mode & 0o044 != 0) {
        let what = format!("{shown} can be read by other users and holds a secret ({key})");
        return Err(format!("{what}; run chmod 600 {shown}"));
    }
    Ok(text)
}

/// Reads a file that only its owner can read; without the line break at its end.
pub(super) fn secret_file(path: &Path) -> Result<SecretText, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot read {shown}: {error}"))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("{shown} can be read by other users; run chmod 600 {shown}"));
    }
    let mut text = String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    let secret = SecretText::new(text);
    // EXPOSE: cut and wrapped again.
    let trimmed = secret.expose().trim_end_matches(['\r', '\n']).to_owned();
    Ok(SecretText::new(trimmed))
}

/// Reads a variable of the environment.
pub(super) fn secret_env(name: &str, environment: &Environment) -> Result<SecretText, String> {
    let value = environment.get(name).filter(|value| !value.is_empty());
    value.map(|value| SecretText::new(value.clone())).ok_or_else(|| format!("{name} is not set"))
}

/// Reads the static root key from a file.
pub(super) fn root_key_file(path: &Path) -> Result<SecretBytes, String> {
    root_key(&secret_file(path)?).map_err(|problem| format!("{} {problem}", path.display()))
}

/// Reads the static root key from the environment.
pub(super) fn root_key_env(name: &str, environment: &Environment) -> Result<SecretBytes, String> {
    root_key(&secret_env(name, environment)?).map_err(|problem| format!("{name} {problem}"))
}

fn root_key(text: &SecretText) -> Result<SecretBytes, String> {
    // EXPOSE: decoded and wrapped again.
    let text = text.expose().trim();
    let hexadecimal = (text.len() == 64).then(|| hex::decode(text).ok()).flatten();
    let bytes = hexadecimal.or_else(|| STANDARD.decode(text).ok()).map(SecretBytes::new);
    // EXPOSE: only counted.
    bytes.filter(|bytes| bytes.expose().len() == 32).ok_or_else(|| {
        "does not hold 32 bytes in hexadecimal or base64; make some with openssl rand -base64 32"
            .to_owned()
    })
}
