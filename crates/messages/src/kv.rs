//! To the kv engine: static secrets, with versions (v2) and without (v1, cubbyhole).
//!
//! One engine actor lives on every HTTP worker; all state is in the store, and writes carry the
//! version they were made on, so workers never overwrite each other unseen.

use std::collections::BTreeMap;

use actix::Message;
use mssm_domain::{Document, ErrorKind, Fault, MountId, RecordPath, Timestamp, TokenId};

use crate::{BarrierError, Panicked};

/// Where a secret lies: a mount, and in a cubbyhole the token that alone sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Everybody's, as policy allows.
    Mount(MountId),
    /// One token's, in one cubbyhole mount.
    Token(TokenId, MountId),
}

impl Space {
    /// The folder of version-1 secrets in the store.
    pub fn folder(self) -> RecordPath {
        match self {
            Self::Mount(mount) => RecordPath::new(&["kv1", &mount.to_string()]),
            Self::Token(token, mount) => {
                crate::access::cubbyhole_folder(token).child(&mount.to_string())
            }
        }
    }
}

/// A secret's path below its mount, checked: not empty, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvPath(String);

impl KvPath {
    /// Checks what follows the mount (and `data/` and its like) in a canonical path.
    pub fn parse(rest: &str) -> Result<Self, KvError> {
        if rest.is_empty() || rest.ends_with('/') {
            return Err(KvError::Invalid(
                "a secret's path must name a secret, not a folder".into(),
            ));
        }
        Ok(Self(rest.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// v1: reads a secret: the JSON object as it was sent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Document, KvError>")]
pub struct ReadPlain {
    /// Where.
    pub space: Space,
    /// Which.
    pub path: KvPath,
}

/// v1: writes a secret.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct WritePlain {
    /// Where.
    pub space: Space,
    /// Which.
    pub path: KvPath,
    /// A JSON object.
    pub document: Document,
}

/// v1: removes a secret; one that is not there is fine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct DeletePlain {
    /// Where.
    pub space: Space,
    /// Which.
    pub path: KvPath,
}

/// v1: lists the names below a folder, folders with a slash, sorted. Nothing there: `NotFound`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, KvError>")]
pub struct ListPlain {
    /// Where.
    pub space: Space,
    /// The folder, without slashes at its ends; empty for the mount's root.
    pub folder: String,
    /// The last name of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Asks whether a secret is there, for the choice between create and update.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, KvError>")]
pub struct Exists {
    /// Where.
    pub space: Space,
    /// Which.
    pub path: KvPath,
    /// True for a mount with versions.
    pub versioned: bool,
}

/// v2: a version's circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionView {
    /// Its number, from 1.
    pub version: u64,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was, or will be, deleted; `None` for not at all.
    pub deleted_at: Option<Timestamp>,
    /// True if its contents are gone for good.
    pub destroyed: bool,
    /// What the secret's owner noted.
    pub custom_metadata: BTreeMap<String, String>,
}

/// v2: a version and, unless it is deleted or destroyed, its contents.
#[derive(Debug)]
pub struct VersionedSecret {
    /// A JSON object; `None` if it is deleted or destroyed.
    pub document: Option<Document>,
    /// Its circumstances.
    pub view: VersionView,
}

/// v2: reads a version, the latest if none is named (0 is the latest too).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<VersionedSecret, KvError>")]
pub struct ReadVersion {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// Which version.
    pub version: Option<u64>,
}

/// v2: writes the next version.
#[derive(Debug, Message)]
#[rtype(result = "Result<VersionView, KvError>")]
pub struct WriteVersion {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// A JSON object.
    pub document: Document,
    /// Only over this version; 0 only if there is none.
    pub check_and_set: Option<u64>,
}

/// v2: merges into the latest version (RFC 7396) and writes the next.
#[derive(Debug, Message)]
#[rtype(result = "Result<VersionView, KvError>")]
pub struct PatchVersion {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// A JSON merge patch, an object.
    pub patch: Document,
    /// Only over this version.
    pub check_and_set: Option<u64>,
}

/// What is done to versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionsChange {
    /// Hidden, can come back.
    Delete,
    /// Shown again.
    Undelete,
    /// Contents gone for good.
    Destroy,
}

/// v2: deletes, undeletes or destroys versions; an empty list means the latest (delete only).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct ChangeVersions {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// Which versions; those that are not there are passed over.
    pub versions: Vec<u64>,
    /// What is done.
    pub change: VersionsChange,
}

/// v2: reads the structure of a version with every value taken out.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<VersionedSecret, KvError>")]
pub struct ReadSubkeys {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// Which version.
    pub version: Option<u64>,
    /// How deep; 0 is without bound.
    pub depth: u32,
}

/// v2: what is known of a secret but its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataView {
    /// When it was first written.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// The latest version; 0 if there is none yet.
    pub current_version: u64,
    /// The oldest version that is kept; 0 if there is none.
    pub oldest_version: u64,
    /// How many versions are kept; 0 takes the mount's.
    pub max_versions: u64,
    /// True if every write must name the version it is made on.
    pub cas_required: bool,
    /// After how many seconds a version deletes itself; 0 takes the mount's.
    pub delete_version_after_secs: u64,
    /// What the secret's owner noted.
    pub custom_metadata: BTreeMap<String, String>,
    /// The versions kept, ascending.
    pub versions: Vec<VersionView>,
}

