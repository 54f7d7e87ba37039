//! A file system that fails: errors, no room, and power cuts after which names and bytes that were
//! not synced are there or not, files torn or full of zeros.
//!
//! What it grants, as POSIX and journals do: a rename happens or does not; of two changes to one name
//! the second is not there without the first. Nothing else is in order, not even what one folder
//! was told before and after.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::faults::{Fate, Trouble};

/// A power cut tears a write between sectors.
const SECTOR: usize = 512;

thread_local! {
    /// The disk of this thread's stores instead of a real one.
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// The disk of this thread, if a test has put one there.
pub(super) fn disk() -> Option<Disk> {
    DISK.with_borrow(Clone::clone)
}

/// A file system in memory; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

type Names = BTreeMap<PathBuf, usize>;

#[derive(Debug)]
pub(super) struct State {
    files: Vec<File>,
    /// What the process sees.
    seen: Names,
    /// What is certainly there.
    synced: Names,
    /// What may be there, in the order in which it was asked for.
    pending: Vec<Op>,
    pub(super) fate: Fate,
}

#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Op {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Op {
    fn paths(&self) -> Vec<&PathBuf> {
        match self {
            Self::Link(path, _) | Self::Remove(path) => vec![path],
            Self::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl State {
    fn change(&mut self, op: Op) {
        op.apply(&mut self.seen);
        self.pending.push(op);
    }

    fn found(&self, path: &Path) -> io::Result<usize> {
        self.seen.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk {
    /// An empty disk, for all stores that this thread opens from now on.
    pub(super) fn install(seed: u64) -> Self {
        let (files, pending, fate) = (Vec::new(), Vec::new(), Fate::new(seed));
        let state = State { files, seen: Names::new(), synced: Names::new(), pending, fate };
        let disk = Self(Arc::new(Mutex::new(state)));
        DISK.set(Some(disk.clone()));
        disk
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, what: fn(Trouble) -> u32) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.fate.call(what)?;
        Ok(state)
    }

    /// The power comes back.
    pub(super) fn power_on(&self) {
        let state = &mut *self.state();
        let mut lost = BTreeSet::new();
        for op in std::mem::take(&mut state.pending) {
            let without_first = op.paths().into_iter().any(|path| lost.contains(path));
            if without_first || state.fate.dice.roll(2) == 0 {
                lost.extend(op.paths().into_iter().cloned());
            } else {
                op.apply(&mut state.synced);
            }
        }
        state.seen.clone_from(&state.synced);
        for file in &mut state.files {
            let written = std::mem::take(&mut file.seen);
            file.seen = match state.fate.dice.roll(4) {
                _ if written == file.synced => written,
                0 => file.synced.clone(),
                1 => vec![0; written.len()],
                2 => {
                    let kept = state.fate.dice.below(written.len() / SECTOR + 1) * SECTOR;
                    written.get(..kept).unwrap_or_default().to_vec()
                }
                _ => written,
            };
            file.synced.clone_from(&file.seen);
        }
        state.fate.revive();
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.call(|trouble| trouble.read)?;
        Ok(state.files[state.found(path)?].seen.clone())
    }

    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.call(|trouble| trouble.write)?;
        let file = state.found(path).unwrap_or_else(|_| {
            state.files.push(File::default());
            let file = state.files.len() - 1;
            state.change(Op::Link(path.to_owned(), file));
            file
        });
        if let Err(full) = state.fate.take_room() {
            state.files[file].seen = bytes[..bytes.len() / 2].to_vec();
            return Err(full);
        }
        state.files[file].seen = bytes.to_vec();
        Ok(file)
    }

    pub(super) fn sync(&self, file: usize) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.sync)?;
        let file = &mut state.files[file];
        file.synced.clone_from(&file.seen);
        Ok(())
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.sync)?;
        let within = |path: &&PathBuf| path.parent() == Some(folder);
        let (certain, pending): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|op| op.paths().iter().any(within));
        for op in certain {
            op.apply(&mut state.synced);
        }
        state.pending = pending;
        Ok(())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.write)?;
        state.found(from)?;
        state.fate.take_room()?;
        state.change(Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.write)?;
        state.found(path)?;
        state.change(Op::Remove(path.to_owned()));
        Ok(())
    }

    pub(super) fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.call(|trouble| trouble.read)?;
        let within = state.seen.keys().filter(|path| path.parent() == Some(folder));
        Ok(within.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }
}
