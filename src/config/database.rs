//! The `[db.*]` part: connections, roles and static roles of the `db/` mount.

use std::path::Path;

use mssm_domain::{ConnectionName, RoleName, SecretText, parse_duration_secs};
use mssm_messages::minter::{ConnectionPatch, RolePatch};
use mssm_messages::rotation::{PlanPatch, StaticRolePatch};

use super::{ConfigError, Environment, files, raw};

/// What the file says of databases; passwords stay where they are until they are needed.
#[derive(Debug)]
pub struct DatabaseSettings {
    raw: raw::Db,
    /// The variables that connections name, and no others.
    environment: Environment,
}

/// What the file defines of databases, passwords included.
#[derive(Debug, Default)]
pub struct Databases {
    /// Connections by name.
    pub connections: Vec<(ConnectionName, ConnectionPatch)>,
    /// Roles by name.
    pub roles: Vec<(RoleName, RolePatch)>,
    /// Static roles by name.
    pub static_roles: Vec<(RoleName, StaticRolePatch)>,
}

impl DatabaseSettings {
    /// Checks all of it once, so that a mistake stops the start.
    pub(super) fn new(raw: raw::Db, environment: &Environment) -> Result<Self, ConfigError> {
        let named = raw.connections.values().filter_map(|raw| raw.password_env.as_ref());
        let environment =
            named.filter_map(|name| Some((name.clone(), environment.get(name)?.clone()))).collect();
        let settings = Self { raw, environment };
        settings.read()?;
        Ok(settings)
    }

    /// Reads passwords and makes the definitions; asked at every unseal, so that a changed password
    /// file counts without a restart.
    pub fn read(&self) -> Result<Databases, ConfigError> {
        parse(self.raw.clone(), &self.environment)
    }
}

fn parse(db: raw::Db, environment: &Environment) -> Result<Databases, ConfigError> {
    let mut databases = Databases::default();
    for (name, raw) in db.connections {
        let key = format!("db.connections.{name}");
        let id = ConnectionName::parse(&name).map_err(|error| {
            ConfigError::at(&key, &error.to_string(), "[db.connections.orders]")
        })?;
        databases.connections.push((id, connection(&key, raw, environment)?));
    }
    for (name, raw) in db.roles {
        let key = format!("db.roles.{name}");
        let id = role_name(&key, &name)?;
        check_known(&databases, &key, &raw.connection)?;
        databases.roles.push((id, role(&key, raw)?));
    }
    for (name, raw) in db.static_roles {
        let key = format!("db.static_roles.{name}");
        let id = role_name(&key, &name)?;
        check_known(&databases, &key, &raw.connection)?;
        databases.static_roles.push((id, static_role(&key, raw)?));
    }
    Ok(databases)
}

fn role_name(key: &str, name: &str) -> Result<RoleName, ConfigError> {
    RoleName::parse(name)
        .map_err(|error| ConfigError::at(key, &error.to_string(), "[db.roles.orders-read]"))
}

fn check_known(databases: &Databases, key: &str, connection: &str) -> Result<(), ConfigError> {
    if databases.connections.iter().any(|(id, _)| id.as_str() == connection) {
        return Ok(());
    }
    let problem = "names a connection that this file does not define";
    let example = format!("[db.connections.{connection}]");
    Err(ConfigError::at(&format!("{key}.connection"), problem, &example))
}

fn connection(
    key: &str,
    raw: raw::Connection,
    environment: &Environment,
) -> Result<ConnectionPatch, ConfigError> {
    let sslmode = match raw.tls.as_deref() {
        None | Some("verify-full") => "verify-full",
        Some("require") => "require",
        Some("disable") => "disable",
        Some(_) => {
            let problem = "is none of verify-full, require, disable";
            return Err(ConfigError::at(&format!("{key}.tls"), problem, "tls = \"verify-full\""));
        }
    };
    let (plugin, url) = match raw.kind.as_deref() {
        None | Some("postgresql") => ("postgresql-database-plugin", postgresql_url(&raw, sslmode)),
        Some("mysql") => ("mysql-database-plugin", mysql_url(&raw, sslmode)),
        Some(_) => {
            let problem = "is none of postgresql, mysql";
            return Err(ConfigError::at(&format!("{key}.kind"), problem, "kind = \"mysql\""));
        }
    };
    let ca = raw.ca_file.as_deref().map(std::fs::read_to_string).transpose();
    let ca = ca.map_err(|error| {
        let file = raw.ca_file.as_deref().unwrap_or_default();
        let problem = format!("cannot read {file}: {error}");
        ConfigError::at(&format!("{key}.ca_file"), &problem, "ca_file = \"/etc/mssm/ca.crt\"")
    })?;
    if raw.rotation_period.is_some() && raw.rotation_schedule.is_some() {
        let problem = "has both rotation_period and rotation_schedule";
        return Err(ConfigError::at(key, problem, "leave one of the two out"));
    }
    let plan = plan(key, raw.rotation_period, raw.rotation_schedule, raw.rotation_window)?;
    Ok(ConnectionPatch {
        plan,
        plugin_name: Some(plugin.to_owned()),
        connection_url: Some(SecretText::new(url)),
        username: Some(raw.username),
        password: password(key, raw.password_file, raw.password_env, environment)?,
        allowed_roles: raw.allowed_roles,
        max_open_connections: raw.max_open_connections,
        tls_ca: ca,
        ..ConnectionPatch::default()
    })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn postgresql_url(raw: &raw::Connection, sslmode: &str) -> String {
    let (port, database) = (raw.port.unwrap_or(5432), encode(&raw.database));
    let host = bracketed(&raw.host);
    let host = if host.starts_with('/') { encode(&host) } else { host };
    format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{database}?sslmode={sslmode}"
    )
}

