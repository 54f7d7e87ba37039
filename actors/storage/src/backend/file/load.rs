//! What the file backend does at its start and to damaged files: finish, look through, isolate.

use std::io;
use std::path::Path;

use tracing::error;

use super::{Index, Places, entry, journal};
use crate::folder::{beside, sync_folder};

impl Places {
    /// Finishes the batch whose journal a crash left behind, then clears what was only staged.
    pub(super) fn replay(&self) -> io::Result<()> {
        match std::fs::read(&self.journal) {
            Ok(bytes) => {
                if let Some(steps) = journal::decode(&bytes) {
                    for (name, puts) in steps {
                        self.settle(&name, puts)?;
                    }
                    sync_folder(&self.records)?;
                    std::fs::remove_file(&self.journal)?;
                } else {
                    error!("the journal is damaged, its batch may be applied in part");
                    std::fs::rename(&self.journal, self.damaged.join("journal"))?;
                    sync_folder(&self.damaged)?;
                }
                sync_folder(&self.folder)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        remove_if_there(&beside(&self.journal, ".new"))?;
        self.clear_staged()
    }

    /// Reads every record's file, and isolates those that are damaged.
    pub(super) fn load(&self) -> io::Result<Index> {
        let mut index = Index::default();
        for name in names(&self.damaged)? {
            // A dot marks one that was replaced since; it is kept for whoever looks into it.
            if !name.contains('.') {
                index.damaged.insert(name);
            }
        }
        for name in names(&self.records)? {
            let read = std::fs::read(self.records.join(&name)).map_err(|error| error.to_string());
            match read.and_then(|bytes| entry::decode(&name, &bytes)) {
                Ok((key, record)) => {
                    if index.damaged.remove(&name) {
                        self.forget_damage(&name);
                    }
                    index.versions.insert(key, record.version);
                }
                Err(cause) => {
                    self.isolate(&name, &cause);
                    index.damaged.insert(name);
                }
            }
        }
        Ok(index)
    }

    /// Puts a staged file in its place, or removes the record; doing it again changes nothing.
    pub(super) fn settle(&self, name: &str, puts: bool) -> io::Result<()> {
        let place = self.records.join(name);
        let done = if puts {
            std::fs::rename(self.staged.join(name), place)
        } else {
            std::fs::remove_file(place)
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Moves a damaged file out of the way and says so; best effort, it stays known either way.
    pub(super) fn isolate(&self, name: &str, cause: &str) {
        let moved = std::fs::rename(self.records.join(name), self.damaged.join(name));
        let synced = moved.and_then(|()| sync_folder(&self.records));
        if let Err(error) = synced.and_then(|()| sync_folder(&self.damaged)) {
            error!(file = name, cause, %error, "a record is damaged and could not be moved away");
        } else {
            error!(file = name, cause, "a record is damaged; its file is in damaged/ now");
        }
    }

    /// Marks a damaged file as replaced; best effort, a whole record in its place says the same.
    pub(super) fn forget_damage(&self, name: &str) {
        let damaged = self.damaged.join(name);
        std::fs::rename(&damaged, beside(&damaged, ".replaced")).unwrap_or_default();
    }

    /// Removes what was staged and never put in place.
    pub(super) fn clear_staged(&self) -> io::Result<()> {
        for name in names(&self.staged)? {
            remove_if_there(&self.staged.join(name))?;
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The names in a folder; none of ours is other than UTF-8.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}
