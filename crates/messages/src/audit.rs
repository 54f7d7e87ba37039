//! To the audit writer: what happened, without a field that could hold a secret.

use std::sync::Arc;

use actix::Message;
use mssm_domain::{ErrorKind, Fault, Prefix, RequestId, Timestamp};

/// A value in the log: what came from a caller, or goes to one, only as a keyed hash.
///
/// Whoever makes one from data turns every scalar (text, number, boolean) into a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redacted {
    /// Nothing.
    Null,
    /// HMAC-SHA256 of a scalar's text under the audit's key; written `hmac-sha256:<64 hex>`.
    Hash([u8; 32]),
    /// A scalar that was there but cannot be hashed, since the server is sealed.
    Hidden,
    /// Public text: lease ids, names of roles and mounts, error texts that hold no value.
    Public(String),
    /// A list.
    List(Vec<Self>),
    /// A map; its keys are public.
    Map(Vec<(String, Self)>),
    /// A map whose keys are hashed as well.
    HashedMap(Vec<([u8; 32], Self)>),
}

/// Who asked, as the log shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The token's keyed hash.
    pub token: Option<[u8; 32]>,
    /// The accessor's keyed hash.
    pub accessor: Option<[u8; 32]>,
    /// For people.
    pub display_name: String,
    /// The token's policies.
    pub policies: Vec<String>,
    /// The policies that decided.
    pub granting: Vec<String>,
    /// True if the decision was yes.
    pub allowed: bool,
    /// `service`; empty if there is no token.
    pub token_type: &'static str,
    /// When the token was issued.
    pub token_issued_at: Option<Timestamp>,
}

/// What was asked, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request's id, in its answer too.
    pub id: RequestId,
    /// Vault's word: create, read, update, patch, delete, list.
    pub operation: &'static str,
    /// The path below `/v1/`.
    pub path: String,
    /// The mount's prefix; empty if no mount was found.
    pub mount_point: String,
    /// The mount's kind; empty if no mount was found.
    pub mount_type: &'static str,
    /// The mount's accessor; empty if no mount was found.
    pub mount_accessor: String,
    /// The body, redacted.
    pub data: Redacted,
    /// Headers that are to be written down, each with a list of values.
    pub headers: Redacted,
    /// The caller's address.
    pub remote_address: String,
    /// The caller's port.
    pub remote_port: u16,
}

/// What was answered, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The answer's data, redacted.
    pub data: Redacted,
    /// A lease that was handed out or renewed.
    pub lease_id: Option<String>,
    /// What the answer says of a token that was made or renewed, redacted.
    pub auth: Redacted,
    /// The errors' texts, which hold no value.
    pub errors: Vec<String>,
}

/// Something that the server did by itself, or before anybody could be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What, in kebab case: `server-started`, `unsealed`, `lease-created`, `lease-expired`,
    /// `lease-revoked`, `lease-revocation-failed`.
    pub name: &'static str,
    /// Public circumstances: lease ids, roles, counts, reasons without values.
    pub details: Vec<(&'static str, String)>,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A request, before its effect.
    Request {
        /// When.
        time: Timestamp,
        /// Who.
        who: Arc<Who>,
        /// What.
        asked: Arc<Asked>,
    },
    /// Its answer, before it leaves.
    Response {
        /// When.
        time: Timestamp,
        /// Who.
        who: Arc<Who>,
        /// What.
        asked: Arc<Asked>,
        /// And what came of it.
        answered: Answered,
    },
    /// A token's time came, and the server ended it.
    TokenExpired {
        /// When that was done.
        time: Timestamp,
        /// Its accessor's keyed hash.
        accessor: [u8; 32],
    },
    /// The server's own doing.
    Event {
        /// When it happened.
        time: Timestamp,
        /// What.
        event: Event,
    },
}

/// Writes lines, in order, together; replies once they are durable.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AuditError>")]
pub struct Append(pub Vec<Entry>);

