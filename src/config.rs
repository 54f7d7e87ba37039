//! What the server is told at its start: one TOML file and the environment, parsed once.
//!
//! What exists as a [`Config`] is valid. An unknown key or a bad value is an error that names the
//! key, what is wrong with it and what would be right.

mod audit;
mod database;
mod files;
mod inline;
mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mssm_domain::SecretBytes;
use mssm_storage::{StorageConfig, StorageKind};

pub use audit::AuditConfig;
pub use database::{DatabaseSettings, Databases};

/// The environment, as a map, so that tests need none.
pub type Environment = BTreeMap<String, String>;

/// The environment of this process; variables that are not UTF-8 are none of ours.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What is wrong with the settings, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

impl ConfigError {
    fn at(key: &str, problem: &str, example: &str) -> Self {
        Self(format!("{key}: {problem}; for example {example}"))
    }
}

/// Everything the server is told.
#[derive(Debug)]
pub struct Config {
    /// Where HTTPS is served.
    pub address: SocketAddr,
    /// How clients reach the server.
    pub api_addr: String,
    /// The certificate and key.
    pub tls: TlsConfig,
    /// The store.
    pub storage: StorageConfig,
    /// Where the root key comes from.
    pub seal: SealConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The server's own log.
    pub log: LogConfig,
    /// Bounds of the front door that are set; the rest is the front door's.
    pub limits: LimitsConfig,
    /// Connections and roles of the `db/` mount.
    pub databases: DatabaseSettings,
}

/// The certificate and key of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// PEM files, read again on SIGHUP.
    Files {
        /// The certificate and its chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made in the storage folder, for development.
    SelfSigned,
}

/// Where the root key comes from.
#[derive(Debug)]
pub enum SealConfig {
    /// From shares.
    Shamir,
    /// From a file or the environment: 32 bytes, or why there are none.
    Static(Result<SecretBytes, String>),
}

/// How the server's own log looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// True for JSON lines.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// Bounds that are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The largest body, in bytes.
    pub body_bytes: Option<usize>,
    /// All bodies in flight, in bytes.
    pub bodies_in_flight_bytes: Option<usize>,
    /// Requests worked on at once.
    pub requests_in_flight: Option<usize>,
    /// True to answer `sys/metrics` without a token.
    pub open_metrics: bool,
    /// Connections that one address may hold, on each worker.
    pub connections_per_address: Option<usize>,
    /// Requests a second of one address without a good token; 0 for no bound.
    pub strangers_per_second: Option<u32>,
    /// Requests a second of one address; 0 for no bound.
    pub per_second_per_address: Option<u32>,
    /// Requests a second with one token; 0 for no bound.
    pub per_second_per_token: Option<u32>,
}

impl Config {
    /// Reads the file, if there is one, and the environment over it.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(file) => files::settings_file(file).map_err(ConfigError)?,
        };
        Self::parse(&text, environment).map_err(|error| match file {
            Some(file) => ConfigError(format!("{}: {}", file.display(), error.0)),
            None => error,
        })
    }

    /// Reads settings from text.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let file = raw::parse_file(text)?;
        let over = raw::parse_environment(environment)?;
        let address = over.address.or(file.server.address);
        let address: SocketAddr =
            address.as_deref().unwrap_or("127.0.0.1:8200").parse().map_err(|_| {
                ConfigError::at("server.address", "is not an address and a port", "127.0.0.1:8200")
            })?;
        let api_addr = over.api_addr.or(file.server.api_addr);
        Ok(Self {
            address,
            api_addr: api_addr.unwrap_or_else(|| format!("https://{address}")),
            tls: tls(over.tls_certificate, over.tls_key, over.tls_self_signed, file.tls)?,
            storage: storage(over.storage_kind, over.storage_folder, file.storage)?,
            seal: seal(
                over.seal_kind,
                over.seal_key_file,
                over.seal_key_env,
                file.seal,
                environment,
            )?,
            audit: AuditConfig::new(over.audit_file, file.audit)?,
            log: log(over.log_format, over.log_level, file.log)?,
            limits: LimitsConfig {
                body_bytes: file.limits.body_bytes,
                bodies_in_flight_bytes: file.limits.bodies_in_flight_bytes,
                requests_in_flight: file.limits.requests_in_flight,
                open_metrics: file.limits.open_metrics.unwrap_or(false),
                connections_per_address: file.limits.connections_per_address,
                strangers_per_second: file.limits.strangers_per_second,
                per_second_per_address: file.limits.per_second_per_address,
                per_second_per_token: file.limits.per_second_per_token,
            },
            databases: DatabaseSettings::new(file.db, environment)?,
        })
    }
}

