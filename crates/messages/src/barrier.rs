//! The barrier: the only way for plain records in and out of the store.
//!
//! Seals on the way in, opens on the way out, on the caller's own arbiter; the store sees neither
//! names nor contents, the keys see no disk.

use mssm_domain::{ErrorKind, Fault, RecordPath, SecretBytes, StoredKey, StoredRecord};

use crate::keys::{HideNames, KeyError, KeysPort, Open, PlainRecord, Seal, ShowNames};
use crate::storage::{Commit, Expect, Precondition, StorageError, StoragePort, Write};
use crate::{PortError, storage};

/// Why the barrier let nothing through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// Keys are missing, or a record does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store refused or failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store's writer takes nothing.
    #[error("storage: {0}")]
    Port(#[from] PortError),
}

impl BarrierError {
    /// The index of the expectation that did not hold, if that is why.
    pub const fn failed_expectation(&self) -> Option<usize> {
        match self {
            Self::Storage(StorageError::Precondition(index)) => Some(*index),
            _ => None,
        }
    }
}

impl Fault for BarrierError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Key(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Port(_) => ErrorKind::Unavailable,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::Key(error) => error.public(),
            Self::Storage(error) => error.public(),
            Self::Port(_) => vec!["the storage does not answer, try again".to_owned()],
        }
    }
}

/// A record as its owner knows it.
#[derive(Debug)]
pub struct Plain {
    /// Counts the writes of this record, from 1.
    pub version: u64,
    /// What it says.
    pub bytes: SecretBytes,
}

/// One change to one record.
#[derive(Debug)]
pub enum Change {
    /// Writes a record as version `version`; the writer's expectation says what must be there.
    Put {
        /// Its name.
        path: RecordPath,
        /// The version that it becomes: one more than the one it replaces, 1 if there is none.
        version: u64,
        /// What it says.
        bytes: SecretBytes,
    },
    /// Removes a record.
    Delete(RecordPath),
}

/// Several changes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Changes {
    expectations: Vec<(RecordPath, Expect)>,
    changes: Vec<Change>,
}

impl Changes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of it happens only if this holds. Expectations are numbered in the order of these calls
    /// and of [`Self::put`], from 0.
    pub fn expect(mut self, path: RecordPath, expect: Expect) -> Self {
        self.expectations.push((path, expect));
        self
    }

    /// Writes a record over version `over` (0: nothing may be there), as the version after it.
    pub fn put(mut self, path: RecordPath, over: u64, bytes: SecretBytes) -> Self {
        let expect = if over == 0 { Expect::Absent } else { Expect::Version(over) };
        self.expectations.push((path.clone(), expect));
        self.changes.push(Change::Put { path, version: over + 1, bytes });
        self
    }

    /// Writes a record under a name that nobody else writes, as version 1, without looking.
    pub fn lay(mut self, path: RecordPath, bytes: SecretBytes) -> Self {
        self.changes.push(Change::Put { path, version: 1, bytes });
        self
    }

    /// Removes a record, whether it is there or not.
    pub fn delete(mut self, path: RecordPath) -> Self {
        self.changes.push(Change::Delete(path));
        self
    }

    /// Puts another's changes behind these.
    pub fn and(mut self, other: Self) -> Self {
        self.expectations.extend(other.expectations);
        self.changes.extend(other.changes);
        self
    }

    /// True if it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The parts: what must hold, and what is done.
    pub fn into_parts(self) -> (Vec<(RecordPath, Expect)>, Vec<Change>) {
        (self.expectations, self.changes)
    }
}

/// An entry of a listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// Its plain name, one segment.
    pub name: String,
    /// True if there is a record under this very name.
    pub is_record: bool,
    /// True if there are records below it.
    pub is_folder: bool,
}

/// Records as they are stored, each with its key.
type Records = Vec<(StoredKey, StoredRecord)>;

/// Plain records in and out, for one arbiter.
#[derive(Clone)]
pub struct Barrier {
    keys: KeysPort,
    storage: StoragePort,
}

impl Barrier {
    /// A barrier over the key replica of this arbiter and the store.
    pub const fn new(keys: KeysPort, storage: StoragePort) -> Self {
        Self { keys, storage }
    }

