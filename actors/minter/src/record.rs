//! How connections, roles and credentials are written down: JSON, its version first.

use mssm_domain::{ConnectionId, MountId, SecretBytes, SecretText, Ttl};
use mssm_messages::engine::LeaseRules;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::dsn::Dsn;
use crate::rotation::RootRotation;
use crate::tls::Material;

/// The version that is written; others are not read.
const VERSION: u8 = 1;

/// Why a record was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("record of unknown version {0}")]
    Version(u8),
    #[error("malformed record")]
    Malformed,
}

/// A connection to a database server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionRecord {
    version: u8,
    #[serde(with = "connection_id")]
    pub(crate) id: ConnectionId,
    pub(crate) plugin_name: String,
    #[serde(with = "secret_text")]
    pub(crate) connection_url: SecretText,
    pub(crate) username: String,
    #[serde(with = "secret_text")]
    pub(crate) password: SecretText,
    pub(crate) allowed_roles: Vec<String>,
    pub(crate) max_open_connections: u32,
    pub(crate) tls_ca: String,
    pub(crate) tls_certificate: String,
    #[serde(with = "secret_text")]
    pub(crate) tls_key: SecretText,
    pub(crate) password_authentication: String,
    pub(crate) root_rotation_statements: Vec<String>,
    /// True if the configuration file defines it.
    pub(crate) managed: bool,
    /// Which server this is, by PostgreSQL's own word, once it has been seen.
    pub(crate) system_identifier: Option<String>,
    #[serde(default, skip_serializing_if = "RootRotation::is_empty")]
    pub(crate) rotation: RootRotation,
}

impl ConnectionRecord {
    /// A definition with nothing in it but its id and what holds by default.
    pub(crate) fn new(id: ConnectionId) -> Self {
        let empty = || SecretText::new(String::new());
        Self {
            version: VERSION,
            id,
            plugin_name: String::new(),
            connection_url: empty(),
            username: String::new(),
            password: empty(),
            allowed_roles: Vec::new(),
            max_open_connections: 8,
            tls_ca: String::new(),
            tls_certificate: String::new(),
            tls_key: empty(),
            password_authentication: "scram-sha-256".to_owned(),
            root_rotation_statements: Vec::new(),
            managed: false,
            system_identifier: None,
            rotation: RootRotation::default(),
        }
    }

    /// True if it leads to PostgreSQL.
    pub(crate) fn is_postgres(&self) -> bool {
        self.dialect().is_ok_and(|dialect| dialect.is_postgres())
    }

    /// Which kind of database it leads to.
    pub(crate) fn dialect(&self) -> Result<Dialect, String> {
        Dialect::of_plugin(&self.plugin_name)
    }

    /// What it says of TLS.
    pub(crate) fn tls_material(&self) -> Material<'_> {
        Material { ca: &self.tls_ca, certificate: &self.tls_certificate, key: &self.tls_key }
    }

    /// Where it leads.
    pub(crate) fn dsn(&self) -> Result<Dsn, String> {
        // EXPOSE: read for the places it names; a password in it goes where the field's would.
        Dsn::parse(self.dialect()?, self.connection_url.expose())
    }
}

/// A role: how logins are made and ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct RoleRecord {
    version: u8,
    pub(crate) db_name: String,
    pub(crate) creation_statements: Vec<String>,
    pub(crate) revocation_statements: Vec<String>,
    pub(crate) rollback_statements: Vec<String>,
    pub(crate) renew_statements: Vec<String>,
    /// Seconds; 0 leaves it to the mount.
    pub(crate) default_ttl_secs: u64,
    /// Seconds; 0 leaves it to the mount.
    pub(crate) max_ttl_secs: u64,
    pub(crate) owner: Option<String>,
    pub(crate) orphan_leases: bool,
    /// Seconds; 0 is none.
    pub(crate) reuse_window_secs: u64,
    /// 0 is no bound.
    pub(crate) max_leases: u32,
    /// 0 is no bound.
    pub(crate) max_leases_per_token: u32,
    pub(crate) scram_iterations: u32,
    pub(crate) allow_privileged: bool,
    /// True if its self-test went well.
    pub(crate) verified: bool,
    pub(crate) managed: bool,
    /// Whose SQL its statements are.
    #[serde(default, skip_serializing_if = "Dialect::is_postgres")]
    pub(crate) dialect: Dialect,
}

impl RoleRecord {
    /// A definition with nothing in it but what holds by default.
    pub(crate) const fn new() -> Self {
        Self {
            version: VERSION,
            db_name: String::new(),
            creation_statements: Vec::new(),
            revocation_statements: Vec::new(),
            rollback_statements: Vec::new(),
            renew_statements: Vec::new(),
            default_ttl_secs: 0,
            max_ttl_secs: 0,
            owner: None,
            orphan_leases: false,
            reuse_window_secs: 0,
            max_leases: 0,
            max_leases_per_token: 0,
            scram_iterations: mssm_crypto::scram::DEFAULT_ITERATIONS,
            allow_privileged: false,
            verified: false,
            managed: false,
            dialect: Dialect::Postgres,
        }
    }