fn tls(
    certificate: Option<String>,
    key: Option<String>,
    self_signed: Option<bool>,
    file: raw::Tls,
) -> Result<TlsConfig, ConfigError> {
    let self_signed = self_signed.or(file.self_signed).unwrap_or(false);
    match (certificate.or(file.certificate), key.or(file.key)) {
        (Some(certificate), Some(key)) if !self_signed => {
            Ok(TlsConfig::Files { certificate: certificate.into(), key: key.into() })
        }
        (None, None) if self_signed => Ok(TlsConfig::SelfSigned),
        (None, None) => Err(ConfigError::at(
            "tls",
            "names no certificate and key",
            "certificate = \"server.crt\" and key = \"server.key\" (development: self_signed = true)",
        )),
        (Some(_), Some(_)) => Err(ConfigError::at(
            "tls.self_signed",
            "contradicts the certificate given",
            "leave one of the two out",
        )),
        _ => Err(ConfigError::at(
            "tls",
            "needs both certificate and key",
            "certificate = \"server.crt\" and key = \"server.key\"",
        )),
    }
}

fn storage(
    kind: Option<String>,
    folder: Option<String>,
    file: raw::Storage,
) -> Result<StorageConfig, ConfigError> {
    let kind = match kind.or(file.kind).as_deref() {
        None | Some("embedded") => StorageKind::Embedded,
        Some("file") => StorageKind::File,
        Some("memory") => StorageKind::Memory,
        Some(_) => {
            let problem = "is none of \"embedded\", \"file\", \"memory\"";
            return Err(ConfigError::at("storage.kind", problem, "kind = \"embedded\""));
        }
    };
    let folder = folder.or(file.folder).map(PathBuf::from).ok_or_else(|| {
        ConfigError::at("storage.folder", "is missing", "folder = \"/var/lib/mssm\"")
    })?;
    Ok(StorageConfig { kind, folder })
}

fn seal(
    kind: Option<String>,
    key_file: Option<String>,
    key_env: Option<String>,
    file: raw::Seal,
    environment: &Environment,
) -> Result<SealConfig, ConfigError> {
    let (key_file, key_env) = (key_file.or(file.key_file), key_env.or(file.key_env));
    match kind.or(file.kind).as_deref() {
        None | Some("shamir") if key_file.is_none() && key_env.is_none() => Ok(SealConfig::Shamir),
        None | Some("shamir") => Err(ConfigError::at(
            "seal.kind",
            "is \"shamir\", which takes no key_file or key_env",
            "kind = \"static\"",
        )),
        Some("static") => match (key_file, key_env) {
            (Some(path), None) => Ok(SealConfig::Static(files::root_key_file(Path::new(&path)))),
            (None, Some(name)) => Ok(SealConfig::Static(files::root_key_env(&name, environment))),
            _ => Err(ConfigError::at(
                "seal",
                "of kind \"static\" needs one of key_file and key_env",
                "key_file = \"/etc/mssm/root.key\"",
            )),
        },
        Some(_) => {
            let problem = "is neither \"shamir\" nor \"static\"";
            Err(ConfigError::at("seal.kind", problem, "kind = \"shamir\""))
        }
    }
}

fn log(
    format: Option<String>,
    level: Option<String>,
    file: raw::Log,
) -> Result<LogConfig, ConfigError> {
    let json = match format.or(file.format).as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(_) => {
            let problem = "is neither \"text\" nor \"json\"";
            return Err(ConfigError::at("log.format", problem, "format = \"text\""));
        }
    };
    let level = level.or(file.level).unwrap_or_else(|| "info".to_owned());
    if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        let problem = "is none of error, warn, info, debug, trace";
        return Err(ConfigError::at("log.level", problem, "level = \"info\""));
    }
    Ok(LogConfig { json, level })
}

#[cfg(test)]
mod tests;
