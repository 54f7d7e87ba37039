//! Version-1 secrets: one JSON object a path, last write wins.

use mssm_domain::{Clock, Document, RecordPath};
use mssm_messages::kv::{DeletePlain, KvError, ListPlain, ReadPlain, WritePlain};
use mssm_messages::{Barrier, Changes, Child};

use crate::record;

/// How often a write is made anew because another came in between.
pub(crate) const ATTEMPTS: usize = 16;

pub(crate) async fn read(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: ReadPlain,
) -> Result<Document, KvError> {
    let path = msg.space.folder().child(msg.path.as_str());
    let stored = barrier.read(&path).await?.ok_or(KvError::NotFound)?;
    record::document(stored.bytes)
}

pub(crate) async fn write(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: WritePlain,
) -> Result<(), KvError> {
    let path = msg.space.folder().child(msg.path.as_str());
    for _ in 0..ATTEMPTS {
        let over = barrier.read(&path).await?.map_or(0, |stored| stored.version);
        let bytes = record::document_bytes(&msg.document);
        match barrier.commit(Changes::new().put(path.clone(), over, bytes)).await {
            Err(error) if error.failed_expectation().is_some() => {}
            done => return Ok(done?),
        }
    }
    Err(KvError::Contended)
}

pub(crate) async fn delete(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: DeletePlain,
) -> Result<(), KvError> {
    let path = msg.space.folder().child(msg.path.as_str());
    Ok(barrier.commit(Changes::new().delete(path)).await?)
}

pub(crate) async fn list(
    barrier: &Barrier,
    _clock: &dyn Clock,
    msg: ListPlain,
) -> Result<Vec<String>, KvError> {
    let folder = msg.space.folder().child(&msg.folder);
    names(barrier, &folder, msg.after.as_deref(), msg.limit).await
}

/// The names below a folder as Vault lists them: folders end in `/`; nothing there is `NotFound`.
pub(crate) async fn names(
    barrier: &Barrier,
    folder: &RecordPath,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, KvError> {
    // A name can be listed twice, as a secret and as a folder: the cut is made on what is shown.
    let children = barrier.list(folder, None, usize::MAX).await?;
    let mut names: Vec<String> = children.into_iter().flat_map(shown).collect();
    names.sort_unstable();
    names.retain(|name| after.is_none_or(|after| name.as_str() > after));
    names.truncate(limit);
    if names.is_empty() { Err(KvError::NotFound) } else { Ok(names) }
}

fn shown(child: Child) -> impl Iterator<Item = String> {
    let folder = child.is_folder.then(|| format!("{}/", child.name));
    let record = child.is_record.then_some(child.name);
    record.into_iter().chain(folder)
}
