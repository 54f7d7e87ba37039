//! To the storage: reads in place, and atomic batches to its one writer.

use std::sync::Arc;

use actix::Message;
use mssm_domain::{ErrorKind, Fault, StoredKey, StoredRecord};

use crate::Port;

/// Reads the store in place, on the caller's thread; sees only what is durable.
///
/// Every call is one short read transaction; none may be kept across an `await`.
pub trait StorageReader: Send + Sync {
    /// The record under a key.
    fn read(&self, key: &StoredKey) -> Result<Option<StoredRecord>, StorageError>;

    /// Up to `limit` keys that begin with `prefix` and come after `after`, in byte order.
    ///
    /// `after` need not exist; a page shorter than `limit` is the last one.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, StorageError>;

    /// The same page with its records.
    fn scan_records(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, StoredRecord)>, StorageError>;
}

/// What must hold of a key for a batch to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is there.
    Absent,
    /// Something is there, whatever its version.
    Present,
    /// Exactly this version is there.
    Version(u64),
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// The key.
    pub key: StoredKey,
    /// What must hold of it.
    pub expect: Expect,
}

/// One change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Stores the record, replacing what was there.
    Put(StoredKey, StoredRecord),
    /// Removes the record; one that is not there is fine.
    Delete(StoredKey),
}

/// Applies all writes or none, if all preconditions hold; replies once they are durable.
///
/// Batches are applied one after the other; a batch sees what earlier ones wrote, also those that
/// share its commit.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Commit {
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// Applied in order.
    pub writes: Vec<Write>,
}

/// Verifies every record that the backend can verify without keys.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Report, StorageError>")]
pub struct Check;

/// What [`Check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many records are whole.
    pub records: u64,
    /// What is damaged, in words that name the place (a file, a table), never a secret.
    pub damaged: Vec<String>,
}

/// Why the storage refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// A precondition does not hold; the index of the first that does not. Nothing was written.
    #[error("precondition {0} does not hold")]
    Precondition(usize),
    /// Too many batches wait already. Nothing was written.
    #[error("too many writes wait already")]
    Busy,
    /// The disk is full or read-only. Nothing was written; it goes on by itself when there is room.
    #[error("the disk takes no writes: {0}")]
    NoSpace(String),
    /// A sync failed: whether the batch will be there after a restart is unknown. The writer stops.
    #[error("the store could not confirm the write, its outcome is unknown: {0}")]
    Unknown(String),
    /// The writer stopped after a failed sync and takes nothing more until a restart.
    #[error("the store takes no more writes since a sync failed: {0}")]
    Poisoned(String),
    /// The server is sealed: the index over the store has no key. Nothing was written.
    #[error("the store is sealed")]
    Sealed,
    /// One record cannot be read; the place in words.
    #[error("damaged record: {0}")]
    Damaged(String),
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Io(String),
}

impl Fault for StorageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Precondition(_) => ErrorKind::Conflict,
            Self::Sealed => ErrorKind::Sealed,
            Self::Busy | Self::NoSpace(_) | Self::Poisoned(_) => ErrorKind::Unavailable,
            Self::Unknown(_) | Self::Damaged(_) | Self::Io(_) => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        vec![
            match self {
                Self::Precondition(_) => "the record changed meanwhile, try again",
                Self::Busy => "too many writes wait, try again",
                Self::NoSpace(_) => "the storage takes no writes, free disk space",
                Self::Unknown(_) => {
                    "the outcome of this write is unknown, read before trying again"
                }
                Self::Poisoned(_) => "the storage failed to sync and stopped, restart the server",
                Self::Sealed => "Vault is sealed",
                Self::Damaged(_) => "a stored record is damaged, run mssm storage check",
                Self::Io(_) => "the storage cannot be read",
            }
            .to_owned(),
        ]
    }
}

/// How others reach the storage: reads in place, writes through the writer's bounded queue.
#[derive(Clone)]
pub struct StoragePort {
    /// Reads what is durable.
    pub reader: Arc<dyn StorageReader>,
    /// The writer's queue.
    pub writer: Port<Commit>,
}