    /// The key replica, for fingerprints.
    pub const fn keys(&self) -> &KeysPort {
        &self.keys
    }

    /// Reads a record.
    pub async fn read(&self, path: &RecordPath) -> Result<Option<Plain>, BarrierError> {
        let key = self.hide(path).await?;
        let Some(record) = self.storage.reader.read(&key)? else { return Ok(None) };
        let version = record.version;
        let opened = self.keys.open(Open(vec![(key, record)])).await?;
        match opened.into_iter().next() {
            Some(bytes) => Ok(Some(Plain { version, bytes: bytes? })),
            None => Err(KeyError::Damaged.into()),
        }
    }

    /// True if a record is there. Does not open it.
    pub async fn exists(&self, path: &RecordPath) -> Result<bool, BarrierError> {
        let key = self.hide(path).await?;
        Ok(self.storage.reader.read(&key)?.is_some())
    }

    /// Makes the changes, all or none; returns once they are durable.
    ///
    /// Goes on to its end even if the caller goes away.
    pub async fn commit(&self, changes: Changes) -> Result<(), BarrierError> {
        let commit = self.seal(changes).await?;
        Ok(self.storage.writer.commit(commit).await??)
    }

    /// The children of a record's name, sorted by plain name; `after` is a plain name.
    ///
    /// At most `limit` entries; reads every child's key, since hidden names have no order.
    pub async fn list(
        &self,
        parent: &RecordPath,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Child>, BarrierError> {
        let prefix = self.hide(parent).await?;
        let found = self.hidden_children(&prefix)?;
        let keys = found.iter().map(|(key, _, _)| key.clone()).collect();
        let names = self.keys.show(ShowNames(keys)).await?;
        let mut children = Vec::with_capacity(found.len());
        for (name, (_, is_record, is_folder)) in names.into_iter().zip(found) {
            let child = Child { name: name?, is_record, is_folder };
            if after.is_none_or(|after| child.name.as_str() > after) {
                children.push(child);
            }
        }
        children.sort_unstable();
        children.truncate(limit);
        Ok(children)
    }

    /// A page of the records below a name, at any depth, in the store's own order.
    ///
    /// `after` is the key of the last record of the page before. Records that do not open, or are
    /// damaged where they are stored, come back as errors in their place; names are not shown, so
    /// records say what they are.
    pub async fn scan(
        &self,
        parent: &RecordPath,
        after: Option<&StoredKey>,
        limit: usize,
    ) -> Result<Vec<(StoredKey, Result<Plain, KeyError>)>, BarrierError> {
        let prefix = self.hide(parent).await?;
        let after = after.map(StoredKey::as_bytes);
        let (page, damaged) =
            match self.storage.reader.scan_records(prefix.as_bytes(), after, limit) {
                Err(StorageError::Damaged(_)) => {
                    self.scan_singly(prefix.as_bytes(), after, limit)?
                }
                page => (page?, Vec::new()),
            };
        let versions: Vec<(StoredKey, u64)> =
            page.iter().map(|(key, record)| (key.clone(), record.version)).collect();
        let opened = self.keys.open(Open(page)).await?;
        let mut plain: Vec<(StoredKey, Result<Plain, KeyError>)> = versions
            .into_iter()
            .zip(opened)
            .map(|((key, version), bytes)| (key, bytes.map(|bytes| Plain { version, bytes })))
            .collect();
        if !damaged.is_empty() {
            plain.extend(damaged.into_iter().map(|key| (key, Err(KeyError::Damaged))));
            plain.sort_by(|one, other| one.0.cmp(&other.0));
        }
        Ok(plain)
    }

    /// A page record by record, for one that has damaged ones: those that are whole, and the others' keys.
    fn scan_singly(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Records, Vec<StoredKey>), StorageError> {
        let (reader, mut after) = (&self.storage.reader, after.map(<[u8]>::to_vec));
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        // A record that goes between the two looks is none; the page is filled up with the next.
        while whole.len() + damaged.len() < limit {
            let left = limit - whole.len() - damaged.len();
            let keys = reader.scan(prefix, after.as_deref(), left)?;
            let Some(last) = keys.last() else { break };
            after = Some(last.as_bytes().to_vec());
            for key in keys {
                match reader.read(&key) {
                    Ok(Some(record)) => whole.push((key, record)),
                    Ok(None) => {}
                    Err(StorageError::Damaged(_)) => damaged.push(key),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((whole, damaged))
    }

    /// Removes every record below a name, in batches; returns how many.
    pub async fn delete_all(&self, parent: &RecordPath) -> Result<u64, BarrierError> {
        const BATCH: usize = 500;
        let prefix = self.hide(parent).await?;
        let mut removed = 0;
        loop {
            let page = self.storage.reader.scan(prefix.as_bytes(), None, BATCH)?;
            if page.is_empty() {
                return Ok(removed);
            }
            removed += page.len() as u64;
            let writes = page.into_iter().map(Write::Delete).collect();
            let commit = Commit { preconditions: Vec::new(), writes };
            self.storage.writer.commit(commit).await??;
        }
    }

    async fn hide(&self, path: &RecordPath) -> Result<StoredKey, BarrierError> {
        let keys = self.keys.hide(HideNames(vec![path.clone()])).await?;
        keys.into_iter().next().ok_or_else(|| KeyError::Damaged.into())
    }

    /// Hides names and seals contents; what comes out is the store's business.
    async fn seal(&self, changes: Changes) -> Result<Commit, BarrierError> {
        let (expectations, changes) = changes.into_parts();
        let mut names: Vec<RecordPath> =
            expectations.iter().map(|(path, _)| path.clone()).collect();
        let mut plain = Vec::new();
        for change in changes {
            match change {
                Change::Put { path, version, bytes } => {
                    plain.push(PlainRecord { path, version, bytes });
                }
                Change::Delete(path) => names.push(path),
            }
        }
        let mut hidden = self.keys.hide(HideNames(names)).await?.into_iter();
        let preconditions = hidden
            .by_ref()
            .take(expectations.len())
            .zip(&expectations)
            .map(|(key, (_, expect))| Precondition { key, expect: *expect })
            .collect();
        let deletes = hidden.map(Write::Delete);
        let sealed = self.keys.seal(Seal(plain)).await?;
        let puts = sealed.into_iter().map(|(key, record)| Write::Put(key, record));
        Ok(storage::Commit { preconditions, writes: deletes.chain(puts).collect() })
    }

    /// The stored keys one segment below a prefix: is a record there, is something below it.
    fn hidden_children(
        &self,
        prefix: &StoredKey,
    ) -> Result<Vec<(StoredKey, bool, bool)>, BarrierError> {
        const PAGE: usize = 256;
        let base = prefix.as_bytes();
        let mut children: Vec<(StoredKey, bool, bool)> = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.storage.reader.scan(base, after.as_deref(), PAGE)?;
            let full = page.len() == PAGE;
            for key in &page {
                let Some(end) = segment_end(key.as_bytes(), base.len()) else { continue };
                let is_record = end == key.as_bytes().len();
                let name = key.as_bytes().get(..end).unwrap_or_default();
                match children.last_mut() {
                    Some(last) if last.0.as_bytes() == name => {
                        last.1 |= is_record;
                        last.2 |= !is_record;
                    }
                    _ => children.push((StoredKey::new(name.to_vec()), is_record, !is_record)),
                }
            }
            let (Some(last), true) = (page.last(), full) else { return Ok(children) };
            // A child with much below it would be walked key by key: jump to its end instead.
            let end = segment_end(last.as_bytes(), base.len()).unwrap_or(last.as_bytes().len());
            let mut next = last.as_bytes().to_vec();
            if end < next.len() {
                next.truncate(end);
                next.extend_from_slice(&[0xff; 3]);
            }
            after = Some(next);
        }
    }
}

/// Where the segment that starts at `start` ends: a length of two bytes, then so many bytes.
fn segment_end(key: &[u8], start: usize) -> Option<usize> {
    let length: [u8; 2] = key.get(start..start + 2)?.try_into().ok()?;
    Some(start + 2 + usize::from(u16::from_be_bytes(length)))
}
