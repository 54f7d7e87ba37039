//! Version-2 secrets: reads the head, lets the rule change it, commits on the version it read.

use mssm_domain::{Clock, Document, MountId, RecordPath};
use mssm_messages::kv::{
    ChangeVersions, DeleteMetadata, Exists, KvConfig, KvError, KvPath, ListVersioned, MetadataView,
    PatchVersion, ReadConfig, ReadMetadata, ReadSubkeys, ReadVersion, Space, VersionView,
    VersionedSecret, WriteConfig, WriteMetadata, WriteVersion,
};
use mssm_messages::{Barrier, Changes};

use crate::plain::{ATTEMPTS, names};
use crate::secret::{Aside, Secret};
use crate::{merge, record};

fn head_path(mount: MountId, path: &KvPath) -> RecordPath {
    RecordPath::new(&["kv2", &mount.to_string(), "data", path.as_str()])
}

/// An older version's record. The last segment cannot be one of a secret's path.
fn old_path(mount: MountId, path: &KvPath, number: u64) -> RecordPath {
    let version = format!("\u{1}{number}");
    RecordPath::new(&["kv2", &mount.to_string(), "old", path.as_str(), &version])
}

fn config_path(mount: MountId) -> RecordPath {
    RecordPath::new(&["kv2", &mount.to_string(), "config"])
}

async fn load(barrier: &Barrier, head: &RecordPath) -> Result<Option<(u64, Secret)>, KvError> {
    let Some(stored) = barrier.read(head).await? else { return Ok(None) };
    Ok(Some((stored.version, record::head(&stored.bytes)?)))
}

async fn settings(barrier: &Barrier, mount: MountId) -> Result<(u64, KvConfig), KvError> {
    match barrier.read(&config_path(mount)).await? {
        Some(stored) => Ok((stored.version, record::config(&stored.bytes)?)),
        None => Ok((0, KvConfig::default())),
    }
}

/// Commits a changed head with what becomes of older versions; false if another was faster.
async fn store(
    barrier: &Barrier,
    (mount, path): (MountId, &KvPath),
    over: u64,
    secret: &Secret,
    aside: Aside,
) -> Result<bool, KvError> {
    let head = head_path(mount, path);
    let mut changes = Changes::new().put(head, over, record::head_bytes(secret)?);
    for number in aside.drop {
        changes = changes.delete(old_path(mount, path, number));
    }
    if let Some((number, document)) = aside.keep {
        let bytes = record::document_bytes(&document);
        changes = changes.put(old_path(mount, path, number), 0, bytes);
    }
    match barrier.commit(changes).await {
        Err(error) if error.failed_expectation().is_some() => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

pub(crate) async fn exists(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: Exists,
) -> Result<bool, KvError> {
    let path = match msg.space {
        Space::Mount(mount) if msg.versioned => head_path(mount, &msg.path),
        space => space.folder().child(msg.path.as_str()),
    };
    Ok(barrier.exists(&path).await?)
}

pub(crate) async fn read(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: ReadVersion,
) -> Result<VersionedSecret, KvError> {
    let head = head_path(msg.mount, &msg.path);
    let (_, mut secret) = load(barrier, &head).await?.ok_or(KvError::NotFound)?;
    let version = secret.version(msg.version).ok_or(KvError::NotFound)?;
    let view = secret.view(version);
    let hidden = view.destroyed || view.deleted_at.is_some_and(|at| at <= clock.now());
    if hidden {
        return Ok(VersionedSecret { document: None, view });
    }
    let document = if view.version == secret.current {
        secret.latest.take()
    } else {
        let old = barrier.read(&old_path(msg.mount, &msg.path, view.version)).await?;
        old.map(|stored| record::document(stored.bytes)).transpose()?
    };
    match document {
        Some(document) => Ok(VersionedSecret { document: Some(document), view }),
        // Overwritten or destroyed by another between the two reads; the next read tells.
        None => Err(KvError::Contended),
    }
}

pub(crate) async fn write(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: WriteVersion,
) -> Result<VersionView, KvError> {
    let head = head_path(msg.mount, &msg.path);
    for _ in 0..ATTEMPTS {
        let now = clock.now();
        let (_, config) = settings(barrier, msg.mount).await?;
        let (over, mut secret) =
            load(barrier, &head).await?.unwrap_or_else(|| (0, Secret::begin(now)));
        let document = msg.document.duplicate();
        let aside = secret.write(now, &config, document, msg.check_and_set)?;
        if store(barrier, (msg.mount, &msg.path), over, &secret, aside).await? {
            return latest_view(&secret);
        }
    }
    Err(KvError::Contended)
}

pub(crate) async fn patch(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: PatchVersion,
) -> Result<VersionView, KvError> {
    let head = head_path(msg.mount, &msg.path);
    for _ in 0..ATTEMPTS {
        let now = clock.now();
        let (_, config) = settings(barrier, msg.mount).await?;
        let (over, mut secret) = load(barrier, &head).await?.ok_or(KvError::NotFound)?;
        let document = living(&secret, clock).ok_or(KvError::NotFound)?;
        let merged = merge::merge(document, &msg.patch)?;
        let aside = secret.write(now, &config, merged, msg.check_and_set)?;
        if store(barrier, (msg.mount, &msg.path), over, &secret, aside).await? {
            return latest_view(&secret);
        }
    }
    Err(KvError::Contended)
}

/// The latest document, unless it is deleted or destroyed.
fn living<'a>(secret: &'a Secret, clock: &dyn Clock) -> Option<&'a Document> {
    let version = secret.version(None)?;
    let deleted = version.deleted_at.is_some_and(|at| at <= clock.now());
    secret.latest.as_ref().filter(|_| !deleted)
}