/// v2: reads metadata.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<MetadataView, KvError>")]
pub struct ReadMetadata {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
}

/// v2: a change of metadata; `None` keeps what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataPatch {
    /// How many versions are kept.
    pub max_versions: Option<u64>,
    /// True if every write must name the version it is made on.
    pub cas_required: Option<bool>,
    /// After how many seconds a version deletes itself.
    pub delete_version_after_secs: Option<u64>,
    /// Replaces all notes.
    pub custom_metadata: Option<BTreeMap<String, String>>,
    /// Merged into the notes; a `None` takes one out.
    pub merge_custom_metadata: Option<BTreeMap<String, Option<String>>>,
}

/// v2: changes metadata, or begins a secret without versions.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct WriteMetadata {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
    /// What changes.
    pub patch: MetadataPatch,
    /// True to refuse (`NotFound`) if there is nothing yet (PATCH).
    pub must_exist: bool,
}

/// v2: removes a secret with all versions and metadata; one that is not there is fine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct DeleteMetadata {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub path: KvPath,
}

/// v2: lists the names below a folder, folders with a slash, sorted. Nothing there: `NotFound`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, KvError>")]
pub struct ListVersioned {
    /// The mount.
    pub mount: MountId,
    /// The folder, without slashes at its ends; empty for the mount's root.
    pub folder: String,
    /// The last name of the page before.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// v2: a mount's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvConfig {
    /// How many versions are kept; 0 is 10.
    pub max_versions: u64,
    /// True if every write must name the version it is made on.
    pub cas_required: bool,
    /// After how many seconds a version deletes itself; 0 is never.
    pub delete_version_after_secs: u64,
}

/// v2: reads a mount's settings.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<KvConfig, KvError>")]
pub struct ReadConfig {
    /// The mount.
    pub mount: MountId,
}

/// v2: changes a mount's settings; `None` keeps what is there.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), KvError>")]
pub struct WriteConfig {
    /// The mount.
    pub mount: MountId,
    /// How many versions are kept.
    pub max_versions: Option<u64>,
    /// True if every write must name the version it is made on.
    pub cas_required: Option<bool>,
    /// After how many seconds a version deletes itself.
    pub delete_version_after_secs: Option<u64>,
}

/// Why the kv engine refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Nothing is there.
    #[error("not found")]
    NotFound,
    /// The version named is not the one that is there.
    #[error("check-and-set parameter did not match the current version")]
    CheckAndSet,
    /// A version must be named and was not.
    #[error("check-and-set parameter required for this call")]
    CheckAndSetRequired,
    /// What was sent is wrong; says how.
    #[error("{0}")]
    Invalid(String),
    /// Others wrote the same secret, again and again.
    #[error("the secret is being written by others, try again")]
    Contended,
    /// The records of secrets.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// A handler panicked, or a record makes no sense.
    #[error("internal error")]
    Internal,
}

impl From<Panicked> for KvError {
    fn from(_: Panicked) -> Self {
        Self::Internal
    }
}

impl Fault for KvError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::CheckAndSet | Self::CheckAndSetRequired | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Contended => ErrorKind::Unavailable,
            Self::Barrier(error) => error.kind(),
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::NotFound => Vec::new(),
            Self::Barrier(error) => error.public(),
            Self::CheckAndSet
            | Self::CheckAndSetRequired
            | Self::Invalid(_)
            | Self::Contended
            | Self::Internal => vec![self.to_string()],
        }
    }
}

macro_rules! kv_ports {
    ($($(#[$doc:meta])* $field:ident: $message:ty,)*) => {
        /// How the front door reaches the kv engine on its own arbiter.
        #[derive(Clone)]
        pub struct KvPorts {
            $($(#[$doc])* pub $field: actix::Recipient<$message>,)*
        }

        impl KvPorts {
            /// The ports of one kv engine.
            pub fn new<A>(engine: &actix::Addr<A>) -> Self
            where
                A: actix::Actor<Context = actix::Context<A>> $(+ actix::Handler<$message>)*,
            {
                Self { $($field: engine.clone().recipient(),)* }
            }
        }
    };
}

kv_ports! {
    /// v1 read.
    read_plain: ReadPlain,
    /// v1 write.
    write_plain: WritePlain,
    /// v1 delete.
    delete_plain: DeletePlain,
    /// v1 list.
    list_plain: ListPlain,
    /// Is it there?
    exists: Exists,
    /// v2 read.
    read_version: ReadVersion,
    /// v2 write.
    write_version: WriteVersion,
    /// v2 merge.
    patch_version: PatchVersion,
    /// v2 delete, undelete, destroy.
    change_versions: ChangeVersions,
    /// v2 structure.
    read_subkeys: ReadSubkeys,
    /// v2 metadata read.
    read_metadata: ReadMetadata,
    /// v2 metadata change.
    write_metadata: WriteMetadata,
    /// v2 metadata removal.
    delete_metadata: DeleteMetadata,
    /// v2 list.
    list_versioned: ListVersioned,
    /// v2 settings read.
    read_config: ReadConfig,
    /// v2 settings change.
    write_config: WriteConfig,
    /// The mount goes away.
    unmount: crate::engine::Unmount,
}
