//! To the seal keeper: initialise, unseal, seal, rotate; and what it tells the others.

use actix::{Message, Recipient};
use mssm_domain::{ClusterId, ErrorKind, Fault, SecretBytes, SecretText, Term, Timestamp};

use crate::index::Findings;
use crate::{Changes, PortError, storage::StorageError};

/// Founds a new store. Replies the shares and the root token, which nobody will ever see again.
#[derive(Debug, Message)]
#[rtype(result = "Result<Founded, SealError>")]
pub struct Init {
    /// How many shares the root key is split into, 1 to 255 (0 with a static key).
    pub shares: u8,
    /// How many of them unseal, 1 to `shares`; at least 2 where there are several.
    pub threshold: u8,
}

/// A new store's only copy of its secrets.
#[derive(Debug)]
pub struct Founded {
    /// The shares, in their binary form; none with a static key.
    pub shares: Vec<SecretBytes>,
    /// The first token, which may do everything.
    pub root_token: SecretText,
}

/// Asks how things stand; answered in every state.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<SealStatus, SealError>")]
pub struct Status;

/// How the root key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// Split into shares.
    Shamir,
    /// Read from a file or the environment.
    Static,
}

impl SealKind {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shamir => "shamir",
            Self::Static => "static",
        }
    }
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealStatus {
    /// How the root key is kept.
    pub kind: SealKind,
    /// True once the store has been founded.
    pub initialized: bool,
    /// True while there are no keys.
    pub sealed: bool,
    /// How many shares unseal (0 before it is founded).
    pub threshold: u8,
    /// How many shares there are.
    pub shares: u8,
    /// The numbers of the shares entered so far, sorted.
    pub entered: Vec<u8>,
    /// The number of the share that this answers, if it answers one.
    pub share: Option<u8>,
    /// Names the current attempt to unseal; empty when none is under way.
    pub nonce: String,
    /// The store's id, while unsealed.
    pub cluster: Option<ClusterId>,
}

/// Enters a share, as text in hexadecimal or base64; unseals when enough are in.
#[derive(Debug, Message)]
#[rtype(result = "Result<SealStatus, SealError>")]
pub struct Unseal(pub SecretText);

/// Forgets the shares entered so far.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<SealStatus, SealError>")]
pub struct ResetUnseal;

/// Unseals with the static key, if that is how the root key is kept; else replies the status.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<SealStatus, SealError>")]
pub struct AutoUnseal;

/// Wipes every key, everywhere; replies when the last replica has.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), SealError>")]
pub struct SealNow;

/// From whoever watches the store: records are not what was written last. Seals.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), SealError>")]
pub struct Distrust(pub Findings);

/// Adds a data key; new records are sealed under it, old ones stay readable.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Term, SealError>")]
pub struct Rotate;

/// Asks for the newest data key's number, age and use.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<KeyStatus, SealError>")]
pub struct ReadKeyStatus;

/// The newest data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its number.
    pub term: Term,
    /// When it was made.
    pub installed_at: Timestamp,
    /// How many records it has sealed, about.
    pub encryptions: u64,
}

/// From a replica's watcher: so many more records were sealed. Rotates before the bound is near.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Used {
    /// Under this term.
    pub term: Term,
    /// So many more.
    pub encryptions: u64,
}

/// Told to each owner of state, in order, once keys are installed: load, and begin to serve.
///
/// An error seals the server again. What can be loaded later is loaded after the reply.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StageError>")]
pub struct Opened {
    /// The store.
    pub cluster: ClusterId,
}

/// Told to each owner in the reverse order before keys go: finish, forget secrets, stop serving.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), StageError>")]
pub struct Closing;

/// Why an owner could not open or close; the reason in words, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StageError(pub String);

/// Asks an owner what a new store begins with: its share of the founding commit.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Seeds, StageError>")]
pub struct Found;

/// What an owner puts into a new store.
#[derive(Debug)]
pub struct Seeds {
    /// Its records.
    pub changes: Changes,
    /// The root token, from the owner of tokens; `None` from all others.
    pub root_token: Option<SecretText>,
}

/// The audit log's own keys, sent to its writer when the server opens.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), StageError>")]
pub struct InstallAuditKey {
    /// The 32-byte seed of the Ed25519 key that signs checkpoints; `None` to wipe it (after a
    /// last checkpoint).
    pub seed: Option<SecretBytes>,
    /// The 32 bytes from which each device's salt derives; with the seed or not at all.
    pub salts: Option<SecretBytes>,
}

/// Who is told what when the server opens and closes, in order of opening.
#[derive(Clone, Default)]
pub struct Stages {
    /// Asked for their part of a new store.
    pub founders: Vec<Recipient<Found>>,
    /// Told when the server opens, first to last.
    pub openers: Vec<Recipient<Opened>>,
    /// Told when it closes, last to first.
    pub closers: Vec<Recipient<Closing>>,
}

/// Why the seal keeper refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The store has been founded before.
    #[error("already initialised")]
    AlreadyInitialized,
    /// The store has not been founded.
    #[error("not initialised")]
    NotInitialized,
    /// Nothing to do with sealed keys.
    #[error("sealed")]
    Sealed,
    /// Shares and threshold do not fit together; says how.
    #[error("invalid seal configuration: {0}")]
    Configuration(&'static str),
    /// The share is not one of this store, damaged, or unreadable; says which. It was not counted.
    #[error("share refused: {0}")]
    Share(&'static str),
    /// The static key is missing, unreadable or not this store's.
    #[error("static key: {0}")]
    StaticKey(String),
    /// The keyring or another vital record is missing or damaged; says which and what to do.
    #[error("store: {0}")]
    Store(String),
    /// The store refused a write.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another actor did not follow.
    #[error("{0}")]
    Stage(#[from] StageError),
    /// A handler panicked.
    #[error("internal error")]
    Internal,
}

impl From<crate::Panicked> for SealError {
    fn from(_: crate::Panicked) -> Self {
        Self::Internal
    }
}

impl From<PortError> for SealError {
    fn from(error: PortError) -> Self {
        Self::Stage(StageError(error.to_string()))
    }
}

impl Fault for SealError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyInitialized | Self::Configuration(_) | Self::Share(_) => {
                ErrorKind::Invalid
            }
            Self::NotInitialized | Self::Sealed => ErrorKind::Sealed,
            Self::Storage(error) => error.kind(),
            Self::StaticKey(_) | Self::Store(_) | Self::Stage(_) | Self::Internal => {
                ErrorKind::Internal
            }
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::AlreadyInitialized => vec!["Vault is already initialized".to_owned()],
            Self::NotInitialized | Self::Sealed => vec!["Vault is sealed".to_owned()],
            Self::Storage(error) => error.public(),
            Self::Configuration(_) | Self::Share(_) | Self::Store(_) => vec![self.to_string()],
            // The reason may name a file of this machine, and who asks may be anybody.
            Self::StaticKey(_) => {
                vec!["the static key could not be used when the server started: its log says why; mend that and start it again".to_owned()]
            }
            Self::Stage(_) => {
                vec!["it cannot be opened or closed, the server's log says why".to_owned()]
            }
            Self::Internal => vec!["internal error, see the server's log".to_owned()],
        }
    }
}
