//! What the file backend does at its start and to damaged files: finish, look through, isolate.

use std::collections::BTreeSet;
use std::io;

use tracing::error;

use super::{Index, Places, disk, entry, journal};
use crate::folder::beside;
use crate::index::{is_index, keys_in};

impl Places {
    /// Finishes the batch whose journal a crash left behind, then clears what was only staged.
    pub(super) fn replay(&self) -> io::Result<()> {
        match disk::read(&self.journal) {
            Ok(bytes) => {
                if let Some(steps) = journal::decode(&bytes) {
                    for (name, puts) in steps {
                        self.settle(&name, puts)?;
                    }
                    disk::sync_folder(&self.records)?;
                    disk::remove(&self.journal)?;
                } else {
                    error!("the journal is damaged, its batch may be applied in part");
                    disk::rename(&self.journal, &self.damaged.join("journal"))?;
                    disk::sync_folder(&self.damaged)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // The run before may have ended in doubt: from now on what is read is durable, and a
        // journal that is gone stays gone.
        disk::sync_folder(&self.records)?;
        disk::sync_folder(&self.folder)?;
        disk::remove_if_there(&beside(&self.journal, ".new"))?;
        self.clear_staged()
    }

    /// Reads every record's file, and isolates those that are damaged.
    pub(super) fn load(&self) -> io::Result<Index> {
        let mut index = Index::default();
        let isolated = disk::names(&self.damaged)?;
        // A dot marks one that was replaced since; it is kept for whoever looks into it.
        index.damaged.extend(isolated.into_iter().filter(|name| !name.contains('.')));
        for name in disk::names(&self.records)? {
            let bytes = match disk::read(&self.records.join(&name)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // It stays where it is: the disk may read it at the next start.
                    error!(file = name, %error, "a record cannot be read");
                    index.damaged.insert(name);
                    continue;
                }
            };
            match entry::decode(&name, &bytes) {
                Ok((key, record)) => {
                    if index.damaged.remove(&name) {
                        self.forget_damage(&name);
                    }
                    index.versions.insert(key, Some(record.version));
                }
                Err(cause) => {
                    self.isolate(&name, &cause);
                    index.damaged.insert(name);
                }
            }
        }
        self.place_damaged(&mut index);
        Ok(index)
    }

    /// Gives damaged records their places among the others: nobody is to take them for absent.
    ///
    /// A file may say its key still; else the authenticated index does, which speaks of every record.
    fn place_damaged(&self, index: &mut Index) {
        let mut nameless = BTreeSet::new();
        for name in &index.damaged {
            let bytes = disk::read(&self.damaged.join(name)).unwrap_or_default();
            if let Some(key) = entry::key_in(name, &bytes) {
                index.versions.insert(key, None);
            } else {
                nameless.insert(name.clone());
            }
        }
        if nameless.is_empty() {
            return;
        }
        let mut found = Vec::new();
        for key in index.versions.keys().filter(|key| is_index(key)) {
            let name = entry::name_of(key);
            let Ok(bytes) = disk::read(&self.records.join(&name)) else { continue };
            let Ok((_, record)) = entry::decode(&name, &bytes) else { continue };
            let spoken_of = keys_in(key, &record).into_iter();
            found.extend(spoken_of.filter(|key| nameless.contains(&entry::name_of(key))));
        }
        index.versions.extend(found.into_iter().map(|key| (key, None)));
    }

    /// Puts a staged file in its place, or removes the record; doing it again changes nothing.
    pub(super) fn settle(&self, name: &str, puts: bool) -> io::Result<()> {
        let place = self.records.join(name);
        let done =
            if puts { disk::rename(&self.staged.join(name), &place) } else { disk::remove(&place) };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Moves a damaged file out of the way and says so; best effort, it stays known either way.
    pub(super) fn isolate(&self, name: &str, cause: &str) {
        let moved = disk::rename(&self.records.join(name), &self.damaged.join(name));
        let synced = moved.and_then(|()| disk::sync_folder(&self.records));
        if let Err(error) = synced.and_then(|()| disk::sync_folder(&self.damaged)) {
            error!(file = name, cause, %error, "a record is damaged and could not be moved away");
        } else {
            error!(file = name, cause, "a record is damaged; its file is in damaged/ now");
        }
    }

    /// Marks a damaged file as replaced; best effort, a whole record in its place says the same.
    pub(super) fn forget_damage(&self, name: &str) {
        let damaged = self.damaged.join(name);
        disk::rename(&damaged, &beside(&damaged, ".replaced")).unwrap_or_default();
    }

    /// Removes what was staged and never put in place.
    pub(super) fn clear_staged(&self) -> io::Result<()> {
        for name in disk::names(&self.staged)? {
            disk::remove_if_there(&self.staged.join(name))?;
        }
        Ok(())
    }
}
