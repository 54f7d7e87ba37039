//! The audit log's settings.

use std::path::PathBuf;

use mssm_audit::WhenMissing;

use super::{ConfigError, raw};

/// Where the audit log is, and what is done when it is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file.
    pub file: PathBuf,
    /// What to do at unsealing when lines of an earlier run are missing.
    pub when_missing: WhenMissing,
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
        Ok(Self { file: path.into(), when_missing })
    }
}
