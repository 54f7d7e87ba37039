//! Folders and files that nobody but the server's own user may look into, whatever the umask.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What the owner may do with a folder, and nobody else.
const FOLDER_MODE: u32 = 0o700;

/// What the owner may do with a file, and nobody else.
const FILE_MODE: u32 = 0o600;

/// What others may do, which must be nothing.
const OTHERS: u32 = 0o077;

/// Why a data folder cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Others may look into it; its permission bits.
    Exposed(u32),
    /// It cannot be made or looked at.
    Io(io::Error),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Makes the data folder if it is not there, and refuses one that others may look into.
pub(crate) fn prepare(folder: &Path) -> Result<(), Unfit> {
    if !folder.exists() {
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        create_folder(folder)?;
    }
    let data = std::fs::metadata(folder)?;
    if !data.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory).into());
    }
    let mode = data.permissions().mode() & 0o777;
    if mode & OTHERS == 0 { Ok(()) } else { Err(Unfit::Exposed(mode)) }
}

/// Makes one private folder and makes its name durable; one that is there is made private.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    std::fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Opens a private file for reading and writing, making it if it is not there.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = file.open(path)?;
    // The umask may have taken bits away at creation, and an older file may have too many.
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Makes names that were added to or taken from a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file beside another, its name with something added.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the disk takes no writes now but may again: full, over quota or read-only.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    Errno::from_io_error(error)
        .is_some_and(|errno| matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Catalogue: CVE-2021-38553.
    #[test]
    fn what_is_made_is_private_and_what_is_exposed_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("deep/data");
        prepare(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let path = folder.join("file");
        open_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);

        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        open_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600, "an exposed file is closed to others");

        for exposed in [0o755, 0o750, 0o701] {
            std::fs::set_permissions(&folder, Permissions::from_mode(exposed)).unwrap();
            assert!(matches!(prepare(&folder), Err(Unfit::Exposed(found)) if found == exposed));
        }
    }

    #[test]
    fn full_over_quota_and_read_only_are_told_from_a_broken_disk() {
        for (errno, expected) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::ROFS, true),
            (Errno::IO, false),
            (Errno::ACCESS, false),
        ] {
            assert_eq!(is_no_space(&io::Error::from(errno)), expected, "{errno}");
        }
        assert!(!is_no_space(&io::Error::other("x")));
    }
}
