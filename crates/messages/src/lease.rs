//! To the lease manager: issue, renew, revoke, look up.

use actix::Message;
use mssm_domain::{
    Caller, ErrorKind, Fault, Lease, LeaseId, LeaseState, MountId, RoleName, SecretText, Timestamp,
    TokenId, Ttl,
};

use crate::engine::{EngineError, EngineKind};
use crate::reconcile::ReconcileCounts;
use crate::{BarrierError, Panicked};

/// Has a credential made under a lease: lease first, credential second, answer third.
///
/// Must complete: sent with `Port::commit`. If nobody waits for the reply any more, the lease is
/// ended at once. Replies when the lease is active, durably.
#[derive(Debug, Message)]
#[rtype(result = "Result<Issued, LeaseError>")]
pub struct Issue {
    /// The kind of engine that makes it.
    pub engine: EngineKind,
    /// The mount that was asked.
    pub mount: MountId,
    /// The lease id up to its random tail: mount path and engine's path, as `db/creds/app/`.
    pub prefix: String,
    /// The role.
    pub role: RoleName,
    /// Who asks; the lease ends with the caller's token at the latest, if it is not the server.
    pub caller: Caller,
    /// The mount's lifetime where the role has none.
    pub default_ttl: Ttl,
    /// The mount's bound.
    pub max_ttl: Ttl,
    /// The caller's idempotency key: within five minutes the same token gets the same answer.
    pub key: Option<String>,
}

/// A credential that its caller may have.
#[derive(Debug)]
pub struct Issued {
    /// Its lease.
    pub lease: Lease,
    /// What was made, once.
    pub secret: Vec<(&'static str, SecretText)>,
    /// What the answer should warn of.
    pub warnings: Vec<String>,
    /// True if it was issued before, and is handed out once more.
    pub again: bool,
}

/// Says that an answer with this lease did not arrive: it ends, unless somebody has it or may ask
/// for it again by its key.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct Lost {
    /// Which.
    pub lease: LeaseId,
}

/// Moves a lease's end to now plus the increment, within its bounds.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Renewed, LeaseError>")]
pub struct Renew {
    /// Which.
    pub lease: LeaseId,
    /// How far from now; `None` takes the lease's own lifetime.
    pub increment: Option<Ttl>,
    /// Who asks. Renewing another's lease is for whom policy allows; the lease's own token bounds it.
    pub caller: Caller,
}

/// A renewed lease.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// As it is now.
    pub lease: Lease,
    /// As when the increment was cut.
    pub warnings: Vec<String>,
}

/// Ends a lease. Unknown and ended ones are fine: done twice is done once.
///
/// The lease is `ending`, durably, before any reply; from then on it is tried until it is done.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct Revoke {
    /// Which.
    pub lease: LeaseId,
    /// True to wait (bounded) until access has ended; then a failure is reported, and tried on.
    pub sync: bool,
}

/// Ends every lease whose id begins with a prefix of whole segments.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<PrefixRevoked, LeaseError>")]
pub struct RevokePrefix {
    /// The prefix, as `db/creds/app`.
    pub prefix: String,
    /// True to wait (bounded) until access has ended.
    pub sync: bool,
    /// True to forget at once whatever is left outside; says what. It is looked for and ended by the
    /// comparison of logins and leases.
    pub force: bool,
}

/// What became of the leases below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixRevoked {
    /// How many there were.
    pub count: u64,
    /// What was left outside by force, as far as it can be told at once.
    pub left: Vec<LeftBehind>,
}

/// A credential that may be there though its lease has ended by force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Its lease.
    pub lease: String,
    /// The public name of what was made.
    pub name: String,
    /// Why it could not be ended.
    pub why: String,
}

/// Lists the leases whose end has failed so far, the oldest first.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<OverdueLease>, LeaseError>")]
pub struct ListOverdue {
    /// At most so many.
    pub limit: usize,
}

/// A lease whose end has failed so far; it is tried on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverdueLease {
    /// Which.
    pub lease: LeaseId,
    /// The public name of what was made.
    pub name: String,
    /// How often it was tried since the server opened.
    pub attempts: u16,
    /// For how long, since the server opened.
    pub secs: u64,
    /// Why, if it is known.
    pub error: Option<String>,
}

/// How the revocations of one connection do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// The connection.
    pub target: mssm_domain::ConnectionId,
    /// How many wait.
    pub waiting: u64,
    /// For how long it has not answered; `None` if it does, as far as is known.
    pub down_secs: Option<u64>,
}