/// Asks how the log does.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<AuditStatus, AuditError>")]
pub struct ReadStatus;

/// How the log does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditStatus {
    /// Why no device takes anything, if so; names no place of the server.
    pub blocked: Option<String>,
    /// Lines written since the server started.
    pub lines: u64,
    /// Syncs since the server started.
    pub syncs: u64,
    /// The Ed25519 public key of the checkpoints, while the server is open.
    pub public_key: Option<[u8; 32]>,
    /// How far it goes.
    pub head: Head,
    /// The first record of the oldest file, if the log has several.
    pub kept_from: Option<u64>,
    /// What of an earlier run's lines is not there any more, if so.
    pub missing: Option<String>,
    /// What signed lines of the log say of stores beside it, of each the newest; who spoke last is last.
    pub stores: Vec<StoreEpoch>,
    /// Every device, the log of the configuration first.
    pub devices: Vec<DeviceStatus>,
}

/// How a device does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its path.
    pub path: Prefix,
    /// Why it takes nothing, if so; names no place of the server.
    pub blocked: Option<String>,
    /// Records that others have and it does not yet.
    pub waiting: u64,
    /// Records that it will never get.
    pub missed: u64,
}

/// Writes down how often the store has kept the head; replies once that is durable.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), AuditError>")]
pub struct TellStore(pub StoreEpoch);

/// How often the store had kept the log's head, as the log was told: a store that knows of fewer
/// times is an older copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreEpoch {
    /// The public key of the checkpoints, which tells stores apart.
    pub key: [u8; 32],
    /// How often.
    pub epoch: u64,
}

/// How far the log goes; kept in the sealed store, so that lines that are gone are missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many lines there are.
    pub count: u64,
    /// The newest line's SHA-256; zeros if there is none.
    pub hash: [u8; 32],
}

/// Asks whether the log still holds the lines up to this head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<Standing, AuditError>")]
pub struct CompareHead {
    /// How far it went.
    pub head: Head,
    /// The first record of the oldest file that was there, if the log has several.
    pub kept_from: Option<u64>,
}

/// Has the log look whether its file was moved away, and go on in a new one if so.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), AuditError>")]
pub struct Reopen;

/// What the log holds of the lines up to a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of them.
    Whole,
    /// It ends before.
    Cut {
        /// How many lines there are.
        found: u64,
    },
    /// The line in that place is another.
    Another,
    /// The line in that place is in an earlier file, which is not there.
    Elsewhere,
    /// A closed file of earlier lines is not there.
    FileGone {
        /// Its first record.
        first: u64,
        /// Its last.
        last: u64,
    },
}

impl Standing {
    /// What is missing of the lines up to a head, for the operator.
    pub fn missing(self, head: Head) -> Option<String> {
        let last = head.count.saturating_sub(1);
        match self {
            Self::Whole => None,
            Self::Cut { found: 0 } => Some(format!("records 0 to {last}: the log is gone")),
            Self::Cut { found } => {
                Some(format!("records {found} to {last}: the log's end was cut off"))
            }
            Self::Another => {
                Some(format!("record {last} as it was written: the log is another one"))
            }
            Self::FileGone { first, last } => {
                Some(format!("records {first} to {last}: the file that held them is not there"))
            }
            Self::Elsewhere => Some(format!(
                "record {last} and those before it: the file that held them is not there"
            )),
        }
    }
}

/// Why the log took nothing; the request that it was for is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be written: says why.
    #[error("audit log cannot be written: {0}")]
    Blocked(String),
    /// Too much waits for it.
    #[error("audit log is busy")]
    Busy,
}

impl Fault for AuditError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    fn public(&self) -> Vec<String> {
        vec![match self {
            // The reason names paths of the server; it is in the log and in health.
            Self::Blocked(_) => {
                "the audit log cannot be written, so the request was refused".into()
            }
            Self::Busy => "too many requests wait for the audit log, try again".to_owned(),
        }]
    }
}
