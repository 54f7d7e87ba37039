//! The seal's own records in the store: read, founded and replaced.

use mssm_crypto::Key32;
use mssm_crypto::envelope::{EnvelopeError, EnvelopeKey, Place};
use mssm_crypto::keyring::{Keyring, KeyringError};
use mssm_domain::{Clock, ClusterId, Random, SealedBytes, StoredRecord, Term};
use mssm_messages::keys::{KeyError, PlainRecord};
use mssm_messages::seal::{SealError, StageError};
use mssm_messages::storage::{Commit, Expect, Precondition, StorageError, StoragePort, Write};
use mssm_messages::{Change, Changes};

use crate::keyset::KeySet;
use crate::record::{RecordError, SealConfigRecord, config_key, keyring_key};

/// The term that envelopes under the root key name; data keys count from 1.
const ROOT_TERM: Term = Term::new(0);

/// The keyring as it lies in the store.
pub(crate) struct StoredKeyring {
    pub(crate) keyring: Keyring,
    version: u64,
}

/// The way to the seal's own records.
pub(crate) struct Vault {
    storage: StoragePort,
}

impl Vault {
    pub(crate) const fn new(storage: StoragePort) -> Self {
        Self { storage }
    }

    /// The seal configuration; `None` in an empty store.
    pub(crate) fn load_config(&self) -> Result<Option<SealConfigRecord>, SealError> {
        let record = self
            .storage
            .reader
            .read(&config_key())
            .map_err(|error| unreadable("seal-config", error))?;
        let Some(record) = record else {
            // An empty store is a new one; one without this record has lost it.
            if self.storage.reader.scan(&[], None, 1)?.is_empty() {
                return Ok(None);
            }
            return Err(SealError::Store(
                "record seal-config is missing although the store holds records; \
                 restore the store from a backup"
                    .to_owned(),
            ));
        };
        match SealConfigRecord::decode(record.sealed.as_bytes()) {
            Ok(config) => Ok(Some(config)),
            Err(error @ RecordError::Damaged) => Err(SealError::Store(format!(
                "record seal-config {error}; restore the store from a backup"
            ))),
            Err(error @ RecordError::UnknownForm(_)) => Err(SealError::Store(format!(
                "record seal-config {error}; start the version that wrote it"
            ))),
        }
    }

    /// The keyring, opened with the root key.
    pub(crate) fn load_keyring(
        &self,
        root: &EnvelopeKey,
        cluster: ClusterId,
    ) -> Result<StoredKeyring, SealError> {
        let key = keyring_key();
        let record =
            self.storage.reader.read(&key).map_err(|error| unreadable("keyring", error))?;
        let Some(record) = record else {
            return Err(broken("is missing"));
        };
        let place = Place { key: &key, version: record.version };
        let bytes = root.open(place, &record.sealed).map_err(|error| match error {
            EnvelopeError::UnknownFormat(_) | EnvelopeError::UnknownSuite(_) => {
                newer_keyring(&error.to_string())
            }
            EnvelopeError::Truncated
            | EnvelopeError::UnknownTerm(_)
            | EnvelopeError::DoesNotOpen
            | EnvelopeError::TooLarge => broken("is damaged: the right root key does not open it"),
        })?;
        // EXPOSE: parsed into keys; the bytes are wiped when this returns.
        let keyring = Keyring::decode(bytes.expose()).map_err(|error| match error {
            KeyringError::UnknownForm(_) => newer_keyring(&error.to_string()),
            KeyringError::Malformed | KeyringError::Full => broken("is malformed"),
        })?;
        if keyring.cluster() != cluster {
            return Err(broken("belongs to another store than record seal-config"));
        }
        Ok(StoredKeyring { keyring, version: record.version })
    }