    /// What it says of its leases.
    pub(crate) fn rules(&self) -> LeaseRules {
        LeaseRules {
            orphan: self.orphan_leases,
            reuse_window: Ttl::from_secs(self.reuse_window_secs).ok(),
            max_leases: self.max_leases,
            max_leases_per_token: self.max_leases_per_token,
        }
    }
}

/// One login: all that making, extending and ending it takes, whatever becomes of its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialRecord {
    version: u8,
    #[serde(with = "mount_id")]
    pub(crate) mount: MountId,
    #[serde(with = "connection_id")]
    pub(crate) connection: ConnectionId,
    pub(crate) connection_name: String,
    pub(crate) role: String,
    /// The version of the role's record that the rest was decided by.
    pub(crate) role_version: u64,
    /// The login's name in the database.
    pub(crate) username: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) revocation_statements: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) renew_statements: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// The self-test that this login is for; nobody was given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<String>,
    /// The role's own number, by which it is found under whatever name; known once it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oid: Option<String>,
    /// The marker on it, where that is another lease's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) marker: Option<String>,
}

/// The names in a [`CredentialRecord`].
pub(crate) struct Names {
    pub(crate) mount: MountId,
    pub(crate) connection: ConnectionId,
    pub(crate) connection_name: String,
    pub(crate) role: String,
    pub(crate) username: String,
}

impl CredentialRecord {
    /// What a role says about a login of this name.
    pub(crate) fn new(names: Names, role: &RoleRecord, role_version: u64) -> Self {
        Self {
            version: VERSION,
            mount: names.mount,
            connection: names.connection,
            connection_name: names.connection_name,
            role: names.role,
            role_version,
            username: names.username,
            revocation_statements: role.revocation_statements.clone(),
            renew_statements: role.renew_statements.clone(),
            owner: role.owner.clone(),
            probe: None,
            oid: None,
            marker: None,
        }
    }
}

/// Writes a record.
pub(crate) fn encode<R: Serialize>(record: &R) -> Result<SecretBytes, RecordError> {
    serde_json::to_vec(record).map(SecretBytes::new).map_err(|_| RecordError::Malformed)
}

/// Reads a record.
pub(crate) fn decode<R: DeserializeOwned>(bytes: &SecretBytes) -> Result<R, RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u8,
    }
    // EXPOSE: reading a record needs its bytes.
    let bytes = bytes.expose();
    let head: Versioned = serde_json::from_slice(bytes).map_err(|_| RecordError::Malformed)?;
    if head.version != VERSION {
        return Err(RecordError::Version(head.version));
    }
    serde_json::from_slice(bytes).map_err(|_| RecordError::Malformed)
}

mod secret_text {
    use mssm_domain::SecretText;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &SecretText, to: S) -> Result<S::Ok, S::Error> {
        // EXPOSE: the record is sealed before it leaves.
        to.serialize_str(text.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretText, D::Error> {
        String::deserialize(from).map(SecretText::new)
    }
}

macro_rules! id_as_text {
    ($module:ident, $id:ident) => {
        mod $module {
            use mssm_domain::$id;
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serializer};

            pub(super) fn serialize<S: Serializer>(id: &$id, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(id)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$id, D::Error> {
                $id::parse(&String::deserialize(from)?).map_err(D::Error::custom)
            }
        }
    };
}

id_as_text!(mount_id, MountId);
id_as_text!(connection_id, ConnectionId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn credential(username: &str, owner: Option<String>) -> CredentialRecord {
        let names = Names {
            mount: MountId::from_uuid(Uuid::from_u128(1)),
            connection: ConnectionId::from_uuid(Uuid::from_u128(2)),
            connection_name: "main".to_owned(),
            role: "app".to_owned(),
            username: username.to_owned(),
        };
        CredentialRecord { owner, ..CredentialRecord::new(names, &RoleRecord::new(), 3) }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(username in "\\PC{0,20}", owner in prop::option::of("\\PC{0,20}")) {
            let record = credential(&username, owner);
            let read: CredentialRecord = decode(&encode(&record).unwrap()).unwrap();
            prop_assert_eq!(read, record);
        }

        #[test]
        fn nothing_else_is_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read = decode::<CredentialRecord>(&SecretBytes::new(bytes));
            prop_assert!(read.is_err());
        }
    }

    #[test]
    fn a_connection_comes_back_with_its_secrets_and_prints_none() {
        let mut record = ConnectionRecord::new(ConnectionId::from_uuid(Uuid::nil()));
        record.password = SecretText::new("hunter2".to_owned());
        let read: ConnectionRecord = decode(&encode(&record).unwrap()).unwrap();
        assert_eq!(read.password.expose(), "hunter2");
        assert!(!format!("{read:?}").contains("hunter2"));
    }

    #[test]
    fn an_unknown_version_and_an_unknown_field_are_errors() {
        let text =
            String::from_utf8(encode(&RoleRecord::new()).unwrap().expose().to_vec()).unwrap();
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        let read = decode::<RoleRecord>(&SecretBytes::new(newer.into_bytes()));
        assert_eq!(read, Err(RecordError::Version(2)));
        let wider = text.replacen('{', "{\"more\":1,", 1);
        let read = decode::<RoleRecord>(&SecretBytes::new(wider.into_bytes()));
        assert_eq!(read, Err(RecordError::Malformed));
    }
}
