//! The audit log's settings.

use std::path::PathBuf;
use std::time::Duration;

use mssm_audit::{Keep, Mirror, Rotation, WhenMissing};
use mssm_domain::parse_duration_secs;

use super::{ConfigError, raw};

/// A file of this size is verified in seconds, and compresses to about a tenth.
const ROTATE_BYTES: u64 = 256 << 20;

/// Where the audit log is, how long its files are kept, and what is done when one is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file.
    pub file: PathBuf,
    /// What to do at unsealing when lines of an earlier run are missing.
    pub when_missing: WhenMissing,
    /// When the file is closed and another begun.
    pub rotation: Rotation,
    /// How long closed files are kept.
    pub keep: Keep,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
}

impl AuditConfig {
    pub(super) fn new(over: Option<String>, file: raw::Audit) -> Result<Self, ConfigError> {
        let path = over.or(file.file).ok_or_else(|| {
            let example = "file = \"/var/log/mssm/audit.log\"";
            ConfigError::at("audit.file", "is missing", example)
        })?;
        let when_missing = match file.when_missing.as_deref() {
            None | Some("warn") => WhenMissing::Warn,
            Some("refuse") => WhenMissing::Refuse,
            Some(_) => {
                let problem = "is neither \"warn\" nor \"refuse\"";
                return Err(ConfigError::at("audit.when_missing", problem, "\"warn\""));
            }
        };
        let bytes = file.rotate_bytes.unwrap_or(ROTATE_BYTES);
        let rotation = Rotation {
            bytes: (bytes > 0).then_some(bytes),
            every: span("audit.rotate_every", file.rotate_every)?,
        };
        let keep = Keep { files: file.keep_files, age: span("audit.keep_for", file.keep_for)? };
        let mirrors = file.mirrors.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?;
        Ok(Self { file: path.into(), when_missing, rotation, keep, mirrors })
    }
}

fn mirror(text: &str) -> Result<Mirror, ConfigError> {
    match text.split_once(':') {
        None if text == "stdout" => Ok(Mirror::Stdout),
        Some(("unix", path)) if path.starts_with('/') => Ok(Mirror::Unix(path.into())),
        Some(("tcp", address)) if address.contains(':') => Ok(Mirror::Tcp(address.to_owned())),
        _ => {
            let problem = "has one that is none of stdout, unix:/PATH and tcp:HOST:PORT";
            Err(ConfigError::at("audit.mirrors", problem, "[\"unix:/run/collector.sock\"]"))
        }
    }
}

fn span(key: &str, text: Option<String>) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration_secs(&text) {
        Ok(secs) if secs > 0 => Ok(Some(Duration::from_secs(secs))),
        _ => Err(ConfigError::at(key, "is no span of time", "\"24h\" or \"90d\"")),
    }
}
