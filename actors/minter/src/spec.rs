//! What it takes to open a session: made once of a connection's definition.

use mssm_domain::{BootId, ClusterId, SecretText};
use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::dsn::Dsn;
use crate::record::ConnectionRecord;
use crate::tls::{self, Material};

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Making and extending logins.
    Mint,
    /// Changing passwords of users that stay.
    Rotate,
    /// Ending them; never waits behind making.
    Revoke,
}

/// All that a [`crate::engine::Dialer`] needs.
pub struct Spec {
    pub(crate) config: Config,
    /// Tried if the server refuses the password in `config`: one of them may hold while, or since, it
    /// was changed.
    pub(crate) others: Vec<SecretText>,
    pub(crate) tls: Option<ClientConfig>,
    /// Run first in every session.
    pub(crate) settings: String,
}

/// The sessions of one run of the server that make logins, as `pg_stat_activity` names them.
///
/// 63 bytes are all there is: a cluster's first 16 digits, a boot's 32.
pub(crate) fn application_name(cluster: ClusterId, boot: BootId, lane: Lane) -> String {
    let lane = match lane {
        Lane::Mint => 'm',
        Lane::Rotate => 'p',
        Lane::Revoke => 'r',
    };
    format!("{}{lane}", run_prefix(cluster, boot))
}

/// How the names of all sessions of one run begin.
pub(crate) fn run_prefix(cluster: ClusterId, boot: BootId) -> String {
    format!("{}{}:", cluster_prefix(cluster), boot.uuid().simple())
}

/// How the names of all sessions of all runs begin.
pub(crate) fn cluster_prefix(cluster: ClusterId) -> String {
    let cluster = cluster.uuid().simple().to_string();
    format!("mssm:{}:", cluster.get(..16).unwrap_or(&cluster))
}

impl Spec {
    /// The name that the session says it has; it tells which run of the server opened it, and why.
    pub fn application(&self) -> &str {
        self.config.get_application_name().unwrap_or_default()
    }

    /// Reads a definition; an error says what is wrong with it.
    pub(crate) fn new(
        record: &ConnectionRecord,
        application: &str,
        lane: Lane,
    ) -> Result<Self, String> {
        // EXPOSE: read for the places it names; a password in it goes where the field's would.
        let dsn = Dsn::parse(record.connection_url.expose())?;
        let mut config = Config::new();
        for (host, port) in &dsn.hosts {
            config.host(host).port(*port);
        }
        let user = dsn.username(&record.username).ok_or("no username")?;
        config.user(user.clone()).dbname(dsn.database.clone().unwrap_or(user));
        let mut others = Vec::new();
        if let Some(password) = dsn.password(&record.password) {
            // EXPOSE: the driver logs in with it.
            config.password(password.expose());
            let differs = |other: &&SecretText| !other.is_same_as(&password);
            others.extend(record.rotation.others().filter(differs).map(SecretText::duplicate));
        }
        if let Some(options) = &dsn.options {
            config.options(options);
        }
        let mode = dsn.tls(!record.tls_ca.is_empty());
        let material = Material {
            ca: &record.tls_ca,
            certificate: &record.tls_certificate,
            key: &record.tls_key,
        };
        let tls = tls::client(&mode, &material)?;
        let ssl = if tls.is_some() { SslMode::Require } else { SslMode::Disable };
        config
            .ssl_mode(ssl)
            .application_name(application)
            .connect_timeout(std::time::Duration::from_secs(5))
            .keepalives_idle(std::time::Duration::from_secs(30));
        Ok(Self { config, others, tls, settings: settings(lane) })
    }

    /// The same, with this password and no other.
    pub(crate) fn with_only(mut self, password: &SecretText) -> Self {
        // EXPOSE: the driver logs in with it.
        self.config.password(password.expose());
        self.others.clear();
        self
    }
}

/// What must hold in a session whatever the database's defaults are.
///
/// `synchronous_commit`: an acknowledged end of a login stays. `lock_timeout`: rung 1 of the ladder
/// finds out fast that it is blocked. `standard_conforming_strings`: our quoting holds.
fn settings(lane: Lane) -> String {
    let lock_timeout_ms = match lane {
        Lane::Mint | Lane::Rotate => 5_000,
        Lane::Revoke => 500,
    };
    format!(
        "SET synchronous_commit = on; SET lock_timeout = {lock_timeout_ms}; \
         SET statement_timeout = 9000; SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; \
         SET standard_conforming_strings = on; SET client_min_messages = error"
    )
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_name_of_an_application_fits() {
        let id = Uuid::from_u128(u128::MAX);
        let name = application_name(ClusterId::from_uuid(id), BootId::from_uuid(id), Lane::Mint);
        assert_eq!(name.len(), 56);
        let (run, all) = (
            run_prefix(ClusterId::from_uuid(id), BootId::from_uuid(id)),
            cluster_prefix(ClusterId::from_uuid(id)),
        );
        assert!(name.starts_with(&run) && run.starts_with(&all) && all.len() == 22, "{run} {all}");
    }
}
