//! To the mount keeper and its replicas: which engine answers below which path.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Message, Recipient};
use mssm_domain::{CanonicalPath, ErrorKind, Fault, MountId, Prefix, Ttl};

use crate::engine::{EngineError, EngineKind};
use crate::{BarrierError, Panicked, Port};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its id; what it stores lies under it.
    pub id: MountId,
    /// Where it hangs; an auth mount's begins with `auth/`.
    pub prefix: Prefix,
    /// What answers.
    pub kind: EngineKind,
    /// The version of a kv mount: 1 or 2; 0 for all others.
    pub version: u8,
    /// For people.
    pub description: String,
    /// Vault's accessor of a mount, as `kv_1a2b3c4d`.
    pub accessor: String,
    /// Lifetimes where a role has none; `None` for the system's.
    pub default_ttl: Option<Ttl>,
    /// The bound; `None` for the system's.
    pub max_ttl: Option<Ttl>,
    /// True to show it to callers without a token.
    pub listed_unauthenticated: bool,
    /// True while it is being taken away: it answers nothing any more.
    pub leaving: bool,
    /// True if it is one of the mounts that cannot be taken away.
    pub built_in: bool,
    /// What the audit log shows of it.
    pub audit: AuditRules,
}

/// What the audit log shows of a mount's requests; all else is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditRules {
    /// Members of requests' data that are written in clear.
    pub clear_request: Vec<String>,
    /// Members of answers' data that are written in clear.
    pub clear_response: Vec<String>,
    /// True to hash the names of members as well.
    pub hash_names: bool,
    /// Of the `sys/` mount alone: headers, in lower case, that are written down for every request,
    /// and whether their values are hashed.
    pub headers: BTreeMap<String, bool>,
}

impl Mount {
    /// The lifetime where a role has none.
    pub fn effective_default_ttl(&self) -> Ttl {
        self.default_ttl.unwrap_or(Ttl::SYSTEM_DEFAULT).min(self.effective_max_ttl())
    }

    /// The bound on lifetimes.
    pub fn effective_max_ttl(&self) -> Ttl {
        self.max_ttl.unwrap_or(Ttl::SYSTEM_DEFAULT)
    }
}

/// All mounts, by prefix. Asked on every request, replaced as a whole when something changes.
#[derive(Clone, Debug, Default)]
pub struct MountTable(Vec<Arc<Mount>>);

impl MountTable {
    /// A table of these mounts.
    pub fn new(mut mounts: Vec<Arc<Mount>>) -> Self {
        mounts.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        Self(mounts)
    }

    /// The mount that a path lies below, and what follows its prefix. No mount lies below another.
    pub fn resolve<'a>(&self, path: &'a CanonicalPath) -> Option<(&Arc<Mount>, &'a str)> {
        self.0.iter().find_map(|mount| Some((mount, mount.prefix.strip(path)?)))
    }

    /// The mounts, sorted by prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Mount>> {
        self.0.iter()
    }
}

/// To a replica: asks for the table. Replies `Sealed` while there is none.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Arc<MountTable>, MountError>")]
pub struct ReadTable;

/// From the keeper to a replica: the table from now on (`None`: sealed). Older epochs are ignored.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct InstallTable {
    /// Grows with every table.
    pub epoch: u64,
    /// The table.
    pub table: Option<Arc<MountTable>>,
}

/// From a replica to the keeper: send me every table, beginning with the one in force.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct RegisterTable(pub Recipient<InstallTable>);

/// Mounts an engine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Arc<Mount>, MountError>")]
pub struct Enable {
    /// Where.
    pub prefix: Prefix,
    /// What.
    pub kind: EngineKind,
    /// The version of a kv mount.
    pub version: u8,
    /// For people.
    pub description: String,
    /// What else is set.
    pub tune: TunePatch,
}

/// Settings of a mount that change; `None` keeps what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunePatch {
    /// `Some(None)` returns to the system's.
    pub default_ttl: Option<Option<Ttl>>,
    /// `Some(None)` returns to the system's.
    pub max_ttl: Option<Option<Ttl>>,
    /// For people.
    pub description: Option<String>,
    /// True to show it to callers without a token.
    pub listed_unauthenticated: Option<bool>,
    /// A kv mount's version: 1 may become 2, never the reverse.
    pub version: Option<u8>,
    /// See [`AuditRules::clear_request`].
    pub clear_request: Option<Vec<String>>,
    /// See [`AuditRules::clear_response`].
    pub clear_response: Option<Vec<String>>,
    /// See [`AuditRules::hash_names`].
    pub hash_names: Option<bool>,
    /// One of [`AuditRules::headers`]: hashed, in clear, or written down no more.
    pub header: Option<(String, Option<bool>)>,
}

/// Changes a mount's settings.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), MountError>")]
pub struct Tune {
    /// Which.
    pub prefix: Prefix,
    /// What changes.
    pub patch: TunePatch,
}

/// Takes a mount away: it stops answering, its leases end, its records go. One that is not there is
/// fine. If leases cannot be ended yet the mount stays, silent, and this may be asked again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), MountError>")]
pub struct Disable {
    /// Which.
    pub prefix: Prefix,
}

/// How a worker reaches the table on its own arbiter, and the keeper of mounts.
#[derive(Clone)]
pub struct MountPorts {
    /// Asks the worker's own replica for the table.
    pub table: Recipient<ReadTable>,
    /// Mounts an engine.
    pub enable: Port<Enable>,
    /// Changes a mount's settings.
    pub tune: Port<Tune>,
    /// Takes a mount away.
    pub disable: Port<Disable>,
}

/// Why the mount keeper refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The path, one above or one below it is taken; holds the path.
    #[error("path is already in use at {0}")]
    Taken(String),
    /// The path is the server's own.
    #[error("cannot mount \"{0}\"")]
    Reserved(String),
    /// The mount cannot be taken away.
    #[error("cannot unmount \"{0}\"")]
    BuiltIn(String),
    /// No mount there.
    #[error("No secret engine mount at {0}")]
    Unknown(String),
    /// A setting is wrong; says how.
    #[error("{0}")]
    Invalid(String),
    /// Leases have not ended yet; says how many.
    #[error("failed to revoke {0} leases yet; the mount answers nothing any more, try again")]
    LeasesLeft(u64),
    /// The engine did not let go.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The records of mounts.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// There is no table.
    #[error("sealed")]
    Sealed,
    /// A handler panicked.
    #[error("internal error")]
    Internal,
}

impl From<Panicked> for MountError {
    fn from(_: Panicked) -> Self {
        Self::Internal
    }
}

impl Fault for MountError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Taken(_) => ErrorKind::Conflict,
            Self::Reserved(_)
            | Self::BuiltIn(_)
            | Self::Unknown(_)
            | Self::Invalid(_)
            | Self::LeasesLeft(_) => ErrorKind::Invalid,
            Self::Engine(error) => error.kind(),
            Self::Barrier(error) => error.kind(),
            Self::Sealed => ErrorKind::Sealed,
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::Engine(error) => error.public(),
            Self::Barrier(error) => error.public(),
            Self::Sealed => vec!["Vault is sealed".to_owned()],
            Self::Taken(_)
            | Self::Reserved(_)
            | Self::BuiltIn(_)
            | Self::Unknown(_)
            | Self::Invalid(_)
            | Self::LeasesLeft(_)
            | Self::Internal => vec![self.to_string()],
        }
    }
}
