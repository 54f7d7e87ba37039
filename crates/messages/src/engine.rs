//! To an engine: what every mount must answer, and what a lease's engine must answer.
//!
//! To add an engine: a kind here, a module with its own messages, a crate whose actor is a
//! [`SecretsEngine`] (and a [`DynamicSecretsEngine`] if it hands out leases), its HTTP resource, and
//! its start in `src/wiring.rs`. The lease manager, the audit and the front door's core do not change.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use mssm_domain::{
    BootId, Caller, ConnectionId, ErrorKind, Fault, LeaseId, MountId, RoleName, SecretBytes,
    SecretText, Timestamp, Ttl,
};

use crate::{BarrierError, Panicked, Port};

/// What kind of engine answers below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineKind {
    /// Static secrets that one token alone sees.
    Cubbyhole,
    /// Database logins.
    Database,
    /// Signed tokens in the paths of Vault's identity tokens: `identity/oidc/`.
    Identity,
    /// Signed tokens.
    JwtSigner,
    /// Static secrets.
    Kv,
    /// The server itself: `sys/`.
    System,
    /// Tokens: `auth/token/`.
    Token,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Cubbyhole,
        Self::Database,
        Self::Identity,
        Self::JwtSigner,
        Self::Kv,
        Self::System,
        Self::Token,
    ];

    /// The name on the wire and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubbyhole => "cubbyhole",
            Self::Database => "database",
            Self::Identity => "identity",
            Self::JwtSigner => "jwt-signer",
            Self::Kv => "kv",
            Self::System => "system",
            Self::Token => "token",
        }
    }

    /// True if its credentials are leased.
    pub const fn hands_out_leases(self) -> bool {
        matches!(self, Self::Database)
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Forgets everything below a mount that is going away; its leases have ended before.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct Unmount {
    /// The mount.
    pub mount: MountId,
}

/// Decides what a new credential will be, without touching the outside.
///
/// What comes back is stored with the lease before anything exists outside, so it must name
/// everything that [`Revoke`] will have to remove.
#[derive(Debug, Message)]
#[rtype(result = "Result<Prepared, EngineError>")]
pub struct Prepare {
    /// The mount that was asked.
    pub mount: MountId,
    /// The role that was asked for.
    pub role: RoleName,
    /// Who asks.
    pub caller: Caller,
    /// The lease that it will be under: what is made may say so in its name.
    pub lease: LeaseId,
}

/// A credential that does not exist yet.
#[derive(Debug)]
pub struct Prepared {
    /// What is shared by all credentials whose revocation fails together: the database connection.
    pub target: ConnectionId,
    /// The engine's own versioned bytes: all that [`Create`], [`Extend`] and [`Revoke`] need,
    /// whatever becomes of the role's definition meanwhile.
    pub data: SecretBytes,
    /// The role's lifetime; `None` leaves it to the mount.
    pub ttl: Option<Ttl>,
    /// The longest that renewals may reach; `None` leaves it to the mount.
    pub max_ttl: Option<Ttl>,
    /// True if it can be renewed.
    pub renewable: bool,
    /// What the role says of its leases.
    pub rules: LeaseRules,
    /// The public name of what will be made, as a database username; by it a lease can be found.
    pub name: String,
    /// What the answer should warn of.
    pub warnings: Vec<String>,
}

/// What a role says of its leases; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRules {
    /// True if a lease outlives the token that it was issued to.
    pub orphan: bool,
    /// The same token gets the same lease again within this time.
    pub reuse_window: Option<Ttl>,
    /// At most so many of the role's leases at once; 0: no bound.
    pub max_leases: u32,
    /// A token that has so many leases gets none of this role; 0: no bound.
    pub max_leases_per_token: u32,
}

/// Makes the credential outside. Sent once, after its lease is durable.
#[derive(Debug, Message)]
#[rtype(result = "Result<Created, CreateError>")]
pub struct Create {
    /// The mount that was asked.
    pub mount: MountId,
    /// The lease, for the marker on what is made.
    pub lease: LeaseId,
    /// What [`Prepare`] decided.
    pub data: SecretBytes,
    /// When it ends, for the target's own enforcement.
    pub expires_at: Timestamp,
}

/// What the caller is given: named values, as `username` and `password`, in the answer's order.
#[derive(Debug)]
pub struct Created {
    /// The values.
    pub secret: Vec<(&'static str, SecretText)>,
    /// What [`Prepare`] decided, with what is known since it was made; `None` if that is nothing.
    pub data: Option<SecretBytes>,
}

/// Why nothing was made, and whether that is certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CreateError {
    /// Why.
    pub error: EngineError,
    /// True if something may exist outside all the same, now or a little later.
    pub in_doubt: bool,
}

