//! How a mount is written down.

use std::collections::BTreeMap;

use mssm_domain::{MountId, Prefix, RecordPath, SecretBytes, Ttl};
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::{AuditRules, Mount, MountError};
use serde::{Deserialize, Serialize};

/// The format that is written; 1, which knew no audit rules, is read as well, others are refused.
const FORMAT: u8 = 2;

#[derive(Serialize, Deserialize)]
struct MountRecord {
    format: u8,
    id: String,
    prefix: String,
    kind: String,
    version: u8,
    description: String,
    accessor: String,
    default_ttl: Option<u64>,
    max_ttl: Option<u64>,
    listed_unauthenticated: bool,
    leaving: bool,
    built_in: bool,
    #[serde(default)]
    audit: AuditRecord,
}

#[derive(Default, Serialize, Deserialize)]
struct AuditRecord {
    clear_request: Vec<String>,
    clear_response: Vec<String>,
    hash_names: bool,
    headers: BTreeMap<String, bool>,
}

/// Where all mounts lie.
pub(crate) fn folder() -> RecordPath {
    RecordPath::new(&["mount"])
}

/// Where a mount lies.
pub(crate) fn path(id: MountId) -> RecordPath {
    folder().child(&id.to_string())
}

/// The bytes of a mount.
pub(crate) fn bytes(mount: &Mount) -> Result<SecretBytes, MountError> {
    let record = MountRecord {
        format: FORMAT,
        id: mount.id.to_string(),
        prefix: mount.prefix.as_str().to_owned(),
        kind: mount.kind.name().to_owned(),
        version: mount.version,
        description: mount.description.clone(),
        accessor: mount.accessor.clone(),
        default_ttl: mount.default_ttl.map(Ttl::secs),
        max_ttl: mount.max_ttl.map(Ttl::secs),
        listed_unauthenticated: mount.listed_unauthenticated,
        leaving: mount.leaving,
        built_in: mount.built_in,
        audit: AuditRecord {
            clear_request: mount.audit.clear_request.clone(),
            clear_response: mount.audit.clear_response.clone(),
            hash_names: mount.audit.hash_names,
            headers: mount.audit.headers.clone(),
        },
    };
    serde_json::to_vec(&record).map(SecretBytes::new).map_err(|_| MountError::Internal)
}

/// The mount that a record's bytes describe.
pub(crate) fn mount(bytes: &SecretBytes) -> Result<Mount, MountError> {
    // EXPOSE: a mount's description is no secret; it is stored sealed like everything.
    let record: MountRecord =
        serde_json::from_slice(bytes.expose()).map_err(|_| MountError::Internal)?;
    if !(1..=FORMAT).contains(&record.format) {
        return Err(MountError::Internal);
    }
    let ttl =
        |secs: Option<u64>| secs.map(Ttl::from_secs).transpose().map_err(|_| MountError::Internal);
    Ok(Mount {
        id: MountId::parse(&record.id).map_err(|_| MountError::Internal)?,
        prefix: Prefix::parse(&record.prefix).map_err(|_| MountError::Internal)?,
        kind: EngineKind::parse(&record.kind).ok_or(MountError::Internal)?,
        version: record.version,
        description: record.description,
        accessor: record.accessor,
        default_ttl: ttl(record.default_ttl)?,
        max_ttl: ttl(record.max_ttl)?,
        listed_unauthenticated: record.listed_unauthenticated,
        leaving: record.leaving,
        built_in: record.built_in,
        audit: AuditRules {
            clear_request: record.audit.clear_request,
            clear_response: record.audit.clear_response,
            hash_names: record.audit.hash_names,
            headers: record.audit.headers,
        },
    })
}
