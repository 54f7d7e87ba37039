//! The calls by which the file backend reaches its disk, in one place so that tests can have them fail.

use std::io::{self, Write as _};
use std::path::Path;

#[cfg(test)]
use super::faults;
use crate::folder;

pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if faults::disk().is_some() {
        return Ok(());
    }
    folder::create_folder(path)
}

/// A file's bytes.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.read(path);
    }
    std::fs::read(path)
}

/// Makes a private file or empties it, and writes it; nothing is durable yet.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<Written> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.write(path, bytes).map(|file| Written::Simulated(disk, file));
    }
    let mut file = folder::open_private(path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    Ok(Written::File(file))
}

/// A file that was written and is not durable yet.
#[derive(Debug)]
pub(super) enum Written {
    File(std::fs::File),
    #[cfg(test)]
    Simulated(faults::Disk, usize),
}

impl Written {
    pub(super) fn sync(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_all(),
            #[cfg(test)]
            Self::Simulated(disk, file) => disk.sync(file),
        }
    }
}

/// Makes names that were added to or taken from a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.sync_folder(path);
    }
    folder::sync_folder(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.rename(from, to);
    }
    std::fs::rename(from, to)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.remove(path);
    }
    std::fs::remove_file(path)
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The names in a folder; none of ours is other than UTF-8.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    #[cfg(test)]
    if let Some(disk) = faults::disk() {
        return disk.names(folder);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}
