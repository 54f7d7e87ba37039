//! How it is written down that a key has signed, and that a token is revoked.

use mssm_domain::{MountId, SecretBytes, Timestamp};
use mssm_messages::engine::EngineError;
use serde::{Deserialize, Serialize};

use super::{FORMAT, at, broken, known, read, write};

/// How often a key has signed, or may have.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsedRecord {
    format: u8,
    pub(crate) kid: String,
    pub(crate) used: u64,
}

impl UsedRecord {
    pub(crate) fn new(kid: String, used: u64) -> Self {
        Self { format: FORMAT, kid, used }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedRecord {
    format: u8,
    mount: String,
    jti: String,
    until: u64,
}

/// The bytes of a count.
pub(crate) fn used_bytes(record: &UsedRecord) -> Result<SecretBytes, EngineError> {
    write(record, 128)
}

/// The count that a record's bytes describe.
pub(crate) fn used(bytes: &SecretBytes) -> Result<UsedRecord, EngineError> {
    let record: UsedRecord = read(bytes)?;
    known(record.format)?;
    Ok(record)
}

/// The bytes of a revocation.
pub(crate) fn revoked_bytes(
    mount: MountId,
    jti: &str,
    until: Timestamp,
) -> Result<SecretBytes, EngineError> {
    let (mount, jti, until) = (mount.to_string(), jti.to_owned(), until.unix_ms());
    write(&RevokedRecord { format: FORMAT, mount, jti, until }, 1024)
}

/// Of which mount's `jti` a revocation is, and until when it matters.
pub(crate) fn revoked(bytes: &SecretBytes) -> Result<(MountId, String, Timestamp), EngineError> {
    let record: RevokedRecord = read(bytes)?;
    known(record.format)?;
    Ok((MountId::parse(&record.mount).map_err(broken)?, record.jti, at(record.until)))
}