/// As Go's driver reads it.
fn mysql_url(raw: &raw::Connection, sslmode: &str) -> String {
    let place = if raw.host.starts_with('/') {
        format!("unix({})", raw.host)
    } else {
        format!("tcp({}:{})", bracketed(&raw.host), raw.port.unwrap_or(3306))
    };
    let tls = match sslmode {
        "disable" => "false",
        "require" => "skip-verify",
        _ => "true",
    };
    format!("{{{{username}}}}:{{{{password}}}}@{place}/{}?tls={tls}", raw.database)
}

/// The password. One that cannot be read now is left out, with a warning: the one before stays,
/// since logins that live need it to end, and the server starts all the same.
fn password(
    key: &str,
    file: Option<String>,
    variable: Option<String>,
    environment: &Environment,
) -> Result<Option<SecretText>, ConfigError> {
    let read = match (file, variable) {
        (Some(file), None) => files::secret_file(Path::new(&file)),
        (None, Some(name)) => files::secret_env(&name, environment),
        (Some(_), Some(_)) => {
            let problem = "has both password_file and password_env";
            return Err(ConfigError::at(key, problem, "leave one of the two out"));
        }
        (None, None) => {
            let example = "password_file = \"/etc/mssm/orders.password\"";
            return Err(ConfigError::at(key, "has no password", example));
        }
    };
    Ok(read
        .inspect_err(|problem| {
            tracing::warn!(connection = key, problem, "a database password cannot be read");
        })
        .ok())
}

/// A duration of the file, in seconds.
fn secs(key: &str, name: &str, text: Option<String>) -> Result<Option<u64>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let secs = parse_duration_secs(&text).map_err(|error| {
        let example = format!("{name} = \"1h\"");
        ConfigError::at(&format!("{key}.{name}"), &error.to_string(), &example)
    })?;
    Ok(Some(secs))
}

/// When a password changes. Of period and schedule, the one that is not there takes the other's place.
fn plan(
    key: &str,
    period: Option<String>,
    schedule: Option<String>,
    window: Option<String>,
) -> Result<PlanPatch, ConfigError> {
    Ok(PlanPatch {
        rotation_period_secs: Some(secs(key, "rotation_period", period)?.unwrap_or(0)),
        rotation_schedule: Some(schedule.unwrap_or_default()),
        rotation_window_secs: Some(secs(key, "rotation_window", window)?.unwrap_or(0)),
    })
}

fn static_role(key: &str, raw: raw::StaticRole) -> Result<StaticRolePatch, ConfigError> {
    if raw.rotation_period.is_some() == raw.rotation_schedule.is_some() {
        let problem = "needs one of rotation_period and rotation_schedule";
        return Err(ConfigError::at(key, problem, "rotation_period = \"24h\""));
    }
    if !(1..=2).contains(&raw.usernames.len()) {
        let problem = "is one user, or two that take turns";
        let example = "usernames = [\"orders_a\", \"orders_b\"]";
        return Err(ConfigError::at(&format!("{key}.usernames"), problem, example));
    }
    Ok(StaticRolePatch {
        db_name: Some(raw.connection),
        usernames: Some(raw.usernames),
        rotation_statements: raw.rotation_statements,
        plan: plan(key, raw.rotation_period, raw.rotation_schedule, raw.rotation_window)?,
        credential_type: None,
        scram_iterations: raw.scram_iterations,
    })
}

fn role(key: &str, raw: raw::Role) -> Result<RolePatch, ConfigError> {
    Ok(RolePatch {
        db_name: Some(raw.connection),
        creation_statements: Some(raw.creation),
        revocation_statements: raw.revocation,
        default_ttl_secs: secs(key, "default_ttl", raw.default_ttl)?,
        max_ttl_secs: secs(key, "max_ttl", raw.max_ttl)?,
        owner: raw.owner,
        scram_iterations: raw.scram_iterations,
        orphan_leases: raw.orphan_leases,
        reuse_window_secs: secs(key, "reuse_window", raw.reuse_window)?,
        max_leases: raw.max_leases,
        max_leases_per_token: raw.max_leases_per_token,
        allow_privileged: raw.allow_privileged,
        ..RolePatch::default()
    })
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
