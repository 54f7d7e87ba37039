//! The audit log's settings.

use std::path::PathBuf;
use std::time::Duration;

use mssm_audit::{ConfiguredDevice, Keep, Rotation, Sink, WhenMissing};
use mssm_domain::{Prefix, parse_duration_secs};
use mssm_messages::devices::Device;

use super::{ConfigError, raw};

/// Two of these, one behind the other, are less than two seconds.
const PATIENCE_MS: u64 = 800;
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
    /// How long a request is held up by the audit at most.
    pub patience: Duration,
    /// Where records go as well.
    pub devices: Vec<ConfiguredDevice>,
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
        let patience = file.patience_ms.unwrap_or(PATIENCE_MS);
        if !(50..=60_000).contains(&patience) {
            let problem = "is not between 50 and 60000";
            return Err(ConfigError::at("audit.patience_ms", problem, "800"));
        }
        let patience = Duration::from_millis(patience);
        let path = PathBuf::from(path);
        let mut devices: Vec<ConfiguredDevice> = Vec::new();
        for (name, device) in file.devices {
            let added = configured(&name, device, &path)?;
            if devices.iter().any(|one| one.sink.meets(&added.sink)) {
                let key = format!("audit.devices.{name}");
                let problem = "writes where another one does";
                return Err(ConfigError::at(&key, problem, "another file_path"));
            }
            devices.push(added);
        }
        Ok(Self { file: path, when_missing, rotation, keep, patience, devices })
    }
}

fn configured(
    name: &str,
    device: raw::AuditDevice,
    log: &std::path::Path,
) -> Result<ConfiguredDevice, ConfigError> {
    let key = format!("audit.devices.{name}");
    let example = "[audit.devices.collector]";
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let path = Prefix::parse(name).ok().filter(|path| plain && path.as_str() != "file/");
    let problem = "is no name for a device (\"file\" is the log itself)";
    let path = path.ok_or_else(|| ConfigError::at(&key, problem, example))?;
    let raw::AuditDevice { kind, description, options } = device;
    let sink = Sink::parse(&kind, &options, log);
    let sink = sink.map_err(|problem| ConfigError(format!("{key}: {problem}")))?;
    let description = description.unwrap_or_default();
    Ok(ConfiguredDevice { device: Device { path, kind, description, local: false, options }, sink })
}

fn span(key: &str, text: Option<String>) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match parse_duration_secs(&text) {
        Ok(secs) if secs > 0 => Ok(Some(Duration::from_secs(secs))),
        _ => Err(ConfigError::at(key, "is no span of time", "\"24h\" or \"90d\"")),
    }
}
