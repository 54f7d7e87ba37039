//! The settings as they are written, before anything is believed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ConfigError, Environment};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) tls: Tls,
    pub(super) storage: Storage,
    pub(super) seal: Seal,
    pub(super) audit: Audit,
    pub(super) log: Log,
    pub(super) limits: Limits,
    pub(super) db: Db,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) address: Option<String>,
    pub(super) api_addr: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) self_signed: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Storage {
    pub(super) kind: Option<String>,
    pub(super) folder: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Seal {
    pub(super) kind: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) key_env: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    pub(super) file: Option<String>,
    pub(super) when_missing: Option<String>,
    pub(super) rotate_bytes: Option<u64>,
    pub(super) rotate_every: Option<String>,
    pub(super) keep_files: Option<usize>,
    pub(super) keep_for: Option<String>,
    pub(super) patience_ms: Option<u64>,
    pub(super) devices: BTreeMap<String, AuditDevice>,
}

/// What it does not know is an option of the device's kind, which knows its own.
#[derive(Debug, Deserialize)]
pub(super) struct AuditDevice {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) description: Option<String>,
    #[serde(flatten)]
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) body_bytes: Option<usize>,
    pub(super) bodies_in_flight_bytes: Option<usize>,
    pub(super) requests_in_flight: Option<usize>,
    pub(super) open_metrics: Option<bool>,
    pub(super) connections_per_address: Option<usize>,
    pub(super) strangers_per_second: Option<u32>,
    pub(super) per_second_per_address: Option<u32>,
    pub(super) per_second_per_token: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Db {
    pub(super) connections: BTreeMap<String, Connection>,
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) static_roles: BTreeMap<String, StaticRole>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) kind: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) database: String,
    pub(super) username: String,
    pub(super) password_file: Option<String>,
    pub(super) password_env: Option<String>,
    pub(super) tls: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) allowed_roles: Option<Vec<String>>,
    pub(super) max_open_connections: Option<u32>,
    pub(super) rotation_period: Option<String>,
    pub(super) rotation_schedule: Option<String>,
    pub(super) rotation_window: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    pub(super) connection: String,
    pub(super) creation: Vec<String>,
    pub(super) revocation: Option<Vec<String>>,
    pub(super) owner: Option<String>,
    pub(super) default_ttl: Option<String>,
    pub(super) max_ttl: Option<String>,
    pub(super) scram_iterations: Option<u32>,
    pub(super) orphan_leases: Option<bool>,
    pub(super) reuse_window: Option<String>,
    pub(super) max_leases: Option<u32>,
    pub(super) max_leases_per_token: Option<u32>,
    pub(super) allow_privileged: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticRole {
    pub(super) connection: String,
    pub(super) usernames: Vec<String>,
    pub(super) rotation_statements: Option<Vec<String>>,
    pub(super) rotation_period: Option<String>,
    pub(super) rotation_schedule: Option<String>,
    pub(super) rotation_window: Option<String>,
    pub(super) scram_iterations: Option<u32>,
}

/// What the environment overrides: `MSSM_SERVER_ADDRESS` and so on.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Overrides {
    pub(super) address: Option<String>,
    pub(super) api_addr: Option<String>,
    pub(super) tls_certificate: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) tls_self_signed: Option<bool>,
    pub(super) storage_kind: Option<String>,
    pub(super) storage_folder: Option<String>,
    pub(super) seal_kind: Option<String>,
    pub(super) seal_key_file: Option<String>,
    pub(super) seal_key_env: Option<String>,
    pub(super) audit_file: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) log_level: Option<String>,
}

/// The names that may follow [`PREFIX`]; any other is a mistake that must not go unseen.
const KNOWN: [&str; 13] = [
    "ADDRESS",
    "API_ADDR",
    "TLS_CERTIFICATE",
    "TLS_KEY",
    "TLS_SELF_SIGNED",
    "STORAGE_KIND",
    "STORAGE_FOLDER",
    "SEAL_KIND",
    "SEAL_KEY_FILE",
    "SEAL_KEY_ENV",
    "AUDIT_FILE",
    "LOG_FORMAT",
    "LOG_LEVEL",
];

const PREFIX: &str = "MSSM_SERVER_";

pub(super) fn parse_file(text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let Some(before) = before else { return ConfigError(error.message().to_owned()) };
        // The library's own text quotes the whole line, which may hold a secret.
        let lines_before = before.matches('\n').count();
        let line = text.lines().nth(lines_before).unwrap_or_default();
        let key = line.split_once('=').map_or("", |(key, _)| key).trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-[]\"".contains(&byte);
        let key = if key.bytes().all(plain) { key } else { "" };
        let number = lines_before.saturating_add(1);
        // Of a value in the wrong place, what would be right.
        let said = error.message();
        let wrong = said.starts_with("invalid ").then(|| said.rsplit_once(", expected ")).flatten();
        let said = wrong.map_or_else(|| said.to_owned(), |(_, right)| format!("expected {right}"));
        ConfigError(format!("line {number} ({key}): {said}"))
    })
}

pub(super) fn parse_environment(environment: &Environment) -> Result<Overrides, ConfigError> {
    let unknown = environment
        .keys()
        .filter_map(|name| name.strip_prefix(PREFIX))
        .find(|name| !KNOWN.contains(name));
    if let Some(name) = unknown {
        let known = KNOWN.join(", ");
        return Err(ConfigError(format!("{PREFIX}{name} is not known; known are {known}")));
    }
    let variables = environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    envy::prefixed(PREFIX)
        .from_iter(variables)
        .map_err(|error| ConfigError(format!("{PREFIX}*: {error}")))
}
