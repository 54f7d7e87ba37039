//! How a lease is written down: one version byte, a JSON header with its length, the engine's bytes.
//!
//! A live lease lies under `lease/<id>`; beside it `lease-by-token/<token>/<id>` says whose it is.
//! An ended one lies under `lease-ended/<id>` until it is tidied away.

use mssm_domain::{
    Accessor, BootId, ConnectionId, Lease, LeaseId, LeaseState, MountId, RecordPath, RoleName,
    SecretBytes, Timestamp, TokenId, Ttl,
};
use mssm_messages::engine::EngineKind;
use serde::{Deserialize, Serialize};

/// The form that is written, and the only one that is read.
const VERSION: u8 = 2;

/// Why a record cannot be read. Says nothing of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// It was written by another version of the server.
    #[error("lease record of unknown version {0}")]
    Version(u8),
    /// It is cut off, or a field is missing, unknown or senseless.
    #[error("lease record is malformed: {0}")]
    Malformed(&'static str),
}

/// All that is known of a lease.
#[derive(Debug)]
pub(crate) struct LeaseRecord {
    /// What clients see.
    pub(crate) lease: Lease,
    /// Where it is in its life.
    pub(crate) state: LeaseState,
    /// The kind of engine that made it.
    pub(crate) engine: EngineKind,
    /// The mount that was asked.
    pub(crate) mount: MountId,
    /// What its revocation fails together with.
    pub(crate) target: ConnectionId,
    /// The role that was asked for.
    pub(crate) role: RoleName,
    /// Whose it is.
    pub(crate) token: TokenId,
    /// True if it outlives that token.
    pub(crate) orphan: bool,
    /// The public name of what was made.
    pub(crate) name: String,
    /// When that token ends, as far as is known; the lease never lives longer.
    pub(crate) token_ends_at: Option<Timestamp>,
    /// The run of the server that last began something outside for it.
    pub(crate) boot: BootId,
    /// True until its creation is known to have come through.
    pub(crate) in_doubt: bool,
    /// Why it was ended before its time, if it was: `revoked`, `failed`; empty for its expiry.
    pub(crate) cause: String,
    /// Why its last revocation failed.
    pub(crate) error: Option<String>,
    /// How often it was tried to revoke it, about.
    pub(crate) attempts: u32,
    /// When it ended.
    pub(crate) ended_at: Option<Timestamp>,
    /// True if it was ended by force while something may be left outside.
    pub(crate) left_behind: bool,
    /// The engine's own bytes.
    pub(crate) data: SecretBytes,
}

/// The folder of what lives.
pub(crate) fn live_folder() -> RecordPath {
    RecordPath::new(&["lease"])
}

/// The record of a live lease.
pub(crate) fn live_path(lease: &str) -> RecordPath {
    RecordPath::new(&["lease", lease])
}

/// The folder of what has ended.
pub(crate) fn ended_folder() -> RecordPath {
    RecordPath::new(&["lease-ended"])
}

/// The tombstone of a lease.
pub(crate) fn ended_path(lease: &str) -> RecordPath {
    RecordPath::new(&["lease-ended", lease])
}

/// The folder of all that says which leases tokens have.
pub(crate) fn token_root() -> RecordPath {
    RecordPath::new(&["lease-by-token"])
}

/// The folder that says which leases a token has.
pub(crate) fn token_folder(token: TokenId) -> RecordPath {
    RecordPath::new(&["lease-by-token", &token.hex()])
}

/// Says that a token has this lease; its content is the lease's id.
pub(crate) fn token_path(token: TokenId, lease: &str) -> RecordPath {
    RecordPath::new(&["lease-by-token", &token.hex(), lease])
}

impl LeaseRecord {
    /// The run whose creation, or whose revocation, may still be at work outside.
    ///
    /// An ending that an earlier run began is in doubt even where the creation had come through.
    pub(crate) fn doubt(&self, boot: BootId) -> Option<BootId> {
        let ending_of_old = self.state == LeaseState::Ending && self.boot != boot;
        (self.in_doubt || ending_of_old).then_some(self.boot)
    }

    /// Makes it ending, for good; true if it was not.
    ///
    /// Unless its creation is in doubt, whatever is under way outside is this run's from now on.
    pub(crate) fn begin_ending(&mut self, boot: BootId, cause: &str) -> bool {
        if matches!(self.state, LeaseState::Ending | LeaseState::Ended) {
            return false;
        }
        self.state = LeaseState::Ending;
        cause.clone_into(&mut self.cause);
        if !self.in_doubt {
            self.boot = boot;
        }
        true
    }