/// Asks whether what was handed out still is what lets its holder in, before it is handed out again;
/// true also where nobody can tell.
#[derive(Debug, Message)]
#[rtype(result = "Result<bool, EngineError>")]
pub struct Confirm {
    /// What [`Prepare`] decided.
    pub data: SecretBytes,
    /// What was handed out.
    pub secret: Vec<(&'static str, SecretText)>,
}

/// Moves the credential's end outside. Sent after the lease's new end is durable.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct Extend {
    /// The lease.
    pub lease: LeaseId,
    /// What [`Prepare`] decided.
    pub data: SecretBytes,
    /// The new end.
    pub expires_at: Timestamp,
}

/// Ends credentials of one target. Repeated until it is done, so it must bear repetition.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Outcome>, EngineError>")]
pub struct Revoke {
    /// Whose they are.
    pub target: ConnectionId,
    /// Which; the reply has one outcome each, in order.
    pub credentials: Vec<Revocation>,
    /// True if others may be waiting for their access to end: what is left when it has, and may take
    /// long, need not be begun now ([`Outcome::Unfinished`]).
    pub access_only: bool,
}

/// One credential to end.
#[derive(Debug)]
pub struct Revocation {
    /// Its lease.
    pub lease: LeaseId,
    /// What [`Prepare`] decided.
    pub data: SecretBytes,
    /// The run of the server that sent [`Create`], if its outcome is not known to be good: not
    /// finding the credential then proves nothing (`in doubt`).
    pub in_doubt: Option<BootId>,
}

/// How far one revocation came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it is left, and nothing can come.
    Gone,
    /// No login and no session is left; what else there is was not begun. Asked for again at once,
    /// apart from those whose access has not ended yet.
    Unfinished,
    /// No login and no session is left, but something remains to be cleaned up; says what. Tried again.
    AccessEnded(String),
    /// Access may still be possible; says why. Tried again.
    Failed(String),
}

/// Why an engine refused or failed. Texts are for callers: no secret, no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// What was named is not there; the text says what.
    #[error("{0}")]
    Unknown(String),
    /// The definition or the request is wrong; the text says how.
    #[error("{0}")]
    Invalid(String),
    /// The target refused what was asked; the text is the target's own.
    #[error("{0}")]
    Refused(String),
    /// The target does not answer in time, or too much waits for it.
    #[error("{0}")]
    Unavailable(String),
    /// The caller may not use this role or connection.
    #[error("{0}")]
    Forbidden(String),
    /// Nothing is there, plainly.
    #[error("not found")]
    NotFound,
    /// The records of the engine.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// A handler panicked, or another fault of ours.
    #[error("internal error")]
    Internal,
}

impl From<Panicked> for EngineError {
    fn from(_: Panicked) -> Self {
        Self::Internal
    }
}

impl Fault for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) | Self::Invalid(_) | Self::Refused(_) => ErrorKind::Invalid,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::NotFound => ErrorKind::NotFound,
            Self::Barrier(error) => error.kind(),
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::NotFound => Vec::new(),
            Self::Barrier(error) => error.public(),
            Self::Unknown(_)
            | Self::Invalid(_)
            | Self::Refused(_)
            | Self::Unavailable(_)
            | Self::Forbidden(_)
            | Self::Internal => vec![self.to_string()],
        }
    }
}

/// What answers below a mount.
pub trait SecretsEngine: Actor + Handler<Unmount> {}

/// What makes, extends and ends leased credentials.
pub trait DynamicSecretsEngine:
    SecretsEngine
    + Handler<Prepare>
    + Handler<Create>
    + Handler<Confirm>
    + Handler<Extend>
    + Handler<Revoke>
where
    Self::Context: ToEnvelope<Self, Prepare>
        + ToEnvelope<Self, Create>
        + ToEnvelope<Self, Confirm>
        + ToEnvelope<Self, Extend>
        + ToEnvelope<Self, Revoke>,
{
    /// The ports that the lease manager holds.
    fn ports(address: &Addr<Self>) -> EnginePorts {
        EnginePorts {
            prepare: address.clone().into(),
            create: address.clone().into(),
            confirm: address.clone().into(),
            extend: address.clone().into(),
            revoke: address.clone().into(),
        }
    }
}

/// How the lease manager reaches one engine.
#[derive(Clone, Debug)]
pub struct EnginePorts {
    /// Decides.
    pub prepare: Port<Prepare>,
    /// Makes.
    pub create: Port<Create>,
    /// Says whether what was made is as it was handed out.
    pub confirm: Port<Confirm>,
    /// Extends.
    pub extend: Port<Extend>,
    /// Ends.
    pub revoke: Port<Revoke>,
}