    /// Writes a new store: its configuration, its keyring and what it begins with, all or nothing.
    pub(crate) async fn found(
        &self,
        config: &SealConfigRecord,
        root: &Key32,
        keyring: &Keyring,
        seeds: Changes,
        (clock, random): (&dyn Clock, &dyn Random),
    ) -> Result<(), SealError> {
        // EXPOSE: expanded into the key that seals the keyring.
        let root = EnvelopeKey::new(root.expose());
        let (key, record) = seal_keyring(&root, keyring, 1, clock, random)?;
        let plain = StoredRecord { version: 1, sealed: SealedBytes::new(config.encode()) };
        let mut commit = Commit {
            preconditions: vec![
                Precondition { key: config_key(), expect: Expect::Absent },
                Precondition { key: key.clone(), expect: Expect::Absent },
            ],
            writes: vec![Write::Put(config_key(), plain), Write::Put(key, record)],
        };
        seal_changes(&mut commit, seeds, &mut KeySet::new(keyring), clock, random)?;
        Ok(self.storage.writer.commit(commit).await??)
    }

    /// Writes down that the store has an index, so that one that is gone is missed.
    pub(crate) async fn mark_indexed(
        &self,
        root: &EnvelopeKey,
        stored: &mut StoredKeyring,
        sources: (&dyn Clock, &dyn Random),
    ) -> Result<(), SealError> {
        stored.keyring.set_indexed();
        self.replace(root, stored, sources).await
    }

    /// Writes a keyring over the one that it was made from.
    pub(crate) async fn replace(
        &self,
        root: &EnvelopeKey,
        stored: &StoredKeyring,
        (clock, random): (&dyn Clock, &dyn Random),
    ) -> Result<(), SealError> {
        let version = stored.version.saturating_add(1);
        let (key, record) = seal_keyring(root, &stored.keyring, version, clock, random)?;
        let expect = Expect::Version(stored.version);
        let commit = Commit {
            preconditions: vec![Precondition { key: key.clone(), expect }],
            writes: vec![Write::Put(key, record)],
        };
        Ok(self.storage.writer.commit(commit).await??)
    }
}

fn seal_keyring(
    root: &EnvelopeKey,
    keyring: &Keyring,
    version: u64,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(mssm_domain::StoredKey, StoredRecord), SealError> {
    let key = keyring_key();
    let place = Place { key: &key, version };
    // EXPOSE: encrypted under the root key here.
    let sealed = root
        .seal(ROOT_TERM, place, keyring.encode().expose(), clock.now(), random)
        .map_err(|error| SealError::Store(error.to_string()))?;
    Ok((key, StoredRecord { version, sealed }))
}

/// Hides names and seals contents, as a replica does for the barrier.
fn seal_changes(
    commit: &mut Commit,
    changes: Changes,
    keys: &mut KeySet,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), SealError> {
    let refused = |error: KeyError| SealError::Stage(StageError(format!("seeds: {error}")));
    let (expectations, changes) = changes.into_parts();
    for (path, expect) in expectations {
        let key = keys.hide(&path).map_err(refused)?;
        commit.preconditions.push(Precondition { key, expect });
    }
    for change in changes {
        commit.writes.push(match change {
            Change::Put { path, version, bytes } => {
                let plain = PlainRecord { path, version, bytes };
                let (key, record) = keys.seal(&plain, clock.now(), random).map_err(refused)?;
                Write::Put(key, record)
            }
            Change::Delete(path) => Write::Delete(keys.hide(&path).map_err(refused)?),
        });
    }
    Ok(())
}

fn unreadable(record: &str, error: StorageError) -> SealError {
    match error {
        StorageError::Damaged(place) => SealError::Store(format!(
            "record {record} is damaged ({place}); restore the store from a backup"
        )),
        other => SealError::Storage(other),
    }
}

fn broken(what: &str) -> SealError {
    SealError::Store(format!(
        "record keyring {what}; without it nothing can be read, restore the store from a backup"
    ))
}

fn newer_keyring(error: &str) -> SealError {
    SealError::Store(format!("record keyring: {error}; start the version that wrote it"))
}