/// Ends every lease of a token that has been revoked (its record is marked before); replies how many.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, LeaseError>")]
pub struct RevokeToken {
    /// The token.
    pub token: TokenId,
}

/// Ends every lease of a mount and waits (bounded) until nothing is left; replies how many still are.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, LeaseError>")]
pub struct RevokeMount {
    /// The mount.
    pub mount: MountId,
}

/// Looks a lease up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<LeaseView, LeaseError>")]
pub struct Lookup {
    /// Which.
    pub lease: LeaseId,
}

/// Looks a lease up by the public name of what was made, as a database username; also one that has
/// ended, as long as it is remembered. Reads every record.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<LeaseView, LeaseError>")]
pub struct LookupName {
    /// The name.
    pub name: String,
}

/// Asks for the ids of leases whose records cannot be read: they are left alone, and named.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<String>, LeaseError>")]
pub struct ListUnreadable;

/// Begins to read every lease's record anew and to remove what nothing needs; false if that is
/// under way already.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<bool, LeaseError>")]
pub struct Tidy;

/// A lease and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// The lease.
    pub lease: Lease,
    /// Where it is in its life.
    pub state: LeaseState,
    /// The public name of what was made.
    pub name: String,
    /// Why its last revocation failed, if it did.
    pub revoke_error: Option<String>,
    /// When it was gone, if it is.
    pub ended_at: Option<Timestamp>,
}

/// Lists the segments one below a prefix of lease ids, sorted; folders end in `/`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, LeaseError>")]
pub struct List {
    /// The prefix, as `db/creds/app/`; empty for all.
    pub prefix: String,
    /// The last segment of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Asks how many leases there are, and how the overdue ones do.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Counts, LeaseError>")]
pub struct Count;

/// How the leases do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed out and alive.
    pub active: u64,
    /// Being made, or in doubt.
    pub pending: u64,
    /// Being revoked.
    pub ending: u64,
    /// Of those, that failed or wait for a target that does not answer.
    pub overdue: u64,
    /// For how long the oldest of these has failed.
    pub overdue_oldest_secs: u64,
    /// The connections where revocations wait.
    pub lanes: Vec<LaneView>,
    /// Issued since the server opened.
    pub issued_total: u64,
    /// Ended since the server opened.
    pub ended_total: u64,
    /// Failed revocations since the server opened.
    pub failures_total: u64,
    /// Records that could not be read and were left alone.
    pub unreadable: u64,
    /// How logins and leases were compared.
    pub reconcile: ReconcileCounts,
    /// Alive leases of each mount.
    pub by_mount: Vec<(MountId, u64)>,
}

/// Asks whether the leases below a target keep its definition needed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, LeaseError>")]
pub struct CountTarget {
    /// The database connection.
    pub target: mssm_domain::ConnectionId,
}

/// Why the lease manager refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It never existed, or has ended.
    #[error("invalid lease")]
    Unknown,
    /// It cannot be renewed: not renewable, ending, or past its longest end; says which.
    #[error("lease cannot be renewed: {0}")]
    NotRenewable(&'static str),
    /// The token that asked is revoked or at its last use.
    #[error("permission denied")]
    TokenEnded,
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Revocation is recorded and goes on, but has not come through yet; says why.
    #[error("failed to revoke entry: {0}; it will be tried until it succeeds")]
    NotYet(String),
    /// Too many credentials are being made.
    #[error("too many credentials are being made, try again")]
    Busy,
    /// The role or the token has as many leases as it may have; says which.
    #[error("lease quota exceeded: {0}")]
    Quota(String),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request within the last five minutes")]
    OtherRequest,
    /// The records of leases.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// The lease manager is not open (sealed, or still opening).
    #[error("sealed")]
    Sealed,
    /// A handler panicked.
    #[error("internal error")]
    Internal,
}

impl From<Panicked> for LeaseError {
    fn from(_: Panicked) -> Self {
        Self::Internal
    }
}

impl Fault for LeaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown | Self::NotRenewable(_) | Self::NotYet(_) | Self::OtherRequest => {
                ErrorKind::Invalid
            }
            Self::TokenEnded => ErrorKind::Unauthenticated,
            Self::Engine(error) => error.kind(),
            Self::Busy | Self::Quota(_) => ErrorKind::TooMany,
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
            Self::Unknown
            | Self::NotRenewable(_)
            | Self::TokenEnded
            | Self::NotYet(_)
            | Self::Busy
            | Self::Quota(_)
            | Self::OtherRequest
            | Self::Internal => vec![self.to_string()],
        }
    }
}
