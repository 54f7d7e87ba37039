//! A disk that is small enough to be filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait::skipped;

/// A small file system of its own; `None` where it cannot be made.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("mssm-disk").tempdir().unwrap().keep();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            skipped("a full disk: only root can mount a small file system");
            let _ = fs::remove_dir(&folder);
            return None;
        }
        Some(Self(folder))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all room that is left; gives it back when the file goes.
    pub(crate) fn fill(&self) -> PathBuf {
        let file = self.0.join("filler");
        let mut handle = fs::File::create(&file).unwrap();
        for size in [1 << 20, 4096] {
            while std::io::Write::write_all(&mut handle, &vec![0; size]).is_ok() {}
        }
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