    /// The bytes to store.
    pub(crate) fn encode(&self) -> Result<SecretBytes, RecordError> {
        let header = serde_json::to_vec(&HeaderRecord::from(self))
            .map_err(|_| RecordError::Malformed("cannot be written"))?;
        let length =
            u32::try_from(header.len()).map_err(|_| RecordError::Malformed("cannot be written"))?;
        // EXPOSE: the engine's bytes go into the record, which the barrier seals.
        let data = self.data.expose();
        let mut bytes = Vec::with_capacity(5 + header.len() + data.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(data);
        Ok(SecretBytes::new(bytes))
    }

    /// Reads what [`Self::encode`] made.
    pub(crate) fn decode(bytes: &SecretBytes) -> Result<Self, RecordError> {
        const CUT: RecordError = RecordError::Malformed("cut off");
        // EXPOSE: parsing reads the record; the engine's part stays wrapped.
        let (version, rest) = bytes.expose().split_first().ok_or(CUT)?;
        if *version != VERSION {
            return Err(RecordError::Version(*version));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| CUT)?;
        let (header, data) = rest.split_at_checked(length).ok_or(CUT)?;
        let header: HeaderRecord =
            serde_json::from_slice(header).map_err(|_| RecordError::Malformed("header"))?;
        header.into_record(SecretBytes::new(data.to_vec()))
    }
}

/// All but the engine's bytes. Times are milliseconds since 1970, lifetimes seconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, as it is written down"
)]
struct HeaderRecord {
    id: String,
    state: StateRecord,
    engine: String,
    mount: String,
    target: String,
    role: String,
    token: String,
    orphan: bool,
    name: String,
    accessor: String,
    token_ends_at: Option<u64>,
    issued_at: u64,
    expires_at: u64,
    ends_at_most: u64,
    ttl: u64,
    renewable: bool,
    renewed_at: Option<u64>,
    boot: String,
    in_doubt: bool,
    cause: String,
    error: Option<String>,
    attempts: u32,
    ended_at: Option<u64>,
    left_behind: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateRecord {
    Pending,
    Active,
    Ending,
    Ended,
}

impl From<&LeaseRecord> for HeaderRecord {
    fn from(record: &LeaseRecord) -> Self {
        let lease = &record.lease;
        Self {
            id: lease.id.as_str().to_owned(),
            state: match record.state {
                LeaseState::Pending => StateRecord::Pending,
                LeaseState::Active => StateRecord::Active,
                LeaseState::Ending => StateRecord::Ending,
                LeaseState::Ended => StateRecord::Ended,
            },
            engine: record.engine.name().to_owned(),
            mount: record.mount.to_string(),
            target: record.target.to_string(),
            role: record.role.as_str().to_owned(),
            token: record.token.hex(),
            orphan: record.orphan,
            name: record.name.clone(),
            accessor: lease.holder.as_str().to_owned(),
            token_ends_at: record.token_ends_at.map(Timestamp::unix_ms),
            issued_at: lease.issued_at.unix_ms(),
            expires_at: lease.expires_at.unix_ms(),
            ends_at_most: lease.ends_at_most.unix_ms(),
            ttl: lease.ttl.secs(),
            renewable: lease.renewable,
            renewed_at: lease.renewed_at.map(Timestamp::unix_ms),
            boot: record.boot.to_string(),
            in_doubt: record.in_doubt,
            cause: record.cause.clone(),
            error: record.error.clone(),
            attempts: record.attempts,
            ended_at: record.ended_at.map(Timestamp::unix_ms),
            left_behind: record.left_behind,
        }
    }
}

impl HeaderRecord {
    fn into_record(self, data: SecretBytes) -> Result<LeaseRecord, RecordError> {
        use RecordError::Malformed;
        let lease = Lease {
            id: LeaseId::parse(&self.id).map_err(|_| Malformed("id"))?,
            issued_at: Timestamp::from_unix_ms(self.issued_at),
            expires_at: Timestamp::from_unix_ms(self.expires_at),
            ends_at_most: Timestamp::from_unix_ms(self.ends_at_most),
            ttl: Ttl::from_secs(self.ttl).map_err(|_| Malformed("ttl"))?,
            renewable: self.renewable,
            renewed_at: self.renewed_at.map(Timestamp::from_unix_ms),
            holder: Accessor::parse(&self.accessor).map_err(|_| Malformed("accessor"))?,
        };
        Ok(LeaseRecord {
            lease,
            state: match self.state {
                StateRecord::Pending => LeaseState::Pending,
                StateRecord::Active => LeaseState::Active,
                StateRecord::Ending => LeaseState::Ending,
                StateRecord::Ended => LeaseState::Ended,
            },
            engine: EngineKind::parse(&self.engine).ok_or(Malformed("engine"))?,
            mount: MountId::parse(&self.mount).map_err(|_| Malformed("mount"))?,
            target: ConnectionId::parse(&self.target).map_err(|_| Malformed("target"))?,
            role: RoleName::parse(&self.role).map_err(|_| Malformed("role"))?,
            token: TokenId::parse_hex(&self.token).map_err(|_| Malformed("token"))?,
            orphan: self.orphan,
            name: self.name,
            token_ends_at: self.token_ends_at.map(Timestamp::from_unix_ms),
            boot: BootId::parse(&self.boot).map_err(|_| Malformed("boot"))?,
            in_doubt: self.in_doubt,
            cause: self.cause,
            error: self.error,
            attempts: self.attempts,
            ended_at: self.ended_at.map(Timestamp::from_unix_ms),
            left_behind: self.left_behind,
            data,
        })
    }
}

/// The bytes to store of a record.
pub(crate) fn bytes_of(record: &LeaseRecord) -> Result<SecretBytes, mssm_messages::BarrierError> {
    record.encode().map_err(|error| {
        tracing::warn!(%error, "a lease's record cannot be written");
        mssm_messages::keys::KeyError::Damaged.into()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn record(id: &str) -> LeaseRecord {
        LeaseRecord {
            lease: Lease {
                id: LeaseId::parse(id).unwrap(),
                issued_at: Timestamp::from_unix_ms(1),
                expires_at: Timestamp::from_unix_ms(60_001),
                ends_at_most: Timestamp::from_unix_ms(3_600_001),
                ttl: Ttl::from_secs(60).unwrap(),
                renewable: true,
                renewed_at: None,
                holder: Accessor::parse("0123456789abcdefghijABCD").unwrap(),
            },
            state: LeaseState::Pending,
            engine: EngineKind::Database,
            mount: MountId::parse("00000000-0000-0000-0000-000000000001").unwrap(),
            target: ConnectionId::parse("00000000-0000-0000-0000-000000000002").unwrap(),
            role: RoleName::parse("app").unwrap(),
            token: TokenId::from_fingerprint([7; 32]),
            orphan: false,
            name: "v-token-app".to_owned(),
            token_ends_at: None,
            boot: BootId::parse("00000000-0000-0000-0000-000000000003").unwrap(),
            in_doubt: true,
            cause: String::new(),
            error: Some("no route".to_owned()),
            attempts: 3,
            ended_at: None,
            left_behind: false,
            data: SecretBytes::new(vec![0, 255, 1]),
        }
    }

    const ID: &str = "db/creds/app/0123456789abcdefghijABCD";

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let written = record(ID);
        let read = LeaseRecord::decode(&written.encode().unwrap()).unwrap();
        assert_eq!(read.lease, written.lease);
        assert_eq!(read.data.expose(), written.data.expose());
        assert_eq!(
            serde_json::to_string(&HeaderRecord::from(&read)).unwrap(),
            serde_json::to_string(&HeaderRecord::from(&written)).unwrap(),
        );
    }

    #[test]
    fn another_version_is_named_and_refused() {
        let mut bytes = record(ID).encode().unwrap().expose().to_vec();
        bytes[0] = 9;
        let error = LeaseRecord::decode(&SecretBytes::new(bytes)).unwrap_err();
        assert_eq!(error, RecordError::Version(9));
    }

    #[test]
    fn an_ending_that_an_earlier_run_began_is_in_doubt() {
        let now = BootId::parse("00000000-0000-0000-0000-000000000009").unwrap();
        let mut record = record(ID);
        assert_eq!(record.doubt(now), Some(record.boot));
        record.in_doubt = false;
        record.state = LeaseState::Active;
        assert_eq!(record.doubt(now), None);
        record.state = LeaseState::Ending;
        assert_eq!(record.doubt(now), Some(record.boot));
        assert_eq!(record.doubt(record.boot), None);
    }

    proptest! {
        /// Whatever lies there: a typed error or a record, never a panic.
        #[test]
        fn damaged_bytes_are_an_error(cut in 0..400_usize, flip in 0..400_usize, bit in 0..8_u8) {
            let mut bytes = record(ID).encode().unwrap().expose().to_vec();
            bytes.truncate(cut);
            if let Some(byte) = bytes.get_mut(flip) {
                *byte ^= 1 << bit;
            }
            let _ = LeaseRecord::decode(&SecretBytes::new(bytes));
        }
    }
}
