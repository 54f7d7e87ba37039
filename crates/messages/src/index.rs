//! To the commit thread: the key of its index over the store, and what it finds that was not written.

use std::fmt;

use actix::Message;
use mssm_domain::StoredKey;

use crate::storage::StorageError;

/// Makes the tags of the index. Handed to the commit thread, and to nobody else.
pub trait IndexKey: Send {
    /// A keyed hash of the item.
    fn tag(&self, item: &[u8]) -> [u8; 32];
}

/// Hands the index its key, or has it wiped.
///
/// With a key the vital records are compared before the reply, in a small store all of them; in a
/// large one the rest behind it, what a commit replaces or relies on before that commit. Without a
/// key a store that has an index takes no commit.
#[derive(Debug, Message)]
#[rtype(result = "Result<Standing, IndexError>")]
pub struct InstallIndex(pub Option<IndexOpening>);

/// What the index needs to be used.
pub struct IndexOpening {
    /// Makes its tags.
    pub key: Box<dyn IndexKey>,
    /// What the keys of vital records begin with.
    pub vital: Vec<StoredKey>,
    /// True if the store is known to have an index; else one is made if there is none.
    pub expected: bool,
    /// True if what is there is to hold, whatever the index says.
    pub accept: bool,
}

impl fmt::Debug for IndexOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexOpening")
            .field("expected", &self.expected)
            .field("accept", &self.accept)
            .finish_non_exhaustive()
    }
}

/// How things stood when the index got its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What was not as it was written, and holds now because that was wished.
    pub accepted: Findings,
}

/// In what way a record is not what was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    /// Another content than the last one written: an older one, or another record's.
    Changed,
    /// It was written and never deleted, and is not there.
    Missing,
    /// It is there, and was deleted or never written.
    Unknown,
    /// The index itself is not what was written; the record is one that it spoke of.
    Index,
}

impl Discrepancy {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Changed => "is not what was written last",
            Self::Missing => "is missing",
            Self::Unknown => "was deleted, and is there",
            Self::Index => "cannot be vouched for: its part of the index was changed",
        }
    }
}

/// One record that is not what was written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its hidden name.
    pub key: StoredKey,
    /// What is wrong.
    pub what: Discrepancy,
}

/// What was found, as much as fits; the rest is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first.
    pub first: Vec<Finding>,
    /// How many more.
    pub more: u64,
}

impl Findings {
    /// So many are named.
    pub const NAMED: usize = 32;

    /// Takes one in.
    pub fn add(&mut self, key: &[u8], what: Discrepancy) {
        if self.first.len() < Self::NAMED {
            self.first.push(Finding { key: StoredKey::new(key.to_vec()), what });
        } else {
            self.more += 1;
        }
    }

    /// True if nothing was found.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// Why the index does not take its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Records are not what was written last.
    #[error("records are not what was written last")]
    Distrusted(Findings),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