fn latest_view(secret: &Secret) -> Result<VersionView, KvError> {
    secret.version(None).map(|version| secret.view(version)).ok_or(KvError::Internal)
}

pub(crate) async fn change(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: ChangeVersions,
) -> Result<(), KvError> {
    let head = head_path(msg.mount, &msg.path);
    for _ in 0..ATTEMPTS {
        let Some((over, mut secret)) = load(barrier, &head).await? else { return Ok(()) };
        let Some(aside) = secret.change(clock.now(), &msg.versions, msg.change) else {
            return Ok(());
        };
        if store(barrier, (msg.mount, &msg.path), over, &secret, aside).await? {
            return Ok(());
        }
    }
    Err(KvError::Contended)
}

pub(crate) async fn subkeys(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: ReadSubkeys,
) -> Result<VersionedSecret, KvError> {
    let read_version = ReadVersion { mount: msg.mount, path: msg.path, version: msg.version };
    let secret = read(barrier, clock, read_version).await?;
    let document =
        secret.document.map(|document| merge::structure(&document, msg.depth)).transpose()?;
    Ok(VersionedSecret { document, view: secret.view })
}

pub(crate) async fn read_metadata(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: ReadMetadata,
) -> Result<MetadataView, KvError> {
    let head = head_path(msg.mount, &msg.path);
    let (_, secret) = load(barrier, &head).await?.ok_or(KvError::NotFound)?;
    Ok(secret.metadata())
}

pub(crate) async fn write_metadata(
    barrier: &Barrier,
    clock: &dyn Clock,
    msg: WriteMetadata,
) -> Result<(), KvError> {
    let head = head_path(msg.mount, &msg.path);
    for _ in 0..ATTEMPTS {
        let now = clock.now();
        let (_, config) = settings(barrier, msg.mount).await?;
        let (over, mut secret) = match load(barrier, &head).await? {
            Some(found) => found,
            None if msg.must_exist => return Err(KvError::NotFound),
            None => (0, Secret::begin(now)),
        };
        let aside = secret.change_metadata(now, &config, &msg.patch)?;
        if store(barrier, (msg.mount, &msg.path), over, &secret, aside).await? {
            return Ok(());
        }
    }
    Err(KvError::Contended)
}

pub(crate) async fn delete_metadata(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: DeleteMetadata,
) -> Result<(), KvError> {
    let head = head_path(msg.mount, &msg.path);
    for _ in 0..ATTEMPTS {
        let Some((version, secret)) = load(barrier, &head).await? else { return Ok(()) };
        let expect = mssm_messages::storage::Expect::Version(version);
        let mut changes = Changes::new().expect(head.clone(), expect).delete(head.clone());
        for old in &secret.versions {
            changes = changes.delete(old_path(msg.mount, &msg.path, old.number));
        }
        match barrier.commit(changes).await {
            Err(error) if error.failed_expectation().is_some() => {}
            done => return Ok(done?),
        }
    }
    Err(KvError::Contended)
}

pub(crate) async fn list(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: ListVersioned,
) -> Result<Vec<String>, KvError> {
    let folder = RecordPath::new(&["kv2", &msg.mount.to_string(), "data", &msg.folder]);
    names(barrier, &folder, msg.after.as_deref(), msg.limit).await
}

pub(crate) async fn read_config(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: ReadConfig,
) -> Result<KvConfig, KvError> {
    Ok(settings(barrier, msg.mount).await?.1)
}

pub(crate) async fn write_config(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: WriteConfig,
) -> Result<(), KvError> {
    for _ in 0..ATTEMPTS {
        let (over, mut config) = settings(barrier, msg.mount).await?;
        config.max_versions = msg.max_versions.unwrap_or(config.max_versions);
        config.cas_required = msg.cas_required.unwrap_or(config.cas_required);
        config.delete_version_after_secs =
            msg.delete_version_after_secs.unwrap_or(config.delete_version_after_secs);
        let changes =
            Changes::new().put(config_path(msg.mount), over, record::config_bytes(&config)?);
        match barrier.commit(changes).await {
            Err(error) if error.failed_expectation().is_some() => {}
            done => return Ok(done?),
        }
    }
    Err(KvError::Contended)
}
